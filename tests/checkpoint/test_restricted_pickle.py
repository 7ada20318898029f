"""Pickles that would run something, and what is refused instead of run."""

import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest

from persondet.checkpoint.restricted_pickle import load_arrays
from persondet.errors import CheckpointError


class Call:
    """A pickle of a call: a function by name, its arguments, and a state to restore."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) + (() if state is None else (state,))

    def __reduce__(self):
        return self.parts


def written(tmp_path, content):
    path = tmp_path / "zoo.pkl"
    path.write_bytes(content)
    return path


def by_name(module, name, argument):
    """Protocol 4: `module.name(argument)`, where the name may have dots."""
    module, name, argument = (
        b"\x8c" + struct.pack("<B", len(text)) + text.encode() for text in (module, name, argument)
    )
    return b"\x80\x04" + module + name + b"\x93" + argument + b"\x85R."


@pytest.mark.parametrize(
    "name",
    [
        *("os system", "builtins eval", "builtins getattr", "torch load", "numpy fromfile"),
        *("numpy ndarray.tofile", "numpy dtype.type", "collections OrderedDict.fromkeys"),
        "numpy._core.multiarray _reconstruct.__globals__",
        "persondet.checkpoint.restricted_pickle pickle.Unpickler",
    ],
)
def test_trap_15_a_name_that_is_not_an_arrays_is_refused(tmp_path, name):
    marker = tmp_path / "ran"
    path = written(tmp_path, by_name(*name.split(), f"touch {marker}"))
    with pytest.raises(CheckpointError, match=f"it asks for {name.replace(' ', '.')}"):
        load_arrays(path)
    assert not marker.exists()


_RESTORE = np.zeros(1).__reduce__()[0]  # numpy's own function, under its name of this version
_SCALAR = np.float64(1).__reduce__()[0]
_ADDRESSES = b"A" * 8
_EMPTY = (_RESTORE, np.ndarray, (0,), b"b")
# Without the flag that says "these are objects" numpy takes eight bytes for an address.
_NO_FLAG = Call(np.dtype, "O", False, True, state=(3, "|", None, None, None, -1, -1, 0))


EVIL = {
    "flags": Call(*_EMPTY, state=(1, (1,), _NO_FLAG, False, _ADDRESSES)),
    "object": Call(*_EMPTY, state=(1, (1,), np.dtype("O"), False, _ADDRESSES)),
    "scalar": Call(_SCALAR, np.dtype([("a", "O")]), _ADDRESSES),
    "objects": np.array([{"an": "object"}], dtype=object),
    "empty": Call(np.ndarray, (4,), "f8"),
    "no content": Call(_RESTORE, np.ndarray, (10**12,), b"b"),
    "too short": Call(*_EMPTY, state=(1, (3,), np.dtype("f8"), False, b"short")),
}


@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL)
def test_trap_15_arrays_of_addresses_and_unread_memory_are_refused(tmp_path, evil):
    path = written(tmp_path, pickle.dumps({"model": {"w": evil}}, protocol=2))
    with pytest.raises(CheckpointError, match="not a pickle of plain arrays"):
        load_arrays(path)


def test_an_ordered_dict_cannot_bring_methods_of_its_own(tmp_path):
    plain = pickle.dumps(OrderedDict(a=np.ones(2)), protocol=2)
    # Before its end, the pickle sets an attribute of the dict: items = "no method".
    items = b"}X\x05\x00\x00\x00itemsX\x09\x00\x00\x00no methodsb."
    loaded = load_arrays(written(tmp_path, plain[:-1] + items))
    assert type(loaded) is dict and np.array_equal(loaded["a"], np.ones(2))


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_kind_come_back_as_they_were(tmp_path, protocol):
    arrays = [
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(3, dtype=">i4"),
        np.ones(3, np.float16),
        np.array(["conv1", "bn"]),
        np.zeros((0, 4), bool),
        np.array(3.5),
        np.float32(2.5),
    ]
    content = pickle.dumps({"model": arrays, "list": [1, "x", (2.5, None)]}, protocol)
    loaded = load_arrays(written(tmp_path, content))
    for array, got in zip(arrays, loaded["model"], strict=True):
        assert np.array_equal(got, array) and got.dtype == array.dtype
    assert loaded["model"][0].flags.writeable
    assert loaded["list"] == [1, "x", (2.5, None)]


@pytest.mark.parametrize(
    "of", ["numpy.core.numeric _frombuffer", "_codecs encode", "numpy ndarray", "numpy dtype"]
)
def test_trap_15_a_file_cannot_change_what_reads_the_next_one(tmp_path, of):
    # A state of two parts sets attributes: here the defaults of a function.
    state = b"N}X\x0c\x00\x00\x00__defaults__X\x01\x00\x00\x00F\x85s\x86b."
    path = written(tmp_path, b"\x80\x02c" + of.replace(" ", "\n").encode() + b"\n" + state)
    with pytest.raises(CheckpointError, match="it changes a function|missing"):
        load_arrays(path)

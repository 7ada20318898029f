"""Reading `.pkl` weights (Detectron2's model zoo) without running what they contain.

A pickle is a program. This unpickler admits arrays of numbers and plain containers and refuses
every other name. numpy's own restoring functions are not called either: a crafted state of its
`dtype` makes an array of addresses out of a file's bytes. What a file says about an array (type,
shape, bytes) is read here, and the array is made of it.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from persondet.errors import CheckpointError


class _Type:
    """Stands for `numpy.dtype` in a file: numbers and strings of fixed size, never objects."""

    def __init__(self, code: str, *_: bool) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in "biufcSU" or self.dtype.shape or self.dtype.names:
            raise pickle.UnpicklingError(f"it holds an array of type {code}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        # (version, byte order, subarray, names, fields, …): all but the order follow from the code.
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for an array of a file, which most files build in two steps: empty, then its state."""

    array: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, kind, by_columns, content = state[-4:]
        self.array = _array(content, kind, shape, "F" if by_columns else "C")


def _array(content: Any, kind: _Type, shape: tuple[int, ...], order: Any = "C") -> np.ndarray:
    # Python 2 wrote bytes as a string of the same codes.
    raw = content.encode("latin1") if isinstance(content, str) else bytes(content)
    return np.frombuffer(raw, kind.dtype).reshape(shape, order=order).copy(order="K")


def _scalar(kind: _Type, content: Any) -> Any:
    return _array(content, kind, (1,))[0]


def _from_buffer(content: Any, kind: _Type, shape: tuple[int, ...], order: str) -> _Array:
    built = _Array()
    built.array = _array(content, kind, shape, order)
    return built


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes text as {encoding}")
    return text.encode("latin1")


class _Function:
    """A function that a file may call and not change.

    A pickle can set attributes of whatever it gets hold of: the defaults of a plain function, say.
    """

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a function")


# numpy moved its internals from numpy.core to numpy._core in version 2: files name either.
_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Array,
    ("_codecs", "encode"): _Function(_encode),
    # Protocols 0 to 2 write the content of an empty array as a call of bytes.
    ("__builtin__", "bytes"): _Function(lambda: b""),
    **{
        (f"numpy.{core}.{module}", name): _Function(stands_in)
        for core in ("core", "_core")
        for module, name, stands_in in (
            ("multiarray", "_reconstruct", lambda *_: _Array()),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ADMITTED:
            return _ADMITTED[module, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def load_arrays(path: str | Path) -> Any:
    """Load a pickle of numpy arrays, numbers, strings and plain containers.

    Raises: CheckpointError: when the file is damaged or holds anything else.
    """
    with open(path, "rb") as file:
        try:
            return _plain(_ArrayUnpickler(file, encoding="latin1").load())
        except Exception as error:  # a damaged pickle can raise almost anything
            raise CheckpointError(
                f"{path}: not a pickle of plain arrays ({error or type(error).__name__}); "
                "use weights from a source that you trust, or a .pth file."
            ) from error


def _plain(value: Any) -> Any:
    """Return `value` with arrays in the places of what stood for them."""
    if isinstance(value, _Array):
        if value.array is None:
            raise pickle.UnpicklingError("it holds an array without content")
        return value.array
    if isinstance(value, dict):
        # By dict's own method: a file may give an OrderedDict an attribute `items`.
        return {_plain(key): _plain(inner) for key, inner in dict.items(value)}
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(_plain(inner) for inner in value)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
        return value
    raise pickle.UnpicklingError(f"it holds a {type(value).__name__}")

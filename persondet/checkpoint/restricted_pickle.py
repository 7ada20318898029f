"""Reading `.pkl` weights (Detectron2's model zoo) without running what they contain.

A pickle is a program. This unpickler admits numpy arrays and plain containers and refuses every
other name, so that a foreign file can do no more than hold numbers.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from persondet.errors import CheckpointError

# numpy moved its internals from numpy.core to numpy._core in version 2: files name either.
_ADMITTED = {
    ("collections", "OrderedDict"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("_codecs", "encode"),
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    ),
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ADMITTED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def load_arrays(path: str | Path) -> Any:
    """Load a pickle of numpy arrays, numbers, strings and plain containers.

    Raises: CheckpointError: when the file is damaged or holds anything else.
    """
    with open(path, "rb") as file:
        try:
            return _ArrayUnpickler(file, encoding="latin1").load()
        except Exception as error:  # a damaged pickle can raise almost anything
            raise CheckpointError(
                f"{path}: not a pickle of plain arrays ({error or type(error).__name__}); "
                "use weights from a source that you trust, or a .pth file."
            ) from error

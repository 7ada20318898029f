"""Reading two picture files again, to see whether they show the same picture."""

from __future__ import annotations

import warnings
from collections import Counter, OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from persondet.data.leaks.perceptual_hash import turned
from persondet.data.leaks.same_detail import LARGE_SIDE, large_grey, same_detail

_KEPT = 1024  # pictures of 25 KB
_ALIGNED = 2  # of one picture's candidates: a cropped copy is among the most alike


class CloseLook:
    """Compares pictures by their files; keeps the last 1,024 that it read, in small."""

    def __init__(self, paths: Sequence[Path | None]) -> None:
        """Take the file of each picture, None where there is none to look at."""
        self._paths = paths
        self._aligned: Counter[int] = Counter()
        self._read: OrderedDict[int, npt.NDArray[np.uint8] | None] = OrderedDict()

    def __call__(self, one: int, other: int, orientation: int) -> bool | None:
        """Return whether picture `one`, turned (see `turned`), is the same picture as `other`.

        Returns None when it cannot tell, or when one of the files cannot be read.
        """
        first, second = self._picture(one), self._picture(other)
        if first is None or second is None:
            return None
        aligning = self._aligned[one] < _ALIGNED
        answer = same_detail(
            np.ascontiguousarray(turned(first, orientation)), second, aligning=aligning
        )
        self._aligned[one] += not answer
        return answer

    def _picture(self, index: int) -> npt.NDArray[np.uint8] | None:
        path = self._paths[index]
        if path is None:
            return None
        if index not in self._read:
            self._read[index] = _large_grey_of(path)
            if len(self._read) > _KEPT:
                self._read.popitem(last=False)
        self._read.move_to_end(index)
        return self._read[index]


def _large_grey_of(path: Path) -> npt.NDArray[np.uint8] | None:
    """The file as the first decode saw it: grey, not turned by EXIF; None when it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on files that it reads all the same
            with Image.open(path) as image:
                # Twice the side: the decoder's own reduction is coarser than an average of areas.
                image.draft("L", (2 * LARGE_SIDE, 2 * LARGE_SIDE))
                image.load()
                pixels = image if image.mode in ("L", "RGB") else image.convert("RGB")
                return large_grey(np.asarray(pixels.convert("L")))
    except Exception:  # the file was readable a moment ago: whatever it is, the thumbnails remain
        return None

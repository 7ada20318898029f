"""Albumentations' transforms whose points or boxes miss the pixels, mended.

OpenCV resizes an image about the outer edge of its first pixel; Albumentations multiplies point
coordinates, which count from that pixel's centre, by the scale. By half a pixel times (scale - 1)
the points miss the pixels. The classes here replace those of the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import albumentations as A
import numpy as np
import numpy.typing as npt


class _ScalesAboutEdge:
    """Counts points from the outer edge while they are scaled. Points are (N, 2+), xy first."""

    def apply_to_keypoints(
        self, keypoints: npt.NDArray[Any], *args: Any, **params: Any
    ) -> npt.NDArray[Any]:
        shifted = np.array(keypoints, np.float64)
        shifted[:, :2] += 0.5
        scaled = np.array(super().apply_to_keypoints(shifted, *args, **params), np.float64)  # type: ignore[misc]
        scaled[:, :2] -= 0.5
        return scaled


class _ScalesWhole:
    """Scales points as the image is scaled: to a whole number of pixels."""

    _whole: Callable[[float], int] = staticmethod(round)

    def apply_to_keypoints(
        self, keypoints: npt.NDArray[Any], scale: float, **params: Any
    ) -> npt.NDArray[Any]:
        scaled = np.array(keypoints, np.float64)
        for axis, length in ((0, params["shape"][1]), (1, params["shape"][0])):
            factor = max(1, self._whole(length * scale)) / length
            scaled[:, axis] = (scaled[:, axis] + 0.5) * factor - 0.5
        return scaled


class CropAndPad(_ScalesAboutEdge, A.CropAndPad):
    """`albumentations.CropAndPad`, exact for points."""


class LongestMaxSize(_ScalesWhole, A.LongestMaxSize):
    """`albumentations.LongestMaxSize`, exact for points."""


class RandomResizedCrop(_ScalesAboutEdge, A.RandomResizedCrop):
    """`albumentations.RandomResizedCrop`, exact for points."""


class RandomScale(_ScalesWhole, A.RandomScale):
    """`albumentations.RandomScale`, exact for points."""

    _whole = staticmethod(int)


class RandomSizedBBoxSafeCrop(_ScalesAboutEdge, A.RandomSizedBBoxSafeCrop):
    """`albumentations.RandomSizedBBoxSafeCrop`, exact for points."""


class RandomSizedCrop(_ScalesAboutEdge, A.RandomSizedCrop):
    """`albumentations.RandomSizedCrop`, exact for points."""


class Resize(_ScalesAboutEdge, A.Resize):
    """`albumentations.Resize`, exact for points."""


class SmallestMaxSize(_ScalesWhole, A.SmallestMaxSize):
    """`albumentations.SmallestMaxSize`, exact for points."""


class Morphological(A.Morphological):
    """`albumentations.Morphological`, with boxes that grow and shrink in both directions.

    Albumentations hands OpenCV the masks of all boxes as one stack, whose axes OpenCV takes for
    others: boxes come out wrong, and from a width of 129 pixels on not at all.
    """

    def apply_to_bboxes(
        self, bboxes: npt.NDArray[Any], kernel: npt.NDArray[Any], **params: Any
    ) -> npt.NDArray[Any]:
        """Transform boxes (N, 4+), xyxy as shares of the image; what vanishes gets no size."""
        moved = np.array(bboxes, np.float64)
        height, width = params["shape"][:2]
        size = np.array([width, height] * 2)
        for row in moved:
            left, top, right, bottom = np.round(row[:4] * size).astype(int)
            mask = np.zeros((height, width), np.uint8)
            mask[top:bottom, left:right] = 1
            columns, rows = (np.flatnonzero(line) for line in self._lines(mask, kernel, params))
            ends = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if len(rows) else [0] * 4
            row[:4] = ends / size
        return moved

    def _lines(
        self, mask: npt.NDArray[np.uint8], kernel: npt.NDArray[Any], params: dict[str, Any]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        changed = self.apply(mask, kernel=kernel, **params)
        return changed.any(axis=0), changed.any(axis=1)


EXACT_TRANSFORMS: dict[str, type[A.DualTransform]] = {
    kind.__name__: kind
    for kind in (
        *(CropAndPad, LongestMaxSize, Morphological, RandomResizedCrop, RandomScale),
        *(RandomSizedBBoxSafeCrop, RandomSizedCrop, Resize, SmallestMaxSize),
    )
}
"""By name, what to build instead of Albumentations' own class."""

"""Albumentations' scaling transforms, with points that follow the pixels exactly.

OpenCV resizes an image about the outer edge of its first pixel; Albumentations multiplies point
coordinates, which count from that pixel's centre, by the scale. By half a pixel times (scale - 1)
the points miss the pixels. These classes replace those of the same name.
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


class Perspective(A.Perspective):
    """`albumentations.Perspective`, exact for points: it warps, and then scales to keep the size."""

    def apply_to_keypoints(self, keypoints: npt.NDArray[Any], **params: Any) -> npt.NDArray[Any]:
        """Warp points (N, 2+), xy from the first pixel's centre."""
        warped = np.array(super().apply_to_keypoints(keypoints, **params), np.float64)
        if self.keep_size:
            height, width = params["shape"][:2]
            warped[:, 0] += 0.5 * (width / params["max_width"] - 1)
            warped[:, 1] += 0.5 * (height / params["max_height"] - 1)
        return warped


EXACT_TRANSFORMS: dict[str, type[A.DualTransform]] = {
    kind.__name__: kind
    for kind in (
        *(CropAndPad, LongestMaxSize, Perspective, RandomResizedCrop, RandomScale),
        *(RandomSizedBBoxSafeCrop, RandomSizedCrop, Resize, SmallestMaxSize),
    )
}
"""By name, what to build instead of Albumentations' own class."""

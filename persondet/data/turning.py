"""Turn annotations the way EXIF turns their picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from persondet.data.rle import compressed_rle

# EXIF orientation → (x', y') of a point (x, y) of a stored picture of size (w, h), upright.
_POINT = {
    5: lambda x, y, w, h: (y, x),
    6: lambda x, y, w, h: (h - y, x),
    7: lambda x, y, w, h: (h - y, w - x),
    8: lambda x, y, w, h: (y, w - x),
}
# The same for an array (h, w).
_ARRAY = {
    5: lambda array: array.T,
    6: lambda array: np.rot90(array, -1),
    7: lambda array: np.rot90(array, 2).T,
    8: lambda array: np.rot90(array, 1),
}


def turned(annotation: dict[str, Any], orientation: int, width: int, height: int) -> dict[str, Any]:
    """Return a faultless annotation of a stored picture as one of the upright picture.

    Args:
        annotation: with `bbox` and `segmentation` (polygons, RLE or `[]`) in stored pixels; COCO
            `keypoints` are turned too.
        orientation: EXIF's, 5 to 8 (those that exchange width and height).
        width, height: of the stored picture, in pixels.

    Source: the eight orientations of the EXIF tag 0x0112 (CIPA DC-008).
    """
    point = _POINT[orientation]
    x, y, w, h = annotation["bbox"]
    (x0, y0), (x1, y1) = point(x, y, width, height), point(x + w, y + h, width, height)
    box = [min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0)]
    result = {**annotation, "bbox": box}
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, dict):
        upright = _ARRAY[orientation](mask_util.decode(compressed_rle(segmentation)))
        rle = mask_util.encode(np.asfortranarray(upright))
        result["segmentation"] = {**rle, "counts": rle["counts"].decode("ascii")}
    else:
        result["segmentation"] = [
            [
                value
                for x, y in zip(part[::2], part[1::2], strict=True)
                for value in point(x, y, width, height)
            ]
            for part in segmentation
        ]
    keypoints: Any = annotation.get("keypoints")
    if _are_keypoints(keypoints):
        flat: list[Any] = []
        for x, y, seen in zip(keypoints[::3], keypoints[1::3], keypoints[2::3], strict=True):
            flat += [*point(x, y, width, height), seen] if seen else [x, y, seen]
        result["keypoints"] = flat
    return result


def _are_keypoints(value: Any) -> bool:
    """Return whether a value is COCO's flat list of x, y and visibility."""
    numbers = isinstance(value, list) and all(type(number) in (int, float) for number in value)
    return numbers and len(value) % 3 == 0

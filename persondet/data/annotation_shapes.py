"""The shape of one COCO annotation: which of its box and its mask is usable, and its area.

Boxes are COCO's [x, y, width, height] in pixels. A segmentation is a list of polygons
[x0, y0, x1, y1, ...] in continuous pixel coordinates, or an RLE `{"size": [h, w], "counts": ...}`;
`[]` stands for no mask.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from persondet.data.polygons import clip_polygon, extent, polygon_area

Box = list[float]
Segmentation = list[list[float]] | dict[str, Any]


def clipped_box(box: Any, width: int, height: int) -> Box | None:
    """Return `box` clipped to the image, itself when it lies inside, None when it is unusable.

    Unusable is what is not four finite numbers, or has no area inside the image.
    """
    if not _is_numbers(box) or len(box) != 4:
        return None
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return None
    if x >= 0 and y >= 0 and x + w <= width and y + h <= height:
        return list(box)
    left, top = max(float(x), 0.0), max(float(y), 0.0)
    right, bottom = min(float(x + w), float(width)), min(float(y + h), float(height))
    if right <= left or bottom <= top:
        return None
    return [left, top, right - left, bottom - top]


def usable_segmentation(
    segmentation: Any, width: int, height: int
) -> tuple[Segmentation, Counter[str]]:
    """Return what can be used of a segmentation (`[]`: nothing), and what had to be mended.

    A flat polygon is nested, polygons are clipped to the image, parts that are no polygon (fewer
    than 3 points, an odd number of coordinates, NaN, no area) are dropped, RLE becomes compressed.
    """
    repairs: Counter[str] = Counter()
    if not segmentation:
        return [], repairs
    if isinstance(segmentation, dict):
        rle = _usable_rle(segmentation, width, height)
        if not rle:
            repairs["unusable masks dropped"] += 1
        return rle or [], repairs
    if not isinstance(segmentation, list):
        repairs["unusable masks dropped"] += 1
        return [], repairs
    if _is_numbers(segmentation):
        segmentation = [segmentation]
        repairs["flat polygons nested"] += 1
    parts = []
    for part in segmentation:
        usable = _usable_polygon(part, width, height)
        if usable is None:
            repairs["unusable polygon parts dropped"] += 1
            continue
        if usable is not part:
            repairs["polygons clipped to the image"] += 1
        parts.append(usable)
    if not parts:
        repairs["unusable masks dropped"] += 1
    return parts, repairs


def segmentation_area(segmentation: Segmentation, height: int, width: int) -> float:
    """Return the number of pixels a (non-empty) segmentation covers, as COCO rasterises it."""
    if isinstance(segmentation, dict):
        return float(mask_util.area(segmentation))
    rles = mask_util.frPyObjects(segmentation, height, width)
    return float(mask_util.area(rles[0] if len(rles) == 1 else mask_util.merge(rles)))


def box_of_segmentation(segmentation: Segmentation) -> Box:
    """Return the box that encloses a (non-empty) segmentation."""
    if isinstance(segmentation, dict):
        return [float(value) for value in mask_util.toBbox(segmentation)]
    x0, y0, x1, y1 = extent([np.asarray(part, np.float64).reshape(-1, 2) for part in segmentation])
    return [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]


def box_as_polygon(box: Box) -> list[float]:
    """Return the four corners of a box as one polygon."""
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(number, (int, float))
        and not isinstance(number, bool)
        and abs(number) < 1e9  # False for NaN too; keeps float32 and the rasteriser in range
        for number in value
    )


def _usable_polygon(part: Any, width: int, height: int) -> list[float] | None:
    if not _is_numbers(part) or len(part) < 6 or len(part) % 2:
        return None
    points = np.asarray(part, np.float64).reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    inside = low.min() >= 0 and high[0] <= width and high[1] <= height
    if not inside:
        points = clip_polygon(points, width, height)
    if len(points) < 3 or polygon_area(points) <= 0:
        return None
    return part if inside else [float(value) for value in points.reshape(-1)]


def _usable_rle(rle: dict[str, Any], width: int, height: int) -> dict[str, Any] | None:
    counts = rle.get("counts")
    if rle.get("size") != [height, width]:
        return None
    if isinstance(counts, list):
        whole = all(type(count) is int and count >= 0 for count in counts)
        if not whole or sum(counts) != height * width:
            return None
        compressed = mask_util.frPyObjects(
            {"size": [height, width], "counts": counts}, height, width
        )
        counts = compressed["counts"].decode("ascii")
    if not isinstance(counts, str) or not _covers(counts, height * width):
        return None
    clean = {"size": [height, width], "counts": counts}
    return clean if mask_util.area(clean) > 0 else None


def _covers(counts: str, pixels: int) -> bool:
    """Whether the runs of a compressed RLE add up to `pixels`; the C code does not check.

    Source: the LEB128-like code of COCO's RLE: 5 bits a character from 48 on, 0x20 says that more
    follow, and from the third run on the difference to the run before last is stored.
    """
    runs: list[int] = []
    position = 0
    while position < len(counts):
        value = shift = 0
        more = True
        while more:
            if position >= len(counts) or not 48 <= ord(counts[position]) < 112 or shift > 60:
                return False
            code = ord(counts[position]) - 48
            value |= (code & 0x1F) << shift
            more = bool(code & 0x20)
            position += 1
            shift += 5
            if not more and code & 0x10:
                value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            return False
        runs.append(value)
    return sum(runs) == pixels and all(math.isfinite(run) for run in runs)

"""The shape of one COCO annotation: what is wrong with its box and mask, and what can be used.

Boxes are COCO's [x, y, width, height] in pixels. A segmentation is a list of polygons
[x0, y0, x1, y1, ...] in continuous pixel coordinates, or an RLE (see `persondet.data.rle`);
`[]` stands for no mask. Faults are codes of `persondet.data.findings`.

COCO's run-length encoded masks from an unknown hand: read them checked.

An RLE is `{"size": [height, width], "counts": runs}`; the runs go down the columns and are a list
of whole numbers, or the text that pycocotools writes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from persondet.data.polygons import clip_polygon, extent, is_on_a_line

Box = list[float]
Segmentation = list[list[float]] | dict[str, Any]

SLIGHT = 0.5
"""Pixels by which rounding may push a box or a polygon out of its image."""

NOISE = 1e-6
"""Pixels below which leaving the image is floating-point noise: no finding, no change."""

TINY = 2.0
"""Pixels of a box's shorter side below which hardly anything can be seen."""

_NUMBERS = {int, float}


def inspect_box(box: Any, width: int, height: int) -> tuple[str, Box | None]:
    """Return the code of a box's fault ("" when it has none), and what can be used of the box.

    Args:
        box: whatever the json has as `bbox`.
        width, height: of the image, in pixels.

    Returns: `(code, box)`: the very same list when nothing is wrong; clipped when it leaves the
    image; None when nothing of it can be used.
    """
    if type(box) is not list or len(box) != 4 or not set(map(type, box)) <= _NUMBERS:
        return "box-invalid", None
    x, y, w, h = box
    if not (abs(x) < 1e9 and abs(y) < 1e9 and abs(w) < 1e9 and abs(h) < 1e9):
        return "box-invalid", None
    if w < 0 or h < 0:
        return "box-negative", None
    if w == 0 or h == 0:
        return "box-zero", None
    beyond = max(-x, -y, x + w - width, y + h - height)
    if beyond <= NOISE:
        return ("box-tiny" if min(w, h) < TINY else ""), box
    code = "box-outside-slightly" if beyond <= SLIGHT + NOISE else "box-outside"
    left, top = max(float(x), 0.0), max(float(y), 0.0)
    right, bottom = min(float(x + w), float(width)), min(float(y + h), float(height))
    if right - left <= NOISE or bottom - top <= NOISE:
        return code, None
    return code, [left, top, right - left, bottom - top]


def inspect_segmentation(
    segmentation: Any, width: int, height: int
) -> tuple[set[str], Segmentation]:
    """Return the codes of a segmentation's faults, and what can be used of it.

    A flat polygon is nested, polygons are clipped to the image, parts that are no polygon are
    dropped. An absent one (None, `[]`) is no fault here: whether it is, the whole export tells.

    Args:
        segmentation: whatever the json has.
        width, height: of the image, in pixels.

    Returns: `(codes, segmentation)`: the very same object when nothing is wrong, `[]` when nothing
    of it can be used.
    """
    if segmentation is None or segmentation == []:
        return set(), []
    if isinstance(segmentation, dict):
        fault = rle_fault(segmentation, width, height)
        return ({fault}, []) if fault else (set(), segmentation)
    if not isinstance(segmentation, list):
        return {"mask-invalid"}, []
    codes: set[str] = set()
    parts = segmentation
    if type(segmentation[0]) in _NUMBERS:
        codes.add("polygon-flat")
        parts = [segmentation]
    usable = []
    for part in parts:
        code, polygon = _inspect_polygon(part, width, height)
        if code:
            codes.add(code)
        if polygon is not None:
            usable.append(polygon)
    return codes, (usable if codes else segmentation)


def mask_area(segmentation: Segmentation, height: int, width: int) -> float:
    """Return the number of pixels a (non-empty) segmentation covers, as COCO rasterises it."""
    if isinstance(segmentation, dict):
        return float(mask_util.area(compressed_rle(segmentation)))
    rles = mask_util.frPyObjects(segmentation, height, width)
    return float(mask_util.area(rles[0] if len(rles) == 1 else mask_util.merge(rles)))


def mask_areas(
    segmentations: Sequence[Segmentation], sizes: Sequence[tuple[int, int]]
) -> list[float]:
    """Return `mask_area` of many segmentations, in less time than one by one.

    Args:
        segmentations: non-empty ones.
        sizes: height and width in pixels of each one's image.
    """
    areas = [0.0] * len(segmentations)
    single: dict[tuple[int, int], list[tuple[int, list[float]]]] = {}
    for index, segmentation in enumerate(segmentations):
        if isinstance(segmentation, list) and len(segmentation) == 1:
            single.setdefault(sizes[index], []).append((index, segmentation[0]))
        else:
            areas[index] = mask_area(segmentation, *sizes[index])
    for (height, width), polygons in single.items():
        for start in range(0, len(polygons), _BATCH):
            batch = polygons[start : start + _BATCH]
            rles = mask_util.frPyObjects([polygon for _, polygon in batch], height, width)
            for (index, _), area in zip(batch, mask_util.area(rles), strict=True):
                areas[index] = float(area)
    return areas


_BATCH = 255  # pycocotools' area counts in a byte


def box_of_mask(segmentation: Segmentation) -> Box:
    """Return the box that encloses a (non-empty) segmentation."""
    if isinstance(segmentation, dict):
        return [float(value) for value in mask_util.toBbox(compressed_rle(segmentation))]
    x0, y0, x1, y1 = extent([np.asarray(part, np.float64).reshape(-1, 2) for part in segmentation])
    return [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]


def mask_extent(
    segmentation: Segmentation, known: Sequence[float] | None = None
) -> Sequence[float]:
    """Return the box XYXY around a mask, `known` if it is known already; of no mask, nothing."""
    if known is not None:
        return known
    if not segmentation:
        return ()
    x, y, w, h = box_of_mask(segmentation)
    return (x, y, x + w, y + h)


def covers_no_pixel(
    segmentation: Segmentation, area: float | None, extent: Sequence[float], width: int, height: int
) -> bool:
    """Return whether COCO's rasteriser finds no pixel in polygons.

    Args:
        segmentation: polygons; an RLE, or no mask, is never meant.
        area: that the polygons enclose, in square pixels; None: not known.
        extent: the box XYXY around them.
        width, height: of the image, in pixels.
    """
    if not segmentation or isinstance(segmentation, dict):
        return False
    longer = max(extent[2] - extent[0], extent[3] - extent[1])
    if area is not None and area > 2.0 * max(longer, 2.0):
        return False  # not thin enough
    return mask_area(segmentation, height, width) == 0


def overlap(box: Box, extent: Sequence[float]) -> float:
    """Return the intersection over union of a box XYWH and one XYXY."""
    x, y, w, h = box
    x0, y0, x1, y1 = extent
    shared = max(0.0, min(x + w, x1) - max(x, x0)) * max(0.0, min(y + h, y1) - max(y, y0))
    return shared / (w * h + (x1 - x0) * (y1 - y0) - shared)


def box_as_polygon(box: Box) -> list[float]:
    """Return the four corners of a box as one polygon."""
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def touched_pixels(box: Box, height: int, width: int) -> list[float]:
    """Return the rectangle of all pixels of an image that a box touches, as one polygon."""
    x, y, w, h = box
    left, top = min(math.floor(x), width - 1), min(math.floor(y), height - 1)
    right, bottom = min(math.ceil(x + w), width), min(math.ceil(y + h), height)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    return box_as_polygon([left, top, right - left, bottom - top])


def _is_numbers(value: Any) -> bool:
    # The comparison is False for NaN too, and keeps float32 and the rasteriser in range.
    return type(value) is list and all(type(n) in _NUMBERS and abs(n) < 1e9 for n in value)


def _inspect_polygon(part: Any, width: int, height: int) -> tuple[str, list[float] | None]:
    if part == []:
        return "polygon-empty", None
    if not _is_numbers(part):
        return "polygon-invalid", None
    if len(part) % 2:
        return "polygon-odd", None
    if len(part) < 6:
        return "polygon-short", None
    points = np.asarray(part, np.float64).reshape(-1, 2)
    if is_on_a_line(points):
        return "polygon-empty", None
    low, high = points.min(axis=0), points.max(axis=0)
    beyond = max(-low[0], -low[1], high[0] - width, high[1] - height)
    if beyond <= NOISE:
        return "", part
    code = "polygon-outside-slightly" if beyond <= SLIGHT + NOISE else "polygon-outside"
    points = clip_polygon(points, width, height)
    if len(points) < 3 or is_on_a_line(points):
        return code, None
    return code, [float(value) for value in points.reshape(-1)]


def rle_fault(rle: dict[str, Any], width: int, height: int) -> str:
    """Return the code of what is wrong with an RLE for an image of this size, "" when nothing is.

    Returns: "", `"rle-size"`, `"rle-invalid"` or `"rle-empty"`.
    """
    size = rle.get("size")
    if not isinstance(size, list) or len(size) != 2 or any(type(side) is not int for side in size):
        return "rle-invalid"
    if size != [height, width]:
        return "rle-size"
    runs = _runs(rle.get("counts"))
    if runs is None or sum(runs) != height * width:
        return "rle-invalid"
    return "" if any(runs[1::2]) else "rle-empty"


def compressed_rle(rle: dict[str, Any]) -> dict[str, Any]:
    """Return a faultless RLE with its runs as text, itself when they are."""
    if isinstance(rle["counts"], str):
        return rle
    height, width = rle["size"]
    encoded = mask_util.frPyObjects(
        {"size": [height, width], "counts": rle["counts"]}, height, width
    )
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def _runs(counts: Any) -> list[int] | None:
    """Return the lengths of the runs, None when they cannot be read."""
    if isinstance(counts, list):
        whole = all(type(count) is int and 0 <= count < 2**32 for count in counts)
        return counts if whole and counts else None
    return _decoded_runs(counts) if isinstance(counts, str) else None


def _decoded_runs(counts: str) -> list[int] | None:
    """Return the runs of the text form; the C code of pycocotools does not check what it reads.

    Source: the LEB128-like code of COCO's RLE: 5 bits a character from 48 on, 0x20 says that more
    follow, and from the fourth run on the difference to the run before last is stored.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            return None
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            return None
        runs.append(value)
        value = shift = 0
    return runs if runs and shift == 0 else None

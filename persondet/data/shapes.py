"""The shapes of COCO annotations: boxes, polygons and run-length encoded masks (RLE).

Checks and measures what a json holds, and computes with polygons: area, clipping, straight maps.

A box is [x, y, width, height] in pixels. A segmentation is a list of polygons [x0, y0, x1, y1, ...]
or an RLE; `[]` stands for no mask. An RLE is `{"size": [height, width], "counts": runs}`: the runs
go down the columns and are a list of whole numbers, or the text that pycocotools writes.

Coordinates are continuous pixels: (0, 0) is the upper left corner of the upper left pixel, so an
image covers [0, width] x [0, height] and the centre of its first pixel is (0.5, 0.5). As an array a
polygon is float64, (N, 2), x and y. Faults are codes of `persondet.data.findings`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pycocotools.mask as mask_util
import shapely

FloatArray = npt.NDArray[np.float64]
Box = list[float]
Segmentation = list[list[float]] | dict[str, Any]

SLIGHT = 0.5
"""Pixels by which rounding may push a box or a polygon out of its image."""

NOISE = 1e-6
"""Pixels below which leaving the image is floating-point noise: no finding, no change."""

TINY = 2.0
"""Pixels of a box's shorter side below which hardly anything is visible."""

_NUMBERS = {int, float}


def inspect_box(box: Any, width: int, height: int) -> tuple[str, Box | None]:
    """Return the code of a box's fault ("" for none), and the usable part of the box.

    Args:
        box: whatever the json has as `bbox`.
        width, height: of the image, in pixels.

    Returns: `(code, box)`: the very same list when nothing is wrong; clipped when it leaves the
    image; None when nothing of it can be used.
    """
    if not _is_numbers(box) or len(box) != 4:
        return "box-invalid", None
    x, y, w, h = box
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
    """Return the codes of a segmentation's faults, and its usable part.

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
        code, polygons = _inspect_polygon(part, width, height)
        if code:
            codes.add(code)
        usable += polygons
    return codes, (usable if codes else segmentation)


def mask_area(segmentation: Segmentation, height: int, width: int) -> float:
    """Return the number of pixels a (non-empty) segmentation covers, as COCO rasterises it."""
    if isinstance(segmentation, dict):
        return float(mask_util.area(compressed_rle(segmentation)))
    rles = mask_util.frPyObjects(segmentation, height, width)
    return float(mask_util.area(rles[0] if len(rles) == 1 else mask_util.merge(rles)))


def box_of_mask(segmentation: Segmentation) -> Box:
    """Return the box that encloses a (non-empty) segmentation."""
    if isinstance(segmentation, dict):
        return [float(value) for value in mask_util.toBbox(compressed_rle(segmentation))]
    x0, y0, x1, y1 = extent([np.asarray(part, np.float64).reshape(-1, 2) for part in segmentation])
    return [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]


def mask_extent(segmentation: Segmentation) -> Sequence[float]:
    """Return the box XYXY around a mask; () without a mask."""
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


def _inspect_polygon(part: Any, width: int, height: int) -> tuple[str, list[list[float]]]:
    if part == []:
        return "polygon-empty", []
    if not _is_numbers(part):
        return "polygon-invalid", []
    if len(part) % 2:
        return "polygon-odd", []
    if len(part) < 6:
        return "polygon-short", []
    points = np.asarray(part, np.float64).reshape(-1, 2)
    if is_on_a_line(points):
        return "polygon-empty", []
    low, high = points.min(axis=0), points.max(axis=0)
    beyond = max(-low[0], -low[1], high[0] - width, high[1] - height)
    if beyond <= NOISE:
        return "", [part]
    code = "polygon-outside-slightly" if beyond <= SLIGHT + NOISE else "polygon-outside"
    return code, [piece.reshape(-1).tolist() for piece in split_polygon(points, width, height)]


def rle_fault(rle: dict[str, Any], width: int, height: int) -> str:
    """Return the code of an RLE's fault for an image of this size, "" for none.

    Returns: "", `"rle-size"`, `"rle-invalid"` or `"rle-empty"`.
    """
    size = rle.get("size")
    if not isinstance(size, list) or len(size) != 2 or any(type(side) is not int for side in size):
        return "rle-invalid"
    if size != [height, width]:
        return "rle-size"
    runs = rle_runs(rle.get("counts"))
    if runs is None or sum(runs) != height * width:
        return "rle-invalid"
    return "" if any(runs[1::2]) else "rle-empty"


def compressed_rle(rle: dict[str, Any]) -> dict[str, Any]:
    """Return an RLE without faults with its runs as text; itself if they are text already."""
    if isinstance(rle["counts"], str):
        return rle
    height, width = rle["size"]
    encoded = mask_util.frPyObjects(rle, height, width)
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def rle_runs(counts: Any) -> list[int] | None:
    """Return the lengths of an RLE's runs, compressed or not; None when they cannot be read."""
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", errors="replace")
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


def polygon_area(polygon: FloatArray) -> float:
    """Return the area enclosed by a polygon (N, 2) in square pixels, whatever its direction.

    Source: the shoelace formula.
    """
    x, y = polygon[:, 0] - polygon[0, 0], polygon[:, 1] - polygon[0, 1]
    return 0.5 * abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1]))


def is_on_a_line(polygon: FloatArray, tolerance: float = 1e-6) -> bool:
    """Return whether all points of a polygon (N, 2) lie on one line, to `tolerance` pixels.

    The area says less: that of an outline which crosses itself can be 0 although it encloses some.
    """
    offsets = polygon - polygon[0]
    lengths = np.hypot(offsets[:, 0], offsets[:, 1])
    far = offsets[lengths.argmax()]
    across = np.abs(offsets[:, 0] * far[1] - offsets[:, 1] * far[0])
    return bool(across.max() <= tolerance * lengths.max())


def split_polygon(polygon: FloatArray, width: float, height: float) -> list[FloatArray]:
    """Return the pieces of a polygon (N, 2) that lie inside [0, width] x [0, height].

    A piece is (M, 2) with M >= 3 and an area of more than `SLIVER`. A concave polygon that the
    border cuts gives several pieces, which nothing joins; the polygon itself when it is inside.
    An outline that crosses itself encloses what is inside an odd number of times, as in COCO.
    """
    if polygon.min() >= 0 and (polygon.max(axis=0) <= (width, height)).all():
        return [polygon]
    outline: Any = shapely.Polygon(polygon)
    if not outline.is_valid:
        faces = shapely.get_parts(shapely.polygonize([shapely.unary_union(outline.exterior)]))
        within = [point.coords[0] for point in shapely.point_on_surface(faces)]
        corners = polygon.astype(np.float32)
        odd = [cv2.pointPolygonTest(corners, point, False) > 0 for point in within]
        outline = shapely.union_all(faces[odd])
    inside = shapely.get_parts(shapely.clip_by_rect(outline, 0.0, 0.0, width, height))
    # The way to a hole and back encloses nothing.
    return [
        np.concatenate([shapely.get_coordinates(ring) for ring in (part.exterior, *part.interiors)])
        for part in inside
        if part.area > SLIVER
    ]


SLIVER = 0.01
"""Square pixels: smaller pieces come from rounding, and no pixel would show them."""


def transform_points(points: FloatArray, matrix: FloatArray) -> FloatArray:
    """Map points (N, 2) by a 3 x 3 projective matrix (acting on columns (x, y, 1))."""
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    return mapped[:, :2] / mapped[:, 2:]


def projective_matrix(source: FloatArray, target: FloatArray) -> FloatArray:
    """Return the 3 x 3 matrix that maps four points `source` (4, 2) to `target` (4, 2).

    The last row is exactly (0, 0, 1) when an affine map comes within 1/1000 of a pixel: what
    Albumentations returns in float32 must not look like perspective.
    """
    basis = np.column_stack([source, np.ones(4)])
    affine = np.linalg.lstsq(basis, target, rcond=None)[0]
    if np.abs(basis @ affine - target).max() < 1e-3:
        return np.vstack([affine.T, [0.0, 0.0, 1.0]])
    matrix = cv2.getPerspectiveTransform(source.astype(np.float32), target.astype(np.float32))
    return np.asarray(matrix, np.float64)


def extent(polygons: Sequence[FloatArray]) -> FloatArray:
    """Return the box XYXY, (4,), that encloses all `polygons` (each (N, 2), at least one)."""
    points = np.concatenate(polygons)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


# Masks as polygons

_ZOOM = 4


def mask_to_polygons(
    mask: npt.NDArray[np.bool_], x: int = 0, y: int = 0, *, most_points: int | None = None
) -> list[list[float]]:
    """Return the outlines of a mask as COCO polygons [x0, y0, x1, y1, …], the first point repeated.

    `mask`: bool (h, w), placed at (`x`, `y`) in the image. Coordinates are continuous image
    pixels: the mask's pixel (0, 0) covers [x, x + 1). An outline is simplified by less than half a
    pixel, and further where that leaves more than `most_points`, the repeated one among them.
    Polygons cannot have holes: where a mask has one, it is cut in two through the hole. Parts below
    six pixels are dropped.
    """
    polygons: list[list[float]] = []
    height, width = mask.shape
    for part, left in _without_holes(np.ascontiguousarray(mask).view(np.uint8)):
        # Contours run through pixel centres; on an enlarged mask that costs only 1/8 pixel.
        large = cv2.copyMakeBorder(part, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
        large = cv2.resize(large, None, fx=_ZOOM, fy=_ZOOM, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for contour in sorted(contours, key=lambda contour: -cv2.contourArea(contour)):
            tolerance = 0.45 * _ZOOM
            simple = cv2.approxPolyDP(contour, tolerance, True)[:, 0].astype(np.float64)
            while most_points and len(simple) >= most_points:
                tolerance *= 1.3
                simple = cv2.approxPolyDP(contour, tolerance, True)[:, 0].astype(np.float64)
            if cv2.contourArea(contour) < 6 * _ZOOM**2 or len(simple) < 3:
                continue
            points: npt.NDArray[Any] = (simple + 0.5) / _ZOOM - 1.0 + (left, 0)
            points = np.clip(points, 0.0, (width, height)) + (x, y)
            points = np.round(np.vstack([points, points[:1]]), 3)
            polygons.append([float(value) for value in points.ravel()])
    return polygons


def _without_holes(mask: npt.NDArray[np.uint8]) -> list[tuple[npt.NDArray[np.uint8], int]]:
    """Return pieces (mask, left column) without holes of five pixels or more."""
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for contour, links in zip(contours, hierarchy[0] if contours else (), strict=True):
        left, _, width, _ = cv2.boundingRect(contour)
        # The contour of a hole runs on the mask's pixels around it.
        if links[3] >= 0 and cv2.contourArea(contour) - 0.5 * len(contour) + 1 >= 5:
            cut = left + width // 2
            first, last = (np.ascontiguousarray(side) for side in (mask[:, :cut], mask[:, cut:]))
            return _without_holes(first) + [(piece, at + cut) for piece, at in _without_holes(last)]
    return [(mask, 0)]


def polygon_box(polygons: list[list[float]]) -> list[float]:
    """Return [x, y, width, height] of all `polygons` together."""
    points = np.concatenate([np.asarray(polygon).reshape(-1, 2) for polygon in polygons])
    low, high = points.min(axis=0), points.max(axis=0)
    return [round(float(value), 3) for value in (*low, *(high - low))]

"""The annotations of one split: the faults of each, and its usable part.

The json of a large export holds millions of coordinates, and nearly all polygons are faultless.
NumPy and GEOS screen thousands at a time; only the rest goes through `inspect_segmentation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pycocotools.mask as mask_util
import shapely

from persondet.data.findings import Findings
from persondet.data.inspect.images import ImageUse
from persondet.data.shapes import (
    NOISE,
    Box,
    Segmentation,
    box_of_mask,
    compressed_rle,
    covers_no_pixel,
    inspect_box,
    inspect_segmentation,
    mask_area,
    mask_extent,
    overlap,
)

BESIDE = 0.5
"""Intersection over union below which a box and the extent of its mask contradict each other."""

_CHUNK = 8192  # annotations looked at together: bounds the memory of the fast look


@dataclass
class InspectedAnnotations:
    """The usable annotations of a split, and counts of the others.

    Attributes:
        kept: copies with `bbox`, `segmentation` (`[]`: no mask), `iscrowd`, `image_id` mended;
            `id`, `category_id` and `area` are still the json's.
        class_names: the class of each, in step with `kept`.
        raw_ids: the annotation ids as a report may show them, in step with `kept`.
        absent: indices into `kept` of those whose json has no mask at all.
        of_other_classes: how many were left out because their class was not asked for.
        of_dropped_images: how many went with an image that cannot be used.
        dropped: how many were dropped for a fault of their own.
    """

    kept: list[dict[str, Any]] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    raw_ids: list[Any] = field(default_factory=list)
    absent: list[int] = field(default_factory=list)
    of_other_classes: int = 0
    of_dropped_images: int = 0
    dropped: int = 0


@dataclass(frozen=True)
class _Candidate:
    """An annotation whose image and class are known."""

    annotation: dict[str, Any]
    use: ImageUse
    record: dict[str, Any]
    class_name: str


def inspect_annotations(
    split: str,
    annotations: Sequence[Any],
    images: Mapping[int, ImageUse],
    classes: Mapping[int, str | None],
    findings: Findings,
    *,
    crossings: bool = True,
) -> InspectedAnnotations:
    """Inspect the annotations of a split; modify nothing.

    Args:
        split: for the findings.
        annotations: records of any content.
        images: image id to its use (see `persondet.data.inspect.images`).
        classes: category id to class name, None: not asked for.
        findings: gets what is found.
        crossings: look for outlines that cross themselves.
    """
    result = InspectedAnnotations()
    chunk: list[_Candidate] = []
    ids: set[Any] = set()
    seen: dict[Any, list[Any]] = {}
    for annotation in annotations:
        candidate = _candidate(split, annotation, images, classes, findings, ids, result)
        if candidate is None:
            continue
        chunk.append(candidate)
        if len(chunk) == _CHUNK:
            _inspect_chunk(split, chunk, findings, seen, result, crossings)
            chunk = []
    if chunk:
        _inspect_chunk(split, chunk, findings, seen, result, crossings)
    return result


def _candidate(
    split: str,
    annotation: Any,
    images: Mapping[int, ImageUse],
    classes: Mapping[int, str | None],
    findings: Findings,
    ids: set[Any],
    result: InspectedAnnotations,
) -> _Candidate | None:
    fields = annotation if isinstance(annotation, dict) else {}
    number, image, category = (fields.get(key) for key in ("id", "image_id", "category_id"))
    if type(image) is not int or type(category) is not int:
        findings.add(
            "annotation-malformed", split, annotation=_shown(number), detail=_shown(fields)
        )
        result.dropped += 1
        return None
    use = images.get(image)
    file = use.record["file_name"] if use is not None and use.record is not None else ""
    _inspect_id(split, number, file, findings, ids)
    if use is None:
        detail = f"image {_shown(image)}"
        findings.add("annotation-unknown-image", split, annotation=_shown(number), detail=detail)
        result.dropped += 1
        return None
    if use.record is None:
        result.of_dropped_images += 1
        return None
    if category not in classes:
        detail = f"category {_shown(category)}"
        findings.add("annotation-unknown-category", split, file, _shown(number), detail)
        result.dropped += 1
        return None
    name = classes[category]
    if name is None:
        result.of_other_classes += 1
        return None
    return _Candidate(annotation, use, use.record, name)


def _inspect_id(split: str, number: Any, file: str, findings: Findings, ids: set[Any]) -> None:
    if type(number) is not int:
        findings.add("annotation-id-invalid", split, file, _shown(number))
    elif number == 0:
        findings.add("annotation-id-zero", split, file, number)
    elif number in ids:
        findings.add("annotation-id-twice", split, file, _shown(number))
    else:
        ids.add(number)


def _shown(value: Any) -> Any:
    """Return a value that fits into a report: short, and valid in JSON."""
    if value is None or (type(value) is int and abs(value) < 2**53):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _inspect_chunk(
    split: str,
    chunk: Sequence[_Candidate],
    findings: Findings,
    seen: dict[Any, list[Any]],
    result: InspectedAnnotations,
    crossings: bool,
) -> None:
    given = [candidate.annotation.get("segmentation") for candidate in chunk]
    sizes = [candidate.use.size for candidate in chunk]
    screen = screen_polygons(given, sizes, crossings=crossings)
    clears, crossing = screen.faultless.tolist(), screen.crosses.tolist()
    areas, extents = screen.area.tolist(), screen.extent.tolist()
    for index, candidate in enumerate(chunk):
        annotation, (width, height) = candidate.annotation, candidate.use.size
        clear = clears[index]
        codes: set[str] = set()
        segmentation: Any = given[index]
        crosses = crossing[index]
        if not clear:
            codes, segmentation = inspect_segmentation(given[index], width, height)
            crosses = crossings and type(segmentation) is list and outline_crosses(segmentation)
        if crosses:
            codes.add("polygon-self-intersecting")
        area = areas[index] if clear else None
        extent = mask_extent(segmentation, extents[index] if clear else None)
        if covers_no_pixel(segmentation, area, extent, width, height):
            codes.add("mask-without-pixels")
            segmentation = []
        fault, box = inspect_box(annotation.get("bbox"), width, height)
        if fault:
            codes.add(fault)
        crowd, flag_is_good = _crowd_flag(annotation)
        if not flag_is_good:
            codes.add("crowd-flag-invalid")
        if box is not None and segmentation and overlap(box, extent) < BESIDE:
            if fault == "box-outside":
                box = None  # the mask knows better
            else:
                codes.add("box-beside-mask")
        codes.update(_area_fault(annotation, segmentation, area, fault, candidate.use))
        file, number = candidate.record["file_name"], _shown(annotation.get("id"))
        for code in sorted(codes):
            findings.add(code, split, file, number)
        _keep(candidate, box, segmentation, crowd, seen, findings, split, result)


def _keep(
    candidate: _Candidate,
    box: Box | None,
    segmentation: Segmentation,
    crowd: Any,
    seen: dict[Any, list[Any]],
    findings: Findings,
    split: str,
    result: InspectedAnnotations,
) -> None:
    annotation, use = candidate.annotation, candidate.use
    number = _shown(annotation.get("id"))
    if box is None and segmentation:
        box = box_of_mask(segmentation)
    if box is None or min(box[2:]) <= 0:
        result.dropped += 1
        return
    key = (candidate.record["id"], candidate.class_name, tuple(box), bool(crowd))
    masks = seen.setdefault(key, [])
    if segmentation in masks:
        findings.add("annotation-repeated", split, candidate.record["file_name"], number)
        result.dropped += 1
        return
    masks.append(segmentation)
    if annotation.get("segmentation") in (None, []):
        result.absent.append(len(result.kept))
    record = {
        **annotation,
        "image_id": candidate.record["id"],
        "bbox": box,
        "segmentation": segmentation,
        "iscrowd": crowd,
    }
    result.kept.append(turned(record, use.turn, *use.size) if use.turn != 1 else record)
    result.class_names.append(candidate.class_name)
    result.raw_ids.append(number)


def _crowd_flag(annotation: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return the flag to use, and whether the json's is a good one."""
    value = annotation.get("iscrowd")
    if isinstance(value, (int, float)) and value in (0, 1):
        return value, True
    if isinstance(value, str):
        return int(value.strip().lower() in ("1", "true", "yes")), False
    return int(isinstance(value, (int, float)) and value != 0 and value == value), False


def _area_fault(
    annotation: Mapping[str, Any],
    segmentation: Segmentation,
    polygon_area: float | None,
    box_fault: str,
    use: ImageUse,
) -> set[str]:
    area: Any = annotation.get("area")
    if type(area) not in (int, float) or not 0 < area < 1e18:
        return {"area-invalid"}
    if not segmentation or box_fault in ("box-invalid", "box-negative", "box-zero"):
        return set()
    box = annotation["bbox"]
    of_box = box[2] * box[3]
    if abs(area - of_box) > max(1e-3 * of_box, 0.01):
        return set()
    if polygon_area is None:
        width, height = use.size
        polygon_area = mask_area(segmentation, height, width)
    # A mask that fills its box has the same area by right.
    return {"area-of-box"} if polygon_area < 0.98 * of_box - 0.5 else set()


def referenced_images(annotations: Sequence[Any]) -> set[int]:
    """Return the image ids that any annotation names."""
    return {
        image
        for annotation in annotations
        if isinstance(annotation, dict) and type(image := annotation.get("image_id")) is int
    }


_NUMBERS = {int, float}


@dataclass(frozen=True)
class Screen:
    """The result of screening N segmentations.

    Attributes:
        faultless: bool, (N,): polygons inside their image, with an area, of at least 3 points;
            False means "look closer", not "faulty".
        area: float64, (N,): area enclosed by the faultless ones in square pixels, each part by
            itself.
        extent: float64, (N, 4): XYXY of all parts of the faultless ones, pixels.
        crosses: bool, (N,): the outline of one of their parts crosses itself.
    """

    faultless: npt.NDArray[np.bool_]
    area: npt.NDArray[np.float64]
    extent: npt.NDArray[np.float64]
    crosses: npt.NDArray[np.bool_]


def screen_polygons(
    segmentations: Sequence[Any], sizes: Sequence[tuple[int, int]], *, crossings: bool = True
) -> Screen:
    """Screen N segmentations at once.

    Args:
        segmentations: whatever the json has.
        sizes: width and height in pixels of each one's image.
        crossings: look for outlines that cross themselves, a fifth of the work.
    """
    count = len(segmentations)
    owners: list[int] = []
    parts: list[list[float]] = []
    faultless = np.zeros(count, bool)
    for index, segmentation in enumerate(segmentations):
        if type(segmentation) is list and segmentation and all(map(_is_outline, segmentation)):
            owners += [index] * len(segmentation)
            parts += segmentation
            faultless[index] = True
    area, crosses = np.zeros(count), np.zeros(count, bool)
    extent = np.tile([np.inf, np.inf, -np.inf, -np.inf], (count, 1))
    if not parts:
        return Screen(faultless, area, extent, crosses)
    owner = np.array(owners)
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    try:
        values = np.fromiter(chain.from_iterable(parts), np.float64, int(lengths.sum()))
    except OverflowError:  # an integer beyond float64: everything gets the closer look
        return Screen(np.zeros(count, bool), area, extent, crosses)
    points = values.reshape(-1, 2)
    starts = np.concatenate(([0], np.cumsum(lengths[:-1] // 2)))
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinities fail the comparison
        low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
        beyond = np.maximum(-low, high - np.asarray(sizes, np.float64)[owner]).max(axis=1)
        areas = _areas(points, starts, lengths // 2)
        good = (beyond <= NOISE) & (areas > NOISE)
    np.logical_and.at(faultless, owner, good)
    kept = faultless[owner]
    np.add.at(area, owner[kept], areas[kept])
    np.minimum.at(extent[:, :2], owner[kept], low[kept])
    np.maximum.at(extent[:, 2:], owner[kept], high[kept])
    if not crossings:
        return Screen(faultless, area, extent, crosses)
    crossing = _crossing(points[np.repeat(kept, lengths // 2)], lengths[kept] // 2)
    crosses[owner[kept][crossing]] = True
    return Screen(faultless, area, extent, crosses)


def outline_crosses(parts: Sequence[Sequence[float]]) -> bool:
    """Return whether the outline of one of these polygons crosses itself."""
    arrays = [np.asarray(part, np.float64).reshape(-1, 2) for part in parts]
    counts = np.array([len(array) for array in arrays])
    return bool(len(arrays) and _crossing(np.concatenate(arrays), counts).any())


def _is_outline(part: Any) -> bool:
    return (
        type(part) is list
        and len(part) >= 6
        and len(part) % 2 == 0
        and set(map(type, part)) <= _NUMBERS
    )


def _areas(
    points: npt.NDArray[np.float64],
    starts: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Return the area of each outline; points is (P, 2), `starts` and `counts` are (parts,)."""
    following = np.arange(1, len(points) + 1)
    following[starts + counts - 1] = starts
    origin = np.repeat(points[starts], counts, axis=0)  # keeps the products small, so exact
    here, there = points - origin, points[following] - origin
    twice = here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]
    areas: npt.NDArray[np.float64] = 0.5 * np.abs(np.add.reduceat(twice, starts))
    return areas


def _crossing(
    points: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Return which outlines cross themselves; touching themselves in a point is no crossing."""
    if not len(points):
        return np.zeros(0, bool)
    rings = shapely.linearrings(points, indices=np.repeat(np.arange(len(counts)), counts))
    polygons = shapely.polygons(rings)
    crossing = ~shapely.is_valid(polygons)
    suspects = np.flatnonzero(crossing)
    for index, reason in zip(suspects, shapely.is_valid_reason(polygons[suspects]), strict=True):
        crossing[index] = reason.startswith("Self-intersection")
    return crossing


# EXIF orientation → (x', y') of a point (x, y) of a stored image of size (w, h), upright.
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
    """Turn an annotation without faults from the stored image to the upright one.

    Args:
        annotation: with `bbox` and `segmentation` (polygons, RLE or `[]`) in stored pixels; COCO
            `keypoints` are turned too.
        orientation: EXIF's, 5 to 8 (those that exchange width and height).
        width, height: of the stored image, in pixels.

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

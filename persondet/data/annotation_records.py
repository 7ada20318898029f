"""The annotations of one split: what is wrong with each, and what can be used of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from persondet.data.annotation_shapes import (
    Box,
    Segmentation,
    box_of_mask,
    covers_no_pixel,
    inspect_box,
    inspect_segmentation,
    mask_area,
    mask_extent,
    overlap,
)
from persondet.data.image_records import ImageUse
from persondet.data.polygon_screen import outline_crosses, screen_polygons
from persondet.data.turning import turned
from persondet.data.validation.findings import Findings

BESIDE = 0.5
"""Intersection over union below which a box and the extent of its mask contradict each other."""

_CHUNK = 8192  # annotations looked at together: bounds the memory of the fast look


@dataclass
class InspectedAnnotations:
    """What can be used of a split's annotations, and what was left out.

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
    """Inspect the annotations of a split; nothing of the input is modified.

    Args:
        split: for the findings.
        annotations: records of any content.
        images: image id to its use (see `persondet.data.image_records`).
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
    """Return a value as a report may show it: short, and nothing that JSON cannot hold."""
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

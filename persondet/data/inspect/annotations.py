"""The annotations of one split: the faults of each, and its usable part.

The json of a large export holds millions of coordinates, and nearly all polygons are faultless.
NumPy and GEOS screen thousands at a time; only the rest goes through `inspect_segmentation`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, NamedTuple

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
    polygon_area,
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
        changes: how many were left out, or changed as asked, by their name in `findings.CHANGES`.
    """

    kept: list[dict[str, Any]] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    raw_ids: list[Any] = field(default_factory=list)
    absent: set[int] = field(default_factory=set)
    changes: Counter[str] = field(default_factory=Counter)


class _Candidate(NamedTuple):
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
    **options: bool,
) -> InspectedAnnotations:
    """Inspect the annotations of a split; modify nothing.

    Args:
        split: for the findings.
        annotations: records of any content.
        images: image id to its use (see `persondet.data.inspect.images`).
        classes: category id to class name, None: not asked for.
        findings: gets what is found.
        options: `crossings`, `crowds_as_objects`, `reorder_corners`, see `inspect_coco`.
    """
    inspector = _Inspector(split, images, classes, findings, **options)
    candidates = filter(None, map(inspector.candidate, annotations))
    while chunk := list(islice(candidates, _CHUNK)):
        inspector.inspect(chunk)
    return inspector.result


@dataclass
class _Inspector:
    """Inspects the annotations of one split, and gathers the usable ones in `result`."""

    split: str
    images: Mapping[int, ImageUse]
    classes: Mapping[int, str | None]
    findings: Findings
    crossings: bool
    crowds_as_objects: bool
    reorder_corners: bool
    result: InspectedAnnotations = field(init=False, default_factory=InspectedAnnotations)
    ids: set[int] = field(init=False, default_factory=set)
    # image, class, box and crowd flag to the masks
    seen: dict[Any, list[Any]] = field(init=False, default_factory=dict)

    def candidate(self, annotation: Any) -> _Candidate | None:
        """Return an annotation with its image and class, None when it has none to be kept for."""
        fields = annotation if isinstance(annotation, dict) else {}
        number, image, category = (fields.get(key) for key in ("id", "image_id", "category_id"))
        if type(image) is not int or type(category) is not int:
            self._drop("annotation-malformed", "", number, shown(fields))
            return None
        use = self.images.get(image)
        file = use.record["file_name"] if use is not None and use.record is not None else ""
        self._inspect_id(number, file)
        if use is None:
            self._drop("annotation-unknown-image", "", number, f"image {shown(image)}")
            return None
        if use.record is None:
            self.result.changes["annotation-of-dropped-image"] += 1
            return None
        if category not in self.classes:
            self._drop("annotation-unknown-category", file, number, f"category {shown(category)}")
            return None
        name = self.classes[category]
        if name is None:
            self.result.changes["class-left-out"] += 1
            return None
        return _Candidate(annotation, use, use.record, name)

    def _drop(self, code: str, file: str, number: Any, detail: str = "") -> None:
        self.findings.add(code, self.split, file, shown(number), detail)
        self.result.changes["annotation-dropped"] += 1

    def _inspect_id(self, number: Any, file: str) -> None:
        if type(number) is not int:
            code = "annotation-id-invalid"
        elif number and number not in self.ids:
            self.ids.add(number)
            return
        else:
            code = "annotation-id-twice" if number else "annotation-id-zero"
        self.findings.add(code, self.split, file, shown(number))

    def inspect(self, chunk: Sequence[_Candidate]) -> None:
        """Inspect boxes and masks of some annotations, and keep what can be used."""
        given = [candidate.annotation.get("segmentation") for candidate in chunk]
        sizes = [candidate.use.size for candidate in chunk]
        screen = screen_polygons(given, sizes, crossings=self.crossings)
        for candidate, *known in zip(chunk, *(column.tolist() for column in screen), strict=True):
            codes, box, segmentation = self._shapes(candidate, *known)
            crowd, flag_is_good = _crowd_flag(candidate.annotation)
            if not flag_is_good:
                codes.add("crowd-flag-invalid")
            if crowd and self.crowds_as_objects:
                crowd = 0
                self.result.changes["crowd-to-object"] += 1
            codes |= _unused_fields(candidate.annotation)
            number = shown(candidate.annotation.get("id"))
            for code in sorted(codes):
                detail = _detail(code, candidate.annotation)
                self.findings.add(code, self.split, candidate.record["file_name"], number, detail)
            self._keep(candidate, box, segmentation, crowd)

    def _shapes(
        self, candidate: _Candidate, clear: bool, area: float, extent: list[float], crosses: bool
    ) -> tuple[set[str], Box | None, Segmentation]:
        """Return the codes of the faults of box, mask and area, and the usable box and mask."""
        annotation, (width, height) = candidate.annotation, candidate.use.size
        codes: set[str] = set()
        segmentation: Any = annotation.get("segmentation")
        enclosed = area if clear else None
        if not clear:
            codes, segmentation = inspect_segmentation(segmentation, width, height)
            crosses = (
                self.crossings and type(segmentation) is list and outline_crosses(segmentation)
            )
        if crosses:
            parts = [in_order(part) for part in segmentation]
            codes |= {
                "polygon-self-intersecting" if new is old else "polygon-corners-crossed"
                for old, new in zip(segmentation, parts, strict=True)
                if outline_crosses([old])
            }
            if self.reorder_corners and parts != segmentation:
                segmentation = parts
                codes.discard("polygon-corners-crossed")
                self.result.changes["corners-reordered"] += 1
        around = extent if clear else mask_extent(segmentation)
        if covers_no_pixel(segmentation, enclosed, around, width, height):
            codes.add("mask-without-pixels")
            segmentation = []
        fault, box = inspect_box(annotation.get("bbox"), width, height)
        if fault:
            codes.add(fault)
        if box is not None and segmentation and overlap(box, around) < BESIDE:
            if fault == "box-outside":
                box = None  # the mask knows better
            else:
                codes.add("box-beside-mask")
        codes |= _area_fault(annotation, segmentation, enclosed, fault, candidate.use)
        return codes, box, segmentation

    def _keep(
        self, candidate: _Candidate, box: Box | None, segmentation: Segmentation, crowd: Any
    ) -> None:
        annotation, use, image, class_name = candidate
        number, result = shown(annotation.get("id")), self.result
        if box is None and segmentation:
            box = box_of_mask(segmentation)
        if box is None or min(box[2:]) <= 0:
            result.changes["annotation-dropped"] += 1
            return
        masks = self.seen.setdefault((image["id"], class_name, tuple(box), bool(crowd)), [])
        if segmentation in masks:
            self._drop("annotation-repeated", image["file_name"], number)
            return
        masks.append(segmentation)
        if annotation.get("segmentation") in (None, []):
            result.absent.add(len(result.kept))
        mended = {"bbox": box, "segmentation": segmentation, "iscrowd": crowd}
        record = annotation | mended | {"image_id": image["id"]}
        result.kept.append(turned(record, use.turn, *use.size) if use.turn != 1 else record)
        result.class_names.append(class_name)
        result.raw_ids.append(number)


def _unused_fields(annotation: Mapping[str, Any]) -> set[str]:
    """Return the codes of what an annotation has and nothing here uses."""
    places = [annotation, annotation.get("attributes")]  # the latter is CVAT's
    angles = [place.get("rotation") for place in places if isinstance(place, dict)]
    turned = any(type(angle) in _NUMBERS and angle for angle in angles)
    keypoints = {"keypoints-unused"} if annotation.get("keypoints") else set()
    return keypoints | ({"rotation-unused"} if turned else set())


def _detail(code: str, annotation: Mapping[str, Any]) -> str:
    """Return a few words on a fault: the box that is none, or the area that is lost."""
    if code == "box-invalid":
        return str(shown(repr(annotation.get("bbox"))))
    if code != "polygon-corners-crossed":
        return ""
    parts = [part for part in annotation["segmentation"] if _is_outline(part)]
    outlines = [shapely.Polygon(np.reshape(part, (-1, 2))) for part in parts]
    now = shapely.area(shapely.make_valid(outlines)).sum()
    whole = sum(polygon_area(np.reshape(in_order(part), (-1, 2))) for part in parts)
    return f"{100 - 100 * now / whole:.0f} % of the area is lost"


def in_order(part: list[float]) -> list[float]:
    """Return the four corners of an outline that crosses itself in order; others as they are."""
    if len(part) != 8 or not outline_crosses([part]):
        return part
    corners = np.reshape(np.asarray(part, np.float64), (4, 2))
    x, y = (corners - corners.mean(axis=0)).T
    ordered: list[float] = corners[np.argsort(np.arctan2(y, x))].reshape(-1).tolist()
    return ordered


def shown(value: Any) -> Any:
    """Return a value that fits into a report: short, and valid in JSON."""
    if value is None or (type(value) is int and abs(value) < 2**53):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _crowd_flag(annotation: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return the flag to use, and whether the json's is a good one."""
    value = annotation.get("iscrowd")
    if isinstance(value, (int, float)):
        return (value, True) if value in (0, 1) else (int(value == value), False)
    return int(str(value).strip().lower() in ("true", "yes")), False


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


_NUMBERS = {int, float}


class Screen(NamedTuple):
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
    except OverflowError:  # an integer beyond float64
        values = np.array([np.inf])
    if not np.isfinite(values).all():  # everything gets the closer look
        return Screen(np.zeros(count, bool), area, extent, crosses)
    part_of = np.repeat(np.arange(len(parts)), lengths // 2)
    outlines = shapely.polygons(shapely.linearrings(values.reshape(-1, 2), indices=part_of))
    areas, bounds = shapely.area(outlines), shapely.bounds(outlines)
    over = bounds[:, 2:] - np.asarray(sizes, np.float64)[owner]
    good = (np.maximum(-bounds[:, :2], over).max(axis=1) <= NOISE) & (areas > NOISE)
    np.logical_and.at(faultless, owner, good)
    kept = faultless[owner]
    np.add.at(area, owner[kept], areas[kept])
    np.minimum.at(extent[:, :2], owner[kept], bounds[kept, :2])
    np.maximum.at(extent[:, 2:], owner[kept], bounds[kept, 2:])
    if crossings:
        crosses[owner[kept][_crossing(outlines[kept])]] = True
    return Screen(faultless, area, extent, crosses)


def outline_crosses(parts: Sequence[Sequence[float]]) -> bool:
    """Return whether the outline of one of these polygons crosses itself."""
    outlines = [shapely.Polygon(np.reshape(part, (-1, 2))) for part in parts]
    return bool(_crossing(np.array(outlines, object)).any())


def _is_outline(part: Any) -> bool:
    return (
        type(part) is list
        and len(part) >= 6
        and len(part) % 2 == 0
        and set(map(type, part)) <= _NUMBERS
    )


def _crossing(outlines: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
    """Return which outlines cross themselves; touching themselves in a point is no crossing."""
    crossing = ~shapely.is_valid(outlines)
    suspects = np.flatnonzero(crossing)
    for index, reason in zip(suspects, shapely.is_valid_reason(outlines[suspects]), strict=True):
        crossing[index] = reason.startswith("Self-intersection")
    return crossing


# EXIF's orientations that exchange width and height: is the axis that becomes x mirrored, and y?
_MIRRORED = {5: (False, False), 6: (True, False), 7: (True, True), 8: (False, True)}


def turned(annotation: dict[str, Any], orientation: int, width: int, height: int) -> dict[str, Any]:
    """Turn an annotation without faults from the stored image to the upright one.

    Args:
        annotation: with `bbox` and `segmentation` (polygons, RLE or `[]`) in stored pixels; COCO
            `keypoints` are turned too.
        orientation: EXIF's, 5 to 8 (those that exchange width and height).
        width, height: of the stored image, in pixels.

    Source: the eight orientations of the EXIF tag 0x0112 (CIPA DC-008).
    """
    mirrored = _MIRRORED[orientation]

    def upright(points: Any) -> npt.NDArray[np.float64]:
        swapped = np.reshape(points, (-1, 2))[:, ::-1]
        return np.where(mirrored, (height, width) - swapped, swapped)

    x, y, w, h = annotation["bbox"]
    corners = upright([x, y, x + w, y + h])
    low = corners.min(axis=0)
    result = {**annotation, "bbox": [*low.tolist(), *(corners.max(axis=0) - low).tolist()]}
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, dict):
        mask = mask_util.decode(compressed_rle(segmentation)).T
        mask = mask[:: -1 if mirrored[1] else 1, :: -1 if mirrored[0] else 1]
        rle = mask_util.encode(np.asfortranarray(mask))
        result["segmentation"] = {**rle, "counts": rle["counts"].decode("ascii")}
    else:
        result["segmentation"] = [upright(part).reshape(-1).tolist() for part in segmentation]
    keypoints: Any = annotation.get("keypoints")
    if (
        type(keypoints) is list
        and len(keypoints) % 3 == 0
        and set(map(type, keypoints)) <= _NUMBERS
    ):
        points = np.reshape(np.array(keypoints, np.float64), (-1, 3))
        seen = points[:, 2] != 0
        points[seen, :2] = upright(points[seen, :2])
        result["keypoints"] = points.reshape(-1).tolist()
    return result

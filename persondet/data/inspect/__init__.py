"""Inspect the COCO dicts of an export: the one pass that `check`, `clean` and training share.

`categories` decides the classes of the export; `images` and `annotations` judge the records of one
split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persondet.data.coco_json import CocoDict, with_numbers
from persondet.data.findings import Findings
from persondet.data.inspect.annotations import InspectedAnnotations, inspect_annotations, shown
from persondet.data.inspect.categories import ClassTable, class_table, text_and_id
from persondet.data.inspect.images import ImageFacts, ImageUse, inspect_images
from persondet.errors import DatasetError

Facts = Mapping[str, Mapping[str, ImageFacts]]
"""Split to file name (as in the json) to the facts about the file."""

FEW_MASKS = 0.1
"""Share of annotations with a mask below which `"auto"` takes an export as one of boxes."""
_MANY_CROWDS = 0.1
_DETECTIONS = 100  # Detectron2's TEST.DETECTIONS_PER_IMAGE


@dataclass(frozen=True)
class Inspection:
    """The usable part of each split, and every fault of an export.

    Attributes:
        splits: split to its COCO dict with numbers for text that is one.
        table: the classes.
        images: split to the image records to keep, in the order of the json.
        annotations: split to its usable annotations.
        dropped_images: split to file name to the code of the fault that drops it.
        findings: every fault.
    """

    splits: dict[str, CocoDict]
    table: ClassTable
    images: dict[str, list[dict[str, Any]]]
    annotations: dict[str, InspectedAnnotations]
    dropped_images: dict[str, dict[str, str]]
    findings: Findings


def inspect_coco(
    splits: Mapping[str, CocoDict],
    *,
    classes: Sequence[str] = (),
    facts: Facts | None = None,
    drop: Mapping[str, Mapping[str, str]] | None = None,
    crossings: bool = True,
    crowds_as_objects: bool = False,
    reorder_corners: bool = False,
) -> Inspection:
    """Inspect all splits of an export; modify nothing.

    Args:
        splits: split to a COCO dict as `read_coco` returns it.
        classes: the classes to keep, in this order; empty: all but grouping ones.
        facts: facts about the image files; None: trust the jsons.
        drop: split to file name to code: more images to drop.
        crossings: look for outlines that cross themselves; cleaning keeps those.
        crowds_as_objects: take crowds as objects.
        reorder_corners: put the four corners of an outline that crosses itself in order.

    Raises: DatasetError: when no split names an image, or a class is unknown or named twice.
    """
    findings = Findings()
    numbered: dict[str, CocoDict] = {}
    used: dict[str, CocoDict] = {}
    for split, raw in splits.items():
        numbered[split] = coco = _numbered(split, raw, findings)
        if not coco["images"]:
            findings.add("split-empty", split)
            continue
        used[split] = coco
        if not coco["annotations"]:
            findings.add("split-without-annotations", split)
        if not isinstance(coco.get("info"), dict):
            findings.add("info-missing", split)
    if not used:
        raise DatasetError("no split names an image; export the dataset again.")
    table = class_table(used, classes, findings)
    if not table.names:
        findings.add("no-class", next(iter(used)))
    inspection = Inspection(numbered, table, {}, {}, {}, findings)
    for split, coco in used.items():
        uses = inspect_images(split, coco["images"], facts[split] if facts else None, findings)
        each = dict.fromkeys(uses.values())  # two ids of one file share theirs
        for use in each:
            code = drop.get(split, {}).get(use.record["file_name"]) if use.record and drop else None
            if code:
                use.code, use.record = code, None
        numbers = [a.get("image_id") for a in coco["annotations"] if isinstance(a, dict)]
        annotated = {uses.get(number) for number in numbers if type(number) is int}
        for use in each:
            if use.record is not None and use not in annotated:
                findings.add("image-without-annotations", split, use.record["file_name"])
        inspection.images[split] = [use.record for use in each if use.record is not None]
        inspection.dropped_images[split] = _dropped(coco["images"], uses)
        inspection.annotations[split] = inspect_annotations(
            split,
            coco["annotations"],
            uses,
            table.class_of[split],
            findings,
            crossings=crossings or reorder_corners,
            crowds_as_objects=crowds_as_objects,
            reorder_corners=reorder_corners,
        )
    _report_export(inspection)
    _report_masks(inspection)
    return inspection


def _numbered(split: str, raw: CocoDict, findings: Findings) -> CocoDict:
    """Return a COCO dict with numbers for text, and report the records that it mended."""
    coco, spelled = with_numbers(raw)
    files = dict(text_and_id(image, "file_name")[::-1] for image in coco["images"] if spelled)
    for record, detail in spelled:
        (file, _), number = text_and_id(record, "file_name"), None
        if "image_id" in record:
            _, image = text_and_id({"id": record["image_id"]}, "")
            file, number = files.get(image), shown(record.get("id"))
        findings.add("number-spelling", split, file or "", number, detail)
    return coco


def _report_export(inspection: Inspection) -> None:
    """Report what only a whole split or export tells: crowds, crowding, and absent classes."""
    found_in, findings = inspection.annotations, inspection.findings
    first = next(iter(found_in))
    reasons = {code for dropped in inspection.dropped_images.values() for code in dropped.values()}
    if reasons == {"file-missing"} and not any(inspection.images.values()):
        findings.add("images-missing", first)
    elif not any(found.kept or found.changes["class-left-out"] for found in found_in.values()):
        findings.add("no-annotations", first)
    sides = [min(i["width"], i["height"]) for kept in inspection.images.values() for i in kept]
    boxes = [one["bbox"] for found in found_in.values() for one in found.kept]
    if boxes and min(sides) > 2 and all(max(x + w, y + h) <= 1 + 1e-3 for x, y, w, h in boxes):
        findings.add("coordinates-relative", first, detail=f"{len(boxes)} boxes")
    learnable: dict[str, set[str]] = {}
    for split, found in found_in.items():
        pairs = zip(found.kept, found.class_names, strict=True)
        names = [name for annotation, name in pairs if not annotation["iscrowd"]]
        learnable[split] = set(names)
        total, crowds = len(found.kept), len(found.kept) - len(names)
        if crowds and crowds >= _MANY_CROWDS * total:
            code = "crowds-only" if split == "train" and not names else "crowds-many"
            findings.add(code, split, detail=f"{crowds} of {total} ({100 * crowds / total:.0f} %)")
        objects = Counter(annotation["image_id"] for annotation in found.kept)
        for image in inspection.images[split]:
            if objects[image["id"]] > _DETECTIONS:
                detail = f"{objects[image['id']]} objects"
                findings.add("objects-many", split, image["file_name"], detail=detail)
    for name in inspection.table.names:
        lacking = [split for split, names in learnable.items() if name not in names]
        for split in lacking if len(lacking) < len(learnable) else ():
            if found_in[split].kept:
                findings.add(f"class-not-in-{split}", split, detail=repr(name))


def validate_coco(splits: Mapping[str, CocoDict], *, facts: Facts | None = None) -> Findings:
    """Return what is wrong with the COCO dicts of an export (split to dict); changes nothing.

    Args:
        splits: split to a COCO dict as `read_coco` returns it.
        facts: facts about the image files; None: trust the jsons.

    Raises: DatasetError: when no split names an image.

    Example:
        >>> findings = validate_coco(read_export("datasets/person").splits)
        >>> findings.counts()["annotation-id-zero"]
        3
    """
    return inspect_coco(splits, facts=facts).findings


def _dropped(images: Sequence[Any], uses: Mapping[int, ImageUse]) -> dict[str, str]:
    malformed = ImageUse(None, "image-malformed")
    named = [text_and_id(image, "file_name") for image in images]
    told = [(name, uses.get(number, malformed)) for name, number in named if number is not None]
    return {name: use.code for name, use in told if name is not None and use.record is None}


def _report_masks(inspection: Inspection) -> None:
    """Report faults of the whole export: missing masks, and RLE among polygons."""
    found_in, findings = inspection.annotations, inspection.findings
    every = [one["segmentation"] for found in found_in.values() for one in found.kept]
    few = 0 < sum(map(bool, every)) < FEW_MASKS * len(every)
    masks = [
        annotation
        for found in found_in.values()
        for index, annotation in enumerate(found.kept)
        if index not in found.absent
    ]
    # One without a usable mask gets its box as a polygon; that is no polygon of the export.
    polygons = any(isinstance(mask := one["segmentation"], list) and mask for one in masks)
    mixed = polygons and any(map(_is_learned_rle, masks))
    for split, found in found_in.items():
        names = {image["id"]: image["file_name"] for image in inspection.images[split]}
        for index, annotation in enumerate(found.kept):
            where = (split, names[annotation["image_id"]], found.raw_ids[index])
            if few:
                if annotation["segmentation"]:
                    findings.add("masks-few", *where)
            elif index in found.absent:
                findings.add("mask-missing" if masks else "masks-none", *where)
            elif mixed and _is_learned_rle(annotation):
                findings.add("mask-formats-mixed", *where)


def _is_learned_rle(annotation: Mapping[str, Any]) -> bool:
    # The RLE of a crowd is COCO's own way, and never learned from.
    return isinstance(annotation["segmentation"], dict) and not annotation["iscrowd"]

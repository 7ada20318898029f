"""Inspect the COCO dicts of an export: the one pass that `check`, `clean` and training share.

`categories` decides the classes of the export; `images` and `annotations` judge the records of one
split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persondet.data.coco_json import CocoDict
from persondet.data.findings import Findings
from persondet.data.inspect.annotations import InspectedAnnotations, inspect_annotations
from persondet.data.inspect.categories import ClassTable, class_table, text_and_id
from persondet.data.inspect.images import ImageFacts, ImageUse, inspect_images
from persondet.errors import DatasetError

Facts = Mapping[str, Mapping[str, ImageFacts]]
"""Split to file name (as in the json) to the facts about the file."""


@dataclass(frozen=True)
class Inspection:
    """The usable part of each split, and every fault of an export.

    Attributes:
        table: the classes.
        images: split to the image records to keep, in the order of the json.
        annotations: split to its usable annotations.
        dropped_images: split to file name to the code of the fault that drops it.
        findings: every fault.
    """

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
) -> Inspection:
    """Inspect all splits of an export; modify nothing.

    Args:
        splits: split to a COCO dict as `read_coco` returns it.
        classes: the classes to keep, in this order; empty: all but grouping ones.
        facts: facts about the image files; None: trust the jsons.
        drop: split to file name to code: more images to drop.
        crossings: look for outlines that cross themselves; cleaning keeps those.

    Raises: DatasetError: when no split names an image, or a class is unknown or named twice.
    """
    findings = Findings()
    used: dict[str, CocoDict] = {}
    for split, coco in splits.items():
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
    if not any(coco["annotations"] for coco in used.values()):
        findings.add("no-annotations", next(iter(used)))
    table = class_table(used, classes, findings)
    if not table.names:
        findings.add("no-class", next(iter(used)))
    inspection = Inspection(table, {}, {}, {}, findings)
    for split, coco in used.items():
        uses = inspect_images(split, coco["images"], facts[split] if facts else None, findings)
        each = list({id(use): use for use in uses.values()}.values())
        for use in each:
            code = drop.get(split, {}).get(use.record["file_name"]) if use.record and drop else None
            if code:
                use.code, use.record = code, None
        _report_negatives(split, uses, coco["annotations"], findings)
        inspection.images[split] = [use.record for use in each if use.record is not None]
        inspection.dropped_images[split] = _dropped(coco["images"], uses)
        inspection.annotations[split] = inspect_annotations(
            split,
            coco["annotations"],
            uses,
            table.class_of[split],
            findings,
            crossings=crossings,
        )
    _report_masks(inspection)
    return inspection


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
    dropped: dict[str, str] = {}
    for image in images:
        name, number = text_and_id(image, "file_name")
        if name is not None and number is not None:
            use = uses.get(number, malformed)
            if use.record is None:
                dropped[name] = use.code
    return dropped


def _report_negatives(
    split: str, uses: Mapping[int, ImageUse], annotations: Sequence[Any], findings: Findings
) -> None:
    numbers = [a.get("image_id") for a in annotations if isinstance(a, dict)]
    referenced = {number for number in numbers if type(number) is int}
    annotated = {id(use) for number, use in uses.items() if number in referenced}
    for use in {id(use): use for use in uses.values()}.values():
        if use.record is not None and id(use) not in annotated:
            findings.add("image-without-annotations", split, use.record["file_name"])


def _report_masks(inspection: Inspection) -> None:
    """Report faults of the whole export: missing masks, and RLE among polygons."""
    found_in, findings = inspection.annotations, inspection.findings
    masks = [
        (isinstance(annotation["segmentation"], dict), _is_learned_rle(annotation))
        for found in found_in.values()
        for index, annotation in enumerate(found.kept)
        if index not in found.absent
    ]
    mixed = any(learned for _, learned in masks) and not all(rle for rle, _ in masks)
    for split, found in found_in.items():
        names = {image["id"]: image["file_name"] for image in inspection.images[split]}
        for index, annotation in enumerate(found.kept):
            where = (split, names[annotation["image_id"]], found.raw_ids[index])
            if index in found.absent:
                findings.add("mask-missing" if masks else "masks-none", *where)
            elif mixed and _is_learned_rle(annotation):
                findings.add("mask-formats-mixed", *where)


def _is_learned_rle(annotation: Mapping[str, Any]) -> bool:
    # The RLE of a crowd is COCO's own way, and never learned from.
    return isinstance(annotation["segmentation"], dict) and not annotation["iscrowd"]

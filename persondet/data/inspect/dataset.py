"""Inspect the COCO dicts of an export: the one pass that `check`, `clean` and training share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persondet.data.coco_json import CocoDict
from persondet.data.findings import Findings
from persondet.data.inspect.annotations import (
    InspectedAnnotations,
    inspect_annotations,
    referenced_images,
)
from persondet.data.inspect.categories import ClassTable, class_table
from persondet.data.inspect.images import ImageFacts, ImageUse, inspect_images
from persondet.errors import DatasetError

Facts = Mapping[str, Mapping[str, ImageFacts]]
"""Split to file name (as the json has it) to what the file is."""


@dataclass(frozen=True)
class Inspection:
    """What an export is worth: the usable part of each split, and everything that was found.

    Attributes:
        table: the classes.
        images: split to the image records to keep, in the order of the json.
        annotations: split to its usable annotations.
        dropped_images: split to file name to the code for which it is dropped.
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
    """Inspect all splits of an export; nothing is modified.

    Args:
        splits: split to a COCO dict as `read_coco` returns it.
        classes: the classes to keep, in this order; empty: all but grouping ones.
        facts: what the image files are; None: the jsons are believed.
        drop: split to file name to a code: images to leave out besides those that cannot be used.
        crossings: look for outlines that cross themselves; nothing is changed about them.

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
    images: dict[str, list[dict[str, Any]]] = {}
    annotations: dict[str, InspectedAnnotations] = {}
    dropped: dict[str, dict[str, str]] = {}
    for split, coco in used.items():
        uses = inspect_images(split, coco["images"], facts[split] if facts else None, findings)
        for use in uses.values():
            if use.record is not None and drop and use.record["file_name"] in drop.get(split, {}):
                use.code = drop[split][use.record["file_name"]]
                use.record = None
        _report_negatives(split, uses, coco["annotations"], findings)
        images[split] = list(
            {id(use): use.record for use in uses.values() if use.record is not None}.values()
        )
        dropped[split] = _dropped(coco["images"], uses)
        annotations[split] = inspect_annotations(
            split,
            coco["annotations"],
            uses,
            table.class_of[split],
            findings,
            crossings=crossings,
        )
    _report_masks(images, annotations, findings)
    return Inspection(table, images, annotations, dropped, findings)


def validate_coco(splits: Mapping[str, CocoDict], *, facts: Facts | None = None) -> Findings:
    """Return what is wrong with the COCO dicts of an export (split to dict); changes nothing.

    Args:
        splits: split to a COCO dict as `read_coco` returns it.
        facts: what the image files are; None: the jsons are believed.

    Raises: DatasetError: when no split names an image.

    Example:
        >>> findings = validate_coco(read_export("datasets/person").splits)
        >>> findings.counts()["annotation-id-zero"]
        3
    """
    return inspect_coco(splits, facts=facts).findings


def _dropped(images: Sequence[Any], uses: Mapping[int, ImageUse]) -> dict[str, str]:
    dropped: dict[str, str] = {}
    for image in images:
        name = image.get("file_name") if isinstance(image, dict) else None
        number = image.get("id") if isinstance(image, dict) else None
        if isinstance(name, str) and type(number) is int:
            use = uses.get(number)
            if use is None:
                dropped[name] = "image-malformed"
            elif use.record is None:
                dropped[name] = use.code
    return dropped


def _report_negatives(
    split: str, uses: Mapping[int, ImageUse], annotations: Sequence[Any], findings: Findings
) -> None:
    referenced = referenced_images(annotations)
    with_people = {id(use) for number, use in uses.items() if number in referenced}
    for use in {id(use): use for use in uses.values()}.values():
        if use.record is not None and id(use) not in with_people:
            findings.add("image-without-annotations", split, use.record["file_name"])


def _report_masks(
    images: Mapping[str, Sequence[Mapping[str, Any]]],
    annotations: Mapping[str, InspectedAnnotations],
    findings: Findings,
) -> None:
    """Report what only the whole export can tell: absent masks, and RLE among polygons."""
    kinds: Counter[str] = Counter()
    for found in annotations.values():
        absent = set(found.absent)
        for index, annotation in enumerate(found.kept):
            if index not in absent:
                is_rle = isinstance(annotation["segmentation"], dict)
                crowd = "crowd " if annotation["iscrowd"] else ""
                kinds[f"{crowd}{'rle' if is_rle else 'polygon'}"] += 1
    code = "mask-missing" if kinds else "masks-none"
    mixed = kinds["rle"] > 0 and kinds["polygon"] + kinds["crowd polygon"] > 0
    for split, found in annotations.items():
        names = {image["id"]: image["file_name"] for image in images[split]}
        for index in found.absent:
            file = names[found.kept[index]["image_id"]]
            findings.add(code, split, file, found.raw_ids[index])
        if mixed:
            for index, annotation in enumerate(found.kept):
                if isinstance(annotation["segmentation"], dict) and not annotation["iscrowd"]:
                    file = names[annotation["image_id"]]
                    findings.add("mask-formats-mixed", split, file, found.raw_ids[index])

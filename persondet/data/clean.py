"""Clean the COCO dicts of an export in memory: only what is safe to mend without asking.

A fault that would need a decision (a missing picture, two pictures with one id) is an error; the
mendable ones are mended and counted. An annotation without a fault stays as it is, but for its id
and its area.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persondet.data.annotation_shapes import (
    Segmentation,
    box_as_polygon,
    box_of_segmentation,
    clipped_box,
    segmentation_area,
    usable_segmentation,
)
from persondet.data.coco_json import CocoDict
from persondet.errors import DatasetError

MASK_MODES = ("auto", "polygon", "bitmask", "box", "none")


@dataclass(frozen=True)
class CleanExport:
    """The cleaned splits of one export.

    Attributes:
        splits: split name to a COCO dict whose category ids are 1..K in the order of `classes`.
        classes: the class names; index is the contiguous class number that models predict.
        mask_format: `"polygon"`, `"bitmask"` (RLE among them), or `""` when there are no masks.
        report: how often each thing was mended, by a short name, over all splits.
    """

    splits: dict[str, CocoDict]
    classes: tuple[str, ...]
    mask_format: str
    report: dict[str, int]


def grouping_categories(splits: Mapping[str, CocoDict]) -> set[str]:
    """Return the names of the categories that only group others.

    Roboflow writes one category above all others, usually with id 0. A category counts as such
    only if another one names it as its supercategory and no annotation of any split uses it:
    in some exports id 0 is a real class, and in others two categories share one name.
    """
    used: set[str] = set()
    parents: set[str] = set()
    names: set[str] = set()
    for coco in splits.values():
        by_id = {category["id"]: category["name"] for category in coco["categories"]}
        names.update(by_id.values())
        used.update(by_id.get(annotation["category_id"], "") for annotation in coco["annotations"])
        parents.update(
            category["supercategory"]
            for category in coco["categories"]
            if isinstance(category.get("supercategory"), str)
            and category["supercategory"] != category["name"]
        )
    return {name for name in names if name in parents and name not in used}


def class_names(splits: Mapping[str, CocoDict], keep: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the class names of an export, in the order of their contiguous class numbers.

    Args:
        splits: split name to COCO dict; the order of the splits decides ties.
        keep: the classes to keep, in this order; empty: the union over all splits, without
            grouping categories, each where the first split that has it puts it by its id.

    Raises: DatasetError: when a class of `keep` is unknown or named twice, or none is left.
    """
    grouping = grouping_categories(splits)
    names: dict[str, None] = {}
    for coco in splits.values():
        for category in sorted(coco["categories"], key=lambda category: category["id"]):
            if category["name"] not in grouping:
                names.setdefault(category["name"])
    if not names:
        raise DatasetError("the export names no class in 'categories'; export it again.")
    if not keep:
        return tuple(names)
    for name in keep:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise DatasetError(
                f"the export has no class {name!r}; {hint}It has: {', '.join(sorted(names))}."
            )
    if len(set(keep)) < len(keep):
        raise DatasetError(f"a class is named twice in {', '.join(keep)}; name each once.")
    return tuple(keep)


def clean_export(
    splits: Mapping[str, CocoDict], *, classes: Sequence[str] = (), masks: str = "auto"
) -> CleanExport:
    """Clean all splits of an export with one list of classes and one decision about masks.

    What is mended and counted: grouping categories dropped, categories of one name merged,
    annotations of other classes, of unknown images or categories dropped; boxes clipped to the
    image, or taken from the mask when they are unusable, and dropped when nothing is left; flat
    polygons nested, unusable polygon parts dropped, polygons clipped; areas recomputed from the
    mask; annotations numbered from 1 (COCO's evaluation takes id 0 for "no match"); `info` and
    `licenses` added (pycocotools fails without).

    Args:
        splits: split name to a COCO dict as `read_coco` returns it; not modified.
        classes: the classes to keep, in this order; empty: all but grouping ones.
        masks: `"none"` drops all masks. `"auto"` does the same when fewer than half of the
            annotations (over all splits) have one; otherwise, and with `"polygon"`, `"bitmask"`,
            `"box"`, every annotation that lacks a mask gets its filled box as one. Dropping it
            would teach that a person is background, and Detectron2 cannot train on a mixture.
            `"polygon"` refuses RLE masks, `"bitmask"` asks for rasters also where all are polygons.

    Raises:
        DatasetError: when classes are unknown, image ids are used twice, the masks asked for do
            not exist, or no annotation is left.
    """
    if masks not in MASK_MODES:
        raise DatasetError(f"masks is {masks!r}; use one of {', '.join(MASK_MODES)}.")
    kept = class_names(splits, classes)
    report: Counter[str] = Counter()
    report["grouping categories dropped"] = len(grouping_categories(splits))
    cleaned = {split: _clean_split(split, coco, kept, report) for split, coco in splits.items()}
    annotations = [a for coco in cleaned.values() for a in coco["annotations"]]
    mask_format = _settle_masks(annotations, masks, report)
    for coco in cleaned.values():
        sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
        for annotation in coco["annotations"]:
            _set_area(annotation, *sizes[annotation["image_id"]], report)
    return CleanExport(cleaned, kept, mask_format, {key: n for key, n in report.items() if n})


def _clean_split(
    split: str, coco: CocoDict, classes: tuple[str, ...], report: Counter[str]
) -> CocoDict:
    images = {image["id"]: image for image in coco["images"]}
    if len(images) < len(coco["images"]):
        counts = Counter(image["id"] for image in coco["images"])
        twice = next(number for number, count in counts.items() if count > 1)
        names = [image["file_name"] for image in coco["images"] if image["id"] == twice]
        raise DatasetError(
            f"{split}: image id {twice} belongs to {names[0]!r} and to {names[1]!r}; "
            "export the dataset again, or give each image its own id."
        )
    all_names = {category["id"]: category["name"] for category in coco["categories"]}
    merged = len(all_names) - len(set(all_names.values()))
    report["categories merged by name"] += merged
    numbers = {name: number for number, name in enumerate(classes, start=1)}
    annotations: list[dict[str, Any]] = []
    for annotation in coco["annotations"]:
        name = all_names.get(annotation["category_id"])
        if name is None:
            report["annotations of an unknown category dropped"] += 1
        elif annotation["image_id"] not in images:
            report["annotations of an unknown image dropped"] += 1
        elif name not in numbers:
            report["annotations of other classes dropped"] += 1
        else:
            clean = _clean_annotation(annotation, images[annotation["image_id"]], report)
            if clean is not None:
                clean |= {"id": len(annotations) + 1, "category_id": numbers[name]}
                annotations.append(clean)
    info, licenses = coco.get("info"), coco.get("licenses")
    return {
        "info": info if isinstance(info, dict) else {},
        "licenses": licenses if isinstance(licenses, list) else [],
        "categories": [
            {"id": number, "name": name, "supercategory": "none"}
            for name, number in numbers.items()
        ],
        "images": coco["images"],
        "annotations": annotations,
    }


def _clean_annotation(
    annotation: Mapping[str, Any], image: Mapping[str, Any], report: Counter[str]
) -> dict[str, Any] | None:
    """Return a clean copy (segmentation `[]` when it has no usable mask), None when it is empty."""
    width, height = image["width"], image["height"]
    segmentation, repairs = usable_segmentation(annotation.get("segmentation"), width, height)
    report.update(repairs)
    given = annotation.get("bbox")
    box = clipped_box(given, width, height)
    if box is None and segmentation:
        box = box_of_segmentation(segmentation)
        report["unusable boxes taken from the mask"] += 1
    elif box is not None and box != given:
        report["boxes clipped to the image"] += 1
    if box is None:
        report["annotations without a usable box dropped"] += 1
        return None
    return {
        "id": 0,
        "image_id": annotation["image_id"],
        "category_id": 0,
        "bbox": box,
        "area": annotation.get("area"),
        "segmentation": segmentation,
        "iscrowd": 1 if annotation.get("iscrowd") else 0,
    }


def _settle_masks(annotations: list[dict[str, Any]], masks: str, report: Counter[str]) -> str:
    if not annotations:
        raise DatasetError(
            "no annotation is left after cleaning; check the classes asked for and the export."
        )
    with_mask = sum(1 for annotation in annotations if annotation["segmentation"])
    if with_mask == 0 and masks in ("polygon", "bitmask"):
        raise DatasetError(
            f"masks {masks!r} was asked for, but no annotation has one; use DATASETS.ROBOFLOW.MASKS "
            "'none' for boxes only, or 'box' to take the filled box as the mask."
        )
    if masks == "none" or (masks == "auto" and 2 * with_mask < len(annotations)):
        report["masks left out"] = with_mask
        for annotation in annotations:
            annotation["segmentation"] = []
        return ""
    for annotation in annotations:
        if not annotation["segmentation"]:
            annotation["segmentation"] = [box_as_polygon(annotation["bbox"])]
            report["masks filled from the box"] += 1
    has_rle = any(isinstance(annotation["segmentation"], dict) for annotation in annotations)
    if has_rle and masks == "polygon":
        raise DatasetError(
            "masks 'polygon' was asked for, but the export has RLE masks; use "
            "DATASETS.ROBOFLOW.MASKS 'auto' or 'bitmask'."
        )
    return "bitmask" if has_rle or masks == "bitmask" else "polygon"


def _set_area(annotation: dict[str, Any], height: int, width: int, report: Counter[str]) -> None:
    segmentation: Segmentation = annotation["segmentation"]
    area = segmentation_area(segmentation, height, width) if segmentation else 0.0
    if area == 0:  # no mask, or one thinner than a pixel
        area = annotation["bbox"][2] * annotation["bbox"][3]
    if annotation["area"] != area:
        report["areas recomputed"] += 1
    annotation["area"] = area

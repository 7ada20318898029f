"""Clean the COCO dicts of an export: an annotation without a fault stays as it is.

What is found is `persondet.data.inspection`'s; here it is decided what masks, areas and numbers
become, and every change is counted under the code of its fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persondet.data.coco_json import CocoDict, collector_paused
from persondet.data.findings import Finding, Findings
from persondet.data.inspect.dataset import Facts, Inspection, inspect_coco
from persondet.data.inspect.shapes import box_as_polygon, mask_area, mask_areas, touched_pixels
from persondet.errors import DatasetError

MASK_MODES = ("auto", "polygon", "bitmask", "box", "none")

FEW_MASKS = 0.1
"""Share of annotations with a mask below which `"auto"` takes an export as one of boxes."""

CHANGES = {
    "id-renumbered": "annotations whose id became another, counted from 1",
    "area-recomputed": "annotations whose area became the number of pixels of their mask",
    "category-renumbered": "annotations whose category has another id than in the source",
    "mask-from-box": "annotations that got their filled box as the mask",
    "mask-left-out": "annotations whose mask was left out, because the result is one of boxes",
    "class-left-out": "annotations of classes that were not asked for",
    "annotation-of-dropped-image": "annotations that went with their image",
    "leak-dropped": "images dropped because a later split has a version of them (--drop-leaks)",
    "annotation-dropped": "annotations dropped for a fault of their own",
}
"""Changes that are no fault's, by the name under which they are counted."""


@dataclass(frozen=True)
class CleanExport:
    """The cleaned splits of one export.

    Attributes:
        splits: split name to a COCO dict; the ids of its categories rise in the order of `classes`.
        classes: the class names; index is the contiguous class number that models predict.
        mask_format: `"polygon"`, `"bitmask"` (RLE among them), or `""` when there are no masks.
        findings: what was wrong before; outlines that cross themselves, which stay, are not sought.
        changes: how often each thing was changed, over all splits: by the code of the fault, or by
            a name of `CHANGES`.
        dropped_images: split to file name to the code for which the image was dropped.
    """

    splits: dict[str, CocoDict]
    classes: tuple[str, ...]
    mask_format: str
    findings: Findings
    changes: dict[str, int]
    dropped_images: dict[str, dict[str, str]]


def clean_coco(
    splits: Mapping[str, CocoDict],
    *,
    classes: Sequence[str] = (),
    masks: str = "auto",
    facts: Facts | None = None,
    drop: Mapping[str, Mapping[str, str]] | None = None,
    refuse: bool = False,
) -> CleanExport:
    """Clean all splits of an export with one list of classes and one decision about masks.

    The table `persondet.data.findings.CODES` says what is mended how. Areas become those
    of the masks (pixels, as COCO rasterises them; of the box where there is no mask); annotations
    are numbered from 1; `info` and `licenses` are added where they are missing.

    Args:
        splits: split name to a COCO dict as `read_coco` returns it; not modified.
        classes: the classes to keep, in this order; empty: all but grouping ones.
        masks: `"none"` drops all masks. `"auto"` does the same when fewer than a tenth of the
            annotations (over all splits) have one; otherwise, and with `"polygon"`, `"bitmask"`,
            `"box"`, every annotation that lacks a mask gets its filled box as one. Dropping it
            would teach that a person is background, and Detectron2 cannot train on a mixture.
            `"polygon"` refuses RLE masks, `"bitmask"` asks for rasters also where all are polygons.
        facts: what the image files are; None: the jsons are believed.
        drop: images to leave out besides those that cannot be used, with the code to count.
        refuse: raise for what is not safe to mend without asking: where an image with its
            annotations would be dropped.

    Raises:
        DatasetError: when classes are unknown, one category id has two names, the masks asked for
            do not exist, or no annotation is left.

    Example:
        >>> export = read_export("datasets/person")
        >>> clean = clean_coco(export.splits, classes=["person"])
        >>> min(annotation["id"] for annotation in clean.splits["train"]["annotations"])
        1
    """
    if masks not in MASK_MODES:
        raise DatasetError(f"masks is {masks!r}; use one of {', '.join(MASK_MODES)}.")
    with collector_paused():
        return _clean(splits, classes, masks, facts, drop, refuse)


def _clean(
    splits: Mapping[str, CocoDict],
    classes: Sequence[str],
    masks: str,
    facts: Facts | None,
    drop: Mapping[str, Mapping[str, str]] | None,
    refuse: bool,
) -> CleanExport:
    inspection = inspect_coco(splits, classes=classes, facts=facts, drop=drop, crossings=False)
    for finding in inspection.findings.refused():
        if refuse or not finding.code.changes:
            raise DatasetError(_refusal(finding))
    changes: Counter[str] = Counter()
    for finding in inspection.findings:
        if finding.code.changes:
            changes[finding.code.name] += finding.count
    for names in (drop or {}).values():
        changes.update(names.values())
    annotations = [one for found in inspection.annotations.values() for one in found.kept]
    mask_format = _settle_masks(annotations, masks, changes)
    cleaned = {
        split: _finished(inspection, split, splits[split], changes) for split in inspection.images
    }
    counted = {name: count for name, count in changes.items() if count}
    return CleanExport(
        cleaned,
        inspection.table.names,
        mask_format,
        inspection.findings,
        counted,
        inspection.dropped_images,
    )


def _refusal(finding: Finding) -> str:
    """Return the sentence for a fault that is not mended unasked."""
    example, code = finding.examples[0], finding.code
    where = f"{example.split}: {example.file!r}: " if example.file else f"{example.split}: "
    detail = f" ({example.detail})" if example.detail else ""
    more = f", and {finding.count - 1} more like it" if finding.count > 1 else ""
    mend = (
        f"`python tools/prepare_dataset.py clean` writes a dataset without it ({code.mend})"
        if code.changes
        else "mend the json, or export the dataset again"
    )
    return f"{where}{code.meaning}{detail}{more}; {mend}."


def _finished(inspection: Inspection, split: str, raw: CocoDict, changes: Counter[str]) -> CocoDict:
    found, table = inspection.annotations[split], inspection.table
    changes["class-left-out"] += found.of_other_classes
    changes["annotation-of-dropped-image"] += found.of_dropped_images
    changes["annotation-dropped"] += found.dropped
    sizes = {image["id"]: (image["height"], image["width"]) for image in inspection.images[split]}
    for number, (annotation, name) in enumerate(
        zip(found.kept, found.class_names, strict=True), start=1
    ):
        changes["id-renumbered"] += annotation.get("id") != number
        annotation["id"] = number
        changes["category-renumbered"] += annotation["category_id"] != table.ids[name]
        annotation["category_id"] = table.ids[name]
    _set_areas(found.kept, sizes, changes)
    info, licenses = raw.get("info"), raw.get("licenses")
    return {
        **raw,
        "info": info if isinstance(info, dict) else {},
        "licenses": licenses if isinstance(licenses, list) else [],
        "categories": list(table.records.values()),
        "images": inspection.images[split],
        "annotations": found.kept,
    }


def _settle_masks(annotations: list[dict[str, Any]], masks: str, changes: Counter[str]) -> str:
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
    if masks == "none" or (masks == "auto" and with_mask < FEW_MASKS * len(annotations)):
        changes["mask-left-out"] = with_mask
        for annotation in annotations:
            annotation["segmentation"] = []
        return ""
    for annotation in annotations:
        if not annotation["segmentation"]:
            annotation["segmentation"] = [box_as_polygon(annotation["bbox"])]
            changes["mask-from-box"] += 1
    has_rle = any(isinstance(annotation["segmentation"], dict) for annotation in annotations)
    if has_rle and masks == "polygon":
        raise DatasetError(
            "masks 'polygon' was asked for, but the export has RLE masks; use "
            "DATASETS.ROBOFLOW.MASKS 'auto' or 'bitmask'."
        )
    return "bitmask" if has_rle or masks == "bitmask" else "polygon"


def _set_areas(
    annotations: Sequence[dict[str, Any]],
    sizes: Mapping[int, tuple[int, int]],
    changes: Counter[str],
) -> None:
    masked = [annotation for annotation in annotations if annotation["segmentation"]]
    areas = mask_areas(
        [annotation["segmentation"] for annotation in masked],
        [sizes[annotation["image_id"]] for annotation in masked],
    )
    area_of = {id(annotation): area for annotation, area in zip(masked, areas, strict=True)}
    for annotation in annotations:
        area = area_of.get(id(annotation))
        if area is None:
            area = annotation["bbox"][2] * annotation["bbox"][3]
        elif area == 0:  # what clipping left, or a box, thinner than a pixel: the pixels it touches
            size = sizes[annotation["image_id"]]
            annotation["segmentation"] = [touched_pixels(annotation["bbox"], *size)]
            area = mask_area(annotation["segmentation"], *size)
        changes["area-recomputed"] += annotation.get("area") != area
        annotation["area"] = area

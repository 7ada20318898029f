"""Clean an export, in memory or as a copy on disk; an annotation without a fault stays as it is.

`persondet.data.inspect` finds the faults. This file decides what masks, areas and numbers become,
and counts every change under the code of its fault. The copy has the mended jsons and links to the
images. This file stands above `persondet.data.check` and `persondet.data.leaks`."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persondet.data.check import leaks_of, look_at_images
from persondet.data.coco_json import CocoDict, collector_paused, with_numbers, write_coco
from persondet.data.findings import Finding, Findings, remedy
from persondet.data.inspect import FEW_MASKS, Facts, Inspection, inspect_coco
from persondet.data.roboflow import ANNOTATION_FILE, Export, copy_readmes, read_export
from persondet.data.shapes import box_as_polygon, mask_area, touched_pixels
from persondet.environment import Progress
from persondet.errors import DatasetError
from persondet.files import (
    atomic_folder,
    leads_out,
    link_or_copy,
    path_inside,
    refuse_existing,
    refuse_nesting,
    sha256_of_file,
    write_json,
)

CLEANING = "cleaning.json"
MASK_MODES = ("auto", "polygon", "bitmask", "box", "none")


@dataclass(frozen=True)
class CleanExport:
    """The cleaned splits of one export.

    Attributes:
        splits: split name to a COCO dict; the ids of its categories rise in the order of `classes`.
            A split without a usable image is left out.
        classes: the class names; index is the contiguous class number that models predict.
        mask_format: `"polygon"`, `"bitmask"` (RLE among them), or `""` when there are no masks.
        findings: the faults before cleaning, without outlines that cross themselves: those stay.
        changes: the number of changes over all splits, by the code of the fault or by a name of
            `findings.CHANGES`.
        dropped_images: split to file name to the code of the fault that dropped the image.
    """

    splits: dict[str, CocoDict]
    classes: tuple[str, ...]
    mask_format: str
    findings: Findings
    changes: dict[str, int]
    dropped_images: dict[str, dict[str, str]]


@collector_paused()
def clean_coco(
    splits: Mapping[str, CocoDict],
    *,
    classes: Sequence[str] = (),
    masks: str = "auto",
    crowds: str = "keep",
    reorder_corners: bool = False,
    facts: Facts | None = None,
    drop: Mapping[str, Mapping[str, str]] | None = None,
    refuse: bool = False,
) -> CleanExport:
    """Clean all splits of an export with one list of classes and one decision about masks.

    The table `persondet.data.findings.CODES` says how each fault is mended. `area` becomes that of
    the mask (pixels, as COCO rasterises it) or of the box where there is no mask. Annotations get
    ids from 1. `info` and `licenses` are added where they are missing.

    Args:
        splits: split name to a COCO dict as `read_coco` returns it; not modified.
        classes: the classes to keep, in this order; empty: all but grouping ones.
        masks: `"none"` drops all masks. `"auto"` does the same when fewer than a tenth of the
            annotations (over all splits) have one; otherwise, and with `"polygon"`, `"bitmask"`,
            `"box"`, every annotation that lacks a mask gets its filled box as one. Dropping it
            would teach that a person is background, and Detectron2 cannot train on a mixture.
            `"polygon"` refuses RLE masks, `"bitmask"` asks for rasters also where all are polygons.
        crowds: `"object"` makes an object of every crowd, `"keep"` does not.
        reorder_corners: put the corners of four-cornered outlines that cross themselves in order.
        facts: facts about the image files; None: trust the jsons.
        drop: split to file name to code: more images to drop, counted under the code.
        refuse: raise where mending would drop an image with its annotations.

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
    inspection = inspect_coco(
        splits,
        classes=classes,
        facts=facts,
        drop=drop,
        crossings=False,
        crowds_as_objects=crowds == "object",
        reorder_corners=reorder_corners,
    )
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
    finished = {s: _finished(inspection, s, splits[s], changes) for s in inspection.images}
    return CleanExport(
        splits={split: coco for split, coco in finished.items() if coco["images"]},
        classes=inspection.table.names,
        mask_format=mask_format,
        findings=inspection.findings,
        changes=dict(+changes),
        dropped_images=inspection.dropped_images,
    )


def _refusal(finding: Finding) -> str:
    """Return the sentence for a fault that is not mended unasked."""
    example, code = finding.examples[0], finding.code
    where = f"{example.split}: " + (f"{example.file!r}: " if example.file else "")
    detail = f" ({example.detail})" if example.detail else ""
    more = f", and {finding.count - 1} more like it" if finding.count > 1 else ""
    command = remedy([code.name])
    how = code.mend.removeprefix("refused: ")
    mend = f"`python tools/prepare_dataset.py {command}` writes a dataset without it ({how})"
    if command == "export":
        mend = "mend the json, or export the dataset again"
    return f"{where}{code.meaning}{detail}{more}; {mend}."


def _finished(inspection: Inspection, split: str, raw: CocoDict, changes: Counter[str]) -> CocoDict:
    found, ids = inspection.annotations[split], inspection.table.ids
    changes.update(found.changes)
    sizes = {image["id"]: (image["height"], image["width"]) for image in inspection.images[split]}
    for number, (annotation, name) in enumerate(
        zip(found.kept, found.class_names, strict=True), start=1
    ):
        changes["id-renumbered"] += annotation.get("id") != number
        changes["category-renumbered"] += annotation["category_id"] != ids[name]
        mask, size = annotation["segmentation"], sizes[annotation["image_id"]]
        area = mask_area(mask, *size) if mask else annotation["bbox"][2] * annotation["bbox"][3]
        if mask and area == 0:
            # What clipping left, or a box, thinner than a pixel: the pixels it touches.
            annotation["segmentation"] = [touched_pixels(annotation["bbox"], *size)]
            area = mask_area(annotation["segmentation"], *size)
        changes["area-recomputed"] += annotation.get("area") != area
        annotation |= {"id": number, "category_id": ids[name], "area": area}
    info, licenses = raw.get("info"), raw.get("licenses")
    return {
        **raw,
        "info": info if isinstance(info, dict) else {},
        "licenses": licenses if isinstance(licenses, list) else [],
        "categories": list(inspection.table.records.values()),
        "images": inspection.images[split],
        "annotations": found.kept,
    }


def _settle_masks(annotations: list[dict[str, Any]], masks: str, changes: Counter[str]) -> str:
    if not annotations:
        raise DatasetError(
            "no annotation is left after cleaning; check the classes asked for and the export."
        )
    with_mask = sum(bool(annotation["segmentation"]) for annotation in annotations)
    if with_mask == 0 and masks in ("polygon", "bitmask"):
        raise DatasetError(
            f"masks {masks!r} was asked for, but no annotation has one; use "
            "DATASETS.ROBOFLOW.MASKS 'none' for boxes only, or 'box' to take the filled box as the "
            "mask."
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


# The copy on disk


def clean_dataset(
    root: str | Path,
    output: str | Path,
    *,
    classes: Sequence[str] = (),
    masks: str = "auto",
    crowds: str = "keep",
    reorder_corners: bool = False,
    drop_leaks: bool = False,
    overwrite: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a clean copy of an export as `output/<split>/`; the source is not touched.

    Images become hard links to the source, or copies where the file system refuses links. The
    folder appears only when it is complete. The same source gives the same bytes.

    Args:
        root: the export's folder.
        output: the folder to write.
        classes, masks, crowds, reorder_corners: see `clean_coco`.
        drop_leaks: drop an image from train or valid if a later split has a version of it.
        overwrite: replace an existing `output`.
        workers: processes that decode images; 0: one per core.
        progress: called with the number of images read and of all.

    Returns: what stands in `output/cleaning.json`: `version` (1), `options`, `source` (SHA-256 of
    each split's json), `splits` (images and annotations before and after), `classes`, `masks`
    (`polygon`, `bitmask` or ""), `changes` (see `CleanExport.changes`), `dropped_images`,
    `left_out` (splits without a usable image).

    Raises:
        DatasetError: when the export cannot be read, or not be cleaned without a decision.
        OutputExistsError: when `output` is a used folder and `overwrite` is False.
    """
    root, output = Path(root), Path(output)
    refuse_existing(output, overwrite=overwrite)
    refuse_nesting(root, output)
    export = read_export(root)
    facts = look_at_images(export, workers=workers, progress=progress)
    leaks = leaks_of(facts).to_drop if drop_leaks else {}
    drop = {split: dict.fromkeys(names, "leak-dropped") for split, names in leaks.items()}
    asked: dict[str, Any] = {
        "classes": list(classes),
        "masks": masks,
        "crowds": crowds,
        "reorder_corners": reorder_corners,
    }
    try:
        clean = clean_coco(export.splits, facts=facts, drop=drop, **asked)
    except DatasetError as error:
        raise DatasetError(f"{root}: {error}") from None
    options = asked | {"drop_leaks": drop_leaks}
    record = _record(export, clean, options)
    with atomic_folder(output, overwrite=overwrite) as draft:
        for split, coco in clean.splits.items():
            source = export.folders[split]
            write_split(draft / split, coco, [(source, i["file_name"]) for i in coco["images"]])
        copy_readmes(export.root, draft)
        write_json(draft / CLEANING, record)
    return record


def write_split(target: Path, coco: CocoDict, sources: Iterable[tuple[Path, Any]]) -> None:
    """Write one split: the json, and its images as hard links or, where refused, copies.

    An image without a file is left out.

    Args:
        target: folder to make.
        coco: images whose `file_name` is relative to `target`.
        sources: for each image the folder that it is from, and its file name there.

    Raises: DatasetError: when a name leads out of its folder, or an image cannot be written.
    """
    target.mkdir(parents=True)
    try:
        for image, (source, name) in zip(coco["images"], sources, strict=True):
            # os.path, as it takes a name that is too long for one of no file.
            if name and isinstance(name, str) and os.path.isfile(source / name):  # noqa: PTH113
                link = path_inside(target, image["file_name"])
                if not os.path.lexists(link):
                    link_or_copy(path_inside(source, name).resolve(), link)
        write_coco(target / ANNOTATION_FILE, coco)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DatasetError(
            f"{target.parent.parent}: an image cannot be written there ({reason}); "
            "choose another --output."
        ) from error


def _record(export: Export, clean: CleanExport, options: Mapping[str, Any]) -> dict[str, Any]:
    splits: dict[str, dict[str, int]] = {split: {} for split in clean.splits}
    for split, counts in splits.items():
        for key in ("images", "annotations"):
            counts[key] = len(clean.splits[split][key])
            counts[f"{key}_before"] = len(export.splits[split][key])
    return {
        "version": 1,
        "options": dict(options),
        "source": {
            split: sha256_of_file(folder / ANNOTATION_FILE)
            for split, folder in export.folders.items()
        },
        "splits": splits,
        "classes": list(clean.classes),
        "masks": clean.mask_format,
        "changes": export.changes | clean.changes,
        "dropped_images": {split: names for split, names in clean.dropped_images.items() if names},
        "left_out": [split for split in export.splits if split not in clean.splits],
    }


# What changes in single images


@dataclass(frozen=True)
class ChangedImage:
    """An image with annotations that cleaning changes.

    Attributes:
        path: the image; None when its name leads out of the folder.
        before: the annotations as the json has them, of any content.
        after: the cleaned ones; None when the image is dropped.
        origins: index into `before` of each of `after` (into that of the other record where two
            records of one file were merged).
        codes: the codes of what was found, most frequent first.
    """

    path: Path | None
    before: list[dict[str, Any]]
    after: list[dict[str, Any]] | None
    origins: tuple[int, ...]
    codes: tuple[str, ...]


def changed_images(
    root: str | Path, split: str, *, classes: Sequence[str] = (), masks: str = "auto"
) -> list[ChangedImage]:
    """Return the images of a split that cleaning changes, in the order of the json.

    Only visible changes count: boxes, masks and dropped objects, not ids and areas. This reads the
    headers of the images, not their pixels.

    Args:
        root: the export's folder.
        split: `train`, `valid` or `test`.
        classes, masks: see `clean_coco`.

    Raises: DatasetError: when the export cannot be read or cleaned, or lacks the split.
    """
    export = read_export(root)
    if split not in export.splits:
        raise DatasetError(f"{root} has no {split} split; choose another --split.")
    facts = look_at_images(export, decode=False)
    raw, _ = with_numbers(export.splits[split])
    before = _by_image(raw)
    marked = [one | {_ORIGIN: n} for group in before.values() for n, one in enumerate(group)]
    splits = {**export.splits, split: raw | {"annotations": marked}}
    clean = clean_coco(splits, classes=classes, masks=masks, facts=facts)
    cleaned = clean.splits.get(split, {"images": [], "annotations": []})
    after = _by_image(cleaned)
    kept = {image["file_name"]: image["id"] for image in cleaned["images"]}
    changed = []
    for image in raw["images"]:
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
            continue
        name, number = image["file_name"], image.get("id")
        old = before[number] if type(number) is int else []
        new = after[kept[name]] if name in kept else None
        if new is not None and _shapes(old) == _shapes(new):
            continue
        one = {**raw, "images": [image], "annotations": old}
        codes = inspect_coco({split: one}, facts={split: facts[split]}).findings.counts()
        seen = [code for code, _ in Counter(codes).most_common() if _VISIBLE.match(code)]
        path = None if leads_out(name) else export.folders[split] / name
        origins = tuple(one.pop(_ORIGIN) for one in new or ())
        changed.append(ChangedImage(path, old, new, origins, tuple(seen)))
    return changed


def _by_image(coco: CocoDict) -> defaultdict[int, list[dict[str, Any]]]:
    groups: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in coco["annotations"]:
        if isinstance(annotation, dict) and type(annotation.get("image_id")) is int:
            groups[annotation["image_id"]].append(annotation)
    return groups


def _shapes(annotations: Sequence[dict[str, Any]]) -> list[tuple[Any, Any]]:
    return [(one.get("bbox"), one.get("segmentation") or []) for one in annotations]


_ORIGIN = "persondet_origin"  # a key that cleaning hands on, as all that it does not know
# Codes of what an image with its annotations drawn can show.
_VISIBLE = re.compile(
    r"(?!annotation-id|image-without)(image|file|annotation|box|mask|polygon|rle)-"
)

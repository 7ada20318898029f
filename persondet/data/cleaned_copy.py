"""Write a cleaned copy of an export, and show what cleaning changes in single images.

The copy has the mended jsons of `persondet.data.clean` and links to the images. This file stands
above `persondet.data.check` and `persondet.data.leaks`."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persondet.data.check.images import read_headers
from persondet.data.check.validate import leaks_of, look_at_images
from persondet.data.clean import CleanExport, clean_coco
from persondet.data.coco_json import CocoDict, write_coco
from persondet.data.inspect import inspect_coco
from persondet.data.leaks.find import Leaks
from persondet.data.roboflow import ANNOTATION_FILE, Export, copy_readmes, file_names, read_export
from persondet.environment import Progress
from persondet.errors import DatasetError
from persondet.files import (
    atomic_folder,
    leads_out,
    link_or_copy,
    path_inside,
    refuse_existing,
    write_json,
)

CLEANING = "cleaning.json"


def clean_dataset(
    root: str | Path,
    output: str | Path,
    *,
    classes: Sequence[str] = (),
    masks: str = "auto",
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
        classes, masks: see `persondet.data.clean.clean_coco`.
        drop_leaks: drop an image from train or valid if a later split has a version of it.
        overwrite: replace an existing `output`.
        workers: processes that decode images; 0: one per core.
        progress: called with the number of images read and of all.

    Returns: what stands in `output/cleaning.json`: `version` (1), `options`, `source` (SHA-256 of
    each split's json), `splits` (images and annotations before and after), `classes`, `masks`
    (`polygon`, `bitmask` or ""), `changes` (see `CleanExport.changes`), `dropped_images`.

    Raises:
        DatasetError: when the export cannot be read, or not be cleaned without a decision.
        OutputExistsError: when `output` is a used folder and `overwrite` is False.
    """
    root, output = Path(root), Path(output)
    refuse_existing(output, overwrite=overwrite)
    refuse_nesting(root, output)
    export = read_export(root)
    facts = look_at_images(export, workers=workers, progress=progress)
    drop: dict[str, dict[str, str]] = {}
    if drop_leaks:
        drop = _to_drop(leaks_of(facts))
    try:
        clean = clean_coco(export.splits, classes=classes, masks=masks, facts=facts, drop=drop)
    except DatasetError as error:
        raise DatasetError(f"{root}: {error}") from None
    options = {"classes": list(classes), "masks": masks, "drop_leaks": drop_leaks}
    record = _record(export, clean, options)
    with atomic_folder(output, overwrite=overwrite) as draft:
        for split, coco in clean.splits.items():
            source = export.folders[split]
            write_split(draft / split, coco, [(source, i["file_name"]) for i in coco["images"]])
        copy_readmes(export.root, draft)
        write_json(draft / CLEANING, record)
    return record


def write_split(
    target: Path, coco: CocoDict, sources: Iterable[tuple[Path, Any]], *, missing: bool = False
) -> None:
    """Write one split: the json, and its images as hard links or, where refused, copies.

    Args:
        target: folder to make.
        coco: images whose `file_name` is relative to `target`.
        sources: for each image the folder that it is from, and its file name there.
        missing: leave out images whose file is not there or stands there already.

    Raises: DatasetError: when a name leads out of its folder, or an image cannot be written.
    """
    target.mkdir(parents=True)
    try:
        for image, (source, name) in zip(coco["images"], sources, strict=True):
            if missing and not (_is_name(name) and _is_name(image["file_name"])):
                continue
            file = path_inside(source, name).resolve()
            link = path_inside(target, image["file_name"])
            if missing and (not _is_file(file) or os.path.lexists(link)):
                continue
            link_or_copy(file, link)
        write_coco(target / ANNOTATION_FILE, coco)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DatasetError(
            f"{target.parent.parent}: an image cannot be written there ({reason}); "
            "choose another --output."
        ) from error


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name is too long for a file
        return False


def refuse_nesting(root: Path, output: Path) -> None:
    """Refuse an output inside its source, and a source inside its output.

    Raises: DatasetError: naming both.
    """
    source, target = root.resolve(), output.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise DatasetError(
            f"{output} and its source {root} lie one in the other; choose an --output beside it."
        )


def _to_drop(leaks: Leaks) -> dict[str, dict[str, str]]:
    drop: dict[str, dict[str, str]] = {}
    for split, names in leaks.to_drop.items():
        drop[split] = dict.fromkeys(names, "leak-dropped")
    return drop


def _record(export: Export, clean: CleanExport, options: Mapping[str, Any]) -> dict[str, Any]:
    splits = {
        split: {
            "images": len(clean.splits[split]["images"]),
            "images_before": len(export.splits[split]["images"]),
            "annotations": len(clean.splits[split]["annotations"]),
            "annotations_before": len(export.splits[split]["annotations"]),
        }
        for split in clean.splits
    }
    source = {
        split: hashlib.sha256((folder / ANNOTATION_FILE).read_bytes()).hexdigest()
        for split, folder in export.folders.items()
    }
    return {
        "version": 1,
        "options": dict(options),
        "source": source,
        "splits": splits,
        "classes": list(clean.classes),
        "masks": clean.mask_format,
        "changes": clean.changes,
        "dropped_images": {split: names for split, names in clean.dropped_images.items() if names},
    }


@dataclass(frozen=True)
class ChangedImage:
    """An image with annotations that cleaning changes.

    Attributes:
        path: the image; None when its name leads out of the folder.
        before: the annotations as the json has them, of any content.
        after: the cleaned ones; None when the image is dropped.
        origins: index into `before` of each of `after`.
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
        classes, masks: see `persondet.data.clean.clean_coco`.

    Raises: DatasetError: when the export cannot be read or cleaned, or lacks the split.
    """
    export = read_export(root)
    if split not in export.splits:
        raise DatasetError(f"{root} has no {split} split; choose another --split.")
    facts = {
        name: read_headers(export.folders[name], file_names(coco))
        for name, coco in export.splits.items()
    }
    clean = clean_coco(export.splits, classes=classes, masks=masks, facts=facts)
    raw, cleaned = export.splits[split], clean.splits.get(split, {"images": [], "annotations": []})
    before = _by_image(raw)
    after = _by_image(cleaned)
    kept = {image["file_name"]: image["id"] for image in cleaned["images"]}
    changed = []
    for image in raw["images"]:
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
            continue
        name, number = image["file_name"], image.get("id")
        old = before.get(number, []) if type(number) is int else []
        new = after[kept[name]] if name in kept else None
        if new is not None and _shapes(old) == _shapes(new):
            continue
        one = {**raw, "images": [image], "annotations": old}
        codes = inspect_coco({split: one}, facts={split: facts[split]}).findings.counts()
        seen = [code for code, _ in Counter(codes).most_common() if _is_of_images(code)]
        path = None if leads_out(name) else export.folders[split] / name
        changed.append(ChangedImage(path, old, new, _origins(old, new or ()), tuple(seen)))
    return changed


def _by_image(coco: CocoDict) -> dict[int, list[dict[str, Any]]]:
    groups: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in coco["annotations"]:
        number = annotation.get("image_id") if isinstance(annotation, dict) else None
        if type(number) is int:
            groups[number].append(annotation)
    return groups


def _shapes(annotations: Sequence[dict[str, Any]]) -> list[tuple[Any, Any]]:
    return [(one.get("bbox"), one.get("segmentation") or []) for one in annotations]


def _origins(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> tuple[int, ...]:
    """Return where each cleaned annotation comes from: the order is kept, some are left out."""
    origins: list[int] = []
    start = 0
    for number, one in enumerate(after):
        last = len(before) - len(after) + number  # so that enough are left for the others
        same = (
            index
            for index in range(start, last + 1)
            if before[index].get("bbox") == one["bbox"]
            or (one["segmentation"] and before[index].get("segmentation") == one["segmentation"])
        )
        origins.append(min(next(same, start), len(before) - 1))
        start = origins[-1] + 1
    return tuple(origins)


def _is_of_images(code: str) -> bool:
    starts = ("image-", "file-", "annotation-", "box-", "mask-", "polygon-", "rle-")
    unseen = ("annotation-id", "image-without")
    return code.startswith(starts) and not code.startswith(unseen)

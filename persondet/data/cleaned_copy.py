"""Write the cleaned copy of an export: its jsons mended, its images linked.

What cleaning changes in single images: their annotations before and after.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persondet.data.check.images import read_headers
from persondet.data.check.validate import leaks_of, look_at_images
from persondet.data.clean import CleanExport, clean_coco
from persondet.data.coco_json import CocoDict, write_coco
from persondet.data.inspect.dataset import inspect_coco
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

    Images are hard links to the source's, copies where the file system refuses links. The folder
    appears under its name only when it is complete. The same source gives the same bytes.

    Args:
        root: the export's folder.
        output: the folder to write.
        classes, masks: see `persondet.data.clean.clean_coco`.
        drop_leaks: drop from the splits that learn what a later split has a version of.
        overwrite: replace an existing `output`.
        workers: processes or threads that load images; 0: one per core.
        progress: called with the number of images looked at and of all.

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
            write_split(draft / split, coco, export.folders[split])
        copy_readmes(export.root, draft)
        write_json(draft / CLEANING, record)
    return record


def write_split(target: Path, coco: CocoDict, source: Path) -> None:
    """Write one split: the json, and its images as hard links or, where refused, copies.

    Args:
        target: folder to make.
        coco: images whose `file_name` is relative to both folders.
        source: the folder with the images.

    Raises: DatasetError: when a name leads out of `source`, or an image cannot be written.
    """
    target.mkdir(parents=True)
    try:
        for image in coco["images"]:
            file = path_inside(source, image["file_name"]).resolve()
            link_or_copy(file, path_inside(target, image["file_name"]))
        write_coco(target / ANNOTATION_FILE, coco)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DatasetError(
            f"{target.parent.parent}: an image of {source} cannot be written there ({reason}); "
            "choose another place."
        ) from error


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
    """One image whose annotations cleaning changes.

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

    Only what can be seen counts: boxes, masks, and what is dropped; not ids and areas. The
    headers of the images are read, not their pixels.

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

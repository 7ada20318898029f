"""What cleaning changes in single images: their annotations before and after."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persondet.data.clean import clean_coco
from persondet.data.coco_json import CocoDict
from persondet.data.image_records import leads_out
from persondet.data.inspection import inspect_coco
from persondet.data.roboflow import file_names, read_export
from persondet.data.validation.image_files import read_headers
from persondet.errors import DatasetError


@dataclass(frozen=True)
class ChangedImage:
    """One image whose annotations cleaning changes.

    Attributes:
        path: the picture; None when its name leads out of the folder.
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
    headers of the pictures are read, not their pixels.

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

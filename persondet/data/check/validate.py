"""Check a whole export: its jsons, its images, and the images that its splits share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from persondet.data.check.images import decode_splits, read_headers
from persondet.data.check.statistics import dataset_statistics
from persondet.data.inspect import inspect_coco
from persondet.data.inspect.images import ImageFacts
from persondet.data.leaks.find import ExportImage, Leaks, find_leaks
from persondet.data.roboflow import SPLIT_FOLDERS, Export, file_names, read_export
from persondet.environment import Progress

Facts = dict[str, dict[str, ImageFacts]]

IMAGE_SUFFIXES = frozenset(".bmp .gif .jpeg .jpg .png .tif .tiff .webp".split())


def check_export(
    root: str | Path, *, decode: bool = True, workers: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """Check an export: return its contents and its faults; change nothing.

    Args:
        root: the export's folder (see `persondet.data.roboflow.find_export`).
        decode: decode every image, to find broken and near-identical ones; False: headers only.
        workers: processes that decode images; 0: one per core.
        progress: called with the number of images done and of all.

    Returns: plain lists and dicts: `version` (1), `splits` (split to folder name), `statistics`,
    `findings` (see `Findings.as_json`), `errors` and `warnings` (numbers of codes), `leaks`.

    Raises: DatasetError: when there is no export, a json cannot be read, or none names an image.
    """
    export = read_export(root)
    facts = look_at_images(export, decode=decode, workers=workers, progress=progress)
    findings = inspect_coco(export.splits, facts=facts).findings
    for split in SPLIT_FOLDERS:
        if split not in export.splits:
            findings.add("split-missing", split)
    for split, folder in export.folders.items():
        for name in sorted(_unlisted(folder, facts[split])):
            findings.add("file-not-listed", split, name)
    leaks = leaks_of(facts)
    leaks.add_to(findings)
    return {
        "version": 1,
        "splits": {split: folder.name for split, folder in export.folders.items()},
        "statistics": dataset_statistics(export.splits),
        "findings": findings.as_json(),
        "errors": len(findings.of("error")),
        "warnings": len(findings.of("warning")),
        "leaks": leaks.as_json(),
    }


def look_at_images(
    export: Export, *, decode: bool = True, workers: int = 0, progress: Progress | None = None
) -> Facts:
    """Read the image files of an export; return the facts by split and file name.

    Args:
        export: the jsons and their folders.
        decode: decode every image instead of reading headers only.
        workers: processes that decode images; 0: one per core.
        progress: called with the number of images done and of all.
    """
    names = {split: file_names(coco) for split, coco in export.splits.items()}
    if decode:
        return decode_splits(export.folders, names, workers=workers, progress=progress)
    return {split: read_headers(folder, names[split]) for split, folder in export.folders.items()}


def leaks_of(facts: Facts) -> Leaks:
    """Find the images that splits share; see `find_leaks`.

    Args:
        facts: split to file name to facts.
    """
    return find_leaks(
        [
            ExportImage(split, name, fact.digest, fact.hashes, fact.thumbnail)
            for split, found in facts.items()
            for name, fact in found.items()
            if not fact.problem
        ]
    )


def _unlisted(folder: Path, listed: dict[str, ImageFacts]) -> Iterator[str]:
    """Yield the images of a split's folder that its json does not list, as relative names."""
    known = {os.path.normpath(name) for name in listed}
    for base, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        for name in files:
            path = Path(base, name)
            is_image = path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
            relative = path.relative_to(folder).as_posix()
            if is_image and relative not in known:
                yield relative

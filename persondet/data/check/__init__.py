"""Check a whole export: its jsons, its images, the images that its splits share, its statistics."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import numpy.typing as npt

from persondet.data.check.images import decode_splits, read_headers
from persondet.data.image_file import is_image_name
from persondet.data.inspect import inspect_coco
from persondet.data.inspect.categories import text_and_id
from persondet.data.inspect.images import ImageFacts
from persondet.data.leaks.find import ExportImage, Leaks, find_leaks, source_name
from persondet.data.roboflow import SPLIT_FOLDERS, Export, file_names, list_files, read_export
from persondet.environment import Progress

Facts = dict[str, dict[str, ImageFacts]]
FloatArray = npt.NDArray[np.float64]

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
SMALL, LARGE = 32.0, 96.0
"""Sides in pixels (√area) at which COCO's evaluation separates small, medium and large."""
_SAMPLE = 2000
_SIZES = 50
# Beyond these, a number is a fault: nobody has such images, and squares of it stay finite.
_MOST_PIXELS = 1e6
_MOST_COORDINATE = 1e7


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
    `findings` (see `Findings.as_json`), `errors` and `warnings` (numbers of codes), `leaks`, and
    `leaks_not_compared` (images that the search's budget left out).

    Raises: DatasetError: when there is no export, a json cannot be read, or none names an image.
    """
    export = read_export(root)
    facts = look_at_images(export, decode=decode, workers=workers, progress=progress)
    inspection = inspect_coco(export.splits, facts=facts)
    findings = inspection.findings
    if list(export.splits) == ["train"] and len(facts["train"]) > 1:
        findings.add("split-single", "train")
    else:
        for split in (name for name in SPLIT_FOLDERS if name not in export.splits):
            findings.add("train-missing" if split == "train" else "split-missing", split)
    for split, folder in export.folders.items():
        listed = {os.path.normpath(name) for name in facts[split]}
        for name in list_files(folder):
            if is_image_name(name) and name not in listed:
                findings.add("file-not-listed", split, name)
        for name, file in export.respelled[split].items():
            same = normalize("NFC", name) == normalize("NFC", file)  # they look alike
            detail = f"{name!a} in the json" if same else f"{name!r} in the json"
            findings.add("file-name-spelled", split, file, detail=detail)
        for name, fact in facts[split].items():
            if fact.detail and not fact.problem:
                findings.add("image-grey-scaled", split, name, detail=fact.detail)
    leaks = leaks_of(facts)
    leaks.add_to(findings)
    return {
        "version": 1,
        "splits": {split: folder.name for split, folder in export.folders.items()},
        "statistics": dataset_statistics(inspection.splits),
        "findings": findings.as_json(),
        "errors": len(findings.of("error")),
        "warnings": len(findings.of("warning")),
        "leaks": leaks.as_json(),
        "leaks_not_compared": leaks.not_compared,
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
        facts = decode_splits(export.folders, names, workers=workers, progress=progress)
    else:
        facts = {split: read_headers(export.folders[split], names[split]) for split in names}
    lies_in: dict[str, str] = {}
    for split, found in facts.items():
        for name, fact in found.items():
            if not fact.problem:
                lies_in[name] = f"{lies_in[name]} and {split}" if name in lies_in else split
    for found in facts.values():
        for name, fact in found.items():
            if fact.problem == "file-missing" and name in lies_in:
                found[name] = ImageFacts("file-of-other-split", f"it lies in {lies_in[name]}")
    return facts


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


# Statistics


@dataclass(frozen=True)
class _Split:
    """One split in arrays, with N annotations and M images; faults are -1, 0 or NaN."""

    names: list[str]  # of the categories, each once
    sizes: FloatArray  # (M, 2): width and height of the images; 0: not known
    image_of: npt.NDArray[np.int64]  # (N,): index of the image, -1: not known
    class_of: npt.NDArray[np.int64]  # (N,): index into names, -1: not known
    boxes: FloatArray  # (N, 4): x, y, width, height; NaN where that is no box
    masks: Counter[str]
    sources: int  # different images before augmentation, as far as names tell


def dataset_statistics(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return statistics of the COCO dicts of an export as plain lists and dicts of finite numbers.

    Records may be anything: what is no box, no size or no known id is left out of the number that
    needs it, and nothing is raised. Sizes are in pixels of the stored images.

    Args:
        splits: split to its COCO dict.

    Returns: dict with
        `splits`: split to `images`, `annotations`, `without_annotations` (images),
        `per_image` (annotations: `mean`, `max`, `histogram` [[annotations, images], …]);
        `classes`: [{`name`, `boxes`: split to number}], the most frequent first;
        `unknown_class`: annotations of a category that is not listed;
        `box_sizes`: `boxes` (valid ones), `small`, `medium`, `large` (shares of them by √area:
        under 32, under 96, from 96 pixels), `quantile_levels`, and quantiles of `side` (√area),
        `height`, `relative_side` (to √area of the image), `relative_height` (to its height) and
        `aspect` (width to height), None without boxes;
        `box_sample`: `side`, `width`, `height`: √area of at most 2,000 boxes, evenly taken from all
        in the order of their size, and the sizes of their images;
        `masks`: numbers of `polygon`, `rle`, `empty` (a box only) and `other` (a fault);
        `image_sizes`: [{`width`, `height`, `images`}], the 50 most frequent; `image_sizes_total`:
        how many different ones there are; `image_sizes_unknown`: images whose json has none.
    """
    read = {split: _read(coco) for split, coco in splits.items()}
    every = [size for part in read.values() for size in part.sizes.astype(int).tolist()]
    sizes = Counter((width, height) for width, height in every if width)
    usual = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:_SIZES]
    masks = sum((part.masks for part in read.values()), Counter[str]())
    return {
        "splits": {split: _outline(part) for split, part in read.items()},
        "classes": _classes(read),
        "unknown_class": int(sum((part.class_of < 0).sum() for part in read.values())),
        **_boxes(list(read.values())),
        "masks": {kind: masks[kind] for kind in ("polygon", "rle", "empty", "other")},
        "image_sizes": [{"width": w, "height": h, "images": count} for (w, h), count in usual],
        "image_sizes_total": len(sizes),
        "image_sizes_unknown": len(every) - sizes.total(),
    }


def _outline(part: _Split) -> dict[str, Any]:
    counts = np.bincount(part.image_of[part.image_of >= 0], minlength=len(part.sizes))
    return {
        "images": len(part.sizes),
        "annotations": len(part.image_of),
        "without_annotations": int((counts == 0).sum()),
        "sources": part.sources,
        "per_image": {
            "mean": round(float(counts.mean()), 3) if len(counts) else 0.0,
            "max": int(counts.max(initial=0)),
            "histogram": np.stack(np.unique(counts, return_counts=True), axis=1).tolist(),
        },
    }


def _classes(read: Mapping[str, _Split]) -> list[dict[str, Any]]:
    numbers: dict[str, dict[str, int]] = {}
    for split, part in read.items():
        counts = np.bincount(part.class_of[part.class_of >= 0], minlength=len(part.names))
        for name, count in zip(part.names, counts.tolist(), strict=True):
            numbers.setdefault(name, dict.fromkeys(read, 0))[split] = count
    order = sorted(numbers, key=lambda name: (-sum(numbers[name].values()), name))
    return [{"name": name, "boxes": numbers[name]} for name in order]


def _boxes(parts: Sequence[_Split]) -> dict[str, Any]:
    """Return the entries `box_sizes` and `box_sample`."""
    boxes = np.concatenate([np.empty((0, 4)), *(part.boxes for part in parts)])
    unknown = np.zeros((1, 2))  # what index -1 picks
    images = np.concatenate(
        [unknown[:0], *(np.concatenate([part.sizes, unknown])[part.image_of] for part in parts)]
    )
    valid = (boxes[:, 2:] > 0).all(axis=1)
    width, height = boxes[valid, 2], boxes[valid, 3]
    side, images = np.sqrt(width * height), images[valid]
    known = images[:, 0] > 0
    quantiles = {
        "side": side,
        "height": height,
        "relative_side": side[known] / np.sqrt(images[known].prod(axis=1)),
        "relative_height": height[known] / images[known, 1],
        "aspect": width / height,
    }
    shares = np.histogram(side, [0, SMALL, LARGE, np.inf])[0] / max(1, len(side))
    sampled = np.flatnonzero(known)[np.argsort(side[known], kind="stable")]
    # The middles of equal parts of the sorted boxes; all of them when there are few.
    count = min(_SAMPLE, len(sampled))
    sampled = sampled[((np.arange(count) + 0.5) * len(sampled) / max(1, count)).astype(np.int64)]
    return {
        "box_sizes": {
            "boxes": len(side),
            **dict(zip(("small", "medium", "large"), shares.round(4).tolist(), strict=True)),
            "quantile_levels": list(QUANTILES),
            **{
                key: np.quantile(values, QUANTILES).round(4).tolist() if len(values) else None
                for key, values in quantiles.items()
            },
        },
        "box_sample": {
            "side": side[sampled].round(2).tolist(),
            "width": images[sampled, 0].astype(int).tolist(),
            "height": images[sampled, 1].astype(int).tolist(),
        },
    }


def _read(coco: Mapping[str, Any]) -> _Split:
    """Turn one COCO dict into arrays, whatever it holds."""
    images, annotations = _records(coco, "images"), _records(coco, "annotations")
    names: dict[str, int] = {}
    categories: dict[int, int] = {}
    for category in _records(coco, "categories"):
        name, number = text_and_id(category, "name")
        index = names.setdefault("?" if name is None else name, len(names))
        if number is not None:
            categories.setdefault(number, index)
    named = [text_and_id(image, "file_name") for image in images]
    numbers: dict[int | None, int] = {}
    for index, (_, number) in enumerate(named):
        numbers.setdefault(number, index)
    sizes = [(_pixels(image.get("width")), _pixels(image.get("height"))) for image in images]
    both = np.array(sizes, np.float64).reshape(-1, 2)
    both[(both == 0).any(axis=1)] = 0
    boxes = [annotation.get("bbox") for annotation in annotations]
    return _Split(
        list(names),
        both,
        _indices(annotations, "image_id", numbers),
        _indices(annotations, "category_id", categories),
        np.array([box if _is_box(box) else _NO_BOX for box in boxes], np.float64).reshape(-1, 4),
        Counter(_mask_kind(annotation.get("segmentation")) for annotation in annotations),
        len({source_name(name) or name for name, _ in named if name is not None}),
    )


def _records(coco: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    return [record for record in coco[key] if isinstance(record, dict)]


def _indices(
    annotations: Sequence[Mapping[str, Any]], key: str, numbers: Mapping[Any, int]
) -> npt.NDArray[np.int64]:
    values = [annotation.get(key) for annotation in annotations]
    found = [numbers.get(value, -1) if type(value) is int else -1 for value in values]
    return np.array(found, np.int64)


def _pixels(value: Any) -> int:
    """Return a plausible width or height, else 0."""
    return int(value) if type(value) in (int, float) and 1 <= value <= _MOST_PIXELS else 0


_NO_BOX = [math.nan] * 4


def _is_box(box: Any) -> bool:
    return (
        type(box) is list
        and len(box) == 4
        and all(type(value) in (int, float) and abs(value) <= _MOST_COORDINATE for value in box)
    )


def _mask_kind(segmentation: Any) -> str:
    if isinstance(segmentation, list):
        return "polygon" if any(part not in ([], None) for part in segmentation) else "empty"
    if isinstance(segmentation, dict):
        return "rle" if "counts" in segmentation else "other"
    return "empty" if segmentation is None else "other"

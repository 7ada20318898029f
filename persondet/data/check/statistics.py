"""What is in an export, in numbers: splits, classes, objects per image, sizes, masks."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from persondet.data.leaks.find import source_name

FloatArray = npt.NDArray[np.float64]

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
SMALL, LARGE = 32.0, 96.0
"""Sides in pixels (√area) at which COCO's evaluation parts small, medium and large."""
_SAMPLE = 2000
_SIZES = 50
# Beyond these, a number is a fault: nobody has such images, and squares of it stay finite.
_MOST_PIXELS = 1e6
_MOST_COORDINATE = 1e7


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
    """Return what is in the COCO dicts of an export, as plain lists and dicts of finite numbers.

    Every field may be anything: what is no box, no size or no known id is left out of the number
    that needs it, and nothing is raised. Sizes are in pixels of the stored images.

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
    sizes = Counter(
        (int(width), int(height))
        for part in read.values()
        for width, height in part.sizes.tolist()
        if width
    )
    images = sum(len(part.sizes) for part in read.values())
    masks = sum((part.masks for part in read.values()), Counter[str]())
    return {
        "splits": {split: _outline(part) for split, part in read.items()},
        "classes": _classes(read),
        "unknown_class": int(sum((part.class_of < 0).sum() for part in read.values())),
        **_boxes(list(read.values())),
        "masks": {kind: masks[kind] for kind in ("polygon", "rle", "empty", "other")},
        "image_sizes": [
            {"width": width, "height": height, "images": count}
            for (width, height), count in sorted(sizes.items(), key=lambda x: (-x[1], x[0]))[
                :_SIZES
            ]
        ],
        "image_sizes_total": len(sizes),
        "image_sizes_unknown": images - sizes.total(),
    }


def _outline(part: _Split) -> dict[str, Any]:
    counts = np.bincount(part.image_of[part.image_of >= 0], minlength=len(part.sizes))
    values, images = np.unique(counts, return_counts=True)
    return {
        "images": len(part.sizes),
        "annotations": len(part.image_of),
        "without_annotations": int((counts == 0).sum()),
        "sources": part.sources,
        "per_image": {
            "mean": round(float(counts.mean()), 3) if len(counts) else 0.0,
            "max": int(counts.max(initial=0)),
            "histogram": [
                list(pair) for pair in zip(values.tolist(), images.tolist(), strict=True)
            ],
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
    boxes = np.concatenate([part.boxes for part in parts] or [np.empty((0, 4))])
    unknown = np.zeros((1, 2))  # what index -1 picks
    images = np.concatenate(
        [np.concatenate([part.sizes, unknown])[part.image_of] for part in parts]
        or [np.empty((0, 2))]
    )
    valid = (boxes[:, 2:] > 0).all(axis=1)
    width, height = boxes[valid, 2], boxes[valid, 3]
    side, images = np.sqrt(width * height), images[valid]
    known = images[:, 0] > 0
    total = max(1, len(side))
    quantiles = {
        "side": side,
        "height": height,
        "relative_side": side[known] / np.sqrt(images[known].prod(axis=1)),
        "relative_height": height[known] / images[known, 1],
        "aspect": width / height,
    }
    sampled = np.flatnonzero(known)[np.argsort(side[known], kind="stable")]
    # The middles of equal parts of the sorted boxes; all of them when there are few.
    count = min(_SAMPLE, len(sampled))
    sampled = sampled[((np.arange(count) + 0.5) * len(sampled) / max(1, count)).astype(np.int64)]
    return {
        "box_sizes": {
            "boxes": len(side),
            "small": round(float((side < SMALL).sum()) / total, 4),
            "medium": round(float(((side >= SMALL) & (side < LARGE)).sum()) / total, 4),
            "large": round(float((side >= LARGE).sum()) / total, 4),
            "quantile_levels": list(QUANTILES),
            **{key: _quantiles(values) for key, values in quantiles.items()},
        },
        "box_sample": {
            "side": np.round(side[sampled], 2).tolist(),
            "width": images[sampled, 0].astype(int).tolist(),
            "height": images[sampled, 1].astype(int).tolist(),
        },
    }


def _quantiles(values: FloatArray) -> list[float] | None:
    return np.round(np.quantile(values, QUANTILES), 4).tolist() if len(values) else None


def _read(coco: Mapping[str, Any]) -> _Split:
    """Turn one COCO dict into arrays, whatever it holds."""
    images, annotations = _records(coco, "images"), _records(coco, "annotations")
    names: dict[str, int] = {}
    categories: dict[Any, int] = {}
    for category in _records(coco, "categories"):
        name = category.get("name")
        index = names.setdefault(name if isinstance(name, str) else "?", len(names))
        if _is_id(category.get("id")):
            categories.setdefault(category["id"], index)
    numbers: dict[Any, int] = {}
    for index, image in enumerate(images):
        if _is_id(image.get("id")):
            numbers.setdefault(image["id"], index)
    sizes = [(_pixels(image.get("width")), _pixels(image.get("height"))) for image in images]
    both = np.array(sizes, np.float64).reshape(-1, 2)
    both[(both == 0).any(axis=1)] = 0
    return _Split(
        list(names),
        both,
        _indices(annotations, "image_id", numbers),
        _indices(annotations, "category_id", categories),
        _box_array([annotation.get("bbox") for annotation in annotations]),
        Counter(_mask_kind(annotation.get("segmentation")) for annotation in annotations),
        _sources(images),
    )


def _sources(images: Sequence[Mapping[str, Any]]) -> int:
    names = (image.get("file_name") for image in images)
    known = {source_name(name) or name for name in names if isinstance(name, str)}
    return len(known)


def _records(coco: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    records = coco.get(key)
    return [r for r in records if isinstance(r, dict)] if isinstance(records, list) else []


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) or (isinstance(value, float) and math.isfinite(value))


def _indices(
    annotations: Sequence[Mapping[str, Any]], key: str, numbers: Mapping[Any, int]
) -> npt.NDArray[np.int64]:
    values = [annotation.get(key) for annotation in annotations]
    try:
        found = [numbers.get(value, -1) for value in values]
    except TypeError:  # a list or dict stands there
        found = [numbers.get(value, -1) if _is_id(value) else -1 for value in values]
    return np.array(found, np.int64)


def _pixels(value: Any) -> int:
    """Return a width or height that can be one, else 0."""
    usual = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if usual and 1 <= value <= _MOST_PIXELS else 0


def _box_array(boxes: list[Any]) -> FloatArray:
    """Return boxes (N, 4) as floats, with NaN in what is no box."""
    if not _all_boxes(boxes):
        lost = [math.nan] * 4
        boxes = [box if _is_box(box) else lost for box in boxes]
    array = np.array(boxes, np.float64).reshape(-1, 4)
    array[~(np.abs(array) <= _MOST_COORDINATE).all(axis=1)] = math.nan
    return array


def _all_boxes(boxes: list[Any]) -> bool:
    """Return whether all are four numbers, without a look at each: most exports are well."""
    if not set(map(type, boxes)) <= {list} or not set(map(len, boxes)) <= {4}:
        return False
    numbers = list(itertools.chain.from_iterable(boxes))
    kinds = set(map(type, numbers))
    return kinds <= {int, float} and (int not in kinds or max(map(abs, numbers)) < 2**53)


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, list | tuple)
        and len(box) == 4
        and all(type(value) in (int, float) and abs(value) <= _MOST_COORDINATE for value in box)
    )


def _mask_kind(segmentation: Any) -> str:
    if isinstance(segmentation, list):
        # A list of one filled polygon, before the general case: it is what nearly all have.
        if len(segmentation) == 1 and segmentation[0]:
            return "polygon"
        return "polygon" if any(part not in ([], None) for part in segmentation) else "empty"
    if isinstance(segmentation, dict):
        return "rle" if "counts" in segmentation else "other"
    return "empty" if segmentation is None else "other"

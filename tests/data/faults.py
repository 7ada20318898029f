"""Every way in which an annotation or an image of an export can be wrong, as a table.

`FAULTS` names for each code of `persondet.data.findings` how to break k annotations or
images of a random valid export in that way, and what has to become of them.
"""

from __future__ import annotations

import copy
import io
import math
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.exports import (
    Annotation,
    Coco,
    Export,
    compressed_rle,
    encoded,
    picture,
    random_export,
    raster,
    raster_area,
    tag,
)

GONE = object()  # in place of a value: the key is missing
NAN, INF = float("nan"), float("inf")
MASKS = ("polygons", "rle", "mixed")
POLYGONS = ("polygons", "mixed")
RLE = ("rle", "mixed")

Rng = np.random.Generator
Verdict = Callable[[Annotation, Annotation, Coco], None]
"""Asserts about (broken annotation's valid original, cleaned annotation, cleaned image)."""


@dataclass
class Broken:
    """An export with k faults of one kind, and what is known of them.

    Attributes:
        export: the broken export.
        counts: split to the number of faults.
        annotations: tags of the annotations that were touched.
        images: (split, file name) of the images that were touched, as valid.
        files: the file names that an example may name, as valid and as broken.
        dropped: tags of annotations that `clean` must drop.
        dropped_images: (split, file name) of images that `clean` must drop.
        verdicts: tag to what must hold of the cleaned annotation; a touched annotation without
            one must come back byte for byte as it is in the broken export.
        added: images in no json.
    """

    export: Export
    counts: Counter[str] = field(default_factory=Counter)
    annotations: set[int] = field(default_factory=set)
    images: set[tuple[str, str]] = field(default_factory=set)
    files: list[Any] = field(default_factory=list)
    dropped: set[int] = field(default_factory=set)
    dropped_images: set[tuple[str, str]] = field(default_factory=set)
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    added: set[tuple[str, str]] = field(default_factory=set)

    @property
    def count(self) -> int:
        return self.counts.total()


@dataclass(frozen=True)
class Fault:
    """One way to break an export.

    Attributes:
        code: the code that `check` must name.
        how: tells apart the ways of one code.
        kinds: the kinds of export that can be broken in this way.
        break_export: (export, random numbers, k) to what came of it; None: not this export.
    """

    code: str
    how: str
    kinds: tuple[str, ...]
    break_export: Callable[[Export, Rng, int], Broken | None]

    @property
    def name(self) -> str:
        return f"{self.code}-{self.how}" if self.how else self.code

    def random(self, seed: int, k: int) -> tuple[Export, Broken]:
        """A random valid export and the same, broken in up to k places (at least in one)."""
        rng = np.random.default_rng([seed, 1])
        for attempt in range(50):
            valid = random_export(seed + attempt * 1_000_003, str(rng.choice(self.kinds)))
            broken = self.break_export(valid.copy(), rng, k)
            if broken is not None and broken.count:
                return valid, broken
        raise AssertionError(f"no export for {self.name}")


FAULTS: list[Fault] = []
ANY = ("polygons", "rle", "mixed", "boxes")


def put(record: dict[str, Any], key: str, value: Any) -> None:
    if value is GONE:
        record.pop(key, None)
    else:
        record[key] = copy.deepcopy(value)


def pick(rng: Rng, values: tuple[Any, ...]) -> Any:
    return values[int(rng.integers(len(values)))]


# Annotations, one by one

Break = Callable[[Annotation, Coco, Rng], "Verdict | str | None"]
"""Breaks (annotation, its image, random numbers) and says what becomes of it: `"dropped"`,
`"kept"`, a verdict, or None: this one cannot be broken in this way."""


def annotation_fault(
    code: str, how: str = "", kinds: tuple[str, ...] = ANY
) -> Callable[[Break], Break]:
    """Add a way to break one annotation to the table."""

    def register(spoil: Break) -> Break:
        def break_export(export: Export, rng: Rng, k: int) -> Broken | None:
            broken = Broken(export)
            candidates = list(export.annotations())
            # Half of the annotations keep what they have: a mask, a class, an image.
            limit = min(k, max(1, (len(candidates) - 1) // 2))
            for index in rng.permutation(len(candidates)):
                split, image, annotation = candidates[index]
                if broken.count == limit or len(candidates) < 3:
                    break
                before = copy.deepcopy(annotation)
                is_rle = isinstance(annotation["segmentation"], dict)
                if (kinds is POLYGONS and is_rle) or (kinds is RLE and not is_rle):
                    continue
                fate = spoil(annotation, image, rng)
                if fate is None:
                    annotation.clear()
                    annotation.update(before)
                    continue
                broken.counts[split] += 1
                broken.annotations.add(tag(before))
                broken.files.append(image["file_name"])
                if fate == "dropped":
                    broken.dropped.add(tag(before))
                elif fate != "kept":
                    assert not isinstance(fate, str)
                    broken.verdicts[tag(before)] = fate
            return broken

        FAULTS.append(Fault(code, how, kinds, break_export))
        return spoil

    return register


def value_fault(
    code: str,
    keys: tuple[str, ...],
    values: tuple[Any, ...],
    fate: Callable[[Annotation], Verdict | str],
    kinds: tuple[str, ...] = ANY,
) -> None:
    """Add to the table: one of `values` takes the place of one of `keys`."""

    def spoil(annotation: Annotation, image: Coco, rng: Rng) -> Verdict | str:
        put(annotation, pick(rng, keys), pick(rng, values))
        return fate(annotation)

    annotation_fault(code, kinds=kinds)(spoil)


def as_before(*changed: str, close: bool = False) -> Verdict:
    """The annotation is what it was before it was broken.

    Args:
        changed: keys that may differ.
        close: numbers of the box may differ by what float32 loses.
    """

    def verdict(valid: Annotation, cleaned: Annotation, image: Coco) -> None:
        free = {"id", "category_id", *changed}
        if close:
            assert cleaned["bbox"] == pytest.approx(valid["bbox"], abs=1e-3)
            free.add("bbox")
        if valid["segmentation"]:
            assert cleaned["area"] == pytest.approx(valid["area"], abs=1e-6)
        free.add("area")
        assert {k: v for k, v in cleaned.items() if k not in free} == {
            k: v for k, v in valid.items() if k not in free
        }

    return verdict


def filled_box(valid: Annotation, cleaned: Annotation, image: Coco) -> None:
    """The mask is the box, filled, and the rest is what it was."""
    as_before("segmentation", "area")({**valid, "segmentation": []}, cleaned, image)
    is_box(cleaned)


def is_box(cleaned: Annotation) -> None:
    x, y, w, h = cleaned["bbox"]
    assert len(cleaned["segmentation"]) == 1
    points = np.asarray(cleaned["segmentation"][0]).reshape(-1, 2)
    corners = {(x, y), (x + w, y), (x, y + h), (x + w, y + h)}
    assert {(round(px, 6), round(py, 6)) for px, py in points} == {
        (round(px, 6), round(py, 6)) for px, py in corners
    }


def without_part(index: int) -> Verdict:
    """One part of the mask is gone; where it was the only one, the mask is the filled box."""

    def verdict(valid: Annotation, cleaned: Annotation, image: Coco) -> None:
        rest = [part for number, part in enumerate(valid["segmentation"]) if number != index]
        if not rest:
            filled_box(valid, cleaned, image)
            return
        as_before("segmentation", "area")({**valid, "segmentation": []}, cleaned, image)
        assert cleaned["segmentation"] == rest
        assert cleaned["area"] == raster_area(rest, image["height"], image["width"])

    return verdict


value_fault(
    "annotation-malformed",
    ("image_id", "category_id"),
    (GONE, None, "1", 1.5, [1], {}, True, NAN),
    lambda annotation: "dropped",
)


value_fault(
    "annotation-unknown-image", ("image_id",), (99_999, -5, 10**30), lambda annotation: "dropped"
)


value_fault(
    "annotation-unknown-category", ("category_id",), (99, -1, 10**30), lambda annotation: "dropped"
)


value_fault(
    "annotation-id-invalid",
    ("id",),
    (GONE, None, "7", 2.5, [1], NAN),
    lambda annotation: as_before(),
)


@annotation_fault("crowd-flag-invalid")
def _crowd(annotation: Annotation, image: Coco, rng: Rng) -> Verdict:
    value = pick(rng, (GONE, None, 2, -1, "1", "0", 0.5, [], NAN))
    put(annotation, "iscrowd", value)

    def verdict(valid: Annotation, cleaned: Annotation, image: Coco) -> None:
        as_before("iscrowd")(valid, cleaned, image)
        expected = (1,) if value == "1" else (0,) if value in (GONE, None, "0") else (0, 1)
        assert type(cleaned["iscrowd"]) is int
        assert cleaned["iscrowd"] in expected

    return verdict


# Boxes


def _lost_box(annotation: Annotation) -> Verdict | str:
    return as_before(close=True) if annotation["segmentation"] else "dropped"


@annotation_fault("box-invalid")
def _box_invalid(annotation: Annotation, image: Coco, rng: Rng) -> Verdict | str:
    x, y, w, h = annotation["bbox"]
    wrong = (GONE, None, [], [x, y, w], [x, y, w, h, 1], ["a", y, w, h], [None, y, w, h], "box")
    wrong += ([x, y, NAN, h], [NAN] * 4, [x, INF, w, h], {"x": x}, [[x, y, w, h]], 5, [x, y, w, []])
    put(annotation, "bbox", pick(rng, wrong))
    return _lost_box(annotation)


@annotation_fault("box-negative")
def _box_negative(annotation: Annotation, image: Coco, rng: Rng) -> Verdict | str:
    side = int(rng.integers(2, 4))
    annotation["bbox"][side] = -annotation["bbox"][side]
    return _lost_box(annotation)


@annotation_fault("box-zero")
def _box_zero(annotation: Annotation, image: Coco, rng: Rng) -> Verdict | str:
    annotation["bbox"][int(rng.integers(2, 4))] = pick(rng, (0, 0.0))
    return _lost_box(annotation)


def clipped(box: list[float], *, far: bool = False) -> Verdict:
    def verdict(valid: Annotation, cleaned: Annotation, image: Coco) -> None:
        as_before("bbox")(valid, cleaned, image)
        x, y, w, h = box
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + w, image["width"]), min(y + h, image["height"])
        rest = [left, top, right - left, bottom - top]
        if far and valid["segmentation"] and overlap(rest, valid["bbox"]) < 0.5:
            assert overlap(cleaned["bbox"], valid["bbox"]) > 0.9  # the mask knew better
        else:
            assert cleaned["bbox"] == pytest.approx(rest, abs=1e-6)

    return verdict


def overlap(one: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes XYWH."""
    ends = [min(one[axis] + one[axis + 2], other[axis] + other[axis + 2]) for axis in (0, 1)]
    sides = [max(0.0, end - max(one[axis], other[axis])) for axis, end in enumerate(ends)]
    shared = sides[0] * sides[1]
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


@annotation_fault("box-outside", "in part")
def _box_partly_outside(annotation: Annotation, image: Coco, rng: Rng) -> Verdict:
    box = annotation["bbox"]
    axis = int(rng.integers(2))
    size = (image["width"], image["height"])[axis]
    beyond = float(rng.uniform(0.51, box[2 + axis] - 1))
    box[axis] = -beyond if rng.integers(2) else size - box[2 + axis] + beyond
    return clipped(list(box), far=True)


@annotation_fault("box-outside", "entirely")
def _box_entirely_outside(annotation: Annotation, image: Coco, rng: Rng) -> Verdict | str:
    axis = int(rng.integers(2))
    size = (image["width"], image["height"])[axis]
    annotation["bbox"][axis] = pick(rng, (size + 1.0, size, -annotation["bbox"][2 + axis], 1e7))
    return _lost_box(annotation)


@annotation_fault("box-outside-slightly")
def _box_slightly_outside(annotation: Annotation, image: Coco, rng: Rng) -> Verdict:
    box = annotation["bbox"]
    axis = int(rng.integers(2))
    size = (image["width"], image["height"])[axis]
    beyond = float(pick(rng, (0.5, 0.25, 0.031)))
    if rng.integers(2):
        box[axis] = -beyond
    else:
        box[2 + axis] = float(np.floor(box[2 + axis]))
        box[axis] = size - box[2 + axis] + beyond
    return clipped(list(box))


@annotation_fault("box-tiny")
def _box_tiny(annotation: Annotation, image: Coco, rng: Rng) -> str:
    annotation["bbox"][int(rng.integers(2, 4))] = pick(rng, (1.5, 1, 0.2))
    return "kept"


@annotation_fault("box-beside-mask", kinds=MASKS)
def _box_beside_mask(annotation: Annotation, image: Coco, rng: Rng) -> str | None:
    """The box lies in a quarter of the image in which the mask does not."""
    x, y, w, h = annotation["bbox"]
    width = image["width"]
    left = x + w / 2 < width / 2
    annotation["bbox"] = [width / 2 if left else 0, y, width / 2, h]
    ends_before = x + w <= width / 2 if left else x >= width / 2
    return "kept" if ends_before else None


# Masks


value_fault(
    "mask-invalid", ("segmentation",), ("mask", 5, 1.5, True), lambda _: filled_box, kinds=MASKS
)


value_fault("mask-missing", ("segmentation",), (GONE, None, []), lambda _: filled_box, kinds=MASKS)


def _any_part(annotation: Annotation, rng: Rng) -> int:
    return int(rng.integers(len(annotation["segmentation"])))


@annotation_fault("polygon-flat", kinds=POLYGONS)
def _polygon_flat(annotation: Annotation, image: Coco, rng: Rng) -> Verdict | None:
    if len(annotation["segmentation"]) > 1:
        return None
    annotation["segmentation"] = annotation["segmentation"][0]
    return as_before()


@annotation_fault("polygon-invalid", kinds=POLYGONS)
def _polygon_invalid(annotation: Annotation, image: Coco, rng: Rng) -> Verdict | None:
    index = _any_part(annotation, rng)
    part = annotation["segmentation"][index]
    wrong = ([*part[:-1], None], [*part[:-1], "1"], [*part[:-1], NAN], [INF, *part[1:]])
    wrong += ("polygon", {"x": 1}, None, [part], [*part[:-2], [1, 2]])
    annotation["segmentation"][index] = pick(rng, wrong)
    return without_part(index)


@annotation_fault("polygon-odd", kinds=POLYGONS)
def _polygon_odd(annotation: Annotation, image: Coco, rng: Rng) -> Verdict | None:
    index = _any_part(annotation, rng)
    annotation["segmentation"][index].pop()
    return without_part(index)


@annotation_fault("mask-without-pixels", kinds=POLYGONS)
def _mask_without_pixels(annotation: Annotation, image: Coco, rng: Rng) -> Verdict | None:
    x, y, w, h = annotation["bbox"]
    for shift in np.arange(0, 1, 0.05).tolist():
        left = math.floor(x + w / 2) + shift
        sliver = [left, y, left + 0.2, y, left + 0.2, y + h, left, y + h]
        if raster_area([sliver], image["height"], image["width"]) == 0:
            break
    else:
        return None
    annotation["segmentation"] = [sliver]
    return filled_box


@annotation_fault("polygon-short", kinds=POLYGONS)
def _polygon_short(annotation: Annotation, image: Coco, rng: Rng) -> Verdict | None:
    index = _any_part(annotation, rng)
    annotation["segmentation"][index] = annotation["segmentation"][index][: pick(rng, (2, 4))]
    return without_part(index)


@annotation_fault("polygon-empty", kinds=POLYGONS)
def _polygon_empty(annotation: Annotation, image: Coco, rng: Rng) -> Verdict | None:
    index = _any_part(annotation, rng)
    x, y, w, _ = annotation["bbox"]
    line = [x, y, x + w / 2, y, x + w, y]
    wrong = ([], [x, y] * 3, line, [*line, x + w / 2, y])
    annotation["segmentation"][index] = pick(rng, wrong)
    return without_part(index)


def clipped_mask(valid: Annotation, cleaned: Annotation, image: Coco, moved: Annotation) -> None:
    """The mask is what is left of the moved one inside the image, by an independent raster."""
    width, height = image["width"], image["height"]
    points = np.concatenate([np.reshape(part, (-1, 2)) for part in cleaned["segmentation"]])
    assert points.min() >= 0
    assert points[:, 0].max() <= width
    assert points[:, 1].max() <= height
    pad = 200
    shifted = [[value + pad for value in part] for part in moved["segmentation"]]
    whole = raster(shifted, height + 2 * pad, width + 2 * pad)
    expected = whole[pad : pad + height, pad : pad + width].astype(bool)
    got = raster(cleaned["segmentation"], height, width).astype(bool)
    assert cleaned["area"] == got.sum()
    # A raster decides about pixels on the outline by rounding.
    edge = len(points) + 2 * (width + height)
    assert (got ^ expected).sum() <= min(0.15 * max(expected.sum(), 40), edge)
    as_before("segmentation", "area")({**valid, "segmentation": []}, cleaned, image)


@annotation_fault("polygon-outside", "in part", kinds=POLYGONS)
def _polygon_partly_outside(annotation: Annotation, image: Coco, rng: Rng) -> Verdict | None:
    index, axis = _any_part(annotation, rng), int(rng.integers(2))
    points = np.reshape(annotation["segmentation"][index], (-1, 2)).copy()
    size = (image["width"], image["height"])[axis]
    beyond = float(rng.uniform(0.51, np.ptp(points[:, axis]) / 2))
    if rng.integers(2):
        points[:, axis] -= points[:, axis].min() + beyond
    else:
        points[:, axis] += size - points[:, axis].max() + beyond
    annotation["segmentation"][index] = points.reshape(-1).tolist()
    moved = copy.deepcopy(annotation)
    return lambda valid, cleaned, image: clipped_mask(valid, cleaned, image, moved)


@annotation_fault("polygon-outside", "entirely", kinds=POLYGONS)
def _polygon_entirely_outside(annotation: Annotation, image: Coco, rng: Rng) -> Verdict | None:
    index = _any_part(annotation, rng)
    beyond = float(pick(rng, (-100.0, 100.0, 1e6)))
    annotation["segmentation"][index] = [v + beyond for v in annotation["segmentation"][index]]
    return without_part(index)


@annotation_fault("polygon-outside-slightly", kinds=POLYGONS)
def _polygon_slightly_outside(annotation: Annotation, image: Coco, rng: Rng) -> Verdict | None:
    index, axis = _any_part(annotation, rng), int(rng.integers(2))
    points = np.reshape(annotation["segmentation"][index], (-1, 2)).copy()
    size = (image["width"], image["height"])[axis]
    beyond = float(pick(rng, (0.5, 0.25, 0.031)))
    extreme = points[:, axis].max()
    target = -beyond if rng.integers(2) else size + beyond
    points[:, axis] += target - (points[:, axis].min() if target < 0 else extreme)
    low, high = points[:, axis].min(), points[:, axis].max()
    if max(-low, high - size) > 0.5:  # the last bit
        return None
    annotation["segmentation"][index] = points.reshape(-1).tolist()
    moved = copy.deepcopy(annotation)
    return lambda valid, cleaned, image: clipped_mask(valid, cleaned, image, moved)


@annotation_fault("polygon-self-intersecting", kinds=POLYGONS)
def _polygon_crossing(annotation: Annotation, image: Coco, rng: Rng) -> str | None:
    x, y, w, h = annotation["bbox"]
    right, low = min(x + w, image["width"]), min(y + h, image["height"])
    # The even bow-tie has no signed area at all, and is no empty polygon for that.
    even = [x, y, right, low, right, y, x, low]
    uneven = [x, y, right, low, right, y + h / 4, x, low]
    annotation["segmentation"] = [pick(rng, (even, uneven))]
    area = raster_area(annotation["segmentation"], image["height"], image["width"])
    if area == 0:
        return None
    annotation["area"] = area
    return "kept"


@annotation_fault("rle-size", kinds=RLE)
def _rle_size(annotation: Annotation, image: Coco, rng: Rng) -> Verdict | None:
    height, width = image["height"], image["width"]
    wrong = ([width, height], [height + 1, width], [height, width - 1], [2 * height, 2 * width])
    annotation["segmentation"]["size"] = pick(rng, wrong)
    return filled_box


@annotation_fault("rle-invalid", kinds=RLE)
def _rle_invalid(annotation: Annotation, image: Coco, rng: Rng) -> Verdict | None:
    pixels = image["height"] * image["width"]
    wrong = (GONE, None, 5, "\x7f\x00", "~~~", [pixels - 1], [10, pixels], [-1, pixels + 1])
    wrong += ([pixels - 5.5, 5.5], ["1", pixels - 1], [pixels - 4, NAN], {"a": 1}, "0", "P" * 70)
    put(annotation["segmentation"], "counts", pick(rng, wrong))
    return filled_box


@annotation_fault("rle-empty", kinds=RLE)
def _rle_empty(annotation: Annotation, image: Coco, rng: Rng) -> Verdict | None:
    height, width = image["height"], image["width"]
    zeros = compressed_rle(np.zeros((height, width), np.uint8))
    annotation["segmentation"] = pick(
        rng, ({"counts": [height * width], "size": [height, width]}, zeros)
    )
    return filled_box


@annotation_fault("area-invalid")
def _area_invalid(annotation: Annotation, image: Coco, rng: Rng) -> Verdict:
    put(annotation, "area", pick(rng, (GONE, None, 0, -4.5, "12", NAN, INF, [1])))

    def verdict(valid: Annotation, cleaned: Annotation, image: Coco) -> None:
        as_before()(valid, cleaned, image)
        if not valid["segmentation"]:
            assert cleaned["area"] == pytest.approx(valid["bbox"][2] * valid["bbox"][3])

    return verdict


@annotation_fault("area-of-box", kinds=MASKS)
def _area_of_box(annotation: Annotation, image: Coco, rng: Rng) -> Verdict | None:
    area = annotation["bbox"][2] * annotation["bbox"][3]
    if area - annotation["area"] < 0.08 * area:
        return None
    annotation["area"] = round(area, 3)
    return as_before()


# Annotations that are wrong together with others


def fault(code: str, how: str = "", kinds: tuple[str, ...] = ANY) -> Callable[..., Any]:
    """Add a way to break an export as a whole to the table."""

    def register(break_export: Callable[[Export, Rng, int], Broken | None]) -> Any:
        FAULTS.append(Fault(code, how, kinds, break_export))
        return break_export

    return register


def _touch(broken: Broken, split: str, image: Coco, annotation: Annotation | None = None) -> None:
    broken.counts[split] += 1
    broken.files.append(image["file_name"])
    if annotation is None:
        broken.images.add((split, image["file_name"]))
    else:
        broken.annotations.add(tag(annotation))


@fault("annotation-malformed", "no object")
def _no_object(export: Export, rng: Rng, k: int) -> Broken | None:
    broken = Broken(export)
    split, _, _ = next(iter(export.annotations()))
    coco = export.splits[split]
    count = min(k, (len(coco["annotations"]) - 1) // 2)
    for index in rng.permutation(len(coco["annotations"]))[:count]:
        broken.dropped.add(tag(coco["annotations"][index]))
        coco["annotations"][index] = pick(rng, (None, "x", 5, []))
    broken.annotations |= broken.dropped
    broken.counts[split] = count
    broken.files.append("")
    return broken


@fault("annotation-id-zero")
def _id_zero(export: Export, rng: Rng, k: int) -> Broken | None:
    broken = Broken(export)
    for split in list(export.splits)[:k]:  # two of one split would be one id twice
        mine = [entry for entry in export.annotations() if entry[0] == split]
        _, image, annotation = mine[int(rng.integers(len(mine)))]
        _touch(broken, split, image, annotation)
        annotation["id"] = 0
        broken.verdicts[tag(annotation)] = as_before()
    return broken


@fault("annotation-id-twice")
def _id_twice(export: Export, rng: Rng, k: int) -> Broken | None:
    broken = Broken(export)
    for split in export.splits:
        mine = [entry for entry in export.annotations() if entry[0] == split]
        order = rng.permutation(len(mine))
        for one, other in zip(order[0::2], order[1::2], strict=False):
            if broken.count < k:
                _, image, annotation = mine[one]
                annotation["id"] = mine[other][2]["id"]
                _touch(broken, split, image, annotation)
                # Which of the two stands first is of no concern.
                broken.files.append(mine[other][1]["file_name"])
                broken.verdicts[tag(annotation)] = as_before()
    return broken


@fault("annotation-repeated")
def _repeated(export: Export, rng: Rng, k: int) -> Broken | None:
    broken = Broken(export)
    candidates = list(export.annotations())
    for index in rng.permutation(len(candidates))[:k]:
        split, image, annotation = candidates[index]
        again = copy.deepcopy(annotation)
        again["id"] = pick(rng, (10_000 + int(index), again["id"]))
        coco = export.splits[split]
        behind = coco["annotations"].index(annotation) + 1
        coco["annotations"].insert(int(rng.integers(behind, len(coco["annotations"]) + 1)), again)
        _touch(broken, split, image, annotation)
    return broken


# Images


def image_fault(
    code: str, how: str = "", kinds: tuple[str, ...] = ANY, *, dropped: bool = True
) -> Callable[..., Any]:
    """Add a way to break one image to the table.

    The function gets (export, split, image, random numbers) and returns whether it was possible.
    """

    def register(spoil: Callable[[Export, str, Coco, Rng], bool]) -> Any:
        def break_export(export: Export, rng: Rng, k: int) -> Broken | None:
            broken = Broken(export)
            for split, coco in export.splits.items():
                annotated = {annotation["image_id"] for annotation in coco["annotations"]}
                order = [coco["images"][index] for index in rng.permutation(len(coco["images"]))]
                keep = next(image for image in order if image["id"] in annotated)
                for image in order:
                    valid = copy.deepcopy(image)
                    if image is keep or broken.count == k:
                        continue
                    if not spoil(export, split, image, rng):
                        continue
                    broken.counts[split] += 1
                    broken.images.add((split, valid["file_name"]))
                    broken.files += [valid["file_name"], image.get("file_name", "")]
                    if dropped:
                        broken.dropped_images.add((split, valid["file_name"]))
                        broken.dropped |= {
                            tag(annotation)
                            for annotation in coco["annotations"]
                            if annotation["image_id"] == valid["id"]
                        }
            return broken

        FAULTS.append(Fault(code, how, kinds, break_export))
        return spoil

    return register


def _file(export: Export, split: str, image: Coco) -> bytes:
    return export.files[split, image["file_name"]]


def _opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


@image_fault("image-malformed")
def _image_malformed(export: Export, split: str, image: Coco, rng: Rng) -> bool:
    if rng.integers(2):
        put(image, "id", pick(rng, (GONE, None, "3", 1.5, [], NAN)))
    else:
        put(image, "file_name", pick(rng, (GONE, None, 5, ["a.jpg"])))
    return True


@image_fault("image-size-invalid", dropped=False)
def _size_invalid(export: Export, split: str, image: Coco, rng: Rng) -> bool:
    key = pick(rng, ("width", "height"))
    put(image, key, pick(rng, (GONE, None, 0, -3, "64", 10.5, NAN, [64])))
    return True


@image_fault("file-name-outside")
def _name_outside(export: Export, split: str, image: Coco, rng: Rng) -> bool:
    wrong = ("../x{}.jpg", "/etc/hostname{}", "a/../../x{}.jpg", "../../../../etc/hostname{}")
    image["file_name"] = pick(rng, wrong).format(image["id"])
    return True


@image_fault("file-missing")
def _file_missing(export: Export, split: str, image: Coco, rng: Rng) -> bool:
    if rng.integers(2):
        image["file_name"] = f"nowhere {image['id']}.jpg"
    else:
        del export.files[split, image["file_name"]]
    return True


@image_fault("image-unreadable")
def _unreadable(export: Export, split: str, image: Coco, rng: Rng) -> bool:
    content = _file(export, split, image)
    wrong = [b"", b"<html>not an image</html>", rng.bytes(500), b"\0" * 300]
    if content.startswith(b"\x89PNG"):
        middle = content.index(b"IDAT") + 40
        wrong = [content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]]
    export.files[split, image["file_name"]] = pick(rng, tuple(wrong))
    return True


@image_fault("image-truncated")
def _truncated(export: Export, split: str, image: Coco, rng: Rng) -> bool:
    content = _file(export, split, image)
    marker = b"IDAT" if content.startswith(b"\x89PNG") else b"\xff\xda"
    start = content.rindex(marker) + 16
    share = float(rng.uniform(0.1, 0.7))
    export.files[split, image["file_name"]] = content[: start + int(share * (len(content) - start))]
    return True


@image_fault("image-too-large")
def _too_large(export: Export, split: str, image: Coco, rng: Rng) -> bool:
    """The header says 20,000 x 20,000 (PNG) or 65,000 x 65,000 (JPEG)."""
    content = bytearray(_file(export, split, image))
    if content.startswith(b"\x89PNG"):
        content[16:24] = struct.pack(">II", 20_000, 20_000)
        check = zlib.crc32(content[12:29])
        content[29:33] = struct.pack(">I", check)
    else:
        frame = content.index(b"\xff\xc0")
        content[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    export.files[split, image["file_name"]] = bytes(content)
    return True


@image_fault("image-size-differs", "by some pixels")
def _size_differs(export: Export, split: str, image: Coco, rng: Rng) -> bool:
    image[pick(rng, ("width", "height"))] += int(rng.integers(1, 9))
    return True


@image_fault("image-size-differs", "sides swapped")
def _size_swapped(export: Export, split: str, image: Coco, rng: Rng) -> bool:
    if _opened(_file(export, split, image)).getexif().get(0x112, 1) != 1:
        return False  # that would be another fault
    image["width"], image["height"] = image["height"], image["width"]
    return True


@image_fault("image-orientation", dropped=False)
def _orientation(export: Export, split: str, image: Coco, rng: Rng) -> bool:
    """Upside down or mirrored: the size stays what it was."""
    content = _file(export, split, image)
    opened = _opened(content)
    if opened.format != "JPEG" or opened.getexif().get(0x112, 1) != 1:
        return False
    export.files[split, image["file_name"]] = encoded(
        np.asarray(opened), ".jpg", int(pick(rng, (2, 3, 4)))
    )
    return True


@image_fault("image-without-annotations", dropped=False)
def _without_annotations(export: Export, split: str, image: Coco, rng: Rng) -> bool:
    coco = export.splits[split]
    rest = [a for a in coco["annotations"] if a["image_id"] != image["id"]]
    possible = len(rest) < len(coco["annotations"])
    coco["annotations"] = rest
    return possible


@fault("image-malformed", "no object")
def _image_no_object(export: Export, rng: Rng, k: int) -> Broken | None:
    broken = Broken(export)
    split = next(iter(export.splits))
    coco = export.splits[split]
    annotated = {annotation["image_id"] for annotation in coco["annotations"]}
    keep = next(i for i, image in enumerate(coco["images"]) if image["id"] in annotated)
    for index, image in enumerate(coco["images"]):
        if index != keep and broken.count < k:
            _touch(broken, split, image)
            broken.dropped_images.add((split, image["file_name"]))
            broken.dropped |= {tag(a) for a in coco["annotations"] if a["image_id"] == image["id"]}
            coco["images"][index] = pick(rng, (None, "x", 5, []))
    broken.files.append("")
    return broken


@fault("image-id-twice")
def _image_id_twice(export: Export, rng: Rng, k: int) -> Broken | None:
    """Pairs of images get one id; a pair is one fault, as one annotation id twice is one."""
    broken = Broken(export)
    for split, coco in export.splits.items():
        annotated = {annotation["image_id"] for annotation in coco["annotations"]}
        keep = next(image for image in coco["images"] if image["id"] in annotated)
        rest = [image for image in coco["images"] if image is not keep]
        rest = [rest[index] for index in rng.permutation(len(rest))]
        for one, other in zip(rest[0::2], rest[1::2], strict=False):
            if broken.count < k:
                both = {one["id"], other["id"]}
                one["id"] = other["id"]
                broken.counts[split] += 1
                for image in (one, other):
                    broken.images.add((split, image["file_name"]))
                    broken.files.append(image["file_name"])
                    broken.dropped_images.add((split, image["file_name"]))
                broken.dropped |= {tag(a) for a in coco["annotations"] if a["image_id"] in both}
    return broken


@fault("image-listed-twice")
def _listed_twice(export: Export, rng: Rng, k: int) -> Broken | None:
    """A second entry of the same file has some of its annotations."""
    broken = Broken(export)
    for split, coco in export.splits.items():
        for image in list(coco["images"]):
            mine = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
            if broken.count == k or not mine:
                continue
            again = copy.deepcopy(image) | {"id": image["id"] + 7_000}
            coco["images"].append(again)
            for annotation in mine[: int(rng.integers(1, len(mine) + 1))]:
                annotation["image_id"] = again["id"]
                broken.verdicts[tag(annotation)] = as_before("area")
                broken.annotations.add(tag(annotation))
            _touch(broken, split, image)
    return broken


@fault("file-not-listed")
def _not_listed(export: Export, rng: Rng, k: int) -> Broken | None:
    broken = Broken(export)
    for number in range(k):
        split = str(rng.choice(list(export.splits)))
        name = f"{'abcdefgh'[number]}xtra{number}.png"
        export.files[split, name] = picture(100 + number)[2]
        broken.counts[split] += 1
        broken.added.add((split, name))
        broken.files.append(name)
    return broken


TURNS: dict[int, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]] = {
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
    8: lambda a: np.rot90(a, 1),
}
"""What EXIF's orientations do to a stored image. Source: CIPA DC-008, tag 274."""


@fault("image-rotated")
def _rotated(export: Export, rng: Rng, k: int) -> Broken | None:
    """The camera turned the image after somebody had annotated it as it is stored."""
    broken = Broken(export)
    for split, coco in export.splits.items():
        for image in coco["images"]:
            opened = _opened(_file(export, split, image))
            if broken.count == k or opened.format != "JPEG" or opened.getexif():
                continue
            orientation = int(pick(rng, (5, 6, 7, 8)))
            content = encoded(np.asarray(opened), ".jpg", orientation)
            export.files[split, image["file_name"]] = content
            _touch(broken, split, image)
            stored = (image["height"], image["width"])
            for annotation in coco["annotations"]:
                if annotation["image_id"] == image["id"]:
                    broken.annotations.add(tag(annotation))
                    broken.verdicts[tag(annotation)] = turned_with(orientation, stored)
    return broken


def turned_with(orientation: int, stored: tuple[int, int]) -> Verdict:
    """Box and mask lie where the turned image shows what they lay on before."""

    def verdict(valid: Annotation, cleaned: Annotation, image: Coco) -> None:
        height, width = stored
        assert (image["width"], image["height"]) == (height, width)
        x, y, w, h = valid["bbox"]
        corners = np.array([[x, y], [x + w, y + h]])
        # Where each stored pixel goes, by turning an image of their coordinates.
        grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
        turned = np.stack([TURNS[orientation](grid[..., axis]) for axis in (0, 1)], axis=-1)
        ys, xs = np.mgrid[: turned.shape[0], : turned.shape[1]]
        source = turned.reshape(-1, 2) + 0.5
        target = np.stack([xs, ys], axis=-1).reshape(-1, 2) + 0.5
        matrix, *_ = np.linalg.lstsq(np.c_[source, np.ones(len(source))], target, rcond=None)
        moved = np.c_[corners, [1, 1]] @ matrix
        low, high = moved.min(axis=0), moved.max(axis=0)
        assert cleaned["bbox"] == pytest.approx([*low, *(high - low)], abs=2e-3)
        if valid["segmentation"]:
            before = raster(valid["segmentation"], height, width)
            expected = TURNS[orientation](before).astype(bool)
            got = raster(cleaned["segmentation"], width, height).astype(bool)
            union = (got | expected).sum()
            # Rounding on the outline of a polygon is not symmetric; RLE is exact.
            least = 1.0 if isinstance(valid["segmentation"], dict) else 0.8
            assert (got & expected).sum() >= least * union
            assert cleaned["area"] == got.sum()
        free = {"id", "category_id", "bbox", "area", "segmentation", "keypoints"}
        assert {k: v for k, v in cleaned.items() if k not in free} == {
            k: v for k, v in valid.items() if k not in free
        }

    return verdict


# Leaks: an image of a later split that an earlier one has too


def _leak(
    export: Export, rng: Rng, k: int, content: Any, name: Any, has: str = ""
) -> Broken | None:
    """Copies of images whose name has `has` in it, in a later split than theirs."""
    broken = Broken(export)
    pairs = [
        (earlier, split, image)
        for earlier, image in export.images()
        for split in export.splits
        if has in image["file_name"]
        and list(export.splits).index(earlier) < list(export.splits).index(split)
    ]
    for number in range(min(k, len(pairs))):
        earlier, split, image = pairs[int(rng.integers(len(pairs)))]
        again = copy.deepcopy(image) | {"id": 20_000 + number}
        again["file_name"] = name(image["file_name"], number)
        original = export.files[earlier, image["file_name"]]
        export.files[split, again["file_name"]] = content(original, number)
        export.splits[split]["images"].append(again)
        broken.counts[split] += 1
        broken.files += [again["file_name"], image["file_name"]]
        broken.added.add((split, again["file_name"]))
    return broken


@fault("leak-same-file")
def _same_file(export: Export, rng: Rng, k: int) -> Broken | None:
    def other_name(name: str, number: int) -> str:
        return f"{'qwertz'[number]}copied{name[-4:]}"

    return _leak(export, rng, k, lambda content, _: content, other_name)


@fault("leak-same-source")
def _same_source(export: Export, rng: Rng, k: int) -> Broken | None:
    """Another version of the same source: the name says so, the bytes differ."""

    def version(name: str, number: int) -> str:
        return f"{name.partition('.rf.')[0]}.rf.{rng.bytes(16).hex()}{name[-4:]}"

    return _leak(
        export, rng, k, lambda content, number: content + bytes([number]), version, has=".rf."
    )

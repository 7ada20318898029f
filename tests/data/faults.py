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
    raster_area,
    tag,
)

GONE = object()  # in place of a value: the key is missing
NAN, INF = float("nan"), float("inf")
ANY = ("polygons", "rle", "mixed", "boxes")
MASKS, POLYGONS, RLE = ANY[:3], ("polygons", "mixed"), ("rle", "mixed")

Rng = np.random.Generator
Verdict = Callable[[Annotation, Annotation, Coco], None]
"""Asserts about (broken annotation's valid original, cleaned annotation, cleaned image)."""


@dataclass
class Broken:
    """An export with k faults of one kind, and what is known of them.

    Attributes:
        export: the broken export.
        counts: split to the number of faults.
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
    images: set[tuple[str, str]] = field(default_factory=set)
    files: list[Any] = field(default_factory=list)
    dropped: set[int] = field(default_factory=set)
    dropped_images: set[tuple[str, str]] = field(default_factory=set)
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    added: set[tuple[str, str]] = field(default_factory=set)

    @property
    def count(self) -> int:
        return self.counts.total()

    def touch(self, split: str, image: Coco, *, image_too: bool = False) -> None:
        """Count a fault of an annotation of an image, or of the image itself."""
        self.counts[split] += 1
        self.files.append(image["file_name"])
        if image_too:
            self.images.add((split, image["file_name"]))

    def drop(self, split: str, image: Coco) -> None:
        """Expect that an image goes with its annotations."""
        self.dropped_images.add((split, image["file_name"]))
        annotations = self.export.splits[split]["annotations"]
        self.dropped |= {tag(a) for a in annotations if a["image_id"] == image["id"]}


@dataclass(frozen=True)
class Fault:
    """One way to break an export.

    Attributes:
        code: the code that `check` must name.
        how: tells apart the ways of one code.
        kinds: the kinds of export that can be broken in this way.
        break_export: (broken, export, random numbers, k): breaks up to k places of the export.
    """

    code: str
    how: str
    kinds: tuple[str, ...]
    break_export: Callable[[Broken, Export, Rng, int], None]

    @property
    def name(self) -> str:
        return f"{self.code}-{self.how}" if self.how else self.code

    def random(self, seed: int, k: int) -> tuple[Export, Broken]:
        """A random valid export and the same, broken in up to k places (at least in one)."""
        rng = np.random.default_rng([seed, 1])
        for attempt in range(50):
            valid = random_export(seed + attempt * 1_000_003, str(rng.choice(self.kinds)))
            broken = Broken(valid.copy())
            self.break_export(broken, broken.export, rng, k)
            if broken.count:
                return valid, broken
        raise AssertionError(f"no export for {self.name}")


FAULTS: list[Fault] = []


def fault(code: str, how: str = "", kinds: tuple[str, ...] = ANY) -> Callable[..., Any]:
    """Add a way to break an export as a whole to the table."""

    def register(break_export: Callable[[Broken, Export, Rng, int], None]) -> Any:
        FAULTS.append(Fault(code, how, kinds, break_export))
        return break_export

    return register


def put(record: dict[str, Any], key: str, value: Any) -> None:
    if value is GONE:
        record.pop(key, None)
    else:
        record[key] = copy.deepcopy(value)


def pick(rng: Rng, values: tuple[Any, ...]) -> Any:
    return values[int(rng.integers(len(values)))]


# What becomes of an annotation


def unchanged(valid: Annotation, cleaned: Annotation, *but: str) -> None:
    free = {"id", "category_id", "area", *but}
    assert {k: v for k, v in cleaned.items() if k not in free} == {
        k: v for k, v in valid.items() if k not in free
    }


def restored(valid: Annotation, cleaned: Annotation, image: Coco, *but: str) -> None:
    """The annotation is what it was before it was broken, but for the values under some keys."""
    unchanged(valid, cleaned, *but)
    box_area = cleaned["bbox"][2] * cleaned["bbox"][3]
    expected = valid["area"] if valid["segmentation"] else box_area
    assert cleaned["area"] == pytest.approx(expected, abs=1e-6)


def box_of_mask(valid: Annotation, cleaned: Annotation, image: Coco) -> None:
    restored(valid, cleaned, image, "bbox")
    assert cleaned["bbox"] == pytest.approx(valid["bbox"], abs=1e-3)


def filled_box(valid: Annotation, cleaned: Annotation, image: Coco) -> None:
    """The mask is the box, filled, and the rest is what it was."""
    unchanged(valid, cleaned, "segmentation")
    x, y, w, h = cleaned["bbox"]
    (part,) = cleaned["segmentation"]
    corners = [(x, y), (x, y + h), (x + w, y), (x + w, y + h)]
    points = sorted(map(tuple, np.reshape(part, (-1, 2)).round(6).tolist()))
    assert np.allclose(points, corners, atol=1e-6)


def without_part(index: int) -> Verdict:
    """One part of the mask is gone; where it was the only one, the mask is the filled box."""

    def verdict(valid: Annotation, cleaned: Annotation, image: Coco) -> None:
        rest = [part for number, part in enumerate(valid["segmentation"]) if number != index]
        if not rest:
            filled_box(valid, cleaned, image)
            return
        unchanged(valid, cleaned, "segmentation")
        assert cleaned["segmentation"] == rest
        assert cleaned["area"] == raster_area(rest, image["height"], image["width"])

    return verdict


def clipped_box(box: list[float], *, far: bool) -> Verdict:
    def verdict(valid: Annotation, cleaned: Annotation, image: Coco) -> None:
        restored(valid, cleaned, image, "bbox")
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


def clipped_mask(moved: list[list[float]]) -> Verdict:
    """The mask is what is left of the moved one inside the image."""

    def verdict(valid: Annotation, cleaned: Annotation, image: Coco) -> None:
        unchanged(valid, cleaned, "segmentation")
        width, height = image["width"], image["height"]
        points = np.concatenate([np.reshape(part, (-1, 2)) for part in cleaned["segmentation"]])
        assert points.min() >= 0
        assert (points <= [width, height]).all()
        moved_area = raster_area(moved, height, width)
        assert cleaned["area"] == raster_area(cleaned["segmentation"], height, width)
        # A raster decides about pixels on the outline by rounding.
        assert cleaned["area"] == pytest.approx(moved_area, abs=len(points) + width + height)

    return verdict


# Annotations, one by one

Fate = Verdict | str | None
Break = Callable[[Annotation, Coco, Rng], Fate]
"""Breaks (annotation, its image, random numbers) and says what becomes of it: `"dropped"`,
`"kept"`, a verdict, or None: this one cannot be broken in this way."""


def annotation_fault(
    code: str, how: str = "", kinds: tuple[str, ...] = ANY
) -> Callable[[Break], Break]:
    """Add a way to break one annotation to the table."""

    def register(spoil: Break) -> Break:
        def break_export(broken: Broken, export: Export, rng: Rng, k: int) -> None:
            candidates = list(export.annotations())
            # Half of the annotations keep what they have: a mask, a class, an image.
            limit = min(k, (len(candidates) - 1) // 2)
            for index in rng.permutation(len(candidates)):
                split, image, annotation = candidates[index]
                before = copy.deepcopy(annotation)
                is_rle = isinstance(annotation["segmentation"], dict)
                fits = not (kinds is POLYGONS and is_rle) and not (kinds is RLE and not is_rle)
                if broken.count == limit or not fits:
                    continue
                fate = spoil(annotation, image, rng)
                if fate is None:
                    annotation.clear()
                    annotation.update(before)
                    continue
                broken.touch(split, image)
                if fate == "dropped":
                    broken.dropped.add(tag(before))
                elif not isinstance(fate, str):
                    broken.verdicts[tag(before)] = fate

        fault(code, how, kinds)(break_export)
        return spoil

    return register


def _crowd(valid: Annotation, cleaned: Annotation, image: Coco) -> None:
    restored(valid, cleaned, image, "iscrowd")
    assert type(cleaned["iscrowd"]) is int
    assert cleaned["iscrowd"] in (0, 1)


def _crowd_of_text(valid: Annotation, cleaned: Annotation, image: Coco) -> None:
    assert cleaned["iscrowd"] == 1


# Code, kinds, keys, and the wrong values that take the place of one of them; or a function of the
# right value and of the image's pixels. What becomes of it; None: the box is taken from the mask.
VALUES: list[tuple[str, tuple[str, ...], tuple[str, ...], Any, Verdict | str | None]] = [
    ("annotation-malformed", ANY, ("image_id", "category_id"),
     (GONE, None, "1", 1.5, [1], {}, True, NAN), "dropped"),
    ("annotation-unknown-image", ANY, ("image_id",), (99_999, -5, 10**30), "dropped"),
    ("annotation-unknown-category", ANY, ("category_id",), (99, -1, 10**30), "dropped"),
    ("annotation-id-invalid", ANY, ("id",), (GONE, None, "7", 2.5, [1], NAN), restored),
    ("crowd-flag-invalid", ANY, ("iscrowd",), (GONE, None, 2, -1, "0", 0.5, [], NAN), _crowd),
    ("crowd-flag-invalid", ANY, ("iscrowd",), ("1", "true", " Yes "), _crowd_of_text),
    ("area-invalid", ANY, ("area",), (GONE, None, 0, -4.5, "12", NAN, INF, [1]), restored),
    ("box-invalid", ANY, ("bbox",), lambda b, _: (
        *(GONE, None, [], b[:3], [*b, 1], ["a", *b[1:]], [None, *b[1:]], "box", [*b[:3], []]),
        *([*b[:2], NAN, 1], [NAN] * 4, [b[0], INF, 1, 1], {"x": b[0]}, [b], 5)), None),
    ("box-negative", ANY, ("bbox",), lambda b, _: ([*b[:2], -b[2], b[3]], [*b[:3], -b[3]]), None),
    ("box-zero", ANY, ("bbox",), lambda b, _: ([*b[:2], 0, b[3]], [*b[:3], 0.0]), None),
    ("box-tiny", ANY, ("bbox",), lambda b, _: ([*b[:2], 1.5, b[3]], [*b[:3], 0.2]), "kept"),
    ("mask-invalid", MASKS, ("segmentation",), ("mask", 5, 1.5, True), filled_box),
    ("mask-missing", MASKS, ("segmentation",), (GONE, None, []), filled_box),
    ("rle-invalid", RLE, ("counts",), lambda _, n: (
        *(GONE, None, 5, "\x7f\x00", "~~~", [n - 1], [10, n], [-1, n + 1], [n - 5.5, 5.5]),
        *(["1", n - 1], [n - 4, NAN], {"a": 1}, "0", "P" * 70)), filled_box),
    ("rle-size", RLE, ("size",), lambda s, _: (
        s[::-1], [s[0] + 1, s[1]], [s[0], s[1] - 1], [2 * s[0], 2 * s[1]]), filled_box),
    ("rle-empty", RLE, ("segmentation",), lambda s, n: (
        {**s, "counts": [n]}, compressed_rle(np.zeros(s["size"], np.uint8))), filled_box),
]  # fmt: skip


def _value_fault(keys: tuple[str, ...], wrong: Any, fate: Fate) -> Break:
    def spoil(annotation: Annotation, image: Coco, rng: Rng) -> Fate:
        key = pick(rng, keys)
        record = annotation["segmentation"] if key in ("counts", "size") else annotation
        pixels = image["width"] * image["height"]
        values = wrong(record[key], pixels) if callable(wrong) else wrong
        put(record, key, pick(rng, values))
        return fate or (box_of_mask if annotation["segmentation"] else "dropped")

    return spoil


for _code, _kinds, _keys, _wrong, _fate in VALUES:
    _how = "yes" if _fate is _crowd_of_text else ""
    annotation_fault(_code, _how, _kinds)(_value_fault(_keys, _wrong, _fate))


# What takes the place of one part of a mask, and is dropped.
PARTS: dict[str, Callable[[list[float]], tuple[Any, ...]]] = {
    "polygon-invalid": lambda p: (
        *([*p[:-1], None], [*p[:-1], "1"], [*p[:-1], NAN], [INF, *p[1:]], "polygon", {"x": 1}),
        *(None, [p], [*p[:-2], [1, 2]]),
    ),
    "polygon-odd": lambda p: (p[:-1],),
    "polygon-short": lambda p: (p[:2], p[:4]),
    "polygon-empty": lambda p: ([], p[:2] * 3, [*p[:4], *p[:4]], [*p[:4], *p[:2], *p[2:4]]),
    "polygon-outside": lambda p: tuple([v + d for v in p] for d in (-100.0, 100.0, 1e6)),
}


def _part_fault(wrong: Callable[[list[float]], tuple[Any, ...]]) -> Break:
    def spoil(annotation: Annotation, image: Coco, rng: Rng) -> Verdict:
        index = int(rng.integers(len(annotation["segmentation"])))
        part = annotation["segmentation"][index]
        annotation["segmentation"][index] = copy.deepcopy(pick(rng, wrong(part)))
        return without_part(index)

    return spoil


for _code, _wrong in PARTS.items():
    annotation_fault(_code, "part", POLYGONS)(_part_fault(_wrong))


def _axis(image: Coco, rng: Rng) -> tuple[int, int]:
    axis = int(rng.integers(2))
    return axis, (image["width"], image["height"])[axis]


def _beyond(low: float, high: float, size: float, by: float, rng: Rng) -> float:
    """By how much to move what reaches from `low` to `high`, so that it leaves the image `by`."""
    return -by - low if rng.integers(2) else size + by - high


def _slight(rng: Rng) -> float:
    return float(pick(rng, (0.5, 0.25, 0.031)))


def _box_fault(how: str) -> Break:
    def spoil(annotation: Annotation, image: Coco, rng: Rng) -> Fate:
        box = annotation["bbox"]
        axis, size = _axis(image, rng)
        box[2 + axis] = side = float(np.floor(box[2 + axis])) if how == "" else box[2 + axis]
        if how == "entirely":
            box[axis] = pick(rng, (size + 1.0, size, -side, 1e7))
            return box_of_mask if annotation["segmentation"] else "dropped"
        by = _slight(rng) if how == "" else float(rng.uniform(0.51, side - 1))
        box[axis] += _beyond(box[axis], box[axis] + side, size, by, rng)
        return clipped_box(list(box), far=bool(how))

    return spoil


for _how in ("in part", "entirely"):
    annotation_fault("box-outside", _how)(_box_fault(_how))
annotation_fault("box-outside-slightly")(_box_fault(""))


def _polygon_fault(slightly: bool) -> Break:
    def spoil(annotation: Annotation, image: Coco, rng: Rng) -> Fate:
        index = int(rng.integers(len(annotation["segmentation"])))
        axis, size = _axis(image, rng)
        points = np.reshape(annotation["segmentation"][index], (-1, 2)).copy()
        ends = points[:, axis]
        by = _slight(rng) if slightly else float(rng.uniform(0.51, np.ptp(ends) / 2))
        ends += _beyond(ends.min(), ends.max(), size, by, rng)
        if slightly and max(-ends.min(), ends.max() - size) > 0.5:  # the last bit
            return None
        annotation["segmentation"][index] = points.reshape(-1).tolist()
        return clipped_mask(copy.deepcopy(annotation["segmentation"]))

    return spoil


annotation_fault("polygon-outside", "in part", POLYGONS)(_polygon_fault(slightly=False))
annotation_fault("polygon-outside-slightly", kinds=POLYGONS)(_polygon_fault(slightly=True))


@annotation_fault("box-beside-mask", kinds=MASKS)
def _box_beside_mask(annotation: Annotation, image: Coco, rng: Rng) -> Fate:
    """The box lies in a half of the image in which the mask does not."""
    x, y, w, h = annotation["bbox"]
    half = image["width"] / 2
    if x < half < x + w:
        return None
    annotation["bbox"] = [half if x + w <= half else 0, y, half, h]
    return "kept"


@annotation_fault("polygon-flat", kinds=POLYGONS)
def _polygon_flat(annotation: Annotation, image: Coco, rng: Rng) -> Fate:
    if len(annotation["segmentation"]) > 1:
        return None
    (annotation["segmentation"],) = annotation["segmentation"]
    return restored


@annotation_fault("mask-without-pixels", kinds=POLYGONS)
def _mask_without_pixels(annotation: Annotation, image: Coco, rng: Rng) -> Fate:
    x, y, w, h = annotation["bbox"]
    for shift in np.arange(0, 1, 0.05).tolist():
        left = math.floor(x + w / 2) + shift
        sliver = [left, y, left + 0.2, y, left + 0.2, y + h, left, y + h]
        if raster_area([sliver], image["height"], image["width"]) == 0:
            annotation["segmentation"] = [sliver]
            return filled_box
    return None


@annotation_fault("polygon-self-intersecting", kinds=POLYGONS)
def _polygon_crossing(annotation: Annotation, image: Coco, rng: Rng) -> Fate:
    x, y, w, h = annotation["bbox"]
    right, low = min(x + w, image["width"]), min(y + h, image["height"])
    # The even bow-tie has no signed area at all, and is no empty polygon for that.
    annotation["segmentation"] = [
        [x, y, right, low, right, pick(rng, (y, y + h / 4)), x, low],
    ]
    area = raster_area(annotation["segmentation"], image["height"], image["width"])
    annotation["area"] = area
    return "kept" if area else None


@annotation_fault("area-of-box", kinds=MASKS)
def _area_of_box(annotation: Annotation, image: Coco, rng: Rng) -> Fate:
    area = annotation["bbox"][2] * annotation["bbox"][3]
    if area - annotation["area"] < 0.08 * area:
        return None
    annotation["area"] = round(area, 3)
    return restored


# Annotations that are wrong together with others


@fault("annotation-id-zero")
def _id_zero(broken: Broken, export: Export, rng: Rng, k: int) -> None:
    for split in list(export.splits)[:k]:  # two of one split would be one id twice
        mine = [entry for entry in export.annotations() if entry[0] == split]
        _, image, annotation = mine[int(rng.integers(len(mine)))]
        broken.touch(split, image)
        annotation["id"] = 0
        broken.verdicts[tag(annotation)] = restored


@fault("annotation-id-twice")
def _id_twice(broken: Broken, export: Export, rng: Rng, k: int) -> None:
    for split in export.splits:
        mine = [entry for entry in export.annotations() if entry[0] == split]
        order = rng.permutation(len(mine))
        for one, other in zip(order[0::2], order[1::2], strict=False):
            if broken.count < k:
                _, image, annotation = mine[one]
                annotation["id"] = mine[other][2]["id"]
                broken.touch(split, image)
                # Which of the two stands first is of no concern.
                broken.files.append(mine[other][1]["file_name"])
                broken.verdicts[tag(annotation)] = restored


@fault("annotation-repeated")
def _repeated(broken: Broken, export: Export, rng: Rng, k: int) -> None:
    candidates = list(export.annotations())
    for index in rng.permutation(len(candidates))[:k]:
        split, image, annotation = candidates[index]
        again = copy.deepcopy(annotation)
        again["id"] = pick(rng, (10_000 + int(index), again["id"]))
        annotations = export.splits[split]["annotations"]
        behind = annotations.index(annotation) + 1
        annotations.insert(int(rng.integers(behind, len(annotations) + 1)), again)
        broken.touch(split, image)


# Images


def _breakable(export: Export, rng: Rng) -> list[tuple[str, Coco]]:
    """The images in random order, but for one with annotations in each split."""
    found = []
    for split, coco in export.splits.items():
        annotated = {annotation["image_id"] for annotation in coco["annotations"]}
        order = [coco["images"][index] for index in rng.permutation(len(coco["images"]))]
        keep = next(image for image in order if image["id"] in annotated)
        found += [(split, image) for image in order if image is not keep]
    return found


def image_fault(code: str, how: str = "", *, dropped: bool = True) -> Callable[..., Any]:
    """Add a way to break one image to the table.

    The function gets (export, split, image, random numbers) and returns False where that is
    impossible.
    """

    def register(spoil: Callable[[Export, str, Coco, Rng], bool | None]) -> Any:
        def break_export(broken: Broken, export: Export, rng: Rng, k: int) -> None:
            for split, image in _breakable(export, rng):
                valid = copy.deepcopy(image)
                if broken.count == k or spoil(export, split, image, rng) is False:
                    continue
                broken.touch(split, valid, image_too=True)
                broken.files.append(image.get("file_name", ""))
                if dropped:
                    broken.drop(split, valid)

        fault(code, how)(break_export)
        return spoil

    return register


@image_fault("image-malformed")
def _image_malformed(export: Export, split: str, image: Coco, rng: Rng) -> None:
    if rng.integers(2):
        put(image, "id", pick(rng, (GONE, None, "3", 1.5, [], NAN)))
    else:
        put(image, "file_name", pick(rng, (GONE, None, 5, ["a.jpg"])))


@image_fault("image-size-invalid", dropped=False)
def _size_invalid(export: Export, split: str, image: Coco, rng: Rng) -> None:
    key = pick(rng, ("width", "height"))
    put(image, key, pick(rng, (GONE, None, 0, -3, "64", 10.5, NAN, [64])))


@image_fault("file-name-outside")
def _name_outside(export: Export, split: str, image: Coco, rng: Rng) -> None:
    wrong = ("../x{}.jpg", "/etc/hostname{}", "a/../../x{}.jpg", "../../../../etc/hostname{}")
    image["file_name"] = pick(rng, wrong).format(image["id"])


@image_fault("file-missing")
def _file_missing(export: Export, split: str, image: Coco, rng: Rng) -> None:
    if rng.integers(2):
        image["file_name"] = f"nowhere {image['id']}.jpg"
    else:
        del export.files[split, image["file_name"]]


def content_fault(code: str, how: str = "", *, dropped: bool = True) -> Callable[..., Any]:
    """Add a way to break an image's file: a function of (its bytes, random numbers)."""

    def register(change: Callable[[bytes, Rng], bytes | None]) -> Any:
        @image_fault(code, how, dropped=dropped)
        def spoil(export: Export, split: str, image: Coco, rng: Rng) -> bool:
            key = (split, image["file_name"])
            changed = change(export.files[key], rng)
            if changed is not None:
                export.files[key] = changed
            return changed is not None

        return change

    return register


def _is_png(content: bytes) -> bool:
    return content.startswith(b"\x89PNG")


def _is_upright_jpeg(content: bytes) -> bool:
    return not _is_png(content) and not Image.open(io.BytesIO(content)).getexif()


@content_fault("image-unreadable")
def _unreadable(content: bytes, rng: Rng) -> bytes:
    wrong: tuple[bytes, ...] = (b"", b"<html>not an image</html>", rng.bytes(500), b"\0" * 300)
    if _is_png(content):
        middle = content.index(b"IDAT") + 40
        wrong = (content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],)
    return bytes(pick(rng, wrong))


@content_fault("image-truncated")
def _truncated(content: bytes, rng: Rng) -> bytes:
    start = content.rindex(b"IDAT" if _is_png(content) else b"\xff\xda") + 16
    return content[: start + int(rng.uniform(0.1, 0.7) * (len(content) - start))]


@content_fault("image-too-large")
def _too_large(content: bytes, rng: Rng) -> bytes:
    """The header says 20,000 x 20,000 (PNG) or 65,000 x 65,000 (JPEG)."""
    changed = bytearray(content)
    if _is_png(content):
        changed[16:24] = struct.pack(">II", 20_000, 20_000)
        changed[29:33] = struct.pack(">I", zlib.crc32(changed[12:29]))
    else:
        frame = changed.index(b"\xff\xc0")
        changed[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    return bytes(changed)


@content_fault("image-orientation", dropped=False)
def _orientation(content: bytes, rng: Rng) -> bytes | None:
    """Upside down or mirrored: the size stays what it was."""
    if not _is_upright_jpeg(content):
        return None
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    return encoded(pixels, ".jpg", int(pick(rng, (2, 3, 4))))


@image_fault("image-size-differs", "by some pixels")
def _size_differs(export: Export, split: str, image: Coco, rng: Rng) -> None:
    image[pick(rng, ("width", "height"))] += int(rng.integers(1, 9))


@image_fault("image-size-differs", "sides swapped")
def _size_swapped(export: Export, split: str, image: Coco, rng: Rng) -> bool:
    content = export.files[split, image["file_name"]]
    if not _is_png(content) and not _is_upright_jpeg(content):
        return False  # that would be another fault
    image["width"], image["height"] = image["height"], image["width"]
    return True


@image_fault("image-without-annotations", dropped=False)
def _without_annotations(export: Export, split: str, image: Coco, rng: Rng) -> bool:
    coco = export.splits[split]
    rest = [a for a in coco["annotations"] if a["image_id"] != image["id"]]
    possible = len(rest) < len(coco["annotations"])
    coco["annotations"] = rest
    return possible


@fault("image-id-twice")
def _image_id_twice(broken: Broken, export: Export, rng: Rng, k: int) -> None:
    """Pairs of images get one id; a pair is one fault, as one annotation id twice is one."""
    images = _breakable(export, rng)
    for split in export.splits:
        rest = [image for s, image in images if s == split]
        for one, other in zip(rest[0::2], rest[1::2], strict=False):
            if broken.count < k:
                for image in (one, other):
                    broken.drop(split, image)
                    broken.touch(split, image, image_too=True)
                broken.counts[split] -= 1
                one["id"] = other["id"]


@fault("image-listed-twice")
def _listed_twice(broken: Broken, export: Export, rng: Rng, k: int) -> None:
    """A second entry of the same file has some of its annotations."""
    for split, coco in export.splits.items():
        for image in list(coco["images"]):
            mine = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
            if broken.count == k or not mine:
                continue
            again = copy.deepcopy(image) | {"id": image["id"] + 7_000}
            coco["images"].append(again)
            for annotation in mine[: int(rng.integers(1, len(mine) + 1))]:
                annotation["image_id"] = again["id"]
                broken.verdicts[tag(annotation)] = restored
            broken.touch(split, image, image_too=True)


@fault("file-not-listed")
def _not_listed(broken: Broken, export: Export, rng: Rng, k: int) -> None:
    for number in range(k):
        split = str(rng.choice(list(export.splits)))
        name = f"{'abcdefgh'[number]}xtra{number}.png"
        export.files[split, name] = picture(100 + number)[2]
        broken.touch(split, {"file_name": name})
        broken.added.add((split, name))


@fault("image-rotated")
def _rotated(broken: Broken, export: Export, rng: Rng, k: int) -> None:
    """The camera turned the image after somebody had annotated it as it is stored."""
    for split, image in export.images():
        key = (split, image["file_name"])
        if broken.count == k or not _is_upright_jpeg(export.files[key]):
            continue
        orientation = int(pick(rng, (5, 6, 7, 8)))
        pixels = np.asarray(Image.open(io.BytesIO(export.files[key])))
        export.files[key] = encoded(pixels, ".jpg", orientation)
        broken.touch(split, image, image_too=True)
        for annotation in export.splits[split]["annotations"]:
            if annotation["image_id"] == image["id"]:
                verdict = turned_with(orientation, image["height"], image["width"])
                broken.verdicts[tag(annotation)] = verdict


def turned_with(orientation: int, height: int, width: int) -> Verdict:
    """Box and mask lie in the turned image; `inspect/test_annotations.py` has where."""

    def verdict(valid: Annotation, cleaned: Annotation, image: Coco) -> None:
        unchanged(valid, cleaned, "bbox", "segmentation", "keypoints")
        assert (image["width"], image["height"]) == (height, width)
        assert cleaned["bbox"][2:] == pytest.approx(valid["bbox"][3:1:-1], abs=2e-3)
        if valid["segmentation"]:
            assert cleaned["area"] == raster_area(cleaned["segmentation"], width, height)
            assert cleaned["area"] == pytest.approx(valid["area"], rel=0.15)

    return verdict


# Leaks: an image of a later split that an earlier one has too


def _leak(code: str, content: Any, name: Any, has: str = "") -> None:
    """Copies of images whose name has `has` in it, in a later split than theirs."""

    @fault(code)
    def break_export(broken: Broken, export: Export, rng: Rng, k: int) -> None:
        order = list(export.splits)
        pairs = [
            (earlier, split, image)
            for earlier, image in export.images()
            for split in order[order.index(earlier) + 1 :]
            if has in image["file_name"]
        ]
        for number in range(min(k, len(pairs))):
            earlier, split, image = pairs[int(rng.integers(len(pairs)))]
            again = copy.deepcopy(image) | {"id": 20_000 + number}
            again["file_name"] = name(image["file_name"], number, rng)
            original = export.files[earlier, image["file_name"]]
            export.files[split, again["file_name"]] = content(original, number)
            export.splits[split]["images"].append(again)
            broken.touch(split, again)
            broken.files.append(image["file_name"])
            broken.added.add((split, again["file_name"]))


_leak(
    "leak-same-file",
    lambda content, _: content,
    lambda name, number, _: f"{'qwertz'[number]}copied{name[-4:]}",
)
# Another version of the same source: the name says so, the bytes differ.
_leak(
    "leak-same-source",
    lambda content, number: content + bytes([number]),
    lambda name, _, rng: f"{name.partition('.rf.')[0]}.rf.{rng.bytes(16).hex()}{name[-4:]}",
    has=".rf.",
)

"""Random valid exports: what a person annotated, with every habit that is no fault.

`random_export(seed)` is in memory, `Export.write` puts it on disk. Nothing of persondet is used,
so that its judgement is tested against another one: `complaints` here, and pycocotools.
"""

from __future__ import annotations

import copy
import functools
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_util
from PIL import Image

Coco = dict[str, Any]
Annotation = dict[str, Any]

ANNOTATION_FILE = "_annotations.coco.json"
KINDS = ("polygons", "rle", "mixed", "boxes")
TURNED = 6  # EXIF: the camera stood upright, the image lies on its side

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass
class Export:
    """An export in memory.

    Attributes:
        splits: `train`, `valid`, `test` (those that exist) to the COCO dict.
        folders: the same keys to the folder's name, e.g. `valid` to `validation`.
        files: (split, file name) to the bytes of an image.
        kind: one of `KINDS`.
    """

    splits: dict[str, Coco]
    folders: dict[str, str]
    files: dict[tuple[str, str], bytes]
    kind: str

    def copy(self) -> Export:
        return Export(copy.deepcopy(self.splits), self.folders, dict(self.files), self.kind)

    def write(self, root: Path) -> Path:
        for split, coco in self.splits.items():
            folder = root / self.folders[split]
            folder.mkdir(parents=True)
            (folder / ANNOTATION_FILE).write_text(json.dumps(coco), encoding="utf-8")
        for (split, name), content in self.files.items():
            (root / self.folders[split] / name).write_bytes(content)
        return root

    def annotations(self) -> Iterator[tuple[str, Coco, Annotation]]:
        """Yield (split, image, annotation) of a valid export."""
        for split, coco in self.splits.items():
            images = {image["id"]: image for image in coco["images"]}
            for annotation in coco["annotations"]:
                yield split, images[annotation["image_id"]], annotation

    def images(self) -> Iterator[tuple[str, Coco]]:
        for split, coco in self.splits.items():
            for image in coco["images"]:
                yield split, image


def tag(annotation: Annotation) -> int:
    """What tells an annotation apart, whatever happens to its ids."""
    return int(annotation["attributes"]["tag"])


# Images


def encoded(pixels: np.ndarray[Any, Any], suffix: str, orientation: int = 1) -> bytes:
    """An image file of RGB pixels; `orientation` is EXIF's."""
    buffer = io.BytesIO()
    if suffix == ".png":
        Image.fromarray(pixels).save(buffer, "PNG")
    else:
        exif = Image.Exif()
        if orientation != 1:
            exif[0x112] = orientation
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90, exif=exif)
    return buffer.getvalue()


@functools.cache
def picture(number: int) -> tuple[np.ndarray[Any, Any], bytes, bytes, bytes]:
    """The same image each time: pixels, as JPEG, as PNG, as JPEG that EXIF turns upright.

    All look different from each other: a few large blots of random colours.
    """
    rng = np.random.default_rng(7000 + number)
    width, height = (int(side) for side in rng.choice([40, 44, 48, 52, 60, 64], 2, replace=False))
    blots = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    pixels = cv2.resize(blots, (width, height), interpolation=cv2.INTER_CUBIC)
    lying = np.ascontiguousarray(np.rot90(pixels))
    return pixels, encoded(pixels, ".jpg"), encoded(pixels, ".png"), encoded(lying, ".jpg", TURNED)


IMAGES_SHOWN = 60


# Exports


def random_export(seed: int, kind: str | None = None) -> Export:
    """A random valid export: 1 to 3 splits, 2 to 5 images each, 1 to 4 classes.

    Args:
        kind: `polygons`, `rle`, `mixed` (polygons and RLE), `boxes` (no masks); None: any.
    """
    rng = np.random.default_rng(seed)
    kind = kind or str(rng.choice(KINDS))
    names = ["train", "valid", "test"]
    splits = sorted(rng.choice(names, int(rng.integers(1, 4)), replace=False), key=names.index)
    folders = {split: str(split) for split in splits}
    if "valid" in folders:
        folders["valid"] = str(rng.choice(["valid", "val", "validation"]))
    export = Export({}, folders, {}, kind)
    categories = _categories(rng)
    pool = iter(rng.permutation(IMAGES_SHOWN))
    tags = iter(range(1, 10**6))
    exact = bool(rng.integers(2))  # coordinates on a grid of quarters, or with three decimals
    for split in folders:
        export.splits[split] = _split(rng, export, split, categories, pool, tags, exact)
    return export


def _categories(rng: np.random.Generator) -> list[dict[str, Any]]:
    names = [str(name) for name in rng.permutation(["person", "dog", "Fahrrad", "é 人", "bus"])]
    names = names[: int(rng.integers(1, 5))]
    style = rng.choice(["grouped", "from 1", "from 0", "gaps"])
    if style == "grouped":
        group = {"id": 0, "name": "all-things", "supercategory": "none"}
        return [group] + [
            {"id": number, "name": name, "supercategory": "all-things"}
            for number, name in enumerate(names, start=1)
        ]
    numbers = {"from 1": [1, 2, 3, 4], "from 0": [0, 1, 2, 3], "gaps": [2, 3, 7, 40]}[str(style)]
    return [
        {"id": number, "name": name, "supercategory": "none"}
        for number, name in zip(numbers, names, strict=False)
    ]


def _split(
    rng: np.random.Generator,
    export: Export,
    split: str,
    categories: list[dict[str, Any]],
    pool: Iterator[int],
    tags: Iterator[int],
    exact: bool,
) -> Coco:
    count = int(rng.integers(2, 6))
    first = int(rng.choice([0, 1, 500]))
    numbers = [int(number) for number in rng.permutation(np.arange(first, first + count))]
    images, annotations = [], []
    for index, number in enumerate(numbers):
        pixels, jpeg, png, turned = picture(int(next(pool)))
        suffix = str(rng.choice([".jpg", ".png"]))
        word = "".join(rng.choice(list(_LETTERS), 9))
        style = int(rng.integers(4))
        name = [
            f"{word}_jpg.rf.{rng.bytes(16).hex()}{suffix}",
            f"{word}{suffix}",
            f"{word} (copy) é{suffix}",
            f"{word}.{suffix}",
        ][style]
        content = jpeg if suffix == ".jpg" else png
        if suffix == ".jpg" and rng.random() < 0.15:
            content = turned
        export.files[split, name] = content
        image = {"id": number, "license": 1, "file_name": name}
        image |= {"height": pixels.shape[0], "width": pixels.shape[1]}
        if rng.integers(2):
            image |= {"date_captured": "2024-02-29T00:00:00+00:00", "extra": {"name": word}}
        images.append(image)
        people = 0 if index > 1 and rng.random() < 0.2 else int(rng.integers(1, 5))
        for cell in rng.permutation(4)[:people]:
            shape = _shape(rng, export.kind, image["width"], image["height"], int(cell), exact)
            annotations.append(_annotation(rng, image, categories, shape, next(tags)))
    annotations = [annotations[index] for index in rng.permutation(len(annotations))]
    ids = np.arange(1, len(annotations) + 1)
    for annotation, number in zip(annotations, rng.permutation(ids), strict=True):
        annotation["id"] = int(number)
    return {
        "info": {"year": "2024", "description": "random"},
        "licenses": [{"id": 1, "name": "CC0", "url": ""}],
        "categories": copy.deepcopy(categories),
        "images": images,
        "annotations": annotations,
    }


def _annotation(
    rng: np.random.Generator,
    image: Coco,
    categories: list[dict[str, Any]],
    shape: tuple[list[float], Any, float, int],
    number: int,
) -> Annotation:
    usable = [category["id"] for category in categories if category["name"] != "all-things"]
    box, segmentation, area, crowd = shape
    annotation = {
        "id": 0,
        "image_id": image["id"],
        "category_id": int(rng.choice(usable)),
        "bbox": box,
        "area": area,
        "segmentation": segmentation,
        "iscrowd": crowd,
        "attributes": {"tag": number, "occluded": bool(rng.integers(2))},
    }
    if rng.random() < 0.3:
        annotation |= {"keypoints": [3, 4.5, 2, 0, 0, 0], "num_keypoints": 1}
    return annotation


def _shape(
    rng: np.random.Generator, kind: str, width: int, height: int, cell: int, exact: bool
) -> tuple[list[float], Any, float, int]:
    """Box, segmentation, true area and `iscrowd` of something in one quarter of the image."""
    x0, y0 = (cell % 2) * width // 2, (cell // 2) * height // 2
    wide, high = width // 2, height // 2
    if kind == "boxes" or (kind == "mixed" and rng.random() < 0.5) or kind == "polygons":
        parts = 1 if wide < 22 or rng.random() < 0.7 else 2
        polygons = []
        for part in range(parts):
            left = x0 + part * wide / parts
            edge = (left == 0, y0 == 0, left + wide / parts == width, y0 + high == height)
            polygons.append(_star(rng, left, y0, wide / parts, high, edge, exact))
        box = _extent(polygons)
        if kind == "boxes":
            return box, [], box[2] * box[3], 0
        return box, polygons, raster_area(polygons, height, width), 0
    mask = np.zeros((height, width), np.uint8)
    centre = (x0 + wide // 2, y0 + high // 2)
    axes = (int(rng.integers(3, wide // 2)), int(rng.integers(3, high // 2)))
    cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 20)), 0, 360, 1, -1)
    mask[y0 + high :] = 0
    crowd = int(rng.random() < 0.4)
    rle = uncompressed_rle(mask) if rng.random() < 0.5 else compressed_rle(mask)
    ys, xs = np.nonzero(mask)
    box = [float(xs.min()), float(ys.min())]
    box += [float(xs.max() + 1 - xs.min()), float(ys.max() + 1 - ys.min())]
    return box, rle, float(mask.sum()), crowd


def _star(
    rng: np.random.Generator,
    left: float,
    top: float,
    wide: float,
    high: float,
    edge: tuple[bool, bool, bool, bool],
    exact: bool,
) -> list[float]:
    """A polygon without crossings inside a rectangle; at times it touches an image edge exactly."""
    count = int(rng.integers(5, 10))
    angles = 2 * np.pi * (np.arange(count) + rng.uniform(0, 0.6, count)) / count
    radii = rng.uniform(0.7, 1.0, count)
    half = np.array([rng.uniform(0.3, 0.48) * wide, rng.uniform(0.3, 0.48) * high])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None] * half
    points += [left + wide / 2, top + high / 2]
    touches = [side for side, possible in enumerate(edge) if possible and rng.random() < 0.5]
    border = (left, top, left + wide, top + high)
    for side in touches[:1]:
        axis = side % 2
        extreme = points[:, axis].max() if side > 1 else points[:, axis].min()
        points[:, axis] += border[side] - extreme
    points = np.round(points * 4) / 4 if exact else np.round(points, 3)
    return [float(value) for value in points.reshape(-1)]


def _extent(polygons: list[list[float]]) -> list[float]:
    xs = [x for polygon in polygons for x in polygon[0::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    # As exports have it: x + w may be the last bit beyond the edge.
    return [min(xs), min(ys), round(max(xs) - min(xs), 3), round(max(ys) - min(ys), 3)]


def raster_area(segmentation: Any, height: int, width: int) -> float:
    """The number of pixels under polygons or an RLE, as COCO counts them."""
    return float(raster(segmentation, height, width).sum())


def raster(segmentation: Any, height: int, width: int) -> np.ndarray[Any, Any]:
    """The mask under polygons or an RLE, uint8, (H, W)."""
    coded = mask_util.frPyObjects(segmentation, height, width) if _plain(segmentation) else None
    if coded is None:
        coded = segmentation
    elif isinstance(coded, list):
        coded = mask_util.merge(coded)
    mask: np.ndarray[Any, Any] = mask_util.decode(coded)
    return mask


def _plain(segmentation: Any) -> bool:
    return isinstance(segmentation, list) or isinstance(segmentation["counts"], list)


def uncompressed_rle(mask: np.ndarray[Any, Any]) -> dict[str, Any]:
    """COCO's RLE as runs down the columns, the first of zeros."""
    flat = mask.reshape(-1, order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes, flat.size]).tolist()
    if flat[0]:
        runs.insert(0, 0)
    return {"counts": [int(run) for run in runs], "size": list(mask.shape)}


def compressed_rle(mask: np.ndarray[Any, Any]) -> dict[str, Any]:
    coded = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": coded["counts"].decode("ascii")}


# What another judge says


def complaints(export: Export) -> list[str]:
    """What is wrong with an export, by plain rules of COCO; nothing, for a valid one."""
    found = []
    for split, coco in export.splits.items():
        for key in ("images", "annotations"):
            ids = [record["id"] for record in coco[key]]
            if len(set(ids)) < len(ids):
                found.append(f"{split}: {key} with one id")
        if {name for s, name in export.files if s == split} != {
            image["file_name"] for image in coco["images"]
        }:
            found.append(f"{split}: files and images differ")
        known = {category["id"] for category in coco["categories"]}
        for image in coco["images"]:
            with Image.open(io.BytesIO(export.files[split, image["file_name"]])) as opened:
                size = opened.size[::-1] if opened.getexif().get(0x112, 1) > 4 else opened.size
                opened.load()
            if size != (image["width"], image["height"]):
                found.append(f"{split}: {image['file_name']} has another size")
    for split, image, annotation in export.annotations():
        coco, where = export.splits[split], f"{split}: annotation {annotation['id']}"
        known = {category["id"] for category in coco["categories"]}
        if annotation["category_id"] not in known or annotation["id"] < 1:
            found.append(f"{where}: ids")
        x, y, w, h = annotation["bbox"]
        width, height = image["width"], image["height"]
        if min(w, h) < 2 or min(x, y) < 0 or x + w > width + 1e-9 or y + h > height + 1e-9:
            found.append(f"{where}: box {annotation['bbox']}")
        segmentation = annotation["segmentation"]
        if not segmentation:
            continue
        if annotation["area"] != raster_area(segmentation, height, width) or not annotation["area"]:
            found.append(f"{where}: area")
        for polygon in segmentation if isinstance(segmentation, list) else []:
            xs, ys = polygon[0::2], polygon[1::2]
            if min(*xs, *ys) < 0 or max(xs) > width or max(ys) > height or crosses_itself(polygon):
                found.append(f"{where}: polygon")
    return found


def crosses_itself(polygon: list[float]) -> bool:
    """Whether two edges of a polygon cross: every pair is looked at."""
    start = np.asarray(polygon, np.float64).reshape(-1, 2)
    end = np.roll(start, -1, axis=0)
    along = end - start

    def sides(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """On which side of edge i (row) each point j (column) lies: -1, 0, 1."""
        to = points[None] - start[:, None]
        return np.sign(along[:, None, 0] * to[..., 1] - along[:, None, 1] * to[..., 0])

    apart = sides(start) * sides(end) < 0
    return bool((apart & apart.T).any())

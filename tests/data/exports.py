"""Random valid exports: what a person annotated, with every habit that is no fault.

`random_export(seed)` is in memory, `Export.write` puts it on disk. Nothing of persondet is used.
"""

from __future__ import annotations

import copy
import functools
import io
import json
import string
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
    folders = {str(split): str(split) for split in splits}
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
    style = int(rng.integers(4))
    numbers = ([1, 2, 3, 4], [1, 2, 3, 4], [0, 1, 2, 3], [2, 3, 7, 40])[style]
    above = "none" if style else "all-things"
    categories = [
        {"id": number, "name": name, "supercategory": above}
        for number, name in zip(numbers, names, strict=False)
    ]
    return categories if style else [{"id": 0, "name": above, "supercategory": "none"}, *categories]


def _split(
    rng: np.random.Generator,
    export: Export,
    split: str,
    categories: list[dict[str, Any]],
    pool: Iterator[int],
    tags: Iterator[int],
    exact: bool,
) -> Coco:
    count, first = int(rng.integers(2, 6)), int(rng.choice([0, 1, 500]))
    images: list[Coco] = []
    annotations: list[Annotation] = []
    usable = [category["id"] for category in categories if category["name"] != "all-things"]
    for number in rng.permutation(np.arange(first, first + count)).tolist():
        pixels, jpeg, png, turned = picture(int(next(pool)))
        suffix = str(rng.choice([".jpg", ".png"]))
        word = "".join(rng.choice(list(string.ascii_lowercase), 9))
        ending = rng.choice([f"_jpg.rf.{rng.bytes(16).hex()}", "", " (copy) é", "."])
        content = png if suffix == ".png" else turned if rng.random() < 0.15 else jpeg
        image = {"id": number, "license": 1, "file_name": f"{word}{ending}{suffix}"}
        image |= {"height": pixels.shape[0], "width": pixels.shape[1]}
        if rng.integers(2):
            image |= {"date_captured": "2024-02-29T00:00:00+00:00", "extra": {"name": word}}
        export.files[split, str(image["file_name"])] = content
        objects = 0 if len(images) > 1 and rng.random() < 0.2 else int(rng.integers(1, 5))
        images.append(image)
        for cell in rng.permutation(4)[:objects].tolist():
            annotation = _shape(rng, export.kind, image["width"], image["height"], cell, exact)
            annotation |= {"id": 0, "image_id": number, "category_id": int(rng.choice(usable))}
            annotation["attributes"] = {"tag": next(tags), "occluded": bool(rng.integers(2))}
            if rng.random() < 0.3:
                annotation |= {"keypoints": [3, 4.5, 2, 0, 0, 0], "num_keypoints": 1}
            annotations.append(annotation)
    annotations = [annotations[index] for index in rng.permutation(len(annotations))]
    for annotation, number in zip(annotations, rng.permutation(len(annotations)), strict=True):
        annotation["id"] = int(number) + 1
    return {
        "info": {"year": "2024", "description": "random"},
        "licenses": [{"id": 1, "name": "CC0", "url": ""}],
        "categories": copy.deepcopy(categories),
        "images": images,
        "annotations": annotations,
    }


def _shape(
    rng: np.random.Generator, kind: str, width: int, height: int, cell: int, exact: bool
) -> Annotation:
    """Box, segmentation, true area and `iscrowd` of something in one quarter of the image."""
    x0, y0 = (cell % 2) * width // 2, (cell // 2) * height // 2
    wide, high = width // 2, height // 2
    if kind in ("boxes", "polygons") or (kind == "mixed" and rng.random() < 0.5):
        parts = 1 if wide < 22 or rng.random() < 0.7 else 2
        lefts = [x0 + part * wide / parts for part in range(parts)]
        polygons = [
            _star(rng, left, y0, wide / parts, high, width, height, exact) for left in lefts
        ]
        points = np.reshape([value for part in polygons for value in part], (-1, 2))
        low = points.min(axis=0)
        # As exports have it: x + w may be the last bit beyond the edge.
        box = [*low.tolist(), *np.round(points.max(axis=0) - low, 3).tolist()]
        if kind == "boxes":
            return {"bbox": box, "segmentation": [], "area": box[2] * box[3], "iscrowd": 0}
        area = raster_area(polygons, height, width)
        return {"bbox": box, "segmentation": polygons, "area": area, "iscrowd": 0}
    mask = np.zeros((height, width), np.uint8)
    centre = (x0 + wide // 2, y0 + high // 2)
    axes = (int(rng.integers(3, wide // 2)), int(rng.integers(3, high // 2)))
    cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 20)), 0, 360, 1, -1)
    mask[y0 + high :] = 0
    x, y, w, h = cv2.boundingRect(mask)
    return {
        "bbox": [float(x), float(y), float(w), float(h)],
        "segmentation": uncompressed_rle(mask) if rng.random() < 0.5 else compressed_rle(mask),
        "area": float(mask.sum()),
        "iscrowd": int(rng.random() < 0.4),
    }


def _star(
    rng: np.random.Generator,
    left: float,
    top: float,
    wide: float,
    high: float,
    width: int,
    height: int,
    exact: bool,
) -> list[float]:
    """A polygon without crossings inside a rectangle; at times it touches an image edge exactly."""
    count = int(rng.integers(5, 10))
    angles = 2 * np.pi * (np.arange(count) + rng.uniform(0, 0.6, count)) / count
    half = np.array([rng.uniform(0.3, 0.48) * wide, rng.uniform(0.3, 0.48) * high])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * half
    points = points * rng.uniform(0.7, 1.0, count)[:, None] + [left + wide / 2, top + high / 2]
    border = (left, top, left + wide, top + high)
    edges = [side for side in range(4) if border[side] == (0, 0, width, height)[side]]
    if edges and rng.random() < 0.5:
        side = int(rng.choice(edges))
        ends = points[:, side % 2]
        ends += border[side] - (ends.max() if side > 1 else ends.min())
    points = np.round(points * 4) / 4 if exact else np.round(points, 3)
    return [float(value) for value in points.reshape(-1)]


def raster_area(segmentation: Any, height: int, width: int) -> float:
    """The number of pixels under polygons or an RLE, as COCO counts them."""
    return float(raster(segmentation, height, width).sum())


def raster(segmentation: Any, height: int, width: int) -> np.ndarray[Any, Any]:
    """The mask under polygons or an RLE, uint8, (H, W)."""
    coded = segmentation
    if isinstance(segmentation, list) or isinstance(segmentation["counts"], list):
        coded = mask_util.frPyObjects(segmentation, height, width)
    mask: np.ndarray[Any, Any] = mask_util.decode(
        mask_util.merge(coded) if isinstance(coded, list) else coded
    )
    return mask


def uncompressed_rle(mask: np.ndarray[Any, Any]) -> dict[str, Any]:
    """COCO's RLE as runs down the columns, the first of zeros."""
    flat = mask.reshape(-1, order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=0))
    return {"counts": np.diff([0, *changes, flat.size]).tolist(), "size": list(mask.shape)}


def compressed_rle(mask: np.ndarray[Any, Any]) -> dict[str, Any]:
    coded = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": coded["counts"].decode("ascii")}

"""Small exports with known shapes. Nothing of persondet is used to make or measure them."""

import contextlib
import functools
import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

Coco = dict[str, Any]
Shape = Callable[[int, int, int], dict[str, Any]]
Objects = list[tuple[Shape, int]]
Array = np.ndarray[Any, Any]

ANNOTATION_FILE = "_annotations.coco.json"


@contextlib.contextmanager
def in_this_process() -> Iterator[None]:
    """Read images here: a hundred small exports would start a thousand processes."""

    class Pool:
        def __init__(self, **_: Any) -> None: ...

        def schedule(self, function: Any, args: Any, timeout: float) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(function(*args))
            return future

        def stop(self) -> None: ...

        def join(self) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pebble.ProcessPool", Pool)
        yield


@functools.cache
def picture(number: int) -> tuple[Array, bytes]:
    """The same image each time, as pixels and as JPEG: a few large blots of random colours."""
    rng = np.random.default_rng(7000 + number)
    width, height = (int(side) for side in rng.choice([40, 44, 48, 52, 60, 64], 2, replace=False))
    blots = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    pixels = cv2.resize(blots, (width, height), interpolation=cv2.INTER_CUBIC)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return pixels, buffer.getvalue()


# Objects, each in one quarter of the image


def octagon(cell: int, width: int, height: int) -> dict[str, Any]:
    left, top = (cell % 2) * width / 2 + 1, (cell // 2) * height / 2 + 1
    wide, high = width / 2 - 2, height / 2 - 2
    unit = [(1, 0), (3, 0), (4, 1), (4, 3), (3, 4), (1, 4), (0, 3), (0, 1)]
    polygon = [v for x, y in unit for v in (left + x / 4 * wide, top + y / 4 * high)]
    area = float(raster([polygon], height, width).sum())
    box = [left, top, wide, high]
    return {"bbox": box, "segmentation": [polygon], "area": area, "iscrowd": 0}


def without_mask(cell: int, width: int, height: int) -> dict[str, Any]:
    shape = octagon(cell, width, height)
    return shape | {"segmentation": [], "area": shape["bbox"][2] * shape["bbox"][3]}


def rle_string(cell: int, width: int, height: int) -> dict[str, Any]:
    shape = octagon(cell, width, height)
    mask = raster(shape["segmentation"], height, width)
    box = list(map(float, cv2.boundingRect(mask)))
    return shape | {"segmentation": compressed_rle(mask), "bbox": box}


def people(count: int, shape: Shape = octagon, category: int = 1) -> Objects:
    return [(shape, category)] * count


def categories(*rows: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Records of (id, name) or (id, name, supercategory)."""
    keys = ("id", "name", "supercategory")
    return [dict(zip(keys, (*row, "none")[:3], strict=True)) for row in rows]


PERSON = categories((1, "person"))


def coco_of(
    images: Sequence[Objects],
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    classes: list[dict[str, Any]] = PERSON,
) -> Coco:
    """A COCO dict of images of these (height, width), each a list of (shape, category id)."""
    coco: Coco = {"info": {}, "categories": classes, "images": [], "annotations": []}
    rows = zip(images, names, sizes, strict=True)
    for index, (objects, name, (height, width)) in enumerate(rows):
        image = {"id": index, "file_name": name, "height": height, "width": width}
        coco["images"].append(image)
        for cell, (shape, category) in enumerate(objects):
            annotation = {"id": len(coco["annotations"]) + 1, "image_id": index}
            annotation |= {"category_id": category, **shape(cell, width, height)}
            coco["annotations"].append(annotation)
    return coco


def write_habit(
    root: Path,
    splits: dict[str, Sequence[Objects]],
    *,
    categories: list[dict[str, Any]] = PERSON,
    name: Callable[[str, int], str] = lambda folder, index: f"{'abcdefghij'[index]}{folder}.jpg",
) -> Path:
    """Write an export without any other habit than what is asked for.

    Args:
        splits: folder name ("" for a flat export) to its images, each a list of its objects: the
            shape and the category id.
    """
    number = 0
    for folder, images in splits.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        names = [name(folder, index) for index in range(len(images))]
        pictures = [picture(number + index) for index in range(len(images))]
        number += len(images)
        for file_name, (_, jpeg) in zip(names, pictures, strict=True):
            (root / folder / file_name).write_bytes(jpeg)
        sizes = [(pixels.shape[0], pixels.shape[1]) for pixels, _ in pictures]
        coco = coco_of(images, names, sizes, categories)
        (root / folder / ANNOTATION_FILE).write_text(json.dumps(coco), encoding="utf-8")
    return root


def edit(root: Path, change: Callable[[Coco], Any], split: str = "train") -> Path:
    """Change the json of a split."""
    path = root / split / ANNOTATION_FILE
    coco = json.loads(path.read_text())
    change(coco)
    path.write_text(json.dumps(coco))
    return root


def read_splits(root: Path) -> dict[str, Coco]:
    paths = sorted(root.glob(f"*/{ANNOTATION_FILE}"))
    return {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def counts(report: dict[str, Any]) -> dict[str, int]:
    """Code to count of a report of `check`."""
    return {finding["code"]: finding["count"] for finding in report["findings"]}


# Masks


def raster(segmentation: Any, height: int, width: int) -> Array:
    """The mask under polygons or an RLE, uint8, (H, W)."""
    coded = segmentation
    if isinstance(segmentation, list) or isinstance(segmentation["counts"], list):
        coded = mask_util.frPyObjects(segmentation, height, width)
    mask: Array = mask_util.decode(mask_util.merge(coded) if isinstance(coded, list) else coded)
    return mask


def compressed_rle(mask: Array) -> dict[str, Any]:
    coded = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": coded["counts"].decode("ascii")}

"""Pictures and people to measure with: photographs in cost, random in content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from persondet.data.coco_json import write_coco

SIZE = (1280, 720)
"""Width and height of the pictures, pixels."""
PEOPLE = 10
"""People in each picture."""
CORNERS = 30
"""Points of each outline."""


def write_export(root: Path, counts: Mapping[str, int]) -> None:
    """Write an export in Roboflow's layout: split to its number of pictures.

    The pictures are JPEGs (quality 85) of smooth colours under fine noise, which cost about what
    photographs cost to decode. The same counts give the same bytes.
    """
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 6, (SIZE[1], SIZE[0], 3))
    for split, count in counts.items():
        folder = root / split
        folder.mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(count):
            coarse = rng.integers(0, 256, (18, 32, 3), dtype=np.uint8)
            smooth = cv2.resize(coarse, SIZE, interpolation=cv2.INTER_CUBIC)
            shifted = np.roll(noise, int(rng.integers(1000)), axis=int(rng.integers(2)))
            image = _image(number, split)
            picture = np.clip(smooth + shifted, 0, 255).astype(np.uint8)
            quality = [cv2.IMWRITE_JPEG_QUALITY, 85]
            cv2.imwrite(str(folder / image["file_name"]), picture, quality)
            images.append(image)
            annotations += _people(rng, number, len(annotations) + 1)
        write_coco(folder / "_annotations.coco.json", _coco(images, annotations))


def coco_of(count: int) -> dict[str, Any]:
    """Return a COCO json of `count` annotations whose pictures do not exist."""
    rng = np.random.default_rng(1)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    while len(annotations) < count:
        images.append(_image(len(images), "train"))
        annotations += _people(rng, images[-1]["id"], len(annotations) + 1)
    return _coco(images, annotations[:count])


def _image(number: int, split: str) -> dict[str, Any]:
    name = f"{split}_{number:06d}_jpg.rf.{number:032x}.jpg"
    return {"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]}


def _coco(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    categories = [{"id": 1, "name": "person", "supercategory": "none"}]
    return {"info": {}, "categories": categories, "images": images, "annotations": annotations}


def _people(rng: np.random.Generator, image: int, first_id: int) -> list[dict[str, Any]]:
    """Return upright outlines with rough edges, 40 to 300 pixels tall, inside the picture."""
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    people = []
    for number in range(PEOPLE):
        tall = rng.uniform(20, 150)
        radii = np.array([tall * rng.uniform(0.25, 0.45), tall])
        centre = rng.uniform(radii, np.array(SIZE) - radii)
        points = np.round(centre + radii * circle * rng.uniform(0.8, 1, (CORNERS, 1)), 3)
        low, high = points.min(axis=0), points.max(axis=0)
        people.append(
            {
                "id": first_id + number,
                "image_id": image,
                "category_id": 1,
                "bbox": [*low.tolist(), *(high - low).tolist()],
                "area": float((high - low).prod()),
                "segmentation": [points.reshape(-1).tolist()],
                "iscrowd": 0,
            }
        )
    return people

"""Write the sample: an export in Roboflow's layout, a clip, and a record of how it was made."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from persondet.environment import Progress
from persondet.files import atomic_folder, write_json, write_text
from persondet.sample.clip import write_clip
from persondet.sample.scene import (
    MIN_SEEN,
    SMALL_HEIGHT,
    Plan,
    compose,
    plan_split,
    render,
    visible_part,
)

PEOPLE_COUNTS: Mapping[str, int] = {"train": 240, "valid": 40, "test": 60}
SIZE = (640, 360)
HIDDEN_BELOW = 0.75
"""A person counts as occluded when no more than this share of them is visible."""

Polygon = list[float]

_PROJECT = "people-walking"
_FIRST = {"train": 0, "valid": 5000, "test": 7000}
_ZOOM = 4
_DATE = "2025-01-15T09:00:00+00:00"


# ---- from visible masks to the json of a Roboflow COCO export ----


def mask_to_polygons(
    mask: NDArray[np.bool_], x: int = 0, y: int = 0, *, tolerance: float = 0.45
) -> list[Polygon]:
    """Return the outlines of a mask as COCO polygons [x0, y0, x1, y1, …], the first point repeated.

    `mask`: bool (h, w), placed at (`x`, `y`) in the image. Coordinates are continuous image
    pixels: the mask's pixel (0, 0) covers [x, x + 1). `tolerance` (pixels) is the largest
    distance between an outline and its simplified form. Polygons cannot have holes: where a
    mask has one, it is cut in two through the hole. Parts below six pixels are dropped.
    """
    polygons: list[Polygon] = []
    height, width = mask.shape
    for part, left in _without_holes(np.ascontiguousarray(mask).view(np.uint8)):
        # Contours run through pixel centres; on an enlarged mask that costs only 1/8 pixel.
        large = cv2.copyMakeBorder(part, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
        large = cv2.resize(large, None, fx=_ZOOM, fy=_ZOOM, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for contour in sorted(contours, key=lambda contour: -cv2.contourArea(contour)):
            simple = cv2.approxPolyDP(contour, tolerance * _ZOOM, True)[:, 0].astype(np.float64)
            if cv2.contourArea(contour) < 6 * _ZOOM**2 or len(simple) < 3:
                continue
            points: NDArray[Any] = (simple + 0.5) / _ZOOM - 1.0 + (left, 0)
            points = np.clip(points, 0.0, (width, height)) + (x, y)
            points = np.round(np.vstack([points, points[:1]]), 3)
            polygons.append([float(value) for value in points.ravel()])
    return polygons


def _without_holes(mask: NDArray[np.uint8]) -> list[tuple[NDArray[np.uint8], int]]:
    """Return pieces (mask, left column) without holes of five pixels or more."""
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for contour, links in zip(contours, hierarchy[0] if contours else (), strict=True):
        left, _, width, _ = cv2.boundingRect(contour)
        # The contour of a hole runs on the mask's pixels around it.
        if links[3] >= 0 and cv2.contourArea(contour) - 0.5 * len(contour) + 1 >= 5:
            cut = left + width // 2
            first, last = (np.ascontiguousarray(side) for side in (mask[:, :cut], mask[:, cut:]))
            return _without_holes(first) + [(piece, at + cut) for piece, at in _without_holes(last)]
    return [(mask, 0)]


def polygon_box(polygons: list[Polygon]) -> list[float]:
    """Return [x, y, width, height] of all `polygons` together."""
    points = np.concatenate([np.asarray(polygon).reshape(-1, 2) for polygon in polygons])
    low, high = points.min(axis=0), points.max(axis=0)
    return [round(float(value), 3) for value in (*low, *(high - low))]


Instance = tuple[list[Polygon], float]
"""An annotated object: class id, polygons of its visible part, and the visible share of it."""


def _annotation(instance: Instance) -> dict[str, Any]:
    """Return the COCO annotation as Roboflow writes it: `area` is box width times height."""
    polygons, _ = instance
    box = polygon_box(polygons)
    area = round(box[2] * box[3], 3)
    return {
        "category_id": 1,
        "bbox": box,
        "area": area,
        "segmentation": polygons,
        "iscrowd": 0,
    }


def _coco_json(
    images: list[tuple[str, str, list[Instance]]], size: tuple[int, int]
) -> dict[str, Any]:
    """Return the content of `_annotations.coco.json` with Roboflow's conventions.

    Those are: ids of images and annotations from 0, and a grouping category with id 0 that is
    named after the project. `images`: file name, name before the export, and instances of each.
    """
    groups = [(_PROJECT, "none"), ("person", _PROJECT)]
    owners = [(number, one) for number, image in enumerate(images) for one in image[2]]
    about = {"description": "Rendered by persondet in the layout of a Roboflow export", "url": ""}
    licence = {"url": "https://creativecommons.org/publicdomain/zero/1.0/", "name": "Public Domain"}
    frame = {"height": size[1], "width": size[0], "date_captured": _DATE}
    return {
        "info": {
            "year": "2025",
            "version": "1",
            "contributor": "persondet",
            **about,
            "date_created": _DATE,
        },
        "licenses": [{"id": 1, **licence}],
        "categories": [
            {"id": number, "name": name, "supercategory": group}
            for number, (name, group) in enumerate(groups)
        ],
        "images": [
            {"id": number, "license": 1, "file_name": name, **frame, "extra": {"name": original}}
            for number, (name, original, _) in enumerate(images)
        ],
        "annotations": [
            {"id": number, "image_id": image, **_annotation(one)}
            for number, (image, one) in enumerate(owners)
        ],
    }


# ---- exports ----


def render_image(
    plan: Plan, *, seed: int, split: str, size: tuple[int, int]
) -> tuple[bytes, list[Instance]]:
    """Return one image as JPEG bytes, and its instances."""
    scene, rng = compose(seed, split, plan, size)
    smallest = MIN_SEEN * (size[1] / 360.0) ** 2
    instances, kept = [], []
    for item in scene.items:
        if item.name == "person":
            seen = visible_part(item, scene.items, size)
            polygons = mask_to_polygons(seen.mask, seen.x, seen.y)
            if seen.area < smallest or seen.share < 0.1 or not polygons:
                continue  # hardly to be seen: it leaves the image too, so nothing is unannotated
            instances.append((polygons, seen.share))
        kept.append(item)
    scene.items = kept
    encoded, data = cv2.imencode(".jpg", render(scene, rng), [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not encoded:
        raise RuntimeError("OpenCV could not encode a JPEG")
    return data.tobytes(), instances


def write_export(
    folder: str | Path,
    counts: Mapping[str, int],
    *,
    size: tuple[int, int] = SIZE,
    seed: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, dict[str, float]]:
    """Write an export with `counts` images per split into `folder`, and return its shares.

    `size` is (width, height) in pixels. The result for a split has `images`, `objects`,
    `empty_images`, `occluded` (visible share 0.75 or less) and `small` (visible box under 48 pixels
    in a frame 360 tall), the last two as shares of the objects. The same seed gives the same bytes,
    whatever `workers` is.
    """
    folder = Path(folder)
    total, done, result = sum(counts.values()), 0, {}
    with _map(workers) as run:
        for split, count in counts.items():
            target = folder / split
            target.mkdir(parents=True, exist_ok=True)
            plans = plan_split(seed, split, count)
            work = partial(render_image, seed=seed, split=split, size=size)
            images: list[tuple[str, str, list[Instance]]] = []
            for plan, (data, instances) in zip(plans, run(work, plans), strict=True):
                stem = f"street_{_FIRST[split] + plan.index:04d}"
                name = f"{stem}_jpg.rf.{hashlib.md5(data, usedforsecurity=False).hexdigest()}.jpg"
                (target / name).write_bytes(data)
                images.append((name, f"{stem}.jpg", instances))
                done += 1
                if progress is not None:
                    progress(done, total)
            content = json.dumps(_coco_json(images, size), separators=(",", ":"))
            write_text(target / "_annotations.coco.json", content)
            result[split] = _shares([instances for *_, instances in images], size)
    readme = _README.format(images=total, size=size)
    write_text(folder / "README.roboflow.txt", readme)
    return result


def _shares(instances: list[list[Instance]], size: tuple[int, int]) -> dict[str, float]:
    every = [one for found in instances for one in found]
    hidden = [share <= HIDDEN_BELOW for *_, share in every]
    small = [polygon_box(polygons)[3] < SMALL_HEIGHT * size[1] / 360.0 for polygons, _ in every]
    return {
        "images": len(instances),
        "objects": len(every),
        "empty_images": sum(not found for found in instances),
        "occluded": round(sum(hidden) / max(len(every), 1), 4),
        "small": round(sum(small) / max(len(every), 1), 4),
    }


@contextmanager
def _map(workers: int) -> Iterator[Callable[..., Any]]:
    """Yield a map that keeps the order, over processes when there is more than one worker."""
    if workers <= 1:
        yield map
        return
    # A fork would copy the locks of OpenCV's threads, and could wait for them for ever.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, cv2.setNumThreads, (1,)) as pool:
        yield partial(pool.map, chunksize=4)


_README = """
people-walking - v1

persondet rendered this dataset (tools/make_sample.py) and laid it out like an export from
roboflow.com in COCO format. It has {images} images of {size[0]}x{size[1]} pixels without
augmentation, and no photograph and no real person in them.

Annotated: person; polygons and boxes of the visible part. Clothes and bags belong to a person;
posters do not.
"""


# ---- the whole sample ----


def generator_digest() -> str:
    """Return a digest (16 hex digits) of the code that draws the sample."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def sample_is_current(folder: str | Path, seed: int) -> bool:
    """Return whether `folder` holds the whole sample of `seed`, drawn by today's code."""
    folder = Path(folder)
    try:
        record = json.loads((folder / "sample.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(record, dict) or record.get("generator") != generator_digest():
        return False
    parts = [f"people/{split}/_annotations.coco.json" for split in _FIRST]
    parts += ["city_walk.mp4", "city_walk_groundtruth.json"]
    return record.get("seed") == seed and all((folder / part).is_file() for part in parts)


def make_sample(
    output: str | Path,
    seed: int,
    *,
    overwrite: bool = False,
    counts: Mapping[str, int] = PEOPLE_COUNTS,
    size: tuple[int, int] = SIZE,
    frames: int = 260,
    clip_size: tuple[int, int] = (1280, 720),
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the whole sample into the folder `output`, and return its record.

    The folder appears under its name only when everything is written. The record is also
    `sample.json` in it: `seed`, `generator` (see `generator_digest`), counts and shares.
    `progress(done, total)` counts images and frames together.

    Raises: OutputExistsError: when `output` is a used folder and `overwrite` is False.
    """
    images = sum(counts.values())
    record: dict[str, Any] = {"version": 1, "seed": seed, "generator": generator_digest()}

    def step(done: int, total: int | None, *, before: int = 0) -> None:
        if progress is not None:
            progress(before + done, images + frames)

    with atomic_folder(output, overwrite=overwrite) as draft:
        record["people"] = write_export(
            draft / "people", counts, size=size, seed=seed, workers=workers, progress=step
        )
        paths = draft / "city_walk.mp4", draft / "city_walk_groundtruth.json"
        record["city_walk"] = write_clip(
            *paths, seed, frames=frames, size=clip_size, progress=partial(step, before=images)
        )
        write_json(draft / "sample.json", record)
    return record

"""Write the sample: an export in Roboflow's layout, a clip, and a record of how it was made."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from persondet.data.shapes import mask_to_polygons, polygon_box
from persondet.environment import Progress
from persondet.files import atomic_folder, write_json, write_text
from persondet.sample.clip import Map, write_clip
from persondet.sample.scene import (
    MIN_SEEN,
    SMALL_HEIGHT,
    compose,
    render,
    visible_part,
)

PEOPLE_COUNTS: Mapping[str, int] = {"train": 240, "valid": 40, "test": 60}
SIZE = (640, 360)

_PROJECT = "people-walking"
_DATE = "2025-01-15T09:00:00+00:00"


# ---- the json of a Roboflow COCO export ----

# A person: polygons of the visible part, their box [x, y, width, height], the visible share.
_Instance = tuple[list[list[float]], list[float], float]

_NOTE = "Rendered by persondet in the layout of a Roboflow export"
_ABOUT = {"year": "2025", "version": "1", "description": _NOTE, "contributor": "persondet"}
_LICENCE = {"url": "https://creativecommons.org/publicdomain/zero/1.0/", "name": "Public Domain"}


def _coco_json(
    images: list[tuple[str, str, list[_Instance]]], size: tuple[int, int]
) -> dict[str, Any]:
    """Return the content of `_annotations.coco.json` with Roboflow's conventions.

    Those are: ids of images and annotations from 0, and a grouping category with id 0 that is
    named after the project. `images`: file name, name before the export, and instances of each.
    """
    annotations: list[dict[str, Any]] = []
    for number, (*_, instances) in enumerate(images):
        for polygons, box, _ in instances:
            owner = {"id": len(annotations), "image_id": number, "category_id": 1, "iscrowd": 0}
            # As Roboflow writes it, the area is the box's.
            shape = {"bbox": box, "area": round(box[2] * box[3], 3), "segmentation": polygons}
            annotations.append(owner | shape)
    frame = {"height": size[1], "width": size[0], "date_captured": _DATE}
    return {
        "info": {**_ABOUT, "url": "", "date_created": _DATE},
        "licenses": [{"id": 1, **_LICENCE}],
        "categories": [
            {"id": 0, "name": _PROJECT, "supercategory": "none"},
            {"id": 1, "name": "person", "supercategory": _PROJECT},
        ],
        "images": [
            {"id": number, "license": 1, "file_name": name, **frame, "extra": {"name": original}}
            for number, (name, original, _) in enumerate(images)
        ],
        "annotations": annotations,
    }


# ---- exports ----


def _render_image(
    index: int, *, seed: int, split: str, size: tuple[int, int]
) -> tuple[bytes, list[_Instance]]:
    """Return one image as JPEG bytes, and its instances."""
    scene, rng = compose(seed, split, index, size)
    smallest = MIN_SEEN * (size[1] / 360.0) ** 2
    instances, kept = [], []
    for item in scene.items:
        if item.name == "person":
            seen = visible_part(item, scene.items, (0, 0, *size))
            polygons = mask_to_polygons(seen.mask, seen.x, seen.y)
            if seen.area < smallest or seen.share < 0.1 or not polygons:
                continue  # hardly to be seen: it leaves the image too, so nothing is unannotated
            instances.append((polygons, polygon_box(polygons), seen.share))
        kept.append(item)
    scene.items = kept
    _, data = cv2.imencode(".jpg", render(scene, rng), [cv2.IMWRITE_JPEG_QUALITY, 92])
    return data.tobytes(), instances


def write_export(
    folder: str | Path,
    counts: Mapping[str, int],
    *,
    size: tuple[int, int] = SIZE,
    seed: int = 0,
    run: Map = map,
) -> dict[str, dict[str, float]]:
    """Write an export with `counts` images per split into `folder`, and return its shares.

    `size` is (width, height) in pixels; `run` maps a function over the numbers of the images, in
    order (see `drawing_pool`). The result for a split has `images`, `objects`, `empty_images`,
    `occluded` (visible share 0.75 or less) and `small` (visible box under 48 pixels in a frame 360
    tall), the last two as shares of the objects. The same seed gives the same bytes, whatever `run`
    is.
    """
    folder = Path(folder)
    result = {}
    for split, count in counts.items():
        target = folder / split
        target.mkdir(parents=True, exist_ok=True)
        work = partial(_render_image, seed=seed, split=split, size=size)
        images: list[tuple[str, str, list[_Instance]]] = []
        for number, (data, instances) in enumerate(run(work, range(count))):
            stem = f"street_{split}_{number:04d}"
            name = f"{stem}_jpg.rf.{hashlib.md5(data, usedforsecurity=False).hexdigest()}.jpg"
            (target / name).write_bytes(data)
            images.append((name, f"{stem}.jpg", instances))
        content = json.dumps(_coco_json(images, size), separators=(",", ":"))
        write_text(target / "_annotations.coco.json", content)
        result[split] = _shares([instances for *_, instances in images], size)
    write_text(
        folder / "README.roboflow.txt", _README.format(images=sum(counts.values()), size=size)
    )
    return result


def _shares(images: list[list[_Instance]], size: tuple[int, int]) -> dict[str, float]:
    every = [one for instances in images for one in instances]
    occluded = [share <= 0.75 for *_, share in every]
    small = [box[3] < SMALL_HEIGHT * size[1] / 360.0 for _, box, _ in every]
    return {
        "images": len(images),
        "objects": len(every),
        "empty_images": images.count([]),
        "occluded": round(float(np.mean(occluded or 0.0)), 4),
        "small": round(float(np.mean(small or 0.0)), 4),
    }


@contextmanager
def drawing_pool(workers: int) -> Iterator[Map]:
    """Yield a map that keeps the order, over processes when there is more than one worker."""
    if workers <= 1:
        yield map
        return
    # A fork would copy the locks of OpenCV's threads, and could wait for them for ever.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, cv2.setNumThreads, (1,)) as pool:
        yield partial(pool.map, chunksize=4)


_README = """people-walking - v1

persondet (tools/make_sample.py) drew these {images} images of {size[0]}x{size[1]} pixels, and laid
them out like an export from roboflow.com in COCO format. Annotated: person; polygons and boxes of
the visible part. A poster is no person.
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
    wanted = {"seed": seed, "generator": generator_digest()}
    parts = [f"people/{split}/_annotations.coco.json" for split in PEOPLE_COUNTS]
    parts += ["city_walk.mp4", "city_walk_groundtruth.json"]
    made = isinstance(record, dict) and wanted.items() <= record.items()
    return made and all((folder / part).is_file() for part in parts)


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
    record: dict[str, Any] = {"version": 1, "seed": seed, "generator": generator_digest()}
    steps = itertools.count(1)

    def counted(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        for result in run(function, tasks):
            yield result
            if progress is not None:
                progress(next(steps), sum(counts.values()) + frames)

    with atomic_folder(output, overwrite=overwrite) as draft, drawing_pool(workers) as run:
        people, clip = draft / "people", draft / "city_walk.mp4"
        record["people"] = write_export(people, counts, size=size, seed=seed, run=counted)
        ground_truth = draft / "city_walk_groundtruth.json"
        record["city_walk"] = write_clip(
            clip, ground_truth, seed, frames=frames, size=clip_size, run=counted
        )
        write_json(draft / "sample.json", record)
    return record

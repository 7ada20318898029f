"""Write the sample: two exports in Roboflow's layout, a clip, and a record of how they were made."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from persondet.files import refuse_existing, write_json, write_text
from persondet.sample.annotations import coco_json, mask_to_polygons, polygon_box
from persondet.sample.clip import write_clip
from persondet.sample.objects import OBJECT_CLASSES, compose_objects
from persondet.sample.placement import MIN_SEEN, SMALL_HEIGHT, Plan, compose, plan_split
from persondet.sample.scenes import render, visible_part

PEOPLE_COUNTS: Mapping[str, int] = {"train": 240, "valid": 40, "test": 60}
OBJECT_COUNTS: Mapping[str, int] = {"train": 160, "valid": 24, "test": 24}
SIZE = (640, 360)
HIDDEN_BELOW = 0.75
"""A person counts as occluded when no more than this share of them is visible."""

_PROJECTS = {
    "people": ("people-walking", ("person",)),
    "street_objects": ("street-objects", OBJECT_CLASSES),
}
Progress = Callable[[str, int, int], None]
"""Called as `progress(part, done, total)`."""


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
    parts = [f"{kind}/{split}/_annotations.coco.json" for kind in _PROJECTS for split in _FIRST]
    parts += ["city_walk.mp4", "city_walk_groundtruth.json"]
    return record.get("seed") == seed and all((folder / part).is_file() for part in parts)


def render_picture(
    plan: Plan, *, seed: int, kind: str, split: str, size: tuple[int, int]
) -> tuple[bytes, list[dict[str, Any]]]:
    """Return one picture as JPEG bytes, and its objects.

    Each object has `category` (id), `polygons` of its visible part, `share` (visible pixels over
    the pixels it would have alone) and `height` of its visible box in pixels.
    """
    maker = compose if kind == "people" else compose_objects
    scene, rng = maker(seed, kind, split, plan, size)
    names = _PROJECTS[kind][1]
    smallest = MIN_SEEN * (size[1] / 360.0) ** 2
    objects, kept = [], []
    for item in scene.items:
        if item.name not in names:
            kept.append(item)
            continue
        seen = visible_part(item, scene.items, *size)
        polygons = (
            mask_to_polygons(seen.mask, seen.x, seen.y)
            if seen.area >= smallest and seen.share >= 0.1
            else []
        )
        if not polygons:
            continue  # hardly to be seen: it leaves the picture too, so nothing is unannotated
        kept.append(item)
        box = polygon_box(polygons)
        objects.append(
            {
                "category": names.index(item.name) + 1,
                "polygons": polygons,
                "share": seen.share,
                "height": box[3],
            }
        )
    scene.items = kept
    encoded, data = cv2.imencode(".jpg", render(scene, rng), [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not encoded:
        raise RuntimeError("OpenCV could not encode a JPEG")
    return data.tobytes(), objects


def write_export(
    folder: str | Path,
    kind: str,
    counts: Mapping[str, int],
    *,
    size: tuple[int, int] = SIZE,
    seed: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, dict[str, float]]:
    """Write an export with `counts` images per split into `folder`, and return its shares.

    `kind` is "people" or "street_objects", `size` (width, height) in pixels. The result for a
    split has `images`, `objects`, `empty_images`, `occluded` (visible share 0.75 or less) and
    `small` (visible box under 48 pixels in a frame 360 tall), the last two as shares of the
    objects. The same seed gives the same bytes, whatever `workers` is.

    Raises: ValueError: when `kind` is not one of the two.
    """
    if kind not in _PROJECTS:
        raise ValueError(f"kind must be one of {', '.join(_PROJECTS)}, not {kind!r}")
    folder = Path(folder)
    project, names = _PROJECTS[kind]
    total, done, result = sum(counts.values()), 0, {}
    with _map(workers) as run:
        for split, count in counts.items():
            target = folder / split
            target.mkdir(parents=True, exist_ok=True)
            plans = plan_split(seed, kind, split, count)
            work = partial(render_picture, seed=seed, kind=kind, split=split, size=size)
            pictures, objects = [], []
            for plan, (data, found) in zip(plans, run(work, plans), strict=True):
                stem = (
                    f"{'street' if kind == 'people' else 'object'}_{_FIRST[split] + plan.index:04d}"
                )
                name = f"{stem}_jpg.rf.{hashlib.md5(data, usedforsecurity=False).hexdigest()}.jpg"
                (target / name).write_bytes(data)
                pictures.append(
                    {
                        "file_name": name,
                        "original": f"{stem}.jpg",
                        "objects": [(o["category"], o["polygons"]) for o in found],
                    }
                )
                objects.append(found)
                done += 1
                if progress is not None:
                    progress(kind, done, total)
            content = coco_json(project, names, pictures, size)
            write_text(
                target / "_annotations.coco.json", json.dumps(content, separators=(",", ":"))
            )
            result[split] = _shares(objects, size)
    write_text(folder / "README.roboflow.txt", _readme(project, names, sum(counts.values()), size))
    return result


_FIRST = {"train": 0, "valid": 5000, "test": 7000}


def _shares(objects: list[list[dict[str, Any]]], size: tuple[int, int]) -> dict[str, float]:
    every = [one for found in objects for one in found]
    count = max(len(every), 1)
    return {
        "images": len(objects),
        "objects": len(every),
        "empty_images": sum(not found for found in objects),
        "occluded": round(sum(one["share"] <= HIDDEN_BELOW for one in every) / count, 4),
        "small": round(
            sum(one["height"] < SMALL_HEIGHT * size[1] / 360.0 for one in every) / count, 4
        ),
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


def _readme(project: str, names: tuple[str, ...], images: int, size: tuple[int, int]) -> str:
    return f"""
{project} - v1
==============================

This dataset was rendered by persondet (tools/make_sample.py) and laid out like an export from
roboflow.com in COCO format. No photograph and no person is in it.

The dataset includes {images} images.
Annotated: {", ".join(names)}; polygons and boxes of the visible part. Clothes and bags belong to
a person; umbrellas, mannequins in shop windows and posters do not.

The following pre-processing was applied to each image:
* Rendered at {size[0]}x{size[1]}

No image augmentation techniques were applied.
"""


def make_sample(
    output: str | Path,
    seed: int,
    *,
    overwrite: bool = False,
    people_counts: Mapping[str, int] = PEOPLE_COUNTS,
    object_counts: Mapping[str, int] = OBJECT_COUNTS,
    size: tuple[int, int] = SIZE,
    frames: int = 260,
    clip_size: tuple[int, int] = (1280, 720),
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the whole sample into the folder `output`, and return its record.

    The folder appears under its name only when everything is written. The record is also
    `sample.json` in it: `seed`, `generator` (see `generator_digest`), counts and shares.
    `progress(part, done, total)` is called after each image or frame.

    Raises: OutputExistsError: when `output` is a used folder and `overwrite` is False.
    """
    output = Path(output)
    refuse_existing(output, overwrite=overwrite)
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        arguments: dict[str, Any] = {
            "size": size,
            "seed": seed,
            "workers": workers,
            "progress": progress,
        }
        record: dict[str, Any] = {"version": 1, "seed": seed, "generator": generator_digest()}
        record["people"] = write_export(draft / "people", "people", people_counts, **arguments)
        record["street_objects"] = write_export(
            draft / "street_objects", "street_objects", object_counts, **arguments
        )
        step = partial(progress, "city_walk") if progress is not None else None
        record["city_walk"] = write_clip(
            draft / "city_walk.mp4", draft / "city_walk_groundtruth.json", seed,
            frames=frames, size=clip_size, progress=step,
        )  # fmt: skip
        write_json(draft / "sample.json", record)
        draft.chmod(0o755)
        if output.exists():
            shutil.rmtree(output)
        draft.rename(output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return record

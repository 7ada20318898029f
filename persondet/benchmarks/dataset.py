"""How fast `check` is beside a bare decode, and what the json work and the leak search cost."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from persondet.benchmarks.json_work import measure_json_work
from persondet.data.coco_json import write_coco
from persondet.data.leaks.near_identical import near_identical_pairs
from persondet.data.validation.validate import check_export
from persondet.environment import cpu_count

_SIZE = (1280, 720)
_PEOPLE = 10  # per image


def benchmark_dataset(
    *,
    images: int = 600,
    annotations: int = 100_000,
    hashes: int = 100_000,
    pairs: int = 10,
    progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, Any]:
    """Measure `check`, the json work and the leak search.

    `check` (jsons, full decode, digests, perceptual hashes, leaks) is measured in turns with a bare
    parallel decode of the same files: `cv2.imread` in one thread per core. The json work is read,
    clean and write in a process of its own, whose peak memory is all that it ever had.

    Args:
        images: JPEGs of 1280 x 720 pixels that `check` and the decode read.
        annotations: of the json; polygons of 30 points.
        hashes: perceptual hashes to search, most of them alone, some with a near-identical twin.
        pairs: how often `check` and the decode are measured.
        progress: called with the number of steps done and of all.

    Returns: `check`: `ratio` (decode time / check time, the median of the pairs, with `low` and
    `high`) and images per second of both; `json`: `seconds`, `peak_mb`; `leaks`: `seconds`.
    """
    steps = 2 * pairs + 3
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "export"
        _write_pictures(root, images)
        files = sorted((root / "train").glob("*.jpg"))
        _tell(progress, 1, steps)
        ratios, checks, decodes = [], [], []
        for number in range(pairs):
            decodes.append(_seconds(lambda: _bare_decode(files)))
            _tell(progress, 2 * number + 2, steps)
            checks.append(_seconds(lambda: check_export(root)))
            ratios.append(decodes[-1] / checks[-1])
            _tell(progress, 2 * number + 3, steps)
        big = Path(scratch) / "big.json"
        _write_json(big, annotations)
        seconds, peak = measure_json_work(big)
    _tell(progress, steps - 1, steps)
    search = _seconds(lambda: near_identical_pairs(_hashes(hashes)))
    _tell(progress, steps, steps)
    return {
        "check": {
            "images": images,
            "ratio": statistics.median(ratios),
            "low": min(ratios),
            "high": max(ratios),
            "check_images_per_second": images / statistics.median(checks),
            "decode_images_per_second": images / statistics.median(decodes),
        },
        "json": {"annotations": annotations, "seconds": seconds, "peak_mb": peak},
        "leaks": {"hashes": hashes, "seconds": search},
    }


def _tell(progress: Callable[[int, int | None], None] | None, done: int, steps: int) -> None:
    if progress is not None:
        progress(done, steps)


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _bare_decode(files: list[Path]) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one thread per picture, as many pictures as cores
    try:
        with ThreadPoolExecutor(cpu_count()) as pool:
            for image in pool.map(cv2.imread, map(str, files)):
                assert image is not None
    finally:
        cv2.setNumThreads(threads)


def _write_pictures(root: Path, count: int) -> None:
    """Write an export of one split whose pictures cost about what photographs cost to decode."""
    folder = root / "train"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 6, (_SIZE[1], _SIZE[0], 3))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        coarse = rng.integers(0, 256, (18, 32, 3), dtype=np.uint8)
        smooth = cv2.resize(coarse, _SIZE, interpolation=cv2.INTER_CUBIC)
        shifted = np.roll(noise, int(rng.integers(1000)), axis=int(rng.integers(2)))
        name = f"scene_{number:05d}_jpg.rf.{number:032x}.jpg"
        picture = np.clip(smooth + shifted, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
        images.append({"id": number, "file_name": name, "width": _SIZE[0], "height": _SIZE[1]})
        annotations += _people(rng, number, len(annotations))
    write_coco(folder / "_annotations.coco.json", _coco(images, annotations))


def _write_json(path: Path, count: int) -> None:
    rng = np.random.default_rng(1)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    while len(annotations) < count:
        number = len(images)
        name = f"scene_{number:06d}_jpg.rf.{number:032x}.jpg"
        images.append({"id": number, "file_name": name, "width": _SIZE[0], "height": _SIZE[1]})
        annotations += _people(rng, number, len(annotations))
    path.write_text(json.dumps(_coco(images, annotations[:count])))


def _coco(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    categories = [
        {"id": 0, "name": "people", "supercategory": "none"},
        {"id": 1, "name": "person", "supercategory": "people"},
    ]
    return {"info": {}, "categories": categories, "images": images, "annotations": annotations}


def _people(rng: np.random.Generator, image: int, first_id: int) -> list[dict[str, Any]]:
    angles = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    people = []
    for number in range(_PEOPLE):
        centre, radii = rng.uniform((80, 80), (1200, 640)), rng.uniform(10, 60, 2)
        points = np.round(centre + radii * circle * rng.uniform(0.8, 1, (30, 1)), 3)
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


def _hashes(count: int) -> np.ndarray:
    """Return uint64 (count, 8): random ones, every hundredth a twin of the one before it."""
    rng = np.random.default_rng(2)
    hashes = rng.integers(0, 2**64, (count, 8), dtype=np.uint64)
    twins = np.arange(100, count, 100)
    hashes[twins] = hashes[twins - 1] ^ np.uint64(0b1010)
    return hashes

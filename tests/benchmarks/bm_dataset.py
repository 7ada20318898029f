"""How fast `check` is beside a bare decode, and what the json work and the leak search cost.

The imports at the top are few: the memory of the json work is all that its process ever had.
"""

from __future__ import annotations

import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bm_pairs import Progress, Row, Turns, in_own_process, medians, memory_mb

from persondet.data.clean import clean_coco
from persondet.data.coco_json import read_coco, write_coco


def main(
    *,
    pairs: int = 10,
    images: int = 600,
    progress: Progress | None = None,
    annotations: int = 100_000,
    hashes: int = 20_000,
) -> dict[str, Any]:
    """Measure `check`, the json work and the leak search.

    `check` (jsons, full decode, digests, perceptual hashes, leaks) runs in turns with a bare
    parallel decode of the same files: `cv2.imread` in one thread per core.

    Args:
        pairs: turns of `check` and of the decode.
        images: JPEGs of 1280 x 720 pixels that both read.
        progress: called with the turns done and of all.
        annotations: of the json; polygons of 30 points.
        hashes: perceptual hashes to search, most alone, every hundredth with a near-identical twin.

    Returns: `check`: `ratio` (decode time / check time) with `low` and `high`, and images per
    second of both; `json`: `seconds` and `peak_mb` of reading, cleaning and writing; `leaks`:
    `seconds`.
    """
    from bm_scenes import PEOPLE, SIZE, coco_of, outlines, write_export

    from persondet.data.check import check_export
    from persondet.data.leaks.same_image import near_identical_pairs

    with tempfile.TemporaryDirectory() as scratch:
        root, big = Path(scratch) / "export", Path(scratch) / "big.json"
        write_export(root, {"train": images})
        files = sorted(map(str, (root / "train").glob("*.jpg")))
        turns = Turns(pairs, rows=1, progress=progress)
        check = turns.time(partial(check_export, root), partial(bare_decode, files)).as_json()
        rng = np.random.default_rng(1)
        crowd = [outlines(rng, SIZE) for _ in range(-(-annotations // PEOPLE))]
        big.write_text(json.dumps(coco_of(crowd)))
        json_work = in_own_process(_clean, big)
    searched = _hashes(hashes)
    thumbnail = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    start = time.perf_counter()
    near_identical_pairs(searched, np.broadcast_to(thumbnail, (hashes, 64, 64)))
    for side, seconds in (("check", "first_seconds"), ("decode", "second_seconds")):
        check[f"{side}_images_per_second"] = images / float(np.median(check[seconds]))
    return {
        "check": {"images": images, **check},
        "json": {"annotations": len(crowd) * PEOPLE, **json_work},
        "leaks": {"hashes": hashes, "seconds": time.perf_counter() - start},
    }


def bare_decode(files: list[str]) -> None:
    """Decode the files with `cv2.imread`, one thread per core."""
    from concurrent.futures import ThreadPoolExecutor

    import cv2

    from persondet.environment import cpu_count

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one thread per image, as many images as cores
    try:
        with ThreadPoolExecutor(cpu_count()) as pool:
            assert all(image is not None for image in pool.map(cv2.imread, files))
    finally:
        cv2.setNumThreads(threads)


def _clean(path: Path) -> dict[str, float]:
    start = time.perf_counter()
    clean = clean_coco({"train": read_coco(path)})
    write_coco(path.with_name("clean.json"), clean.splits["train"])
    return {"seconds": time.perf_counter() - start, "peak_mb": memory_mb(peak=True)}


def _hashes(count: int) -> np.ndarray:
    """Return uint64 (count, 8): random ones, every hundredth a twin of the one before it."""
    rng = np.random.default_rng(2)
    hashes = rng.integers(0, 2**64, (count, 8), dtype=np.uint64)
    twins = np.arange(100, count, 100)
    hashes[twins] = hashes[twins - 1] ^ np.uint64(0b1010)
    return hashes


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the lines of the table."""
    check, work, leaks = found["check"], found["json"], found["leaks"]
    rates = medians(check, "{:.0f} images/s", lambda seconds: check["images"] / seconds)
    what = f"{work['annotations']} annotations read, cleaned and written"
    return [
        ("check, against a bare parallel cv2.imread", check, rates),
        (what, None, f"{work['seconds']:.1f} s, at most {work['peak_mb']:.0f} MB"),
        (f"leaks: {leaks['hashes']} hashes searched", None, f"{leaks['seconds']:.1f} s"),
    ]

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

from persondet.benchmarks.export import coco_of, write_export
from persondet.benchmarks.json_work import measure_json_work
from persondet.data.check.validate import check_export
from persondet.data.leaks.same_image import near_identical_pairs
from persondet.environment import cpu_count


def benchmark_dataset(
    *,
    images: int = 600,
    annotations: int = 100_000,
    hashes: int = 20_000,
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
        write_export(root, {"train": images})
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
        big.write_text(json.dumps(coco_of(annotations)))
        seconds, peak = measure_json_work(big)
    _tell(progress, steps - 1, steps)
    search = _seconds(lambda: near_identical_pairs(*_images(hashes)))
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


def _images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random hashes, every hundredth a twin of the one before it, and one thumbnail for all."""
    rng = np.random.default_rng(2)
    hashes = rng.integers(0, 2**64, (count, 8), dtype=np.uint64)
    twins = np.arange(100, count, 100)
    hashes[twins] = hashes[twins - 1] ^ np.uint64(0b1010)
    thumbnail = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    return hashes, np.broadcast_to(thumbnail, (count, 64, 64))

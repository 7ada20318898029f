"""How fast `check` is beside a bare decode, and what the json work and the leak search cost.

The imports at the top are few: the memory of the json work is all that its process ever had.
"""

import json
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from bm_pairs import Progress, Row, Turns, in_own_process, medians, memory_mb

from persondet.data.clean import clean_coco
from persondet.data.coco_json import read_coco, write_coco

_ANNOTATIONS = 100_000  # of the json; polygons of 30 points
_HASHES = 20_000  # to search, most alone, every hundredth with a near-identical twin


def main(*, pairs: int = 10, images: int = 600, progress: Progress | None = None) -> dict[str, Row]:
    """Measure `check`, the json work and the leak search.

    `check` (jsons, full decode, digests, perceptual hashes, leaks) runs in turns with a bare
    parallel decode of the same JPEGs of 1280 x 720 pixels.

    Returns: `check`: the statistics, ours the first side; `json`: `seconds` and `peak_mb` of
    reading, cleaning and writing; `leaks`: `seconds`.
    """
    from bm_scenes import PEOPLE, SIZE, coco_of, outlines, write_export

    from persondet.data.check import check_export
    from persondet.data.leaks.verification import near_identical_pairs

    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as scratch:
        root, big = Path(scratch) / "export", Path(scratch) / "big.json"
        write_export(root, {"train": images})
        files = sorted(map(str, (root / "train").glob("*.jpg")))
        turns = Turns(pairs, rows=1, progress=progress)
        check = turns.time(partial(check_export, root), partial(bare_decode, files))
        crowd = [outlines(rng, SIZE) for _ in range(_ANNOTATIONS // PEOPLE)]
        big.write_text(json.dumps(coco_of(crowd)))
        json_work = in_own_process(_clean, big)
    hashes = rng.integers(0, 2**64, (_HASHES, 8), dtype=np.uint64)
    hashes[100::100] = hashes[99:-1:100] ^ np.uint64(0b1010)
    thumbnail = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    start = time.perf_counter()
    near_identical_pairs(hashes, np.broadcast_to(thumbnail, (_HASHES, 64, 64)))
    searched = time.perf_counter() - start
    rates = medians(check, "{:.0f} images/s", lambda seconds: images / seconds)
    told = "{seconds:.1f} s, at most {peak_mb:.0f} MB".format(**json_work)
    json_work |= {"what": f"{_ANNOTATIONS} annotations read, cleaned and written", "details": told}
    check |= {"what": "check, against a bare parallel cv2.imread", "details": rates}
    leaks = {"what": f"leaks: {_HASHES} hashes searched", "details": f"{searched:.1f} s"}
    return {"check": check, "json": json_work, "leaks": {**leaks, "seconds": searched}}


def bare_decode(files: list[str]) -> None:
    """Decode the files with `cv2.imread`, one thread per core."""
    from concurrent.futures import ThreadPoolExecutor

    import cv2

    from persondet.environment import cpu_count

    cv2.setNumThreads(1)  # one thread per image, as many images as cores
    with ThreadPoolExecutor(cpu_count()) as pool:
        assert all(image is not None for image in pool.map(cv2.imread, files))
    cv2.setNumThreads(-1)


def _clean(path: Path) -> dict[str, float]:
    start = time.perf_counter()
    clean = clean_coco({"train": read_coco(path)})
    write_coco(path.with_name("clean.json"), clean.splits["train"])
    return {"seconds": time.perf_counter() - start, "peak_mb": memory_mb(peak=True)}

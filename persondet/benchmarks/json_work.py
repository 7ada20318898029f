"""What the json work of cleaning costs: read, clean, write, and nothing else."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from pathlib import Path
from typing import Any

from persondet.data.clean import clean_coco
from persondet.data.coco_json import read_coco, write_coco


def measure_json_work(path: Path) -> tuple[float, float]:
    """Return seconds and peak memory (MB) of reading, cleaning and writing the json at `path`.

    The work is done in a process of its own, so the memory is all that it ever had, the
    interpreter included. The clean json is written beside `path` as `clean.json`.
    """
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_work, args=(path, sender))
    process.start()
    sender.close()
    result: tuple[float, float] = receiver.recv()
    process.join()
    return result


def _work(path: Path, sender: Any) -> None:
    start = time.perf_counter()
    clean = clean_coco({"train": read_coco(path)})
    write_coco(path.with_name("clean.json"), clean.splits["train"])
    seconds = time.perf_counter() - start
    sender.send((seconds, _peak_mb()))


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # `ru_maxrss` starts at what the parent had
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes here
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6

"""What a busy neighbour costs: training and inference on two cores, one of them taken by a loop.

Each measurement runs in a process of its own, because OpenMP reads its waiting policy once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from bm_pairs import Progress, Row, in_own_process

_POLICIES = {"passive": "PASSIVE", "active": "ACTIVE", "default": ""}
_WORKS = ("training step", "inference")
_THREADS = 2


def main(*, pairs: int = 10, progress: Progress | None = None) -> dict[str, Row]:
    """Measure the CPU config's training step (2 images of 320 px) and inference (640 x 360).

    Args:
        pairs: timed calls of each, after two untimed ones.
        progress: called with the measurements done and of all.

    Returns: for each work and waiting policy `free` and `busy`, the median seconds on two free
    cores and with a loop on one of them, and `ratio`, the second over the first.
    """
    found: dict[str, Row] = {}
    total = 2 * len(_POLICIES)
    for i, (name, policy) in enumerate(_POLICIES.items()):
        seconds = []
        for busy in (False, True):
            with _environment(policy), _busy_core(wanted=busy):
                seconds.append(in_own_process(_measure, pairs))
            if progress is not None:
                progress(2 * i + busy + 1, total)
        for work, free, taken in zip(_WORKS, *seconds, strict=True):
            found[f"{work}, {name}"] = {
                "what": f"{work}, waiting {name}: one core taken against two free cores",
                "ratio": taken / free,
                "free": free,
                "busy": taken,
                "details": f"{1000 * taken:.0f} ms, {1000 * free:.0f} ms",
            }
    return found


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))[:_THREADS]


@contextmanager
def _environment(policy: str) -> Iterator[None]:
    before = dict(os.environ)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        os.environ.pop(name, None)
    if policy:
        os.environ["OMP_WAIT_POLICY"] = policy
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _busy_core(*, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    loop = f"import os; os.sched_setaffinity(0, {_cores()[:1]})\nwhile True: pass"
    neighbour = subprocess.Popen([sys.executable, "-c", loop])
    try:
        yield
    finally:
        neighbour.kill()
        neighbour.wait()


def _measure(calls: int) -> tuple[float, ...]:
    os.sched_setaffinity(0, _cores())
    import torch
    from bm_train import CPU_CONFIG, prepared
    from detectron2.utils.events import EventStorage

    torch.set_num_threads(_THREADS)
    trainer, _ = prepared(CPU_CONFIG, "float32", size=320, batch_size=2)
    model = trainer.model
    frame = torch.randint(0, 256, (3, 360, 640), dtype=torch.uint8)

    def step() -> None:
        with EventStorage():
            trainer.run_step()

    def predict() -> None:
        with torch.inference_mode():
            model([{"image": frame, "height": 360, "width": 640}])

    seconds = [_median(step, calls)]
    model.eval()
    return (*seconds, _median(predict, calls))


def _median(work: Any, calls: int) -> float:
    seconds = []
    for _ in range(calls + 2):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return median(seconds[2:])

"""What a busy neighbour costs: training and inference on two cores, one of them taken by a loop.

Each measurement runs in a process of its own, because OpenMP reads its waiting policy once.
"""

import os
import subprocess
import sys
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from statistics import median
from unittest import mock

from bm_pairs import Progress, Row, in_own_process

_POLICIES: dict[str, dict[str, str]] = {
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "active": {"OMP_WAIT_POLICY": "ACTIVE"},
    "default": {},
}
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
    for i, (name, policy) in enumerate(_POLICIES.items()):
        seconds = []
        for busy in (False, True):
            with mock.patch.dict(os.environ), _busy_core() if busy else nullcontext():
                os.environ.pop("GOMP_SPINCOUNT", None)
                os.environ.pop("OMP_WAIT_POLICY", None)
                os.environ.update(policy)
                seconds.append(in_own_process(_measure, pairs))
            if progress is not None:
                progress(2 * i + busy + 1, 2 * len(_POLICIES))
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
def _busy_core() -> Iterator[None]:
    loop = f"import os; os.sched_setaffinity(0, {_cores()[:1]})\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", loop]) as neighbour:
        try:
            yield
        finally:
            neighbour.kill()


def _measure(calls: int) -> tuple[float, float]:
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

    def seconds(work: Callable[[], None]) -> float:
        return median(timeit.repeat(work, number=1, repeat=calls + 2)[2:])

    steps = seconds(step)
    model.eval()
    return steps, seconds(predict)

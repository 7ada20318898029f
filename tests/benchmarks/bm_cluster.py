"""What a job over many items costs beside the work itself: scaling, the driver, its memory."""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bm_pairs import Progress, Row, in_own_process, memory_mb

from persondet.batch.items import JobItem
from persondet.batch.job import annotate_folder
from persondet.batch.options import AnnotationOptions
from persondet.batch.pools import RayPool, Tell
from persondet.batch.store import Store
from persondet.batch.worker import Outcome, Worker

_SECONDS = 0.5  # of an item whose cost is fixed
_ACTORS = (1, 2, 4, 8)


def main(
    *, pairs: int = 10, images: int = 100_000, progress: Progress | None = None
) -> dict[str, Row]:
    """Measure a job whose items do nothing, and one whose items sleep.

    Args:
        pairs: items per actor in the rows of scaling.
        images: items of the largest job; the driver's memory is compared with 1,000 items.
        progress: called with the measurements done and of all.
    """
    found: dict[str, Row] = {}
    tell = progress or (lambda *_: None)
    total = len(_ACTORS) + 3
    alone = 0.0
    for done, actors in enumerate(_ACTORS):
        seconds = in_own_process(_seconds_on_ray, actors, actors * pairs, _SECONDS)
        alone = alone or seconds
        found[f"{actors} actors"] = {
            "what": f"{actors} actors, {pairs} items of {_SECONDS} s each: share of the ideal",
            "ratio": pairs * _SECONDS / seconds,
            "details": f"{seconds:.2f} s, {pairs * _SECONDS:.2f} s",
        }
        tell(done + 1, total)
    seconds = in_own_process(_seconds_on_ray, 2, 2000, 0.0)
    each = 1000 * seconds / 2000
    found["overhead"] = {
        "what": "an item that does nothing, on two actors",
        "details": f"{each:.2f} ms",
        "milliseconds": each,
    }
    tell(total - 2, total)
    for count in (1000, images):
        seconds, grown = in_own_process(_driver_alone, count)
        found[f"{count} items"] = {
            "what": f"the driver alone, {count:,} items",
            "details": f"{1e6 * seconds / count:.0f} µs an item, {grown:.0f} MB more",
            "microseconds": 1e6 * seconds / count,
            "megabytes": grown,
        }
    tell(total, total)
    return found


class _Sleeper(Worker):
    """Does nothing for a while."""

    seconds = 0.0

    def annotate(self, item: JobItem) -> Outcome:
        time.sleep(self.seconds)
        return Outcome(item.name, item.target, "done", frames=1, seconds=self.seconds)


def _nothing() -> Any:
    return None


@dataclass
class _Names(Store):
    """A store that lists files which are nowhere."""

    count: int

    def __post_init__(self) -> None:
        Store.__init__(self, "/nowhere")

    def walk(self) -> Iterator[tuple[str, int, str]]:
        for number in range(self.count):
            yield f"{number % 1000:03d}/{number:07d}.mp4", number * 7919 % 100_003, "0"


@dataclass(frozen=True)
class _NoPool:
    def run(self, items: Iterator[JobItem], tell: Tell) -> Iterator[Outcome]:
        for item in items:
            yield Outcome(item.name, item.target, "done", frames=1)


def _seconds_on_ray(actors: int, count: int, seconds: float) -> float:
    """Return the time from the first item to the end: starting Ray is not the driver's work."""
    import logging

    import ray

    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # workers find this file
    ray.init(
        num_cpus=actors, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    with tempfile.TemporaryDirectory() as folder:
        output = Store(Path(folder) / "out")
        worker = _Sleeper(_nothing, output, output, AnnotationOptions())
        worker.seconds = seconds
        pool = RayPool(worker, "local", actors=actors)
        started: list[float] = []
        items = (_begun(item, started) for item in _items(count))
        outcomes = list(pool.run(items, lambda _: None))
        taken = time.perf_counter() - started[0]
        assert len(outcomes) == count
    ray.shutdown()
    return taken


def _begun(item: JobItem, started: list[float]) -> JobItem:
    if not started:
        started.append(time.perf_counter())
    return item


def _items(count: int) -> Iterator[JobItem]:
    for number in range(count):
        yield JobItem(f"{number}.mp4", "clip", f"{number}_annotated.mp4", ())


def _driver_alone(count: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        output = Store(Path(folder) / "out")
        before = memory_mb(peak=True)
        started = time.perf_counter()
        summary = annotate_folder(_Names(count), output, _NoPool())
        seconds = time.perf_counter() - started
        assert summary.states == {"done": count}
        return seconds, memory_mb(peak=True) - before

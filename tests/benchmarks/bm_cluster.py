"""What a job over many items costs beside the work itself: scaling, the driver, its memory."""

import itertools
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bm_pairs import Progress, Row, in_own_process, memory_mb

from persondet.batch.items import JobItem
from persondet.batch.job import annotate_folder
from persondet.batch.options import AnnotationOptions
from persondet.batch.pools import RayPool
from persondet.batch.store import Store
from persondet.batch.worker import Outcome, Worker

_SECONDS = 0.5  # of an item whose cost is fixed
_ACTORS = (1, 2, 4, 8)
_SIMULATED = 1000


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
    total = len(_ACTORS) + 4
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
    tell(total - 3, total)
    for done, count in enumerate((1000, images)):
        seconds, grown = in_own_process(_driver_alone, count)
        found[f"{count} items"] = {
            "what": f"the driver of {_SIMULATED:,} simulated actors, {count:,} items",
            "details": f"{1e6 * seconds / count:.0f} µs an item, {grown:.0f} MB more",
            "microseconds": 1e6 * seconds / count,
            "megabytes": grown,
        }
        tell(total - 2 + done, total)
    each = 1000 * in_own_process(_seconds_of_a_wait)
    found["wait"] = {
        "what": f"Ray's answer about {_SIMULATED:,} calls, of which one has ended",
        "details": f"{each:.1f} ms",
        "milliseconds": each,
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


class _SimulatedRay:
    """Actors without processes: any call has ended, with a result, when it is asked for."""

    def __init__(self) -> None:
        from ray import exceptions

        self.exceptions = exceptions
        self._calls = itertools.count()
        self._results: dict[int, Any] = {}

    def is_initialized(self) -> bool:
        return True

    def remote(self, **_: Any) -> Any:
        return lambda _: SimpleNamespace(remote=lambda _: self)

    @property
    def load(self) -> Any:
        return SimpleNamespace(remote=lambda: self._call(None))

    @property
    def annotate(self) -> Any:
        return SimpleNamespace(remote=self._annotated)

    @property
    def frames(self) -> Any:
        return SimpleNamespace(remote=lambda: self._call(0))

    def _annotated(self, item: JobItem) -> int:
        return self._call(Outcome(item.name, item.target, "done", frames=1))

    def _call(self, result: Any) -> int:
        number = next(self._calls)
        self._results[number] = result
        return number

    def wait(self, calls: list[int], num_returns: int = 1, **_: Any) -> tuple[list[int], list[int]]:
        return calls[:num_returns], calls[num_returns:]

    def get(self, call: int) -> Any:
        return self._results.pop(call)

    def kill(self, _: Any) -> None:
        pass


def _started(cores: int) -> Any:
    import ray

    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # workers find this file
    quiet: Any = {"log_to_driver": False, "logging_level": logging.ERROR}
    ray.init(num_cpus=cores, include_dashboard=False, **quiet)
    return ray


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


def _seconds_of_a_wait() -> float:
    ray = _started(2)
    sleep = ray.remote(_sleep)
    ended = sleep.remote(0)
    calls = [ended, *(sleep.remote(60) for _ in range(_SIMULATED - 1))]
    ray.get(ended)
    started = time.perf_counter()
    for _ in range(20):
        ray.wait(calls, num_returns=len(calls), timeout=0, fetch_local=False)
    seconds = (time.perf_counter() - started) / 20
    ray.shutdown()
    return seconds


def _seconds_on_ray(actors: int, count: int, seconds: float) -> float:
    """Return the time from the first item to the end: starting Ray is not the driver's work."""
    ray = _started(actors)
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
        pool = RayPool(_Sleeper(_nothing, output, output, AnnotationOptions()), "simulated")
        pool._ray, pool._count = _SimulatedRay(), _SIMULATED
        summary = annotate_folder(_Names(count), output, pool)
        seconds = time.perf_counter() - started
        assert summary.states == {"done": count}
        return seconds, memory_mb(peak=True) - before

"""Timing two sides in turns, so that a machine's moods meet both alike, and printing the ratios."""

import gc
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

# Called as `progress(done, total)`.
Progress = Callable[[int, int | None], None]
# One line of the table: `what` was measured, its `details`, and statistics where sides are two.
Row = dict[str, Any]


class Seconds(float):
    """What a side returns when only a part of its call counts: the seconds of that part."""


def statistics(first_seconds: Sequence[float], second_seconds: Sequence[float]) -> dict[str, Any]:
    """Return the statistics of two sides that were measured in pairs, and every measurement.

    `ratio` is the median of second over first, pair by pair: how many times faster the first
    side is. `low` and `high` are the 10th and 90th percentile, linear between neighbours.
    """
    ratios = np.divide(second_seconds, first_seconds)
    low, middle, high = np.quantile(ratios, (0.1, 0.5, 0.9)).tolist()
    seconds = {"first_seconds": list(first_seconds), "second_seconds": list(second_seconds)}
    return {"low": low, "ratio": middle, "high": high, "pairs": len(ratios), **seconds}


class Turns:
    """Times pairs of callables, and tells how many calls are done."""

    def __init__(self, pairs: int, *, rows: int, progress: Progress | None = None) -> None:
        """Plan `pairs` timed calls of each side (at least 1) for each of `rows` comparisons."""
        self.pairs, self.progress = pairs, progress
        self.done, self.total = 0, 2 * (pairs + 1) * rows

    def time(self, first: Callable[[], Any], second: Callable[[], Any]) -> dict[str, Any]:
        """Return the `statistics` of two callables in turns; one call of each does not count.

        The side that begins changes from pair to pair, so that drift cancels. Garbage is collected
        before each timed call and never during one: neither side pays for what the other left.
        A result, usually of our side first, is thrown away, unless it is `Seconds`.
        """
        seconds: dict[Callable[[], Any], list[float]] = {first: [], second: []}
        gc.collect()
        gc.freeze()  # what is there already is not searched again before each call
        try:
            for turn in range(self.pairs + 1):
                for side in (first, second) if turn % 2 else (second, first):
                    seconds[side].append(_timed(side))
                    self.done += 1
                    if self.progress is not None:
                        self.progress(self.done, self.total)
        finally:
            gc.unfreeze()
        return statistics(seconds[first][1:], seconds[second][1:])


def _timed(work: Callable[[], Any]) -> float:
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        result = work()
        taken = time.perf_counter() - start
    finally:
        gc.enable()
    return float(result) if isinstance(result, Seconds) else taken


def in_own_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `work` returns in a fresh process: its memory and its cores are its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def memory_mb(*, peak: bool) -> float:
    """Return the memory that this process has, or had at most, MB (without /proc: at most)."""
    status = Path("/proc/self/status")
    if status.exists():  # `ru_maxrss` starts at what the parent had
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM" if peak else "VmRSS"].split()[0]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes here
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def medians(figures: dict[str, Any], form: str, of: Callable[[float], float] = float) -> str:
    """Return the median seconds of both sides, e.g. "1.2 s, 2.4 s" with the form "{:.1f} s"."""
    both = (figures["first_seconds"], figures["second_seconds"])
    return ", ".join(form.format(of(float(np.median(seconds)))) for seconds in both)


def table(found: dict[str, Row]) -> str:
    """Return the rows as text: the median of the ratios, their spread, and the numbers behind."""
    lines = []
    for row in found.values():
        ratio = f"{row['ratio']:.2f} x" if "ratio" in row else ""
        spread = f"{row['low']:.2f} to {row['high']:.2f}" if "low" in row else ""
        lines.append((row["what"], ratio, spread, row["details"]))
    return tabulate(lines, headers=("", "ratio", "10th to 90th percentile", "ours, other side"))

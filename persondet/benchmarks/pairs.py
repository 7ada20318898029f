"""Two sides of a comparison timed in turns, so that a machine's moods meet both alike."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Progress = Callable[[int, int | None], None]
"""Called as `progress(done, total)`."""


class Seconds(float):
    """What a side returns when only a part of its call counts: the seconds of that part."""


@dataclass(frozen=True)
class PairedTimes:
    """Seconds of two sides, measured in pairs.

    Attributes:
        first_seconds: of the first side, one per pair.
        second_seconds: of the second side, one per pair.
    """

    first_seconds: tuple[float, ...]
    second_seconds: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Second over first, pair by pair: how many times faster the first side is."""
        pairs = zip(self.first_seconds, self.second_seconds, strict=True)
        return tuple(second / first for first, second in pairs)

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)

    @property
    def low(self) -> float:
        """The 10th percentile of the ratios (linear between neighbours)."""
        return _percentile(self.ratios, 0.1)

    @property
    def high(self) -> float:
        """The 90th percentile of the ratios (linear between neighbours)."""
        return _percentile(self.ratios, 0.9)

    @property
    def first(self) -> float:
        """The median of the first side's seconds."""
        return statistics.median(self.first_seconds)

    @property
    def second(self) -> float:
        """The median of the second side's seconds."""
        return statistics.median(self.second_seconds)

    def as_json(self) -> dict[str, Any]:
        """Return the statistics and every single measurement as plain values."""
        return {
            "ratio": self.ratio,
            "low": self.low,
            "high": self.high,
            "pairs": len(self.first_seconds),
            "first_seconds": list(self.first_seconds),
            "second_seconds": list(self.second_seconds),
        }


def interleaved(
    first: Callable[[], Any],
    second: Callable[[], Any],
    *,
    pairs: int,
    progress: Progress | None = None,
    warmup: int = 1,
) -> PairedTimes:
    """Time two callables in turns; who begins changes from pair to pair, so that drift cancels.

    Garbage is collected before each timed call and never during one, so that neither side pays
    for what the other has left behind.

    Args:
        first: usually our side; its result is thrown away, unless it is `Seconds`.
        second: usually the other side, likewise.
        pairs: timed calls of each side, at least 1.
        progress: called with the calls done and of all, the warm-up included.
        warmup: untimed calls of each side before.

    Raises: ValueError: when there is no pair.
    """
    if pairs < 1:
        raise ValueError(f"pairs must be at least 1, not {pairs}")
    steps, done = 2 * (pairs + warmup), 0
    seconds: dict[str, list[float]] = {"first": [], "second": []}
    sides = [("first", first), ("second", second)]
    gc.collect()
    gc.freeze()  # what is there already is not searched again before each call
    try:
        for turn in range(-warmup, pairs):
            for name, work in sides if turn % 2 == 0 else reversed(sides):
                taken = _timed(work)
                if turn >= 0:
                    seconds[name].append(taken)
                done += 1
                if progress is not None:
                    progress(done, steps)
    finally:
        gc.unfreeze()
    return PairedTimes(tuple(seconds["first"]), tuple(seconds["second"]))


def part_of(progress: Progress | None, number: int, parts: int) -> Progress | None:
    """Return what to call in part `number` (from 0) of `parts` equally long ones."""
    if progress is None:
        return None
    tell: Progress = progress
    return lambda done, total: tell(number * (total or 0) + done, parts * (total or 0))


def _timed(work: Callable[[], Any]) -> float:
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        result = work()
        taken = time.perf_counter() - start
    finally:
        if was_on:
            gc.enable()
    return float(result) if isinstance(result, Seconds) else taken


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = math.ceil(place)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)

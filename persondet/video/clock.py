"""Time stamps as exact fractions: the clock of a written clip, without codec or container."""

from __future__ import annotations

from fractions import Fraction
from math import gcd

# The finest clock that the 32-bit time scale of an mp4 track can hold.
MAX_TICKS_PER_SECOND = 2**31 - 1


def common_tick(fps: Fraction, time_base: Fraction | None) -> Fraction:
    """Return the longest tick (seconds) of which both 1/fps and `time_base` are multiples.

    Where no 32-bit clock is that fine, the frame rate stays exact and the ticks are a few
    microseconds.
    """
    frame = 1 / Fraction(fps)
    if time_base is None:
        return frame
    numerator = gcd(
        frame.numerator * time_base.denominator, time_base.numerator * frame.denominator
    )
    tick = Fraction(numerator, frame.denominator * time_base.denominator)
    if tick.denominator <= MAX_TICKS_PER_SECOND:
        return tick
    return Fraction(1, fps.numerator * max(1, 200_000 // fps.numerator))


class OutputClock:
    """Turns times in seconds into the increasing tick numbers that a container stores.

    Attributes:
        tick: seconds per tick.
        frame_ticks: ticks from one frame to the next at the nominal rate.
    """

    def __init__(self, fps: Fraction, source_tick: Fraction | None = None) -> None:
        """Choose the tick.

        Args:
            fps: nominal frames per second.
            source_tick: seconds per tick of the clock that the times come from, or None.
        """
        self.fps = Fraction(fps)
        self.tick = common_tick(self.fps, source_tick)
        self.frame_ticks = round(1 / self.fps / self.tick)
        self._source_tick = source_tick
        self._start: Fraction | None = None
        self._last: int | None = None

    def ticks(self, time: Fraction | float | None) -> int:
        """Return the tick number of the next frame, later than the one before.

        Args:
            time: seconds from the start of the clip; None: one frame after the last.
        """
        if time is None:
            number = 0 if self._last is None else self._last + self.frame_ticks
        else:
            number = round(self._exact(Fraction(time)) / self.tick)
        if self._last is not None:
            number = max(number, self._last + 1)
        self._last = number
        return number

    def _exact(self, time: Fraction) -> Fraction:
        """Undo the rounding of a coarse source clock: k frames after the start is k / fps."""
        if self._start is None:
            self._start = time
        if self._source_tick is None:
            return time
        regular = self._start + round((time - self._start) * self.fps) / self.fps
        return regular if abs(time - regular) <= self._source_tick / 2 else time

"""When each picture of a clip is shown: from the stamps of its source to exact, rising times."""

from __future__ import annotations

from fractions import Fraction

import av

# Stamps may be a little out of order; one that lies further back is another clock's.
RESTART_SECONDS = 1


class FrameTimes:
    """Turns the stamps of decoded pictures into seconds from the start of the clip.

    Recordings that were joined end to end, and recorders that restart, begin their clock again:
    what follows is then moved behind the picture before it.

    Attributes:
        restarts: how often the clock began again so far.
    """

    def __init__(
        self,
        time_base: Fraction,
        frame_rate: Fraction,
        clip_start: Fraction,
        *,
        in_coding_order: bool = False,
    ) -> None:
        """Describe the source.

        Args:
            time_base: seconds per tick, for pictures that do not tell their own.
            frame_rate: pictures per second, for pictures without a stamp.
            clip_start: the stamp, in seconds, that counts as zero.
            in_coding_order: the stamps tell when a picture is decoded, and the first one is zero.
        """
        self._time_base, self._frame_rate = time_base, frame_rate
        self._clip_start, self._in_coding_order = clip_start, in_coding_order
        self._first_stamp: int | None = None
        self._moved = self._moved_before = Fraction(0)
        self._previous: Fraction | None = None
        self.restarts = 0

    def next(self, frame: av.VideoFrame) -> Fraction:
        """Return the time of the next picture in the order of showing, later than the one before."""
        self._previous = self._following(self._stamped(frame))
        return self._previous

    def _stamped(self, frame: av.VideoFrame) -> Fraction | None:
        """Return the time that the picture's own stamp tells, or None."""
        stamp = frame.dts if self._in_coding_order else frame.pts
        if stamp is None:
            return None
        tick = Fraction(frame.time_base or self._time_base)
        if self._in_coding_order:
            if self._first_stamp is None:
                self._first_stamp = stamp if self._previous is None else 0
            return max(Fraction(0), (stamp - self._first_stamp) * tick)
        # The container's own start is in microseconds.
        return max(Fraction(0), (stamp - round(self._clip_start / tick)) * tick)

    def _following(self, told: Fraction | None) -> Fraction:
        """Return the time of a picture whose stamp tells `told`."""
        previous = self._previous
        if previous is None:
            return told if told is not None else Fraction(0)
        if told is None:
            return previous + 1 / self._frame_rate
        as_before = told + self._moved_before
        moved = self._moved != self._moved_before
        if moved and previous < as_before <= previous + RESTART_SECONDS:
            self._moved = self._moved_before  # it was a single wrong stamp
            self.restarts -= 1
        if told + self._moved < previous - RESTART_SECONDS:
            self._moved_before = self._moved
            self._moved = previous + 1 / self._frame_rate - told
            self.restarts += 1
        time = told + self._moved
        return time if time > previous else previous + self._time_base

"""Who was in a zone, from when to when, and how many people were there at once.

A visit begins with the first frame in which the feet are inside, and ends as the last such frame
ends. Who is lost, or outside, for no longer than the grace is still there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from persondet.analysis.tracks import SMALL, Clock, FloatArray, Tracks


@dataclass(frozen=True)
class Visits:
    """The visits of one zone, by their beginning.

    tracks: the numbers of the tracks, (K,). enter, leave: (K,), seconds. first, last: the first and
    the last frame of the clock in which each visitor is inside, (K,).
    """

    tracks: npt.NDArray[np.int64]
    enter: FloatArray
    leave: FloatArray
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]

    @property
    def dwell(self) -> FloatArray:
        """How long each visit takes, (K,), seconds."""
        return self.leave - self.enter

    def occupancy(self, clock: Clock) -> npt.NDArray[np.int64]:
        """Return how many visitors there are in each frame, (F,)."""
        change = np.zeros(len(clock.times) + 1, np.int64)
        np.add.at(change, self.first, 1)
        np.add.at(change, self.last + 1, -1)
        return np.cumsum(change)[:-1]


def visits(tracks: Tracks, points: FloatArray, grace: float) -> Visits:
    """Return who visited a zone.

    Args:
        tracks: of people, see `Tracks.confirmed`.
        points: the corners of the zone's polygon, (P, 2), pixels.
        grace: for how long a visitor may be lost or outside, seconds.
    """
    clock = tracks.clock
    rows = np.flatnonzero(inside(tracks.walked, points))
    of, frames = tracks.of[rows], tracks.frames[rows].astype(np.int64)
    away = clock.times[frames[1:]] - clock.until[frames[:-1]]
    ends = np.flatnonzero((np.diff(of) != 0) | (away > grace + 1e-6))
    first = np.append(0, ends + 1)[: len(rows)]
    last = np.append(ends, len(rows) - 1)[: len(rows)]
    order = np.argsort(clock.times[frames[first]], kind="stable")
    first, last = first[order], last[order]
    return Visits(
        tracks.ids[of[first]],
        clock.times[frames[first]],
        clock.until[frames[last]],
        frames[first],
        frames[last],
    )


def inside(feet: SMALL, points: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which places, (N, 2), lie in the polygon with the corners `points`, (P, 2): (N,).

    Source: the even-odd rule, Shimrat, "Algorithm 112", Communications of the ACM 1962.
    """
    x, y = feet[:, 0], feet[:, 1]
    found = np.zeros(len(feet), bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if y0 != y1:
            edge = np.float32((x1 - x0) / (y1 - y0)) * (y - np.float32(y0)) + np.float32(x0)
            found ^= ((y0 > y) != (y1 > y)) & (x < edge)
    return found


def at_least(counts: npt.NDArray[np.int64], clock: Clock) -> FloatArray:
    """Return for how long there were n people or more, by n from 0 to the maximum: seconds."""
    each = np.bincount(counts, clock.until - clock.times)
    longer: FloatArray = each[::-1].cumsum()[::-1]
    return longer

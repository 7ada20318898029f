"""Who crossed a line, when, and which way.

The way of a track's feet through the points of the line counts, one way as +1, the other as -1. It
is added up until the person has been across for a second and is a tenth of their height away from
the line; what it comes to then counts. So who turns back, or stands on the line and sways, comes to
nothing. Between two sightings a track goes straight, so a gap at the line loses nobody.

Where a track begins or ends closer to the line, it counts if the person is walking then. A tracker
takes a false alarm for somebody who is lost now and then, so what a jump parts from the first or
the last half second of a track does not count.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from persondet.analysis.areas import distance
from persondet.analysis.tracks import SMALL, FloatArray, Tracks

Rows = npt.NDArray[np.int64]
# The band on both sides of a line: as a share of the person's height, and at least, pixels.
_BAND, _LEAST_BAND = 0.1, 3.0
_SECONDS_ACROSS = 1.0
# Places are moved by a little, pixels, so that none lies on a bend or an end of a line: boxes have
# round numbers, and lines too.
_OFF_GRID = np.array([0.00137, 0.00093])
# Who moves by the width of the band in this time is walking.
_SECONDS_WALKING = 0.5
# Feet that move by more than this share of the person's height and so many heights a second jump,
# and so does a height that changes by more. Ends within so much time of a jump are not believed;
# after a longer gap, what may be a jump stays the same.
_JUMP, _FASTEST, _SECONDS_JUMP = 0.1, (1.5, 0.5), 0.5


@dataclass(frozen=True)
class Crossings:
    """Crossings of one line, by time.

    times: (K,), seconds. tracks: the numbers of the tracks, (K,). frames: the frame of the clip
    (its number in the source) in which each person is across, (K,). into: (K,), whether the way is
    `in`.
    """

    times: FloatArray
    tracks: npt.NDArray[np.int64]
    frames: npt.NDArray[np.int64]
    into: npt.NDArray[np.bool_]

    @property
    def counts(self) -> tuple[int, int]:
        """How many went in, and how many out."""
        return int(self.into.sum()), int((~self.into).sum())


def crossings(
    tracks: Tracks,
    points: FloatArray,
    after: FloatArray | None = None,
    before: FloatArray | None = None,
) -> tuple[Crossings, FloatArray]:
    """Return who crossed a line.

    Args:
        tracks: of people, see `Tracks.confirmed`.
        points: of the line, (P, 2), pixels.
        after, before: leave out of each track, (T,), what comes before and after, seconds: for who
            counts while a clip goes on, see `persondet.analysis.live`.

    Returns: the crossings, and when each track was last seen to have left the line, (T,), seconds;
        -inf: never.
    """
    feet = tracks.walked
    steps = steps_across(feet, tracks.of, points)
    band = np.maximum(_BAND * tracks.heights, _LEAST_BAND)
    away = distance(feet, points) >= band
    settled = away & (_since(steps, tracks) >= _SECONDS_ACROSS - 1e-6)
    ends = _sure_ends(tracks)
    for end, walking in zip(ends, _walking(tracks, feet, band, ends), strict=True):
        settled[end] = away[end] | walking
    row = np.arange(len(feet))
    settled &= (row >= ends[0][tracks.of]) & (row <= ends[1][tracks.of])
    if after is not None and before is not None:
        settled &= (tracks.times >= after[tracks.of]) & (tracks.times <= before[tracks.of])
    net = np.cumsum(steps)  # steps[i] leads to sighting i, and none leads to a first one
    rows = np.flatnonzero(settled)
    left = np.full(len(tracks), -np.inf)
    left[tracks.of[rows]] = tracks.times[rows]
    same = tracks.of[rows[1:]] == tracks.of[rows[:-1]]
    counted = np.flatnonzero(same & (np.diff(net[rows]) != 0))
    here = rows[counted + 1]
    change = net[here] - net[rows[counted]]
    # The last step across before the person left the line is the one that was not taken back.
    crossing = np.flatnonzero(steps)
    into = crossing[np.searchsorted(crossing, here, side="right") - 1]
    times = _moment(tracks, feet, into, points)
    # A line that is bent may be crossed twice before it is left.
    order = np.argsort(times, kind="stable")
    order = np.repeat(order, np.abs(change)[order])
    found = Crossings(
        times[order],
        tracks.ids[tracks.of[into]][order],
        tracks.clock.indices[tracks.frames[into]][order],
        (change > 0)[order],
    )
    return found, left


def stock_counts(tracks: Tracks, points: FloatArray) -> tuple[int, int]:
    """Return (in, out) as stock line counters have them, for comparison.

    They count whenever the middle of a box is on the other side than in the sighting before.

    Args:
        tracks: all of them, confirmed or not.
        points: of the line, (P, 2), pixels.
    """
    steps = steps_across(tracks.centres, tracks.of, points)
    return int(steps[steps > 0].sum()), int(-steps[steps < 0].sum())


def steps_across(
    feet: SMALL, of: npt.NDArray[np.int32], points: FloatArray
) -> npt.NDArray[np.int64]:
    """Return how often the step to each place crosses a line: +1 in, -1 out, (N,).

    Args:
        feet: places, (N, 2), track by track in the order of time.
        of: the track of each, (N,).
        points: of the line, (P, 2).
    """
    steps = np.zeros(len(feet), np.int64)
    places = feet + _OFF_GRID
    way = np.diff(places, axis=0)
    same = of[1:] == of[:-1]
    for a, b in itertools.pairwise(points):
        side = _turn(b - a, places - a) > 0
        changes = np.flatnonzero(same & (side[1:] != side[:-1]))
        ends = [_turn(way[changes], end - places[changes]) > 0 for end in (a, b)]
        across = changes[ends[0] != ends[1]]
        steps[across + 1] += np.where(side[across + 1], 1, -1)
    return steps


def _turn(along: FloatArray, to: FloatArray) -> FloatArray:
    """Return the cross product: above 0 where `to` lies to the right hand, as y goes down."""
    turn: FloatArray = along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0]
    return turn


def _since(steps: npt.NDArray[np.int64], tracks: Tracks) -> FloatArray:
    """Return how long ago each track's last step across was, (N,), seconds; inf: there is none."""
    latest = np.maximum.accumulate(np.where(steps != 0, np.arange(len(steps)), -1))
    none = latest < tracks.starts[:-1][tracks.of]
    return np.where(none, np.inf, tracks.times - tracks.times[np.maximum(latest, 0)])


def _sure_ends(tracks: Tracks) -> tuple[Rows, Rows]:
    """Return the first and the last sighting of each track that no jump parts from the rest."""
    first, last = tracks.starts[:-1], tracks.starts[1:] - 1
    times, feet, heights = tracks.times, tracks.standing, tracks.heights
    passed = np.minimum(np.diff(times), _SECONDS_JUMP)
    moved = np.hypot(*np.diff(feet, axis=0).T), np.abs(np.diff(heights))
    tall = np.maximum(heights[1:], heights[:-1])
    jumps = np.zeros(len(passed), bool)
    for way, fastest in zip(moved, _FASTEST, strict=True):
        jumps |= way > (_JUMP + fastest * passed) * tall
    here = np.flatnonzero(jumps & (tracks.of[1:] == tracks.of[:-1])) + 1
    of = tracks.of[here]
    soon = times[here - 1] - times[first[of]] <= _SECONDS_JUMP
    late = times[last[of]] - times[here] <= _SECONDS_JUMP
    begin, end = first.copy(), last.copy()
    np.maximum.at(begin, of[soon], here[soon])
    np.minimum.at(end, of[late], here[late] - 1)
    short = begin > end
    return np.where(short, first, begin), np.where(short, last, end)


def _walking(
    tracks: Tracks, feet: SMALL, band: SMALL, ends: tuple[Rows, Rows]
) -> tuple[npt.NDArray[np.bool_], ...]:
    """Return whether the person walks at the beginning, and at the end, of each track: (T,)."""
    first, last = ends
    # Sightings are sorted by track and time, so this key is sorted too.
    span = float(np.ptp(tracks.clock.times)) + 2 * _SECONDS_WALKING + 1
    key = tracks.of * span + (tracks.times - tracks.clock.times[0])
    found = []
    for end, later in ((first, 1), (last, -1)):
        wanted = key[end] + later * _SECONDS_WALKING
        other = np.searchsorted(key, wanted, side="right" if later > 0 else "left")
        other = np.clip(other - (later > 0), first, last)
        moved = feet[other] - feet[end]
        found.append(np.hypot(moved[:, 0], moved[:, 1]) >= band[end])
    return tuple(found)


def _moment(
    tracks: Tracks, feet: SMALL, into: npt.NDArray[np.int64], points: FloatArray
) -> FloatArray:
    """Return when the steps that lead to the sightings `into` cross the line, seconds."""
    start, end = (feet[rows].astype(np.float64) for rows in (into - 1, into))
    share = np.full(len(into), 0.5)
    best = np.full(len(into), np.inf)
    for a, b in itertools.pairwise(points):
        before, after = _turn(b - a, start - a), _turn(b - a, end - a)
        here = before / np.where(before == after, 1, before - after)
        place = start + here[:, None] * (end - start)
        along = (place - a) @ (b - a) / np.sum((b - a) ** 2)
        off = np.abs(along - np.clip(along, 0, 1)) + 10.0 * ((here < 0) | (here > 1))
        off[before == after] = np.inf
        share, best = np.where(off < best, here, share), np.minimum(off, best)
    times = tracks.times
    moment: FloatArray = times[into - 1] + np.clip(share, 0, 1) * (times[into] - times[into - 1])
    return moment

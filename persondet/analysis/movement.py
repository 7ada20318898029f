"""Where people walk, and how fast: ways on the ground, and how long each place is stood on."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from persondet.analysis.tracks import SMALL, FloatArray, Tracks

# A speed is that between two places so far apart in time: over less, the tremble of the boxes adds
# ways that nobody walks.
_SECONDS_APART = 1.0
# Beyond this many metres a place is so near the horizon that a pixel is worth metres.
_FARTHEST = 1e4


@dataclass(frozen=True)
class Walks:
    """How far and how fast each track goes on the ground, (T,): metres, metres per second.

    NaN where a track is in sight for less than a second, or beyond the horizon.
    """

    metres: FloatArray
    mean: FloatArray
    top: FloatArray


def on_ground(feet: SMALL, homography: FloatArray) -> FloatArray:
    """Return places of the image, (N, 2), pixels, on the ground, (N, 2), metres.

    NaN beyond the horizon, where there is no ground.
    """
    places = feet @ homography[:, :2].T + homography[:, 2]
    scale = places[:, 2:]
    # The scale is positive on the side of the horizon where the four given points lie.
    with np.errstate(divide="ignore", invalid="ignore"):
        ground = np.where(scale > 0, places[:, :2] / scale, np.nan)
        ground[~(np.abs(ground) < _FARTHEST).all(axis=1)] = np.nan
    return ground


def walks(tracks: Tracks, homography: FloatArray) -> Walks:
    """Return how far and how fast the tracks go, by one sighting a second."""
    times = tracks.times
    ground = on_ground(tracks.walked, homography)
    # Which second of its track a sighting is in; the first sighting of each second is kept.
    since = times - times[tracks.starts[:-1]][tracks.of]
    second = np.floor(since / _SECONDS_APART + 1e-6)
    new = _changes(tracks, second)
    rows = np.flatnonzero(new & np.isfinite(ground[:, 0]))
    same = np.diff(tracks.of[rows]) == 0
    of, took = tracks.of[rows[1:]][same], np.diff(times[rows])[same]
    length = np.hypot(*np.diff(ground[rows], axis=0)[same].T)
    metres, seconds = (np.bincount(of, values, len(tracks)) for values in (length, took))
    top = np.full(len(tracks), -np.inf)
    np.maximum.at(top, of, length / np.maximum(took, 1e-9))
    known = seconds > 0
    return Walks(
        np.where(known, metres, np.nan),
        np.where(known, metres / np.where(known, seconds, 1), np.nan),
        np.where(known, top, np.nan),
    )


def _changes(tracks: Tracks, values: FloatArray) -> npt.NDArray[np.bool_]:
    """Return where a track begins, or its value, (N,), is another than before: (N,)."""
    new = np.ones(len(values), bool)
    new[1:] = (np.diff(tracks.of) != 0) | (np.diff(values) != 0)
    return new


def grid(width: int, height: int, cell: int) -> tuple[int, int]:
    """Return how many rows and columns of squares of `cell` pixels cover a frame."""
    return -(-height // cell), -(-width // cell)


def heat(tracks: Tracks, width: int, height: int, cell: int) -> FloatArray:
    """Return for how long feet stood in each square of `cell` pixels: seconds, (rows, columns)."""
    clock = tracks.clock
    rows, columns = grid(width, height, cell)
    places = np.floor(tracks.walked / cell).astype(np.int64)
    x, y = (np.clip(places[:, i], 0, most - 1) for i, most in ((0, columns), (1, rows)))
    seconds = (clock.until - clock.times)[tracks.frames]
    stood = np.bincount(y * columns + x, seconds, rows * columns).astype(np.float64)
    return stood.reshape(rows, columns)


def ways(tracks: Tracks, seconds: float = 0.4) -> list[SMALL]:
    """Return the way of each track, (P, 2), pixels: places about so many `seconds` apart."""
    since = np.floor(tracks.times / seconds)
    new = _changes(tracks, since)
    new[tracks.starts[1:] - 1] = True
    spans = (slice(*span) for span in itertools.pairwise(tracks.starts.tolist()))
    return [tracks.walked[span][new[span]] for span in spans]

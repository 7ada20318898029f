"""Giving people their number back after a long absence, once the whole clip is known.

Tracks that cannot be one person, because they overlap in time, tell how much people differ in this
clip; the frames of each track tell how much one person varies. Both together make the distance of
two tracks: that of their mean features (`persondet.modeling.appearance`), each feature in units of
its spread within tracks. One assignment over all tracks then gives each end at most one later
beginning, with the least sum of distances.
Source: the assignment is that of Kuhn, "The Hungarian Method", 1955, in SciPy's implementation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from detectron2.structures import Instances

from persondet.inference.tracking import appearance_distances
from persondet.modeling.appearance import FIELD

LONGEST = 60.0
"""Seconds after which nobody gets a number back."""
# A link needs a distance below this share of the usual one between people who are seen together;
# where none are, below so many spreads per feature.
_LIKE, _ALIKE = 0.7, 0.8
_LEAST = 0.3  # seconds in sight of a track that is worth a link
# How far somebody may come out of sight: so many of their heights, and more per second.
_REACH, _SPEED = 1.0, 2.0


@dataclass
class _Track:
    """What is kept of a track: times (s), first and last box, sums of features and of squares."""

    start: float
    first: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    end: float = 0.0
    last: np.ndarray | None = None
    weight: float = 0.0
    count: int = 0


class Relinker:
    """Collects the tracks of a clip, and says at the end which of them are one person."""

    def __init__(self) -> None:
        self._tracks: dict[int, _Track] = {}

    def add(self, instances: Instances, time: float) -> None:
        """Add a frame.

        Args:
            instances: `pred_boxes` (XYXY_ABS, pixels), `ID` and `appearance` (float, (N, D)).
            time: seconds; later than that of the frame before.
        """
        boxes = instances.pred_boxes.tensor.double().cpu().numpy()
        looks = instances.get(FIELD).double().cpu().numpy()
        for number, box, look in zip(instances.ID, boxes, looks, strict=True):
            if not (np.isfinite(box).all() and np.isfinite(look).all()):
                continue
            zero = np.zeros(look.shape)
            track = self._tracks.setdefault(number, _Track(time, box, zero, zero.copy()))
            weight = box[3] - box[1]  # the larger, the more can be seen
            track.total += weight * look
            track.squares += weight * look**2
            track.weight += weight
            track.end, track.last, track.count = time, box, track.count + 1

    def seconds(self) -> dict[int, float]:
        """Return from the first to the last frame of each track, seconds."""
        return {number: track.end - track.start for number, track in self._tracks.items()}

    def numbers(self) -> dict[int, int]:
        """Return for each track the number of the person: that of their first track."""
        from scipy.optimize import linear_sum_assignment

        found = {k: k for k in self._tracks}
        numbers = [k for k, one in self._tracks.items() if one.end - one.start >= _LEAST]
        if len(numbers) < 2:
            return found
        tracks = [self._tracks[k] for k in numbers]
        distances, different = _distances(tracks)
        limit = _ALIKE * len(tracks[0].total) ** 0.5
        if different.any():
            limit = _LIKE * float(np.median(distances[different]))
        costs = np.where(_possible(tracks), distances, np.inf)
        ends, begins = linear_sum_assignment(np.minimum(costs, limit))
        for i, j in sorted(zip(ends, begins, strict=True), key=lambda pair: tracks[pair[1]].start):
            if costs[i, j] < limit:
                found[numbers[j]] = found[numbers[i]]
        return found


def _distances(tracks: list[_Track]) -> tuple[np.ndarray, np.ndarray]:
    """Return how much tracks differ, (N, N), and which pairs are different people for sure."""
    means = np.stack([one.total / one.weight for one in tracks])
    weights = np.array([one.weight for one in tracks])
    spreads = np.stack([one.squares / one.weight for one in tracks]) - means**2
    spread = np.average(np.maximum(spreads, 0.0), axis=0, weights=weights)
    start, end = np.array([(one.start, one.end) for one in tracks]).T
    together = (start[:, None] <= end) & (start <= end[:, None])
    np.fill_diagonal(together, False)
    return appearance_distances(means, means, spread), together


def _possible(tracks: list[_Track]) -> np.ndarray:
    """Return whether the second track of each pair may go on where the first ended, (N, N)."""
    start, end = np.array([(one.start, one.end) for one in tracks]).T
    gap = start - end[:, None]
    first, last = (np.stack([getattr(one, k) for one in tracks]) for k in ("first", "last"))
    centres = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (last, first)]
    away = np.linalg.norm(centres[0][:, None] - centres[1], axis=-1)
    tall = np.maximum((last[:, 3] - last[:, 1])[:, None], first[:, 3] - first[:, 1])
    near: np.ndarray = away <= tall * (_REACH + _SPEED * np.maximum(gap, 0.0))
    return (gap > 0) & (gap <= LONGEST) & near

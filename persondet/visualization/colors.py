"""Which colour whom: stable from frame to frame, and as different as the palette allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from persondet.visualization.drawing import PALETTE

# Two boxes of neighbouring frames that overlap by this much are the same person.
SAME_PERSON_IOU = 0.3
# Frames that a person who is not seen keeps the colour.
PATIENCE = 12


@dataclass
class _Seen:
    """A person of an earlier frame: box, class, colour number, frames since last seen."""

    box: np.ndarray
    label: int
    color: int
    missed: int = 0


class ColorAssigner:
    """Gives out palette numbers: by track where tracks are known, else by overlap in time."""

    def __init__(self) -> None:
        """Start without memory."""
        self._seen: list[_Seen] = []
        self._by_track: dict[Hashable, int] = {}

    def by_overlap(self, boxes: np.ndarray, labels: np.ndarray) -> list[int]:
        """Return the palette number of each box; a box that overlaps an old one inherits its.

        Args:
            boxes: (N, 4), XYXY_ABS, pixels.
            labels: (N,), class numbers; only equal ones match.
        """
        old = self._seen
        numbers: list[int | None] = [None] * len(boxes)
        free = set(range(len(old)))
        if len(old) and len(boxes):
            iou = box_iou(np.stack([person.box for person in old]), boxes)
            iou[np.array([person.label for person in old])[:, None] != labels[None, :]] = 0
            for flat in np.argsort(-iou, axis=None, kind="stable"):
                i, j = divmod(int(flat), len(boxes))
                if iou[i, j] < SAME_PERSON_IOU:
                    break
                if i in free and numbers[j] is None:
                    numbers[j] = old[i].color
                    free.remove(i)
        kept = [old[i] for i in sorted(free)]
        for person in kept:
            person.missed += 1
        kept = [person for person in kept if person.missed <= PATIENCE]
        result = _fill(numbers, boxes, Counter(person.color for person in kept))
        self._seen = kept + [
            _Seen(np.asarray(box, dtype=np.float64), int(label), number)
            for box, label, number in zip(boxes, labels, result, strict=True)
        ]
        return result

    def by_track(self, tracks: Sequence[Hashable], boxes: np.ndarray) -> list[int]:
        """Return the palette number of each track; a track keeps its number for good.

        Args:
            tracks: the N identities of the frame.
            boxes: (N, 4), XYXY_ABS, pixels.
        """
        result = _fill([self._by_track.get(track) for track in tracks], boxes, Counter())
        self._by_track.update(zip(tracks, result, strict=True))
        return result


def _fill(numbers: Sequence[int | None], boxes: np.ndarray, remembered: Counter[int]) -> list[int]:
    """Choose palette numbers where there is None yet: those whose next bearer is farthest away.

    Colours that nobody in view has come first, and of these the ones that fewest of the people
    have who are out of view for a moment (`remembered`).
    """
    filled = list(numbers)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2

    def preference(color: int, i: int) -> tuple[float, int, int]:
        same = [j for j, number in enumerate(filled) if number == color]
        distance = np.abs(centres[same] - centres[i]).sum(axis=1).min() if same else np.inf
        return (-float(distance), remembered[color], color)

    for i, number in enumerate(filled):
        if number is None:
            filled[i] = min(preference(color, i) for color in range(len(PALETTE)))[2]
    return [number for number in filled if number is not None]


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the intersection over union of every pair: float64, (N, M), 0..1.

    Args:
        first, second: (N, 4) and (M, 4), XYXY_ABS, pixels.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2, dtype=np.float64)
    areas = [np.prod(np.clip(b[:, 2:] - b[:, :2], 0, None), axis=1) for b in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)

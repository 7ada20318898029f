"""Who is who from frame to frame, and in which colour: as different as the palette allows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torchvision.ops import box_iou

from persondet.visualization.drawing import PALETTE

# Two boxes of neighbouring frames that overlap by this much are the same person.
SAME_PERSON_IOU = 0.3
# Frames that a person who is not seen keeps the colour.
PATIENCE = 12
# Tracks whose colour is remembered: hours of a busy street, and no end to the film.
MOST_TRACKS = 4096


@dataclass
class _Seen:
    """A person of an earlier frame: box, class, colour number, name, frames since last seen."""

    box: np.ndarray
    label: int
    color: int
    key: int
    missed: int = 0


@dataclass(frozen=True)
class _Track:
    """A track's colour number, the frame when it was last seen, and its box there."""

    color: int
    last: int
    box: np.ndarray


class ColorAssigner:
    """Gives out palette numbers: by track where tracks are known, else by overlap in time.

    Attributes:
        keys: who each box of the latest call belongs to: its track, or a number of our own.
    """

    def __init__(self) -> None:
        """Start without memory."""
        self.keys: list[Hashable] = []
        self._seen: list[_Seen] = []
        self._names = count()
        self._by_track: OrderedDict[Hashable, _Track] = OrderedDict()
        self._frame = 0

    def by_overlap(self, boxes: np.ndarray, labels: np.ndarray) -> list[int]:
        """Return the palette number of each box; a box that overlaps an old one inherits its.

        Args:
            boxes: (N, 4), XYXY_ABS, pixels.
            labels: (N,), class numbers; only equal ones match.
        """
        old = self._seen
        numbers: list[int | None] = [None] * len(boxes)
        keys: list[int | None] = [None] * len(boxes)
        free = set(range(len(old)))
        if len(old) and len(boxes):
            before = torch.from_numpy(np.stack([person.box for person in old]))
            iou = box_iou(before, torch.from_numpy(boxes.astype(np.float64))).nan_to_num().numpy()
            iou[np.array([person.label for person in old])[:, None] != labels[None, :]] = 0
            for flat in np.argsort(-iou, axis=None, kind="stable"):
                i, j = divmod(int(flat), len(boxes))
                if iou[i, j] < SAME_PERSON_IOU:
                    break
                if i in free and numbers[j] is None:
                    numbers[j], keys[j] = old[i].color, old[i].key
                    free.remove(i)
        kept = [old[i] for i in sorted(free)]
        for person in kept:
            person.missed += 1
        kept = [person for person in kept if person.missed <= PATIENCE]
        result = _fill(numbers, boxes, [(person.color, person.box) for person in kept])
        named = [next(self._names) if key is None else key for key in keys]
        self._seen = kept + [
            _Seen(np.asarray(box, dtype=np.float64), int(label), number, key)
            for box, label, number, key in zip(boxes, labels, result, named, strict=True)
        ]
        self.keys = list(named)
        return result

    def by_track(self, tracks: Sequence[Hashable], boxes: np.ndarray) -> list[int]:
        """Return the palette number of each track; a track keeps its number.

        Args:
            tracks: the N identities of the frame.
            boxes: (N, 4), XYXY_ABS, pixels.
        """
        self._frame += 1
        known = [self._by_track.get(track) for track in tracks]
        recent = []  # those who will probably be back
        for track, one in reversed(self._by_track.items()):
            if self._frame - one.last > PATIENCE:
                break
            if track not in tracks:
                recent.append((one.color, one.box))
        result = _fill([None if one is None else one.color for one in known], boxes, recent)
        for track, number, box in zip(tracks, result, boxes, strict=True):
            self._by_track[track] = _Track(number, self._frame, np.array(box, np.float64))
            self._by_track.move_to_end(track)
        while len(self._by_track) > max(MOST_TRACKS, len(tracks)):
            self._by_track.popitem(last=False)
        self.keys = list(tracks)
        return result


def _fill(
    numbers: Sequence[int | None], boxes: np.ndarray, remembered: Sequence[tuple[int, np.ndarray]]
) -> list[int]:
    """Choose palette numbers where there is None yet: those whose next bearer is farthest away.

    Colours that nobody in view has come first. Who is out of view for a moment (`remembered`:
    number and last box) is as near as they were.
    """
    filled = list(numbers)
    places = np.concatenate([boxes, *(box[None] for _, box in remembered)])
    centres = (places[:, :2] + places[:, 2:]) / 2
    away = [number for number, _ in remembered]

    def preference(color: int, i: int) -> tuple[bool, float, int]:
        same = [j for j, number in enumerate([*filled, *away]) if number == color]
        distance = np.abs(centres[same] - centres[i]).sum(axis=1).min() if same else np.inf
        return (color in filled, -float(distance), color)

    for i, number in enumerate(filled):
        if number is None:
            filled[i] = min(preference(color, i) for color in range(len(PALETTE)))[2]
    return [number for number in filled if number is not None]

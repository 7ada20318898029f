"""Who is who from frame to frame: ByteTrack, with numbers that a person can read.

Source: Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box",
ECCV 2022, in the implementation of edgefirst-tracker: a Kalman filter per person, and an
assignment by the overlap of boxes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from detectron2.structures import Instances

# Chosen on the sample's clip and three more like it, every frame, every second and every third;
# with the ground truth degraded, and with the boxes of a model.
# Overlap of a box with where its person is expected: who walks fast in few frames overlaps little.
_MIN_IOU = 0.05
# How long people may be out of sight and keep their number.
_SECONDS_HIDDEN = 1.0
# How far a person's filter follows a new box, 0 to 1, at so many frames per second.
_FOLLOW, _FOLLOW_RATE = 0.15, 25.0
# A false alarm flashes up; who has been seen for so long in all is counted as a person.
_SECONDS_SEEN = 0.5


@dataclass
class _Sightings:
    """What is known of one track: its number, in how many frames it was seen, and the last one."""

    number: int
    count: int = 0
    last: int = 0


class PersonTracker:
    """Gives the people of a clip's frames numbers that they keep, also when others hide them.

    The numbers are 1, 2, 3 … in the order in which people appear. They depend on the boxes and
    scores of this and earlier frames and on nothing else: the same frames get the same numbers.
    What is remembered of people who are gone is forgotten, so the memory stays flat.

    Args:
        frame_rate: frames per second that are handed in; with a stride, so many fewer.

    Attributes:
        name: of the method, for the records.
        unique: how many people were seen so far: those who were in sight for half a second in all,
            but at least as many as in the fullest frame. Smaller than the highest number, as that
            counts each false alarm that flashes up.

    Raises: ValueError: when `frame_rate` is not a positive number.
    """

    name = "ByteTrack"

    def __init__(self, frame_rate: float) -> None:
        from edgefirst.tracker import ByteTrack

        frame_rate = float(frame_rate)
        if not (math.isfinite(frame_rate) and frame_rate > 0):
            raise ValueError(f"a tracker needs a positive frame rate, not {frame_rate}")
        # The same share of the difference per second, whatever the frame rate.
        follow = 1.0 - (1.0 - _FOLLOW) ** (_FOLLOW_RATE / frame_rate)
        # Everything that reaches a tracker is above the threshold that a person chose: all of it
        # may begin a track (`high_conf`).
        self._tracker = ByteTrack(
            high_conf=0.0,
            iou=_MIN_IOU,
            update=follow,
            lifespan_ns=round(_SECONDS_HIDDEN * 1e9),
        )
        self.unique = 0
        self._frame_rate = frame_rate
        self._frames = 0
        self._numbers_given = 0
        self._believed = 0
        self._fullest = 0
        self._tracks: dict[str, _Sightings] = {}

    def update(self, instances: Instances) -> None:
        """Number the people of the next frame.

        Args:
            instances: `pred_boxes` (XYXY_ABS, pixels) and `scores` (0 to 1), on any device; the
                field `ID` is set in place: list[int], one number per detection, no two the same.
        """
        boxes = instances.pred_boxes.tensor.detach().cpu().numpy().astype(np.float32)
        scores = instances.scores.detach().cpu().numpy().astype(np.float32)
        # A box that is no place would match everything. It gets a number of its own, once.
        usable = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
        found = self._tracker.update(
            boxes[usable],
            scores[usable],
            np.zeros(int(usable.sum()), np.uintp),
            round(self._frames / self._frame_rate * 1e9),
        )
        tracks = iter(found)
        instances.ID = [self._number(next(tracks)) if ok else self._new() for ok in usable]
        self._fullest = max(self._fullest, int(usable.sum()))
        self.unique = max(self._believed, self._fullest)
        self._frames += 1
        self._forget()

    def _new(self) -> int:
        """Return the next number."""
        self._numbers_given += 1
        return self._numbers_given

    def _number(self, track: object) -> int:
        """Return the number of a track, and count the sighting."""
        key: str | None = getattr(track, "uuid", None)
        if key is None:  # a detection that the tracker makes nothing of
            return self._new()
        if key not in self._tracks:
            self._tracks[key] = _Sightings(self._new())
        sightings = self._tracks[key]
        sightings.count += 1
        sightings.last = self._frames
        self._believed += sightings.count == max(1, round(_SECONDS_SEEN * self._frame_rate))
        return sightings.number

    def _forget(self) -> None:
        """Drop the tracks that the tracker has dropped; twice as late, to be on the safe side."""
        limit = self._frames - 2 * math.ceil(_SECONDS_HIDDEN * self._frame_rate) - 1
        if self._tracks and self._frames % 64 == 0:
            self._tracks = {k: seen for k, seen in self._tracks.items() if seen.last >= limit}

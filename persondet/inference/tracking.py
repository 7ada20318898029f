"""Who is who from frame to frame: Norfair, with numbers that a person can read.

Source: Bewley et al., "Simple Online and Realtime Tracking", ICIP 2016, in the implementation of
norfair-enough, the maintained fork of Norfair: a Kalman filter per person, and an assignment by the
overlap of boxes in which those who are known choose first.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from detectron2.structures import Instances
    from norfair import TrackedObject

# Chosen on three clips like the sample's, every frame, every second and every third; with the
# ground truth degraded, and with the boxes of a model.
# Overlap of a box with where its person is expected: who walks fast in few frames overlaps little.
_MIN_IOU = 0.07
# How long people may be out of sight and keep their number. Those who have been seen for less time
# than makes them known keep it for as long as they have been seen.
_SECONDS_HIDDEN, _SECONDS_KNOWN = 2.0, 0.4
# What a person's filter takes for granted, as shares of the noise of a box, so that near and far
# people are alike: a speed per second at first, and its change within a second. People walk more
# steadily than a model draws boxes; a filter that believes each box overshoots and loses them.
_FIRST_SPEED, _SPEED_CHANGE = 6.0, 1.5
# A false alarm flashes up; who has been seen for so long in all is counted as a person.
_SECONDS_SEEN = 0.5


class PersonTracker:
    """Gives the people of a clip's frames numbers that they keep, also when others hide them.

    The numbers are 1, 2, 3 … in the order in which people appear. They depend on the boxes of this
    and earlier frames and on nothing else: the same frames get the same numbers. What is remembered
    of people who are gone is forgotten, so the memory stays flat.

    Args:
        frame_rate: frames per second that are handed in; with a stride, so many fewer.

    Attributes:
        name: of the method, for the records.
        unique: how many people were seen so far: those who were in sight for half a second in all,
            but at least as many as in the fullest frame. Smaller than the highest number, as that
            counts each false alarm that flashes up.

    Raises: ValueError: when `frame_rate` is not a positive number.
    """

    name = "Norfair"

    def __init__(self, frame_rate: float) -> None:
        from norfair import OptimizedKalmanFilterFactory, Tracker

        frame_rate = float(frame_rate)
        if not (math.isfinite(frame_rate) and frame_rate > 0):
            raise ValueError(f"a tracker needs a positive frame rate, not {frame_rate}")
        hidden = max(2, round(_SECONDS_HIDDEN * frame_rate))
        known = min(max(1, round(_SECONDS_KNOWN * frame_rate)), hidden - 1)
        # It warns of each hidden person whose expected box has shrunk to nothing. No box fits that.
        logging.getLogger("norfair.distances").setLevel(logging.ERROR)
        # The filter counts in frames, and only the ratios to R, the noise of a box, matter to it.
        filters = OptimizedKalmanFilterFactory(
            R=1.0,
            Q=_SPEED_CHANGE**2 / frame_rate**3,
            pos_variance=1.0,
            vel_variance=(_FIRST_SPEED / frame_rate) ** 2,
        )
        self._tracker = Tracker(
            distance_function="iou",
            distance_threshold=1.0 - _MIN_IOU,
            hit_counter_max=hidden,
            initialization_delay=known,
            filter_factory=filters,
            past_detections_length=0,
        )
        self.unique = 0
        self._believed_after = max(1, round(_SECONDS_SEEN * frame_rate))
        self._frames = 0
        self._numbers_given = 0
        self._believed = 0
        self._fullest = 0
        # Of each track: its number, and in how many frames it was seen.
        self._tracks: dict[TrackedObject, tuple[int, int]] = {}

    def update(self, instances: Instances) -> None:
        """Number the people of the next frame.

        Args:
            instances: `pred_boxes` (XYXY_ABS, pixels) and `scores` (0 to 1), on any device; the
                field `ID` is set in place: list[int], one number per detection, no two the same.
        """
        from norfair import Detection

        boxes = instances.pred_boxes.tensor.detach().cpu().numpy().astype(np.float64)
        scores = instances.scores.detach().cpu().numpy()
        # A box that is no place would match everything. It gets a number of its own, once.
        usable = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1.0)  # a line overlaps nothing
        self._tracker.update(
            [
                Detection(boxes[k].reshape(2, 2), data=(self._frames, int(k)))
                for k in np.flatnonzero(usable)
            ]
        )
        found: dict[int, TrackedObject] = {}
        for track in self._tracker.tracked_objects:
            frame, k = track.last_detection.data
            if frame == self._frames:
                found[k] = track
        instances.ID = [
            self._number(found[k]) if k in found else self._new() for k in range(len(boxes))
        ]
        self._fullest = max(self._fullest, int(usable.sum()))
        self.unique = max(self._believed, self._fullest)
        self._frames += 1
        self._tracks = {track: self._tracks[track] for track in self._tracker.tracked_objects}

    def _new(self) -> int:
        """Return the next number."""
        self._numbers_given += 1
        return self._numbers_given

    def _number(self, track: TrackedObject) -> int:
        """Return the number of a track, and count the sighting."""
        number, count = self._tracks[track] if track in self._tracks else (self._new(), 0)
        self._tracks[track] = (number, count + 1)
        self._believed += count + 1 == self._believed_after
        return number

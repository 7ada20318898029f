"""Tracking people from frame to frame with Norfair: the same person keeps the same number.

Source: Bewley et al., "Simple Online and Realtime Tracking", ICIP 2016, in the implementation of
norfair-enough, the maintained fork of Norfair: one Kalman filter per person, and an assignment by
box overlap that serves established tracks first.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from detectron2.structures import Instances
    from norfair import TrackedObject

# Tuned on three clips like the sample's at strides of 1, 2 and 3, with a degraded ground truth and
# with the boxes of a model.
# Least IoU of a box with the predicted one: at low frame rates, fast people overlap little.
_MIN_IOU = 0.07
# How long a person may be out of sight and keep the number. A track younger than _SECONDS_KNOWN
# survives out of sight only as long as it was seen.
_SECONDS_HIDDEN, _SECONDS_KNOWN = 2.0, 0.4
# The filter's prior, in units of the box noise, so that near and far people are alike: speed per
# second at first, and change of speed within a second. People walk more steadily than a model
# places boxes; a filter that trusts each box overshoots and loses them.
_FIRST_SPEED, _SPEED_CHANGE = 6.0, 1.5
# A false alarm is short; a track counts as a person after this much time in sight.
_SECONDS_SEEN = 0.5


class PersonTracker:
    """Numbers the people in a clip's frames; a person keeps the number through short occlusions.

    The numbers are 1, 2, 3 … in the order of appearance. They depend only on the boxes of this and
    earlier frames: the same frames give the same numbers. The tracker forgets people who are gone,
    so memory stays flat.

    Args:
        frame_rate: frames per second that `update` gets; a stride divides the clip's rate.

    Attributes:
        name: of the method, for the records.
        unique: number of people so far: tracks that were in sight for half a second in total, and
            at least as many as in the fullest frame. It may be lower than the highest number,
            because each short false alarm takes a number too.

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
        # Norfair warns of each hidden person whose predicted box shrank to nothing; harmless.
        logging.getLogger("norfair.distances").setLevel(logging.ERROR)
        # The filter's unit of time is the frame; only ratios to R, the box noise, matter.
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
        self._frames = self._numbers_given = self._believed = self._fullest = 0
        # Of each track: its number and the number of frames with it.
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
        # A box with NaN would match everything; it gets a new number and no track.
        usable = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1.0)  # a line overlaps nothing
        self._tracker.update(
            [
                Detection(boxes[k].reshape(2, 2), data=(self._frames, int(k)))
                for k in np.flatnonzero(usable)
            ]
        )
        matched: dict[int, TrackedObject] = {}
        for track in self._tracker.tracked_objects:
            frame, k = track.last_detection.data
            if frame == self._frames:
                matched[k] = track
        instances.ID = [
            self._number(matched[k]) if k in matched else self._new() for k in range(len(boxes))
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

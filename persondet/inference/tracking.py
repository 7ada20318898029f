"""Tracking people from frame to frame, and scoring how well that went.

`PersonTracker` follows people with Norfair: the same person keeps the same number.
Source: Bewley et al., "Simple Online and Realtime Tracking", ICIP 2016, in the implementation of
norfair-enough, the maintained fork of Norfair: one Kalman filter per person, and an assignment by
box overlap that serves established tracks first. What overlaps is a little wider than the boxes,
and heights count twice. Where a box overlaps several tracks, their appearance decides, if the
detections carry one.
Sources: Yang et al., "Hard to Track Objects with Irregular Motions and Similar Appearances? Make It
Easier by Buffering the Matching Space", WACV 2023; Yang et al., "Hybrid-SORT: Weak Cues Matter for
Online Multi-Object Tracking", AAAI 2024; Wojke et al., "Simple Online and Realtime Tracking with a
Deep Association Metric", ICIP 2017 (running features of tracks beside their boxes).

`score_tracks` compares tracks with ground truth: MOTA, IDF1, HOTA, computed by motrics.
Sources: Bernardin and Stiefelhagen, "Evaluating Multiple Object Tracking Performance: The CLEAR
MOT Metrics", EURASIP JIVP 2008 (MOTA, switches, fragments); Ristani et al., "Performance Measures
and a Data Set for Multi-Target, Multi-Camera Tracking", ECCV Workshops 2016 (IDF1); Luiten et al.,
"HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", IJCV 2021.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from persondet.errors import MediaError
from persondet.records import FrameRecord

if TYPE_CHECKING:
    from detectron2.structures import Instances
    from norfair import Detection, TrackedObject
    from norfair.distances import Distance

logger = logging.getLogger(__name__)

# Tuned on three clips like the sample's at strides of 1, 2 and 3, with a degraded ground truth and
# with the boxes of a model.
# Boxes are compared a share of their height wider on both sides, per second between frames: at low
# rates, fast people overlap little. Least overlap of a box with the predicted one.
_WIDER, _MIN_OVERLAP = 0.5, 0.1
# How long a person may be out of sight and keep the number. A track younger than _SECONDS_KNOWN
# survives out of sight only as long as it was seen.
_SECONDS_HIDDEN, _SECONDS_KNOWN = 2.0, 0.4
# The filter's prior, in units of the box noise, so that near and far people are alike: speed per
# second at first, and change of speed within a second. People walk more steadily than a model
# places boxes; a filter that trusts each box overshoots and loses them.
_FIRST_SPEED, _SPEED_CHANGE = 6.0, 1.5
# Appearances differ by about one where they are of one person, by two to three where they are not.
# A box is so much farther from a track, per unit, than from the one that it looks most like; and it
# may leave an established track for a young one that it looks more like by _CLEARLY.
_UNLIKE, _CLEARLY = 0.3, 0.8
# A track's appearance is a running mean with this share of the last one, of boxes that others cover
# by no more than _COVERED. It counts once so many have told how much one person varies.
_NEW, _COVERED, _ENOUGH = 0.2, 0.2, 20
# A false alarm is short; a track counts as a person after this much time in sight.
SECONDS_SEEN = 0.5
# Norfair's counters are whole numbers; they count these, per second.
_TICKS = 10_000


class PersonTracker:
    """Numbers the people in a clip's frames; a person keeps the number through short occlusions.

    The numbers are 1, 2, 3 … in the order in which people come. They depend only on the detections
    of this and earlier frames: the same frames give the same numbers. The tracker forgets people
    who are gone, so memory stays flat.

    All of its times are seconds by the time stamps. Only where frames are more than a second apart
    they follow the usual step, the median of the last ones: a person then survives one frame.

    Args:
        frame_rate: frames per second, as far as it is known before the first time stamps; a stride
            divides the clip's rate.

    Attributes:
        name: of the method, for the records.
        unique: number of people so far: tracks that were in sight for half a second in total, and
            at least as many as in the fullest frame. It may be lower than the highest number,
            because each short false alarm takes a number too.
    """

    name = "Norfair"

    def __init__(self, frame_rate: float) -> None:
        from norfair import OptimizedKalmanFilterFactory, Tracker

        # The filter's unit of time is the step between two frames, which `_pass_time` makes as long
        # as it is; only ratios to R, the box noise, matter.
        self._filters = OptimizedKalmanFilterFactory(R=1.0, pos_variance=1.0)
        self._tracker = Tracker(
            distance_function="iou",
            distance_threshold=1.0 - _MIN_OVERLAP,
            filter_factory=self._filters,
            past_detections_length=0,
        )
        # The constructor takes a function of one pair alone.
        distance = SimpleNamespace(get_distances=self._distances)
        self._tracker.distance_function = cast("Distance", distance)
        self._looks = _Looks()
        self.unique = 0
        self._now: float | None = None
        self._step = 1 / frame_rate
        self._steps = deque([self._step], maxlen=25)
        self._frames = self._believed = self._fullest = 0
        self._numbers = itertools.count(1)
        # Of each track: its number, and for how many ticks it was seen.
        self._tracks: dict[TrackedObject, tuple[int, int]] = {}

    def update(self, instances: Instances, time: float | None = None) -> None:
        """Number the people of the next frame.

        Args:
            instances: `pred_boxes` (XYXY_ABS, pixels), `scores` (0 to 1) and perhaps `appearance`
                (see `persondet.modeling.appearance`), on any device; the field `ID` is set in
                place: list[int], one number per detection, no two the same.
            time: seconds from the start of the clip; None: one usual step after the last frame.
        """
        from norfair import Detection

        from persondet.modeling.appearance import FIELD

        boxes = instances.pred_boxes.tensor.detach().cpu().numpy().astype(np.float64)
        scores = instances.scores.detach().cpu().numpy()
        # A box with NaN would match everything; it gets a new number and no track.
        usable = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1.0)  # a line overlaps nothing
        period = self._pass_time(time)
        looks = instances.get(FIELD).detach().cpu().numpy() if instances.has(FIELD) else None
        self._looks.show(looks)
        self._tracker.update(
            [
                Detection(boxes[k].reshape(2, 2), data=(self._frames, int(k)))
                for k in np.flatnonzero(usable)
            ],
            period,
        )
        matched: dict[int, TrackedObject] = {}
        for track in self._tracker.tracked_objects:
            frame, k = track.last_detection.data
            if frame == self._frames:
                matched[k] = track
        self._looks.learn(matched, boxes, self._tracker.tracked_objects)
        instances.ID = [
            self._number(matched[k], period) if k in matched else next(self._numbers)
            for k in range(len(boxes))
        ]
        self._fullest = max(self._fullest, int(usable.sum()))
        self.unique = max(self._believed, self._fullest)
        self._frames += 1
        self._tracks = {track: self._tracks[track] for track in self._tracker.tracked_objects}

    def _pass_time(self, time: float | None) -> int:
        """Let the time pass from the frame before to this one; return for how many ticks it counts.

        Hit counters and filters are brought to where Norfair's own step of one expects them.
        """
        before, self._step = self._step, self._usual_step
        if self._now is not None and time is not None and time > self._now:
            self._step = time - self._now
            self._steps.append(self._step)
        self._now = (time or 0.0) if self._now is None else self._now + self._step
        # Who is seen in each frame is never out of sight: one usual step is on top.
        usual = round(_TICKS * self._usual_step)
        known = max(round(_TICKS * _SECONDS_KNOWN), usual)
        self._tracker.hit_counter_max = max(round(_TICKS * _SECONDS_HIDDEN), 2 * usual) + usual
        self._tracker.initialization_delay = known + usual
        # Not the step's square too: after a gap, too wide a gate lets others in.
        self._filters.Q = _SPEED_CHANGE**2 * self._step * self._usual_step**2
        self._filters.vel_variance = (_FIRST_SPEED * self._step) ** 2
        passed, longer = max(1, round(_TICKS * self._step)), self._step / before
        for track in self._tracker.tracked_objects:
            track.hit_counter_max = self._tracker.hit_counter_max
            track.hit_counter += (usual if track.age == 0 else 0) - (passed - 1)
            filter_: Any = track.filter
            filter_.x[filter_.dim_z :] *= longer
            filter_.pos_vel_covariance *= longer
            filter_.vel_variance *= longer**2
            filter_.q_Q = self._filters.Q
        return min(passed, known)

    def _distances(
        self, tracks: Sequence[TrackedObject], detections: Sequence[Detection] | None
    ) -> np.ndarray:
        """Return how unlike detections are to tracks, (N, T); below Norfair's limit they match."""
        if not tracks or not detections:
            return np.full((len(detections or ()), len(tracks)), np.inf)
        distances = self._apart(detections, tracks)
        limit = self._tracker.distance_threshold
        chosen = [one.data[1] for one in detections]
        unlike = self._looks.unlike(chosen, tracks)
        if unlike is None:
            return distances
        near = distances < limit
        least = np.where(near & np.isfinite(unlike), unlike, np.inf).min(axis=1, keepdims=True)
        more = unlike - least
        preferred = distances + _UNLIKE * np.where(np.isfinite(more), more, 0.0)
        preferred = np.minimum(preferred, np.nextafter(limit, 0.0))  # it may still be the only one
        # Norfair lets established tracks choose before young ones.
        every = self._tracker.tracked_objects
        young = [] if tracks[0].is_initializing else [one for one in every if one.is_initializing]
        others = self._looks.unlike(chosen, young) if young else None
        if others is not None:
            others = np.where(self._apart(detections, young) < limit, others, np.inf)
            more = unlike - np.where(np.isnan(others), np.inf, others).min(axis=1, keepdims=True)
            preferred = np.where(more > _CLEARLY, preferred + _UNLIKE * more, preferred)
        return np.where(near, preferred, distances)

    def _apart(
        self, detections: Sequence[Detection], tracks: Sequence[TrackedObject]
    ) -> np.ndarray:
        """Return how little boxes overlap those that tracks predict: 0 to 1, (N, T)."""
        a, b = _sides(np.stack([one.points.ravel() for one in detections]))
        c, d = _sides(np.stack([one.estimate.ravel() for one in tracks]))
        wider = np.array([_WIDER * self._step, 0.0])
        a, b = a - wider * (b - a)[:, 1:], b + wider * (b - a)[:, 1:]
        c, d = c - wider * (d - c)[:, 1:], d + wider * (d - c)[:, 1:]
        both = np.maximum(np.minimum(b[:, None], d) - np.maximum(a[:, None], c), 0.0)
        area = both.prod(axis=2)
        overlap = area / ((b - a).prod(axis=1)[:, None] + (d - c).prod(axis=1) - area)
        rows = np.maximum(b[:, None, 1], d[:, 1]) - np.minimum(a[:, None, 1], c[:, 1])
        distances: np.ndarray = 1.0 - overlap * both[..., 1] / rows
        return distances

    @property
    def _usual_step(self) -> float:
        """The (lower) median of the last steps, seconds."""
        return sorted(self._steps)[(len(self._steps) - 1) // 2]

    def _number(self, track: TrackedObject, period: int) -> int:
        """Return the number of a track, and count the ticks for which it is seen."""
        number, count = self._tracks.get(track) or (next(self._numbers), 0)
        self._tracks[track] = (number, count + period)
        self._believed += count < SECONDS_SEEN * _TICKS <= count + period
        return number


class _Looks:
    """What the people of tracks look like, and how much that varies from frame to frame."""

    def __init__(self) -> None:
        self._means: dict[TrackedObject, np.ndarray] = {}
        self._shown: np.ndarray | None = None
        self._spread, self._count = np.zeros(1), 0  # mean square of the differences, per feature

    def show(self, looks: np.ndarray | None) -> None:
        """Take the appearances of a frame's detections, (N, D), if they have any."""
        self._shown = None if looks is None else looks.astype(np.float64)

    def unlike(self, places: Sequence[int], tracks: Sequence[TrackedObject]) -> np.ndarray | None:
        """Return how much detections at these places and tracks differ, about one for one person.

        Returns: (N, T), NaN where it is unknown; None while it is unknown for all.
        """
        if self._shown is None or self._count < _ENOUGH:
            return None
        unknown = np.full(self._shown.shape[1], np.nan)
        means = np.stack([self._means.get(track, unknown) for track in tracks])
        distances = appearance_distances(self._shown[list(places)], means, self._spread)
        return distances / self._shown.shape[1] ** 0.5

    def learn(
        self, matched: dict[int, TrackedObject], boxes: np.ndarray, alive: Iterable[TrackedObject]
    ) -> None:
        """Update the tracks from the detections, by place, that they matched; forget the dead."""
        kept = {one: self._means[one] for one in alive if one in self._means}
        if self._shown is not None:
            covered = _covered(boxes)
            for place, track in matched.items():
                look = self._shown[place]
                if track in kept and covered[place] <= _COVERED:
                    change = look - kept[track]
                    if np.isfinite(change).all():
                        weight = max(0.02, 1 / (self._count + 1))
                        self._spread = self._spread + weight * (change**2 - self._spread)
                        self._count += 1
                        kept[track] = kept[track] + _NEW * change
                elif track not in kept and np.isfinite(look).all():
                    kept[track] = look
        self._means = kept


def appearance_distances(first: np.ndarray, second: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return the distances of appearances, (N, D) and (M, D): float64, (N, M).

    Args:
        spread: mean square, (D,), of how much each feature varies within one person; the unit.
    """
    unit = np.sqrt(spread + 1e-6 * spread.mean() + 1e-12)
    first, second = first / unit, second / unit
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)
    distances: np.ndarray = np.sqrt(np.maximum(squares - 2 * first @ second.T, 0.0))
    return distances


def _covered(boxes: np.ndarray) -> np.ndarray:
    """Return the largest share of each box, (N, 4), that another one covers: 0 to 1, (N,)."""
    a, b = _sides(boxes)
    both = np.maximum(np.minimum(b[:, None], b) - np.maximum(a[:, None], a), 0.0).prod(axis=2)
    np.fill_diagonal(both, 0.0)
    shares: np.ndarray = both.max(axis=1, initial=0.0) / (b - a).prod(axis=1)
    return shares


def _sides(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of boxes, (N, 2) each; a predicted box may have shrunk to nothing."""
    return boxes[:, :2], np.maximum(boxes[:, 2:], boxes[:, :2] + 1.0)


People = Sequence[Mapping[str, Any]]

_NEVER = -1.0  # the visible share of a person who never counts, whatever the threshold


@dataclass(frozen=True)
class TrackScore:
    """How well the tracks of a clip follow its people.

    Attributes:
        mota: 1 - (misses + false alarms + switches) / ground-truth boxes; may be below 0.
        idf1: F1 of boxes with the right identity over the whole clip, 0 to 1.
        hota: geometric mean of `deta` and `assa`, 0 to 1.
        deta, assa: HOTA's accuracy of detection and of association.
        switches: how often a person's number changes.
        fragments: how often a person is lost and tracked again (motrics does not count it while
            there is no detection at all).
        hits, misses, false_alarms: over all frames.
        frames: number of frames that were scored.
        people: people in the ground truth; tracks: different numbers in the tracks.
    """

    mota: float
    idf1: float
    hota: float
    deta: float
    assa: float
    switches: int
    fragments: int
    hits: int
    misses: int
    false_alarms: int
    frames: int
    people: int
    tracks: int

    @property
    def recall(self) -> float:
        """Share of the ground-truth boxes that a detection hits, 0 to 1."""
        return self.hits / max(self.hits + self.misses, 1)

    @property
    def precision(self) -> float:
        """Share of the detections that hit a person, 0 to 1."""
        return self.hits / max(self.hits + self.false_alarms, 1)


def score_tracks(
    tracks: Iterable[People],
    ground_truth: Iterable[People],
    *,
    iou: float = 0.5,
    min_visible: float = 0.2,
    min_height: float = 24.0,
) -> TrackScore:
    """Compare tracks with the ground truth, frame by frame.

    A person counts if at least the share `min_visible` is visible and the box is at least
    `min_height` pixels tall. Detections on other people are neither hits nor false alarms, as the
    MOT challenge does with its distractors.

    Args:
        tracks: per frame, dicts with `box` (XYXY, pixels) and `track_id`.
        ground_truth: per frame, dicts with `box`, `track_id` and perhaps `visible_share` (0 to 1).
        iou: least IoU of a hit; HOTA always uses 0.05 to 0.95.

    Raises: ValueError: when the numbers of frames differ.
    """
    import motrics

    track_ids, track_boxes, true_ids, true_boxes = [], [], [], []
    for detections, people in zip(tracks, ground_truth, strict=True):
        boxes, places = _boxes(detections), _boxes(people)
        shares = np.array([person.get("visible_share", 1.0) for person in people])
        counts = (shares >= min_visible) & (places[:, 3] - places[:, 1] >= min_height)
        matches = motrics.match_boxes(places, boxes, iou).matches
        ignored = {i for person, i in matches if not counts[person]}
        keep = [i for i in range(len(boxes)) if i not in ignored]
        track_ids.append([int(detections[i]["track_id"]) for i in keep])
        track_boxes.append(np.ascontiguousarray(boxes[keep]))
        true_ids.append([int(p["track_id"]) for p, ok in zip(people, counts, strict=True) if ok])
        true_boxes.append(np.ascontiguousarray(places[counts]))
    result = motrics.evaluate(
        motrics.Frames(ids=true_ids, boxes=true_boxes),
        motrics.Frames(ids=track_ids, boxes=track_boxes),
        iou_threshold=iou,
    )
    clear = result.clear
    return TrackScore(
        mota=clear.mota,
        idf1=result.identity.idf1,
        hota=result.hota.hota,
        deta=result.hota.deta,
        assa=result.hota.assa,
        switches=clear.num_switches,
        fragments=clear.frag,
        hits=clear.num_matches,
        misses=clear.num_misses,
        false_alarms=clear.num_false_positives,
        frames=len(true_ids),
        people=len({number for numbers in true_ids for number in numbers}),
        tracks=len({number for numbers in track_ids for number in numbers}),
    )


def _boxes(people: People) -> np.ndarray:
    """Return the boxes of a frame: float64, (N, 4), XYXY."""
    return np.array([person["box"] for person in people], np.float64).reshape(-1, 4)


def tracked_frames(
    frames: Iterable[FrameRecord], ground_truth: Mapping[int, People], records: str | Path
) -> tuple[list[People], list[People]]:
    """Pair the frames of an annotated clip with their ground truth.

    Args:
        frames: the tracks, each frame with its index in the source.
        ground_truth: by that index, see `read_ground_truth`. A frame that it skips has no people,
            nor have frames after its last one (a warning says so).
        records: the file with the frames, for errors.

    Returns: the tracks and the ground truth of each frame, for `score_tracks`.

    Raises: MediaError: when there are no frames or no tracks, a frame has a track twice, or the
        clip begins after the ground truth.
    """
    tracks: list[People] = []
    indices: list[int] = []
    for frame in frames:
        numbers = [person.track_id for person in frame.people]
        if None in numbers or len(set(numbers)) < len(numbers):
            raise MediaError(
                f"{records}: frame {frame.index} has people without a track_id, or two with the "
                "same; annotate the clip without --no-tracking."
            )
        tracks.append([{"box": p.box, "track_id": p.track_id} for p in frame.people])
        indices.append(frame.index)
    last = max(ground_truth, default=-1)
    if not indices or indices[0] > last:
        raise MediaError(
            f"{records}: no frame of it is in the ground truth, which ends with frame {last}; give "
            "the records and the ground truth of the same clip."
        )
    if indices[-1] > last:
        logger.warning(
            "%s: the ground truth ends with frame %d, so frames %d to %d count as empty",
            *(records, last, last + 1, indices[-1]),
        )
    return tracks, [ground_truth.get(index, ()) for index in indices]


def read_ground_truth(path: str | Path) -> dict[int, list[dict[str, Any]]]:
    """Read the people of a clip from its ground truth.

    Args:
        path: the ground truth of the sample's clip (`….json`, see `persondet.sample.clip`), or
            MOT-challenge ground truth (`gt.txt`). Rows marked as not counting, and other classes
            than pedestrian, get a `visible_share` of -1 and never count.

    Returns: by frame index from 0, dicts with `box` (XYXY, pixels), `track_id` and
        `visible_share`. MOT-challenge ground truth lists only frames with people, so it may end
        before its clip.

    Raises: MediaError: when the file is unreadable or neither format, has a number twice in a
        frame, or nobody in it counts.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        is_json = text.lstrip().startswith("{")
        ground_truth = _from_sample(json.loads(text)) if is_json else _from_mot(text)
    except OSError as error:
        raise MediaError(f"{path}: the ground truth cannot be read ({error.strerror}).") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise MediaError(
            f"{path}: this is no ground truth of a clip; give the json beside the sample's clip, "
            "or a MOT-challenge gt.txt."
        ) from error
    counting = Counter(
        (index, row["track_id"])
        for index, people in ground_truth.items()
        for row in people
        if row["visible_share"] >= 0
    )
    for (index, number), times in counting.items():
        if times > 1:
            raise MediaError(
                f"{path}: the number {number} is there twice in frame {index} (from 0); give each "
                "person of a frame a number of their own."
            )
    if not counting:
        raise MediaError(
            f"{path}: nobody in it is to be counted (1 in column 7, and class 1, pedestrian, in "
            "column 8 of a gt.txt); give ground truth, no result of a tracker."
        )
    return ground_truth


def _from_sample(document: Mapping[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """Return the people of the sample's ground truth."""
    return {
        int(frame["index"]): [
            _person(row["box"], row["track_id"], row.get("visible_share", 1.0))
            for row in frame["people"]
        ]
        for frame in document["frames"]
    }


def _from_mot(text: str) -> dict[int, list[dict[str, Any]]]:
    """Return the people of MOT-challenge ground truth.

    A line has frame, id, left, top, width, height and perhaps three more: whether it counts, class
    (1: pedestrian), visible share.
    """
    frames: dict[int, list[dict[str, Any]]] = {}
    for line in filter(str.strip, text.splitlines()):
        values = [float(value) for value in line.split(",")]
        counts, kind, share = [*values[6:9], *(1.0, 1.0, 1.0)[len(values[6:9]) :]]
        frame, number, left, top, width, height = values[:6]
        if frame < 1:
            raise ValueError("frames count from 1")
        known = share if share >= 0 else 1.0  # some files have -1 for an unknown share
        box = (left - 1, top - 1, left - 1 + width, top - 1 + height)
        person = _person(box, number, known if counts > 0 and kind == 1 else _NEVER)
        frames.setdefault(int(frame) - 1, []).append(person)
    return frames


def _person(box: Sequence[float], number: float, share: float) -> dict[str, Any]:
    """Return one person of a ground truth; ValueError for a box that is none."""
    x0, y0, x1, y1 = map(float, box)
    if not (math.isfinite(x0 + y0 + x1 + y1 + share) and x0 <= x1 and y0 <= y1):
        raise ValueError("a box that is none")
    return {"box": (x0, y0, x1, y1), "track_id": int(number), "visible_share": float(share)}

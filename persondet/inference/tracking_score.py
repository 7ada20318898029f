"""How well tracks follow the people of a clip: MOTA, IDF1, HOTA, computed by motrics.

Sources: Bernardin and Stiefelhagen, "Evaluating Multiple Object Tracking Performance: The CLEAR
MOT Metrics", EURASIP JIVP 2008 (MOTA, switches, fragments); Ristani et al., "Performance Measures
and a Data Set for Multi-Target, Multi-Camera Tracking", ECCV Workshops 2016 (IDF1); Luiten et al.,
"HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", IJCV 2021.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from persondet.errors import MediaError
from persondet.records import FrameRecord

logger = logging.getLogger(__name__)

People = Sequence[Mapping[str, Any]]

_NEVER = -1.0  # the visible share of a person who never counts, whatever the threshold


class MotGroundTruth(dict[int, list[dict[str, Any]]]):
    """MOT-challenge ground truth: it lists only frames with people, so it may end before its clip.

    Keys and values are those of `read_ground_truth`.
    """


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
        counts = [
            person.get("visible_share", 1.0) >= min_visible and height >= min_height
            for person, height in zip(people, places[:, 3] - places[:, 1], strict=True)
        ]
        keep = list(range(len(detections)))
        if not all(counts) and len(boxes):
            matches = motrics.match_boxes(places, boxes, iou).matches
            ignored = {i for person, i in matches if not counts[person]}
            keep = [i for i in keep if i not in ignored]
        track_ids.append([int(detections[i]["track_id"]) for i in keep])
        track_boxes.append(np.ascontiguousarray(boxes[keep]))
        true_ids.append([int(p["track_id"]) for p, ok in zip(people, counts, strict=True) if ok])
        true_boxes.append(np.ascontiguousarray(places[np.array(counts, bool)]))
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


def tracked_frames(
    frames: Iterable[FrameRecord], ground_truth: Mapping[int, People], records: str | Path
) -> tuple[list[People], list[People]]:
    """Pair the frames of an annotated clip with their ground truth.

    Args:
        frames: the tracks, each frame with its index in the source.
        ground_truth: by that index, see `read_ground_truth`. A frame that it skips has no people;
            nor have frames after the last one of a `MotGroundTruth` (a warning says so).
        records: the file with the frames, for errors.

    Returns: the tracks and the ground truth of each frame, for `score_tracks`.

    Raises: MediaError: when there are no frames or no tracks, a frame comes twice or has a number
        twice, or the clip begins after the ground truth, or goes on after one that is no
        `MotGroundTruth`.
    """
    tracks: list[People] = []
    people: list[People] = []
    last, before = max(ground_truth, default=-1), -1
    for frame in frames:
        if frame.index <= before:
            raise MediaError(
                f"{records}: frame {frame.index} comes after frame {before}, so these are no "
                "records of one clip; annotate it again."
            )
        before = frame.index
        if frame.index > last and not (tracks and isinstance(ground_truth, MotGroundTruth)):
            raise MediaError(
                f"{records}: frame {frame.index} is not in the ground truth, which ends with "
                f"{last}; give the records and the ground truth of the same clip."
            )
        rows = [{"box": p.box, "track_id": p.track_id} for p in frame.people]
        if any(row["track_id"] is None for row in rows):
            raise MediaError(
                f"{records}: the people have no track_id; annotate the clip without --no-tracking."
            )
        if twice := _twice(row["track_id"] for row in rows):
            raise MediaError(
                f"{records}: frame {frame.index} has the track {twice[0]} twice, so its tracks "
                "cannot be scored; annotate the clip again."
            )
        tracks.append(rows)
        people.append(ground_truth.get(frame.index, ()))
    if not tracks:
        raise MediaError(f"{records}: there is no frame to score; annotate the clip again.")
    if before > last:
        logger.warning(
            "%s: the ground truth ends with frame %d, so frames %d to %d count as empty",
            *(records, last, last + 1, before),
        )
    return tracks, people


def _twice(numbers: Iterable[Any]) -> list[Any]:
    """Return the numbers that come more than once, in order."""
    return sorted(number for number, times in Counter(numbers).items() if times > 1)


def _boxes(people: People) -> np.ndarray:
    """Return the boxes of a frame: float64, (N, 4), XYXY."""
    return np.array([person["box"] for person in people], np.float64).reshape(-1, 4)


def read_ground_truth(path: str | Path) -> dict[int, list[dict[str, Any]]]:
    """Read the people of a clip from its ground truth.

    Args:
        path: the ground truth of the sample's clip (`….json`, see `persondet.sample.clip`), or
            MOT-challenge ground truth (`gt.txt`). Rows marked as not counting, and other classes
            than pedestrian, get a `visible_share` of -1 and never count.

    Returns: by frame index from 0, dicts with `box` (XYXY, pixels), `track_id` and
        `visible_share`.

    Raises: MediaError: when the file is unreadable or neither format, has a number twice in a
        frame, or nobody in it counts.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise MediaError(f"{path}: the ground truth cannot be read ({reason}).") from error
    try:
        if text.lstrip().startswith("{"):
            ground_truth = _from_sample(json.loads(text))
        else:
            ground_truth = _from_mot(text)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise MediaError(
            f"{path}: this is no ground truth of a clip; give the json beside the sample's clip, "
            "or a MOT-challenge gt.txt."
        ) from error
    counting = [
        (index, row["track_id"])
        for index, people in ground_truth.items()
        for row in people
        if row["visible_share"] >= 0
    ]
    for index, number in _twice(counting):
        raise MediaError(
            f"{path}: the number {number} is there twice in frame {index} (from 0); give each "
            "person of a frame a number of their own."
        )
    if isinstance(ground_truth, MotGroundTruth) and not counting:
        raise MediaError(
            f"{path}: nobody in it is to be counted (1 in column 7, and class 1, pedestrian, in "
            "column 8); give the ground truth (gt.txt), no result of a tracker."
        )
    return ground_truth


def _from_sample(document: Mapping[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """Return the people of the sample's ground truth; ValueError when a frame is there twice."""
    frames = document["frames"]
    people = {int(frame["index"]): [_person(p) for p in frame["people"]] for frame in frames}
    if len(people) < len(frames):
        raise ValueError("a frame twice")
    return people


def _person(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return one person of the sample's ground truth."""
    x0, y0, x1, y1 = (float(value) for value in row["box"])
    share = float(row.get("visible_share", 1.0))
    if not all(map(math.isfinite, (x0, y0, x1, y1, share))):
        raise ValueError("a number that is none")
    if x1 < x0 or y1 < y0:
        raise ValueError("a box that is less than nothing")
    return {"box": (x0, y0, x1, y1), "track_id": int(row["track_id"]), "visible_share": share}


def _from_mot(text: str) -> MotGroundTruth:
    """Return the people of MOT-challenge ground truth.

    A line has frame, id, left, top, width, height and perhaps three more: whether it counts, class
    (1: pedestrian), visible share.
    """
    frames = MotGroundTruth()
    for line in text.splitlines():
        if not line.strip():
            continue
        values = [float(value) for value in line.split(",")]
        frame, number, left, top, width, height = values[:6]
        counts, kind, share = [*values[6:9], *(1.0, 1.0, 1.0)[len(values[6:9]) :]]
        box = (left - 1, top - 1, left - 1 + width, top - 1 + height)
        known = share if share >= 0 else 1.0  # some files have -1 for an unknown share
        visible = known if counts > 0 and kind == 1 else _NEVER
        row = {"box": box, "track_id": number, "visible_share": visible}
        if frame < 1:
            raise ValueError("frames count from 1")
        frames.setdefault(int(frame) - 1, []).append(_person(row))
    if not frames:
        raise ValueError("no line")
    return frames

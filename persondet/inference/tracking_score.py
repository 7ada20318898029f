"""How well people keep their numbers in a clip: MOTA, IDF1, HOTA, by motrics.

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

logger = logging.getLogger(__name__)

People = Sequence[Mapping[str, Any]]

_NEVER = -1.0  # the visible share of somebody who counts for no threshold


class MotTruth(dict[int, list[dict[str, Any]]]):
    """MOT-challenge ground truth: it names only frames with somebody, so it may end before its clip.

    Keys and values are those of `read_truth`.
    """


@dataclass(frozen=True)
class TrackScore:
    """How well the tracks of a clip follow its people.

    Attributes:
        mota: 1 minus misses, false alarms and switches per person to be found; below 0 when there
            are more of them than people.
        idf1: share of the sightings that carry the right number throughout, 0 to 1.
        hota: the geometric mean of finding and of keeping apart, 0 to 1.
        deta, assa: HOTA's two parts, finding and keeping apart.
        switches: how often a person's number changes.
        fragments: how often a person is lost and found again (as motrics counts: not while
            nobody at all is found).
        hits, misses, false_alarms: over all frames.
        frames: of the clip that were scored.
        people: how many the truth has; tracks: how many numbers were given.
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
        """Share of the sightings of people that a box hits, 0 to 1."""
        return self.hits / max(self.hits + self.misses, 1)

    @property
    def precision(self) -> float:
        """Share of the boxes that hit somebody, 0 to 1."""
        return self.hits / max(self.hits + self.false_alarms, 1)


def score_tracks(
    tracks: Iterable[People],
    truth: Iterable[People],
    *,
    iou: float = 0.5,
    min_visible: float = 0.2,
    min_height: float = 24.0,
) -> TrackScore:
    """Compare tracks with the truth, frame by frame.

    A person counts when at least `min_visible` of them shows and the box is at least `min_height`
    pixels tall. A detection on somebody who does not count is left out, as the MOT challenge
    leaves out those on its distractors.

    Args:
        tracks: per frame, dicts with `box` (XYXY, pixels) and `track_id`.
        truth: per frame, dicts with `box`, `track_id` and, where known, `visible_share` (0 to 1).
        iou: from which overlap a box is right; HOTA goes through 0.05 to 0.95 by itself.

    Raises: ValueError: when the numbers of frames differ.
    """
    import motrics

    found_ids, found_boxes, true_ids, true_boxes = [], [], [], []
    for found, people in zip(tracks, truth, strict=True):
        boxes, places = _boxes(found), _boxes(people)
        counts = [
            person.get("visible_share", 1.0) >= min_visible and height >= min_height
            for person, height in zip(people, places[:, 3] - places[:, 1], strict=True)
        ]
        keep = list(range(len(found)))
        if not all(counts) and len(boxes):
            matches = motrics.match_boxes(places, boxes, iou).matches
            ignored = {i for person, i in matches if not counts[person]}
            keep = [i for i in keep if i not in ignored]
        found_ids.append([int(found[i]["track_id"]) for i in keep])
        found_boxes.append(np.ascontiguousarray(boxes[keep]))
        true_ids.append([int(p["track_id"]) for p, ok in zip(people, counts, strict=True) if ok])
        true_boxes.append(np.ascontiguousarray(places[np.array(counts, bool)]))
    result = motrics.evaluate(
        motrics.Frames(ids=true_ids, boxes=true_boxes),
        motrics.Frames(ids=found_ids, boxes=found_boxes),
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
        tracks=len({number for numbers in found_ids for number in numbers}),
    )


def tracked_frames(
    frames: Iterable[Any], truth: Mapping[int, People], records: str | Path
) -> tuple[list[People], list[People]]:
    """Put the frames of an annotated clip beside what is true in them.

    Args:
        frames: `FrameRecord`s: the tracks, each with its index in the source.
        truth: by that index, see `read_truth`; a frame that it passes over has nobody, and so
            have those after the last of a `MotTruth`, which is logged.
        records: where the frames come from, for errors.

    Returns: the tracks and the truth of each frame, for `score_tracks`.

    Raises: MediaError: when there are no frames or no tracks, a frame comes twice or has a number
        twice, or the clip begins, or (but for a `MotTruth`) goes on, after the truth.
    """
    tracks: list[People] = []
    people: list[People] = []
    last, before = max(truth, default=-1), -1
    for frame in frames:
        if frame.index <= before:
            raise MediaError(
                f"{records}: frame {frame.index} comes after frame {before}, so these are no records "
                "of one clip; annotate it again."
            )
        before = frame.index
        if frame.index > last and not (tracks and isinstance(truth, MotTruth)):
            raise MediaError(
                f"{records}: frame {frame.index} is not in the ground truth, which ends with "
                f"{last}; give the records and the truth of the same clip."
            )
        rows = [{"box": p.box, "track_id": p.track_id} for p in frame.people]
        if any(row["track_id"] is None for row in rows):
            raise MediaError(
                f"{records}: the people have no track_id; annotate the clip without --no-tracking."
            )
        if twice := _twice(row["track_id"] for row in rows):
            raise MediaError(
                f"{records}: frame {frame.index} has the track {twice[0]} twice, so nobody can be "
                "followed; annotate the clip again."
            )
        tracks.append(rows)
        people.append(truth.get(frame.index, ()))
    if not tracks:
        raise MediaError(f"{records}: there is no frame to score; annotate the clip again.")
    if before > last:
        logger.warning(
            "%s: the ground truth ends with frame %d, so frames %d to %d count as empty",
            *(records, last, last + 1, before),
        )
    return tracks, people


def _twice(numbers: Iterable[int]) -> list[int]:
    """Return the numbers that come more than once, in order."""
    return sorted(number for number, times in Counter(numbers).items() if times > 1)


def _boxes(people: People) -> np.ndarray:
    """Return the boxes of a frame: float64, (N, 4), XYXY."""
    return np.array([person["box"] for person in people], np.float64).reshape(-1, 4)


def read_truth(path: str | Path) -> dict[int, list[dict[str, Any]]]:
    """Read who is where in a clip.

    Args:
        path: the ground truth of the sample's clip (`….json`, see `persondet.sample.clip`), or
            MOT-challenge ground truth (`gt.txt`; rows that are not to be counted, or of another
            class than pedestrian, become people who do not count: their `visible_share` is -1).

    Returns: by the frame's index in the clip, from 0, dicts with `box` (XYXY, pixels), `track_id`
        and `visible_share`.

    Raises: MediaError: when the file cannot be read, is neither, has a number twice in a frame, or
        nobody whom it says to count.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise MediaError(f"{path}: the ground truth cannot be read ({reason}).") from error
    try:
        if text.lstrip().startswith("{"):
            truth = _sample_truth(json.loads(text))
        else:
            truth = _mot_truth(text)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise MediaError(
            f"{path}: this is no ground truth of a clip; give the json beside the sample's clip, "
            "or a MOT-challenge gt.txt."
        ) from error
    counting = {
        index: [row["track_id"] for row in people if row["visible_share"] >= 0]
        for index, people in truth.items()
    }
    for index, numbers in counting.items():
        if twice := _twice(numbers):
            raise MediaError(
                f"{path}: the number {twice[0]} is there twice in frame {index} (from 0); give each "
                "person of a frame a number of their own."
            )
    if isinstance(truth, MotTruth) and not any(counting.values()):
        raise MediaError(
            f"{path}: nobody in it is to be counted (1 in column 7, and class 1, pedestrian, in "
            "column 8); give the ground truth (gt.txt), no result of a tracker."
        )
    return truth


def _sample_truth(document: Mapping[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """Return the people of the sample's ground truth; ValueError when a frame is there twice."""
    frames = document["frames"]
    truth = {int(frame["index"]): [_person(p) for p in frame["people"]] for frame in frames}
    if len(truth) < len(frames):
        raise ValueError("a frame twice")
    return truth


def _person(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return one person of the sample's ground truth."""
    x0, y0, x1, y1 = (float(value) for value in row["box"])
    share = float(row.get("visible_share", 1.0))
    if not all(map(math.isfinite, (x0, y0, x1, y1, share))):
        raise ValueError("a number that is none")
    if x1 < x0 or y1 < y0:
        raise ValueError("a box that is less than nothing")
    return {"box": (x0, y0, x1, y1), "track_id": int(row["track_id"]), "visible_share": share}


def _mot_truth(text: str) -> MotTruth:
    """Return the people of MOT-challenge ground truth: frame, id, left, top, width, height, and
    where given whether it counts, the class (1: pedestrian) and the visible share."""
    frames = MotTruth()
    for line in text.splitlines():
        if not line.strip():
            continue
        values = [float(value) for value in line.split(",")]
        frame, number, left, top, width, height = values[:6]
        counts, kind, share = [*values[6:9], *(1.0, 1.0, 1.0)[len(values[6:9]) :]]
        box = (left - 1, top - 1, left - 1 + width, top - 1 + height)
        known = share if share >= 0 else 1.0  # some write -1 for what they do not know
        visible = known if counts > 0 and kind == 1 else _NEVER
        row = {"box": box, "track_id": number, "visible_share": visible}
        if frame < 1:
            raise ValueError("frames count from 1")
        frames.setdefault(int(frame) - 1, []).append(_person(row))
    if not frames:
        raise ValueError("no line")
    return frames

"""Frames worth labelling: those of clips that a model is unsure of, and no two of a kind.

Four signs of doubt, each from 0 to 1, say why a frame is worth a look: scores near the threshold,
what the mirrored frame shows otherwise, tracks that break or flicker, and people who overlap.
Frames are picked one after the other: much doubt, far from those picked already in time and in
looks, and from clips that have fewer.

Sources: Brust, Käding, Denzler, "Active Learning for Deep Object Detection", VISAPP 2019 (sums of
uncertain detections); Elezi et al., "Not All Labels Are Equal", CVPR 2022 (disagreement with the
mirrored image); Carbonell and Goldstein, "The Use of MMR", SIGIR 1998 (picking by worth and
distance to what is picked).
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
from detectron2.structures import Boxes, Instances, pairwise_iou

from persondet.data.coco_json import write_coco
from persondet.data.image_file import write_image
from persondet.data.leaks.hashing import image_signature
from persondet.data.roboflow import ANNOTATION_FILE
from persondet.data.shapes import mask_to_polygons, polygon_box
from persondet.environment import Progress
from persondet.errors import MediaError
from persondet.files import atomic_folder, folded, refuse_existing, write_text
from persondet.inference.masks import region_masks_of
from persondet.inference.predictor import Predictor
from persondet.inference.tracking import PersonTracker
from persondet.labelling.page import figure, write_page
from persondet.report.document import Figure
from persondet.text import count_of
from persondet.video.reader import VideoReader
from persondet.visualization.sheets import Shown, draw_shown

logger = logging.getLogger(__name__)

CSV, PAGE = "frames.csv", "frames.html"
MOST_POINTS = 100
"""Of a polygon, the first point repeated at its end among them."""
WEIGHTS = {"threshold": 0.3, "mirror": 0.35, "tracks": 0.2, "crowd": 0.15}
"""The signs of doubt, and how much each counts."""
_SHARE_OF_THRESHOLD = 0.25  # the least score that is looked at
_NEAR = 0.35  # a score differs this much, times the threshold, and is not near it any more
_OVERLAP = 0.3  # IoU of two people from which they are hard to tell apart
_SAME = 0.5  # IoU of two boxes that mean one person
_ALIKE_BITS, _FAR_BITS = 4, 20  # of 64: frames of a kind, frames that share nothing
_ALIKE_PEOPLE = 0.8  # share of the people who stand where they stood
_SECONDS_APART = 5.0  # of two frames of a clip that differ as a matter of course

FloatArray = npt.NDArray[np.float64]


class FramePredictor(Protocol):
    """What is asked of a model; `persondet.inference.predictor.Predictor` has it."""

    metadata: Any

    def predict_frames(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Return the detections in each image: uint8, (H, W, 3), BGR."""


@dataclass
class Candidate:
    """A frame that was looked at.

    Attributes:
        clip: the file.
        index: of the frame in the clip, from 0; `time` in seconds.
        size: width and height, pixels.
        boxes: float64, (N, 4), XYXY_ABS, pixels: the people that reach the threshold, with
            `scores` and `classes` (N,).
        polygons: of each of them, as COCO has them; empty without masks.
        signature: perceptual hash, 64 bits.
        doubts: each sign of `WEIGHTS` to how many there are, and how strong it is, 0 to 1.
    """

    clip: Path
    index: int
    time: float
    size: tuple[int, int]
    boxes: FloatArray
    scores: FloatArray
    classes: npt.NDArray[np.int64]
    polygons: list[list[list[float]]]
    signature: int
    doubts: dict[str, tuple[int, float]] = field(default_factory=dict)

    @property
    def doubt(self) -> float:
        """All signs together, 0 to 1."""
        return sum(weight * self.doubts[sign][1] for sign, weight in WEIGHTS.items())


def unsure_predictor(run: str | Path, threshold: float | None = None) -> tuple[Predictor, float]:
    """Return a run's model as `watch_clip` wants it, and the threshold.

    Args:
        threshold: score from which a detection counts as a person; None: the model's own.

    Raises: PersondetError: as `Predictor.from_run`.
    """
    if threshold is None:
        threshold = Predictor.from_run(run).confidence_threshold
    low = _SHARE_OF_THRESHOLD * threshold
    return Predictor.from_run(run, confidence_threshold=low), threshold


def watch_clip(
    clip: Path,
    predictor: FramePredictor,
    threshold: float,
    *,
    every: float = 0.5,
    looked: Callable[[], None] = lambda: None,
) -> list[Candidate]:
    """Look at the frames of a clip, and say what is doubtful in each.

    Args:
        clip: the file.
        predictor: finds people from a quarter of the threshold on.
        threshold: score from which a detection counts as a person.
        every: seconds from one frame to the next.
        looked: called after each frame.

    Raises: MediaError: when the clip cannot be read.
    """
    candidates: list[Candidate] = []
    sightings: dict[int, list[int]] = defaultdict(list)
    tracker = PersonTracker(1 / every)
    due = 0.0
    with VideoReader(clip) as reader:
        for frame in reader:
            if float(frame.time) < due - 1e-6:
                continue
            due = max(due + every, float(frame.time) + every / 2)
            mirrored = np.ascontiguousarray(frame.image[:, ::-1])
            found, other = predictor.predict_frames([frame.image, mirrored])
            sure = found[found.scores >= threshold]
            tracker.update(sure, float(frame.time))
            for number in sure.ID:
                sightings[number].append(len(candidates))
            height, width = frame.image.shape[:2]
            grey: Any = cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY)
            one = Candidate(
                clip=clip,
                index=frame.index,
                time=float(frame.time),
                size=(width, height),
                boxes=_boxes(sure),
                scores=np.asarray(sure.scores, np.float64),
                classes=np.asarray(sure.pred_classes, np.int64),
                polygons=_polygons(sure),
                signature=int(image_signature(grey)[0][0]),
            )
            reflected = _boxes(other)
            reflected[:, [0, 2]] = width - reflected[:, [2, 0]]
            one.doubts["threshold"] = _near_threshold(found, threshold)
            one.doubts["mirror"] = _disagreement(
                (_boxes(found), np.asarray(found.scores, np.float64)),
                (reflected, np.asarray(other.scores, np.float64)),
                threshold,
            )
            overlaps = np.triu(_overlaps(one.boxes, one.boxes), 1)
            pairs = int(np.count_nonzero(overlaps >= _OVERLAP))
            one.doubts["crowd"] = pairs, _strength(pairs / 2)
            candidates.append(one)
            looked()
        if reader.damage:
            logger.warning("%s: %s", reader.label, reader.damage)
    breaks: Counter[int] = Counter()
    for places in sightings.values():
        breaks.update(set(range(places[0], places[-1])) - set(places))
        if len(places) == 1 and len(candidates) > 1:
            breaks[places[0]] += 1
    for place, one in enumerate(candidates):
        one.doubts["tracks"] = breaks[place], _strength(breaks[place] / 2)
    return candidates


def _boxes(instances: Instances) -> FloatArray:
    return np.asarray(instances.pred_boxes.tensor, np.float64).reshape(-1, 4)


def _polygons(instances: Instances) -> list[list[list[float]]]:
    """Return the outlines of each detection, [] where there is no mask."""
    masks = region_masks_of(instances)
    if masks is None:
        return [[] for _ in range(len(instances))]
    return [mask_to_polygons(m, x, y, most_points=MOST_POINTS) for m, (x, y) in masks]


def _strength(amount: float) -> float:
    """Return 0 for nothing, and nearly 1 for much: the tenth doubt adds less than the first."""
    return 1.0 - float(np.exp(-amount))


def _near_threshold(found: Instances, threshold: float) -> tuple[int, float]:
    scores = np.asarray(found.scores, np.float64)
    near = np.clip(1 - np.abs(scores - threshold) / (_NEAR * threshold), 0, 1)
    return int(np.count_nonzero(near)), _strength(float(near.sum()) / 2)


def _disagreement(
    one: tuple[FloatArray, FloatArray], other: tuple[FloatArray, FloatArray], threshold: float
) -> tuple[int, float]:
    """Compare two sets of (boxes, scores): people whom only one of them has, and by how much."""
    count, amount = 0, 0.0
    overlaps = _overlaps(one[0], other[0])
    for scores, others, iou in ((one[1], other[1], overlaps), (other[1], one[1], overlaps.T)):
        for score, row in zip(scores, iou, strict=True):
            if score < threshold:
                continue
            at = int(row.argmax()) if len(row) else -1
            partner = float(others[at]) if at >= 0 and row[at] >= _SAME else 0.0
            count += partner < threshold
            amount += max(0.0, float(score) - partner)
    return count, _strength(amount)


def _overlaps(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return the IoU of boxes (N, 4) and (M, 4): float64, (N, M)."""
    return np.asarray(pairwise_iou(Boxes(one), Boxes(other)), np.float64)


# Picking


def pick_frames(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Pick at most `count` frames: much doubt, far from each other, from all clips.

    Two frames are of a kind, and never picked both, when their hashes hardly differ and the people
    stand where they stood.

    Returns: the frames, the first pick first; fewer when what is left is of a kind with them.
    """
    doubts = np.array([one.doubt for one in candidates])
    times = np.array([one.time for one in candidates])
    signatures = np.array([one.signature for one in candidates], np.uint64)
    clips = [one.clip for one in candidates]
    clip_of = np.unique([str(clip) for clip in clips], return_inverse=True)[1]
    share = max(1.0, count / max(1, len(set(clips))))
    nearness, taken = np.zeros(len(candidates)), np.zeros(len(set(clips)))
    # A frame without any doubt is worth a little: a quota is filled, and by variety.
    worth = doubts + 0.02
    picked: list[Candidate] = []
    while len(picked) < min(count, len(candidates)):
        gain = worth * (1 - nearness) / (1 + taken[clip_of] / share)
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        one = candidates[best]
        worth[best] = 0
        bits = np.bitwise_count(signatures ^ np.uint64(one.signature))
        picked.append(one)
        taken[clip_of[best]] += 1
        for other in np.flatnonzero(bits <= _ALIKE_BITS).tolist():
            if _same_people(one, candidates[other]):
                worth[other] = 0
        looks = np.clip(1 - bits / _FAR_BITS, 0, 1)
        near = np.exp(-np.abs(times - one.time) / _SECONDS_APART) * (clip_of == clip_of[best])
        nearness = np.maximum(nearness, 0.9 * np.maximum(looks / 2, near))
    return picked


def _same_people(one: Candidate, other: Candidate) -> bool:
    most = max(len(one.boxes), len(other.boxes))
    if not most:
        return True
    scale = np.array([*one.size, *one.size]) / np.array([*other.size, *other.size])
    overlaps = _overlaps(one.boxes, other.boxes * scale)
    matched = np.count_nonzero(overlaps.max(axis=1, initial=0) >= _SAME)
    return bool(matched >= _ALIKE_PEOPLE * most)


# Writing


def mine_frames(
    clips: Sequence[Path],
    output: str | Path,
    predictor: FramePredictor,
    threshold: float,
    *,
    count: int = 200,
    every: float = 0.5,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Candidate]:
    """Pick frames of clips, and write them as an export with the model's people as pre-labels.

    `output` gets `train/` with the images and `_annotations.coco.json`, in Roboflow's layout,
    `frames.csv`, and `frames.html` with each frame and why it was picked.

    Args:
        clips: the files.
        output: the folder; it appears when it is complete.
        predictor, threshold, every: see `watch_clip`.
        count: how many frames at most.
        overwrite: replace `output`.
        progress: called with the number of frames that were looked at, and of all if it is known.

    Returns: the frames that were picked, in the order of the export.

    Raises: MediaError: when no clip can be read; a warning names each of several.
        OutputExistsError: when `output` is there already.
    """
    refuse_existing(output, overwrite=overwrite)
    candidates: list[Candidate] = []
    done, failures = 0, []
    for clip in clips:

        def looked() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, None)

        try:
            candidates += watch_clip(clip, predictor, threshold, every=every, looked=looked)
        except MediaError as error:
            failures.append(str(error))
            logger.warning("left out: %s", error)
    if not candidates:
        raise MediaError(failures[0] if failures else "there is no clip to look at.")
    picked = pick_frames(candidates, count)
    order = {clip: number for number, clip in enumerate(clips)}
    picked.sort(key=lambda one: (order[one.clip], one.index))
    write_frames(picked, output, predictor.metadata.thing_classes, looked=done, overwrite=overwrite)
    return picked


def write_frames(
    picked: Sequence[Candidate],
    output: str | Path,
    classes: Sequence[str],
    *,
    looked: int,
    overwrite: bool = False,
) -> None:
    """Write frames as `mine_frames` says; `looked` is the number of frames that were looked at."""
    names = frame_names(picked)
    with atomic_folder(output, overwrite=overwrite) as draft:
        folder = draft / "train"
        folder.mkdir()
        figures, kept = [], []
        for one, image in _images(picked):
            write_image(folder / names[one.clip, one.index], image)
            figures.append(_figure(one, image, names[one.clip, one.index], classes))
            kept.append(one)
        write_coco(folder / ANNOTATION_FILE, frames_coco(kept, names, classes))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file_name", "clip", "index", "time", "people", "doubt", *WEIGHTS])
        for one in kept:
            row = [names[one.clip, one.index], one.clip.name, one.index, f"{one.time:.3f}"]
            row += [len(one.boxes), f"{one.doubt:.3f}"]
            writer.writerow([*row, *(f"{one.doubts[sign][1]:.3f}" for sign in WEIGHTS)])
        write_text(draft / CSV, text.getvalue())
        write_page(
            draft / PAGE,
            title="Frames worth labelling",
            subtitle=f"{count_of(len(kept), 'frame')} of {looked} that were looked at, from "
            f"{count_of(len({one.clip for one in kept}), 'clip')}",
            paragraphs=_READING,
            counts=[
                ("frames picked", len(kept)),
                ("people pre-labelled in them", sum(len(one.boxes) for one in kept)),
                *(
                    (words, sum(one.doubts[s][0] > 0 for one in kept))
                    for s, words in _SIGNS.items()
                ),
            ],
            figures=figures,
        )


_SIGNS = {
    "threshold": "frames with scores near the threshold",
    "mirror": "frames that look otherwise when mirrored",
    "tracks": "frames where a track breaks or flickers",
    "crowd": "frames with people who overlap",
}
_READING = (
    "The model is unsure of these frames, and probably wrong more often than on others. What it "
    "finds is drawn, and stands in train/_annotations.coco.json as pre-labels: correct them, add "
    "who is missing, and delete who is not there.",
    "The folder train is an export in Roboflow's layout (COCO). frames.csv has the time of each "
    "frame and the strength of each doubt from 0 to 1.",
)


def frame_names(picked: Sequence[Candidate]) -> dict[tuple[Path, int], str]:
    """Return the file name of each frame: the clip's stem in plain letters, and the index."""
    stems: dict[Path, str] = {}
    for clip in dict.fromkeys(one.clip for one in picked):
        plain = stem = re.sub(r"[^A-Za-z0-9._-]+", "_", clip.stem).strip("._-")[:80] or "clip"
        number = 2
        while folded(stem) in map(folded, stems.values()):
            stem, number = f"{plain}_{number}", number + 1
        stems[clip] = stem
    return {(one.clip, one.index): f"{stems[one.clip]}_f{one.index:06d}.jpg" for one in picked}


def frames_coco(
    picked: Sequence[Candidate],
    names: Mapping[tuple[Path, int], str],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Return the json of an export: ids from 1, polygons of 3 to `MOST_POINTS` points.

    A person without mask has a box and no polygon. A box is that of the polygons where there are.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, one in enumerate(picked, start=1):
        width, height = one.size
        name = names[one.clip, one.index]
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for (x0, y0, x1, y1), kind, polygons in zip(
            one.boxes.tolist(), one.classes.tolist(), one.polygons, strict=True
        ):
            x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, width), min(y1, height)
            box = [round(value, 3) for value in (x0, y0, x1 - x0, y1 - y0)]
            box = polygon_box(polygons) if polygons else box
            if min(box[2:]) <= 0:
                continue
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": kind + 1,
                    "bbox": box,
                    "area": round(box[2] * box[3], 3),  # the box's, as Roboflow writes it
                    "segmentation": polygons,
                    "iscrowd": 0,
                }
            )
    categories = [
        {"id": number, "name": name, "supercategory": "none"}
        for number, name in enumerate(classes, start=1)
    ]
    return {
        "info": {"description": "Frames with pre-labels of a model, to be corrected"},
        "licenses": [],
        "categories": categories,
        "images": images,
        "annotations": annotations,
    }


def _images(picked: Sequence[Candidate]) -> Iterator[tuple[Candidate, np.ndarray]]:
    """Yield the frames with their images, uint8, (H, W, 3), BGR; a clip is read once."""
    wanted: dict[Path, dict[int, Candidate]] = defaultdict(dict)
    for one in picked:
        wanted[one.clip][one.index] = one
    for clip, frames in wanted.items():
        with VideoReader(clip) as reader:
            for frame in reader:
                if frame.index in frames:
                    yield frames[frame.index], frame.image
                if frame.index >= max(frames):
                    break


def _figure(one: Candidate, image: np.ndarray, name: str, classes: Sequence[str]) -> Figure:
    shown = [
        Shown(
            box, polygons, f"{score:.2f}" if len(classes) == 1 else f"{classes[kind]} {score:.2f}"
        )
        for box, polygons, score, kind in zip(
            one.boxes, one.polygons, one.scores.tolist(), one.classes.tolist(), strict=True
        )
    ]
    # The sign that counts most comes first.
    signs = sorted(WEIGHTS, key=lambda sign: -WEIGHTS[sign] * one.doubts[sign][1])
    told = [(one.doubts[sign][0], *_REASONS[sign]) for sign in signs]
    reasons = [words.format(count_of(number, noun)) for number, noun, words in told if number]
    why = "; ".join(reasons) or "nothing is doubtful: picked for variety"
    minutes, seconds = divmod(one.time, 60)
    caption = (
        f"{why[:1].upper()}{why[1:]}. {name}, {int(minutes)}:{seconds:04.1f} of {one.clip.name}; "
        f"{count_of(len(one.boxes), 'pre-label')}, doubt {one.doubt:.2f}."
    )
    return figure(draw_shown(image, shown, (860, 640)), caption)


_REASONS = {
    "mirror": ("detection", "the frame and its mirror image disagree about {}"),
    "threshold": ("detection", "{} near the threshold"),
    "tracks": ("track", "{} broken or flickering"),
    "crowd": ("pair", "{} of people overlapping"),
}

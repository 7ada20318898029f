"""Precision, recall and F1 against the score threshold, and recall by kind of object.

`curves.json`:

    {"schema": 1, "model": {...}, "dataset": "person_valid", "images": 60, "threshold": 0.43,
     "tasks": {"bbox": {
        "iou": 0.5, "thresholds": [...], "precision": [...], "recall": [...], "f1": [...],
        "hits": [...], "misses": [...], "false_alarms": [...],
        "best": {"threshold": 0.47, "precision": ..., "recall": ..., "f1": ..., "hits": ...,
                 "misses": ..., "false_alarms": ...} or null,
        "at_threshold": {... the same at "threshold"},
        "pr": {"recall": [0, 0.01, ...], "precision@50": [...], "precision@75": [...]},
        "pooled": {"recall": [...], "precision": [...]} or null; with several classes only,
        "score_histogram": {"edges": [...], "true": [...], "false": [...]}}, "segm": {...}},
     "sizes": {"edges": [...], "ground_truth": [...], "found": [...]}}

All classes count together, because one threshold serves the whole model. `pr` alone is the mean
over the classes, as in COCO; `pooled` is what the thresholds give, with the point of the model's
threshold on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pycocotools.mask as mask_util

from persondet.evaluation.matching import BoolArray, FloatArray, GroundTruth, is_crowd
from persondet.evaluation.metrics import RECALLS, Detections

THRESHOLDS = np.linspace(0.0, 1.0, 101)
SCORE_EDGES = np.linspace(0.0, 1.0, 21)
SIZE_EDGES = (0, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096)


def counts_at(detections: Detections, threshold: float) -> dict[str, Any]:
    """Return what a threshold gives: the predictions that reach it, against the annotations.

    Args:
        detections: matched at the IoU that counts as found.
        threshold: predictions below it are dropped.

    Returns: `threshold`, `precision` (NaN when none is left), `recall` (NaN without annotations),
    `f1` (2 hits to all annotated and all reported; NaN without either), `hits`, `misses`,
    `false_alarms`.
    """
    kept = detections.scores >= threshold
    objects = int(detections.objects.sum())
    reported, hits = int(kept.sum()), int(detections.hit[kept].sum())
    return {
        "threshold": float(threshold),
        "precision": ratio(hits, reported),
        "recall": ratio(hits, objects),
        "f1": ratio(2 * hits, objects + reported),
        "hits": hits,
        "misses": objects - hits,
        "false_alarms": reported - hits,
    }


def best_threshold(detections: Detections, *, tolerance: float = 0.0) -> float | None:
    """Return the score threshold with the highest F1; None when no prediction is a hit.

    Of thresholds with the same F1 the highest: it reports fewest. With a `tolerance` (F1, 0 to 1),
    the lowest whose F1 is that little below the highest: it finds most. Every threshold between two
    neighbouring scores keeps the same predictions: the one in their middle is taken, rounded as far
    as they allow, so that a score which another machine rounds otherwise stays on its side.
    """
    order = np.argsort(-detections.scores, kind="stable")
    scores = detections.scores[order]
    hits = np.cumsum(detections.hit[order])
    if not len(hits) or not hits[-1]:
        return None
    f1 = 2 * hits / (detections.objects.sum() + np.arange(1, len(hits) + 1))
    # A threshold takes all predictions of one score or none.
    last_of_score = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    f1 = f1[last_of_score]
    best = int(np.argmax(f1))
    if tolerance:
        best = int(np.flatnonzero(f1 >= f1[best] - tolerance)[-1])
    best = last_of_score[best]
    below = scores[best + 1] if best + 1 < len(scores) else 0.0
    return _round_number_between(float(below), float(scores[best]))


def _round_number_between(low: float, high: float) -> float:
    """Return the number with the fewest decimals, two at least, above `low` and at most `high`."""
    for digits in range(2, 17):
        middle = round((low + high) / 2, digits)
        if low < middle <= high:
            return middle
    return high


def threshold_curves(
    detections: Detections, strict: Detections, *, iou: float, threshold: float
) -> dict[str, Any]:
    """Return the curves of one task, see the head of this file; NaN where nothing is measured.

    Args:
        detections: matched at `iou`.
        strict: the same predictions, matched at IoU 0.75.
        iou: the overlap from which an object counts as found.
        threshold: the model's score threshold.
    """
    rows = [counts_at(detections, value) for value in THRESHOLDS]
    best = best_threshold(detections)
    return {
        "iou": iou,
        "thresholds": THRESHOLDS.round(2).tolist(),
        **{
            name: [row[name] for row in rows]
            for name in ("precision", "recall", "f1", "hits", "misses", "false_alarms")
        },
        "best": None if best is None else counts_at(detections, best),
        "at_threshold": counts_at(detections, threshold),
        "pr": {
            "recall": RECALLS.round(2).tolist(),
            "precision@50": detections.precision().tolist(),
            "precision@75": strict.precision().tolist(),
        },
        **({"pooled": pooled_curve(detections, threshold)} if len(detections.objects) > 1 else {}),
        "score_histogram": {
            "edges": SCORE_EDGES.round(2).tolist(),
            "true": np.histogram(detections.scores[detections.hit], SCORE_EDGES)[0].tolist(),
            "false": np.histogram(detections.scores[~detections.hit], SCORE_EDGES)[0].tolist(),
        },
    }


def pooled_curve(detections: Detections, threshold: float) -> dict[str, list[float]] | None:
    """Return precision against recall of all classes together; nothing is interpolated.

    Args:
        detections: matched at the IoU that counts as found.
        threshold: the model's score threshold; its point is among the others.

    Returns: `recall`, rising, and `precision`, 0..1, of at most 101 thresholds; None when nothing
    is found.
    """
    if not detections.hit.any():
        return None
    # A threshold takes all predictions of one score or none.
    scores = np.unique(detections.scores)[::-1]
    own = scores[max(int((scores >= threshold).sum()) - 1, 0)]
    chosen = np.linspace(0, len(scores) - 1, min(len(scores), len(RECALLS))).round().astype(int)
    taken = scores[chosen]
    taken[np.abs(taken - own).argmin()] = own
    points = [counts_at(detections, score) for score in taken]
    return {name: [point[name] for point in points] for name in ("recall", "precision")}


def size_histogram(sides: FloatArray, found: np.ndarray) -> dict[str, list[int]]:
    """Return how many objects of each size there were and were found.

    Args:
        sides: float64, (N,), √area of each annotated object, pixels.
        found: bool, (N,).

    Returns: `edges` (pixels, up to the first that holds everybody; 4096 holds all that are larger),
    `ground_truth`, `found`.
    """
    sides = np.minimum(sides, SIZE_EDGES[-1])
    last = int(np.searchsorted(SIZE_EDGES, max(sides.max(initial=0.0), SIZE_EDGES[1])))
    edges = SIZE_EDGES[: last + 1]
    return {
        "edges": list(edges),
        "ground_truth": np.histogram(sides, edges)[0].tolist(),
        "found": np.histogram(sides[found], edges)[0].tolist(),
    }


# COCO's sizes, √area in pixels; a class begins at its limit.
SIZE_LIMITS = (32.0, 96.0)
SIZES = ("small (< 32 px)", "medium (32 to 96 px)", "large (from 96 px)")
# The largest IoU of a person's box with another box.
CROWDING_LIMITS = (1e-9, 0.1, 0.3)
CROWDING = (
    "alone (no other box overlaps)",
    "touching (IoU up to 0.1)",
    "overlapping (IoU 0.1 to 0.3)",
    "crowded (IoU from 0.3)",
)
AT_BORDER, NEAR_BORDER = 2.0, 0.05  # pixels; share of the image's short side
BORDER = (
    "at the border (within 2 px)",
    "near it (within 5 % of the short side)",
    "inside the image",
)


@dataclass(frozen=True)
class Surroundings:
    """What may make the N annotated objects of a dataset hard to find; crowd regions left out.

    Attributes:
        side: float64, (N,), √area in pixels, of the mask where there is one.
        crowding: float64, (N,), the largest box IoU with another object of the image, 0..1.
        border: float64, (N,), pixels from the box to the nearest edge of the image.
        short_side: float64, (N,), pixels, of the image.
    """

    side: FloatArray
    crowding: FloatArray
    border: FloatArray
    short_side: FloatArray


def surroundings(ground_truth: GroundTruth) -> Surroundings:
    """Measure the surroundings of every object, image by image, in the order of the file."""
    side, crowding, border, short = [], [], [], []
    for image, annotated in zip(ground_truth.images, ground_truth.annotations, strict=True):
        objects = [one for one in annotated if not is_crowd(one)]
        if not objects:
            continue
        boxes = np.array([one["bbox"] for one in objects], np.float64)
        overlap = mask_util.iou(boxes, boxes, [0] * len(objects))
        np.fill_diagonal(overlap, 0.0)
        size = np.array([image["width"], image["height"]], np.float64)
        margins = np.hstack([boxes[:, :2], size - boxes[:, :2] - boxes[:, 2:]])
        side.append(np.sqrt([float(one["area"]) for one in objects]))
        crowding.append(overlap.max(axis=1))
        border.append(np.clip(margins.min(axis=1), 0.0, None))
        short.append(np.full(len(objects), size.min()))
    joined = (np.concatenate([np.zeros(0), *part]) for part in (side, crowding, border, short))
    return Surroundings(*joined)


def recall_by(around: Surroundings, found: BoolArray) -> dict[str, list[dict[str, Any]]]:
    """Return the recall in classes of size, crowding and closeness to the border.

    Args:
        around: of N objects.
        found: bool, (N,).

    Returns: `size`, `crowding`, `border`: lists of `label`, `people`, `found`, `recall` (0..1, NaN
    where there is nobody). Every object is in one class of each list.
    """
    near = np.maximum(NEAR_BORDER * around.short_side, AT_BORDER)
    place = (around.border >= AT_BORDER).astype(np.int64) + (around.border >= near)
    return {
        "size": _rows(SIZES, np.digitize(around.side, SIZE_LIMITS), found),
        "crowding": _rows(CROWDING, np.digitize(around.crowding, CROWDING_LIMITS), found),
        "border": _rows(BORDER, place, found),
    }


def _rows(
    labels: Sequence[str], number: npt.NDArray[np.int64], found: BoolArray
) -> list[dict[str, Any]]:
    rows = []
    for index, label in enumerate(labels):
        objects, hits = int((number == index).sum()), int(found[number == index].sum())
        rows.append(
            {"label": label, "people": objects, "found": hits, "recall": ratio(hits, objects)}
        )
    return rows


def ratio(part: int, whole: int) -> float:
    """Return `part / whole`, 0..1; NaN of nothing."""
    return part / whole if whole else math.nan

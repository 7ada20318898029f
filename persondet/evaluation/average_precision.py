"""Precision against recall, and its mean: the COCO evaluation's, from lists of hits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from persondet.evaluation.matching import (
    IGNORED,
    BoolArray,
    FloatArray,
    IntArray,
    Overlaps,
)

RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Detections:
    """The N predictions of a dataset that count, and how many objects there were to find.

    Attributes:
        scores: float64, (N,), 0..1, image by image.
        hit: bool, (N,): whether it found an object.
        class_of: int64, (N,), class numbers.
        people: int64, (C,): annotated objects of each class, crowd regions left out.
    """

    scores: FloatArray
    hit: BoolArray
    class_of: IntArray
    people: IntArray


def count_detections(
    overlaps: Sequence[Overlaps], partners: Sequence[IntArray], classes: int
) -> Detections:
    """Return the predictions of all images, those that are ignored left out.

    Args:
        overlaps: of each image.
        partners: of each image, from `match`.
        classes: number of classes.
    """
    kept = [partner != IGNORED for partner in partners]
    truth = [one.truth_class[~one.crowd] for one in overlaps]
    return Detections(
        scores=_joined([one.scores[k] for one, k in zip(overlaps, kept, strict=True)], np.float64),
        hit=_joined([p[k] >= 0 for p, k in zip(partners, kept, strict=True)], np.bool_),
        class_of=_joined([o.found_class[k] for o, k in zip(overlaps, kept, strict=True)], np.int64),
        people=np.bincount(_joined(truth, np.int64), minlength=classes).astype(np.int64),
    )


def _joined(parts: list[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, kind), *parts]).astype(kind)


def precision_at_recalls(detections: Detections) -> FloatArray:
    """Return the interpolated precision at the recalls 0, 0.01 … 1, the mean over classes.

    A class without an object has no precision and is left out.

    Returns: float64, (101,), 0..1; NaN without any object.

    Source: `pycocotools.cocoeval.COCOeval.accumulate`.
    """
    rows = [
        _one_class(detections, number)
        for number, people in enumerate(detections.people)
        if people > 0
    ]
    return np.mean(rows, axis=0) if rows else np.full(len(RECALLS), np.nan)


def average_precision(detections: Detections) -> float:
    """Return the mean of `precision_at_recalls` in points, 0..100; NaN without any object."""
    return float(precision_at_recalls(detections).mean()) * 100


def _one_class(detections: Detections, number: int) -> FloatArray:
    own = detections.class_of == number
    order = np.argsort(-detections.scores[own], kind="mergesort")
    hits = np.cumsum(detections.hit[own][order], dtype=np.float64)
    reported = np.arange(1, len(hits) + 1)
    precision = hits / np.maximum(reported, np.spacing(1))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(hits / detections.people[number], RECALLS, side="left")
    padded = np.append(envelope, 0.0)
    return np.asarray(padded[np.minimum(reached, len(hits))], np.float64)


def ratio(part: int, whole: int) -> float:
    """Return `part / whole`, 0..1; NaN of nothing."""
    return part / whole if whole else math.nan

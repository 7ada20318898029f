"""Which prediction matches which annotation, image by image, at every threshold and size of COCO.

The overlaps come from faster-coco-eval's C++; what its evaluation makes of them cannot be read
from Python, and intervals need it. So the greedy matching is done here, for many images at once,
by the rules of `pycocotools.cocoeval.COCOeval.evaluateImg`, and what it yields is kept in a few
bytes per prediction: average precision and its interval follow from that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval.core import mask as engine

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Of `pycocotools.cocoeval.Params`; bit `t` of a prediction's flags belongs to the t-th."""
AREAS = {"": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}
"""Suffix of the metric to the range of areas, square pixels, both ends included."""

_LOW, _HIGH = np.array(list(AREAS.values())).T
# What pycocotools compares with: a perfect overlap may fall short of 1 by a rounding error.
_REACHED = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
_BITS = (1 << np.arange(len(IOU_THRESHOLDS))).astype(np.uint16)
_AT_ONCE = 400_000  # numbers in one array of the matching

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Truth:
    """The G annotations of one class on one image.

    Attributes:
        shapes: boxes (XYWH_ABS, pixels) or run-length codes.
        areas: float64, (G,), square pixels.
        crowd: bool, (G,).
    """

    shapes: Sequence[Any]
    areas: Floats
    crowd: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Found:
    """The D predictions of one class on one image, by falling score, none beyond the limit.

    Attributes:
        shapes: as those of `Truth`.
        areas: float64, (D,), square pixels.
        scores: float64, (D,), 0 to 1.
    """

    shapes: Sequence[Any]
    areas: Floats
    scores: Floats


@dataclass(frozen=True)
class Pair:
    """One class on one image: what is there and what was found.

    Attributes:
        image: the number of the image, in the order of the image ids.
        category: the number of the class, in the order of the category ids.
    """

    image: int
    category: int
    truth: Truth
    found: Found


@dataclass(frozen=True)
class Matches:
    """What became of the N predictions of a dataset in one task.

    Attributes:
        image: int32, (N,), rising within a class.
        category: int32, (N,).
        rank: int32, (N,): place among the predictions of its class on its image, 0 the best score.
        scores: float64, (N,).
        matched: uint16, (areas, N): bit t is set when it matched an annotation at the t-th IoU.
        ignored: uint16, (areas, N): bit t is set when it counts neither as right nor as wrong.
        people: int32, (areas, classes, images): annotations to be found.
    """

    image: npt.NDArray[np.int32]
    category: npt.NDArray[np.int32]
    rank: npt.NDArray[np.int32]
    scores: Floats
    matched: Flags
    ignored: Flags
    people: npt.NDArray[np.int32]


def match(pairs: Iterable[Pair], *, images: int, classes: int) -> Matches:
    """Match the predictions of each pair to its annotations.

    Args:
        pairs: in the order of the images; one without annotation or prediction may be left out.
        images: how many images the dataset has.
        classes: how many classes.

    Source: `pycocotools.cocoeval.COCOeval.evaluateImg`; overlaps by `faster_coco_eval`.
    """
    people = np.zeros((len(AREAS), classes, images), np.int32)
    parts: list[tuple[np.ndarray, ...]] = []
    waiting: list[Pair] = []
    most = 1  # annotations of an image
    for pair in pairs:
        counts = ~_left_out(pair.truth)
        people[:, pair.category, pair.image] = counts.sum(axis=1)
        if not len(pair.found.scores):
            continue
        together = max(most, len(pair.truth.areas))
        if (len(waiting) + 1) * together * len(AREAS) * len(_BITS) > _AT_ONCE:
            parts.append(_match_together(waiting))
            waiting, together = [], max(1, len(pair.truth.areas))
        waiting.append(pair)
        most = together
    parts.append(_match_together(waiting))
    joined = [np.concatenate(column, axis=-1) for column in zip(*parts, strict=True)]
    image, category, rank, scores, matched, ignored = joined
    return Matches(image, category, rank, scores, matched, ignored, people)


def _left_out(truth: Truth) -> npt.NDArray[np.bool_]:
    """Which annotations need not be found, bool (areas, G): crowds, and those of another size."""
    areas = truth.areas[None]
    return truth.crowd[None] | (areas < _LOW[:, None]) | (areas > _HIGH[:, None])


def _match_together(pairs: Sequence[Pair]) -> tuple[np.ndarray, ...]:
    counts = [len(pair.found.scores) for pair in pairs]
    total = sum(counts)
    starts = np.cumsum([0, *counts])
    matched = np.zeros((len(AREAS), total), np.uint16)
    ignored = np.zeros((len(AREAS), total), np.uint16)
    # Only what overlaps an annotation by half can match, and only that is gone through.
    columns: list[npt.NDArray[np.int64]] = []
    overlaps: list[Floats] = []
    truths: list[Truth] = []
    for start, pair in zip(starts, pairs, strict=False):
        if not len(pair.truth.areas):
            continue
        iou = np.asarray(
            engine.iou(list(pair.found.shapes), list(pair.truth.shapes), pair.truth.crowd.tolist())
        )
        near = np.flatnonzero((iou >= _REACHED[0]).any(axis=1))
        if len(near):
            columns.append(start + near)
            overlaps.append(iou[near])
            truths.append(pair.truth)
    if truths:
        _greedy(columns, overlaps, truths, matched, ignored)
    areas = _joined([pair.found.areas for pair in pairs], np.float64)[None]
    outside = (areas < _LOW[:, None]) | (areas > _HIGH[:, None])
    ignored |= np.where(outside, ~matched & _BITS.sum(dtype=np.uint16), np.uint16(0))
    return (
        np.repeat(np.array([pair.image for pair in pairs], np.int32), counts),
        np.repeat(np.array([pair.category for pair in pairs], np.int32), counts),
        _joined([np.arange(count) for count in counts], np.int32),
        _joined([pair.found.scores for pair in pairs], np.float64),
        matched,
        ignored,
    )


def _greedy(
    columns: Sequence[npt.NDArray[np.int64]],
    overlaps: Sequence[Floats],
    truths: Sequence[Truth],
    matched: Flags,
    ignored: Flags,
) -> None:
    """Set the flags of the predictions at `columns`; those of an image come by falling score.

    A prediction takes the free annotation that it overlaps most, of equal ones the last; one that
    is left out only where no other is in reach, and a crowd as often as it likes.
    """
    several, most = len(truths), max(len(truth.areas) for truth in truths)
    iou = np.full((several, max(map(len, columns)), most), -1.0)
    out = np.ones((several, len(AREAS), 1, most), np.bool_)
    crowd = np.zeros((several, most), np.bool_)
    place = np.full(iou.shape[:2], -1)
    for number, (column, overlap, truth) in enumerate(zip(columns, overlaps, truths, strict=True)):
        people = len(truth.areas)
        iou[number, : len(column), :people] = overlap
        out[number, :, 0, :people] = _left_out(truth)
        crowd[number, :people] = truth.crowd
        place[number, : len(column)] = column
    taken = np.zeros((several, len(AREAS), len(_BITS), most), np.bool_)
    for turn in range(iou.shape[1]):
        have = np.flatnonzero(place[:, turn] >= 0)
        row = iou[have, turn][:, None, None]
        reach = (row >= _REACHED[:, None]) & ~taken[have]
        wanted = reach & ~out[have]
        pool = np.where(wanted.any(axis=-1, keepdims=True), wanted, reach)
        best = most - 1 - np.where(pool, row, -1.0)[..., ::-1].argmax(axis=-1)[..., None]
        hit = pool.any(axis=-1)
        left_out = np.take_along_axis(np.broadcast_to(out[have], pool.shape), best, axis=-1)[..., 0]
        is_crowd = np.take_along_axis(
            np.broadcast_to(crowd[have][:, None, None], pool.shape), best, axis=-1
        )[..., 0]
        earlier = np.take_along_axis(taken[have], best, axis=-1)[..., 0]
        busy = taken[have]
        np.put_along_axis(busy, best, (earlier | (hit & ~is_crowd))[..., None], axis=-1)
        taken[have] = busy
        at = place[have, turn]
        matched[:, at] = (hit * _BITS).sum(axis=-1, dtype=np.uint16).T
        ignored[:, at] = ((hit & left_out) * _BITS).sum(axis=-1, dtype=np.uint16).T


def _joined(parts: Sequence[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, kind), *parts]).astype(kind, copy=False)

"""Which prediction matches which annotation, at every IoU and size of COCO: once per task.

Average precision, its intervals, the curves, the kinds of mistakes and the galleries all follow
from what is kept here, a few bytes per prediction. The overlaps come from faster-coco-eval's C++;
what its evaluation makes of them cannot be read from Python, so the greedy matching is done here,
for many images at once, by the rules of `pycocotools.cocoeval.COCOeval.evaluateImg`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from faster_coco_eval.core import mask as engine

from persondet.evaluation.ground_truth import GroundTruth, run_lengths
from persondet.evaluation.predictions import Detection

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Of `pycocotools.cocoeval.Params`; bit `t` of a prediction's flags belongs to the t-th."""
AT_50, AT_75 = 0, 5
"""Among `IOU_THRESHOLDS`."""
AREAS = {"": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}
"""Suffix of the metric to the range of areas, square pixels, both ends included."""
UNMATCHED, IGNORED = -1, -2

_LOW, _HIGH = np.array(list(AREAS.values())).T
# What pycocotools compares with: a perfect overlap may fall short of 1 by a rounding error.
_REACHED = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
_BITS = (1 << np.arange(len(IOU_THRESHOLDS))).astype(np.uint16)
_AT_ONCE = 400_000  # numbers in one array of the matching

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Flags = npt.NDArray[np.uint16]
Read = Callable[[int], Sequence[Detection]]
"""Returns the predictions on the image of an id."""


@dataclass(frozen=True)
class ImageMatches:
    """The D predictions on one image beside its G annotations, in one task.

    Attributes:
        scores: float64, (D,), falling, 0..1; of equal scores the first of the file comes first.
        source: int64, (D,): the place of each prediction in what the reader returned.
        class_of: int64, (D,), class numbers.
        annotated_class: int64, (G,).
        crowd: bool, (G,): regions with more objects than anyone counted.
        iou: float64, (D, G), 0..1; for a crowd region the share of the prediction inside it.
        partner: int64, (D,): the annotation of the same class that it matches at IoU 0.5,
            `UNMATCHED`, or `IGNORED` (in a crowd region).
    """

    scores: FloatArray
    source: IntArray
    class_of: IntArray
    annotated_class: IntArray
    crowd: BoolArray
    iou: FloatArray
    partner: IntArray

    @property
    def same_class(self) -> BoolArray:
        """Whether prediction and annotation are of one class: bool, (D, G)."""
        return self.class_of[:, None] == self.annotated_class[None, :]

    def reaching(self, threshold: float) -> ImageMatches:
        """Return the predictions that reach a score; their partners stay the same."""
        count = int((self.scores >= threshold).sum())
        names = ("scores", "source", "class_of", "iou", "partner")
        return replace(self, **{name: getattr(self, name)[:count] for name in names})


@dataclass(frozen=True)
class Matches:
    """What became of the N predictions on a dataset in one task.

    Attributes:
        ground_truth: of the dataset.
        image: int32, (N,), rising.
        category: int32, (N,), class numbers, rising within an image.
        rank: int32, (N,): place among the predictions of its class on its image, 0 the best score.
        source: int32, (N,): place in what the reader returned of the image.
        scores: float64, (N,).
        matched: uint16, (areas, N): bit t is set when it matched an annotation at the t-th IoU.
        ignored: uint16, (areas, N): bit t is set when it counts neither as right nor as wrong.
        partner: int32, (2, N): at IoU 0.5 and 0.75 the annotation of its image, `UNMATCHED`, or
            `IGNORED`.
        objects: int32, (areas, classes, images): annotations to be found.
        near: int32, (2, M): predictions and annotations of one image, of whatever class, that
            overlap, by rising prediction.
        near_iou: float64, (M,).
    """

    ground_truth: GroundTruth
    image: npt.NDArray[np.int32]
    category: npt.NDArray[np.int32]
    rank: npt.NDArray[np.int32]
    source: npt.NDArray[np.int32]
    scores: FloatArray
    matched: Flags
    ignored: Flags
    partner: npt.NDArray[np.int32]
    objects: npt.NDArray[np.int32]
    near: npt.NDArray[np.int32]
    near_iou: FloatArray

    @cached_property
    def _starts(self) -> IntArray:
        return np.searchsorted(self.image, np.arange(len(self.ground_truth.images) + 1))

    def of_image(self, number: int) -> ImageMatches:
        """Return the predictions on one image, by falling score."""
        first, end = self._starts[number : number + 2]
        scores, source = self.scores[first:end], self.source[first:end].astype(np.int64)
        order = np.lexsort((source, -scores))
        annotated_classes = self.ground_truth.classes(number)
        iou = np.zeros((end - first, len(annotated_classes)))
        here = slice(*np.searchsorted(self.near[0], (first, end)))
        iou[self.near[0, here] - first, self.near[1, here]] = self.near_iou[here]
        return ImageMatches(
            scores=scores[order],
            source=source[order],
            class_of=self.category[first:end][order].astype(np.int64),
            annotated_class=annotated_classes,
            crowd=self.ground_truth.crowds(number),
            iou=iou[order],
            partner=self.partner[0, first:end][order].astype(np.int64),
        )

    @property
    def images(self) -> list[ImageMatches]:
        """The predictions on every image, in the order of the image ids."""
        return [self.of_image(number) for number in range(len(self.ground_truth.images))]


class _Waiting(NamedTuple):
    """One class on one image, waiting to be matched.

    `rows` (R,) are the predictions that overlap an annotation by half, numbered within the batch,
    by falling score; `iou` is (R, G); `columns` (G,) are the annotations, numbered in the image.
    """

    rows: IntArray
    iou: FloatArray
    columns: IntArray
    crowd: BoolArray
    left_out: BoolArray


def match(ground_truth: GroundTruth, read: Read, task: str, limit: int) -> Matches:
    """Match the predictions on each image to its annotations of the same class.

    The prediction with the best score chooses first, and takes the free annotation that it
    overlaps most. One that finds none left and lies in a crowd region is ignored.

    Args:
        ground_truth: of the dataset.
        read: returns the predictions on an image, in the order of the file.
        task: "bbox" or "segm".
        limit: how many predictions of a class on an image count, those with the best scores.

    Source: `pycocotools.cocoeval.COCOeval.evaluateImg`, to the choice between equal overlaps;
    overlaps by `faster_coco_eval`.
    """
    batches = _Batches(ground_truth, task, limit)
    for number, image in enumerate(ground_truth.images):
        batches.add(number, read(image["id"]))
    return batches.matches()


class _Batches:
    """Gathers the predictions of image after image, and matches many at once."""

    def __init__(self, ground_truth: GroundTruth, task: str, limit: int) -> None:
        self._ground_truth, self._task, self._limit = ground_truth, task, limit
        classes, images = len(ground_truth.category_ids), len(ground_truth.images)
        self._objects = np.zeros((len(AREAS), classes, images), np.int32)
        # Of each image: image, category, rank, source; scores; areas; near pairs; their overlaps.
        self._keys: list[npt.NDArray[np.int32]] = [np.zeros((4, 0), np.int32)]
        self._scores: list[FloatArray] = [np.zeros(0)]
        self._near: list[npt.NDArray[np.int32]] = [np.zeros((2, 0), np.int32)]
        self._near_iou: list[FloatArray] = [np.zeros(0)]
        self._flags: list[tuple[Flags, Flags, npt.NDArray[np.int32]]] = []
        self._waiting: list[_Waiting] = []
        self._areas: list[FloatArray] = []
        self._total = self._in_batch = 0
        self._most = 1  # annotations of a class on an image of the batch

    def add(self, number: int, detections: Sequence[Detection]) -> None:
        """Take the predictions on an image; match those before it when the batch is full."""
        ground_truth = self._ground_truth
        areas = np.array([a["area"] for a in ground_truth.annotations[number]], np.float64)
        crowd, classes = ground_truth.crowds(number), ground_truth.classes(number)
        left_out = crowd[None] | (areas < _LOW[:, None]) | (areas > _HIGH[:, None])
        for kept, category in zip((~left_out).T, classes, strict=True):
            self._objects[:, category, number] += kept
        order, categories, ranks = self._ranked(detections)
        if not len(order):
            return
        chosen = [detections[index] for index in order]
        boxes = self._task == "bbox"
        size = ground_truth.images[number]["width"], ground_truth.images[number]["height"]
        shapes: list[Any] = [
            d.bbox if boxes else run_lengths(d.segmentation, *size) for d in chosen
        ]
        present, counts = np.unique(classes, return_counts=True)
        if len(present):
            self._make_room(len(present), int(counts.max()))
        first = self._in_batch
        if len(classes):
            annotated = ground_truth.shapes(number, self._task)
            iou = np.asarray(engine.iou(shapes, annotated, crowd.tolist()), np.float64)
            self._keep_near(iou)
            for category in present:
                own, columns = np.flatnonzero(categories == category), classes == category
                overlap = iou[np.ix_(own, columns)]
                near = np.flatnonzero((overlap >= _REACHED[0]).any(axis=1))
                if len(near):
                    self._most = max(self._most, int(columns.sum()))
                    self._waiting.append(
                        _Waiting(
                            first + own[near],
                            overlap[near],
                            np.flatnonzero(columns),
                            crowd[columns],
                            left_out[:, columns],
                        )
                    )
        self._areas.append(
            np.array([w * h for _, _, w, h in shapes], np.float64)
            if boxes
            else np.asarray(engine.area(shapes), np.float64)
        )
        keys = (np.full(len(order), number), categories, ranks, order)
        self._keys.append(np.stack(keys).astype(np.int32))
        self._scores.append(np.array([d.score for d in chosen], np.float64))
        self._in_batch += len(order)
        self._total += len(order)

    def _make_room(self, several: int, most: int) -> None:
        """Match the batch first if another image would make its arrays too large."""
        together = (len(self._waiting) + several) * max(self._most, most)
        if self._waiting and together * len(AREAS) * len(_BITS) > _AT_ONCE:
            self._match_batch()

    def _ranked(self, detections: Sequence[Detection]) -> tuple[IntArray, IntArray, IntArray]:
        """Return which predictions count, by class and falling score, their classes and ranks."""
        categories = np.array(
            [self._ground_truth.class_of.get(d.category_id, -1) for d in detections]
        )
        scores = np.array([d.score for d in detections], np.float64)
        order = np.lexsort((-scores, categories)) if len(detections) else np.zeros(0, np.int64)
        order = order[categories[order] >= 0] if len(order) else order
        categories = categories[order].astype(np.int64)
        ranks = np.arange(len(order)) - np.searchsorted(categories, categories)
        kept = ranks < self._limit
        return order[kept], categories[kept], ranks[kept]

    def _keep_near(self, iou: FloatArray) -> None:
        rows, columns = np.nonzero(iou)
        self._near.append(np.stack((rows + self._total, columns)).astype(np.int32))
        self._near_iou.append(iou[rows, columns])

    def _match_batch(self) -> None:
        """Match what waits, and set the flags of the predictions of the batch."""
        matched = np.zeros((len(AREAS), self._in_batch), np.uint16)
        ignored = np.zeros_like(matched)
        partner = np.full((2, self._in_batch), UNMATCHED, np.int32)
        if self._waiting:
            _greedy(self._waiting, matched, ignored, partner)
        areas = np.concatenate([np.zeros(0), *self._areas])[None]
        outside = (areas < _LOW[:, None]) | (areas > _HIGH[:, None])
        ignored |= np.where(outside, ~matched & _BITS.sum(dtype=np.uint16), np.uint16(0))
        self._flags.append((matched, ignored, partner))
        self._waiting, self._areas, self._in_batch, self._most = [], [], 0, 1

    def matches(self) -> Matches:
        """Match the rest, and return what became of every prediction."""
        self._match_batch()
        matched, ignored, partner = (
            np.concatenate(parts, axis=-1) for parts in zip(*self._flags, strict=True)
        )
        image, category, rank, source = np.concatenate(self._keys, axis=-1)
        return Matches(
            ground_truth=self._ground_truth,
            image=image,
            category=category,
            rank=rank,
            source=source,
            scores=np.concatenate(self._scores),
            matched=matched,
            ignored=ignored,
            partner=partner,
            objects=self._objects,
            near=np.concatenate(self._near, axis=-1),
            near_iou=np.concatenate(self._near_iou),
        )


def _greedy(
    waiting: Sequence[_Waiting],
    matched: Flags,
    ignored: Flags,
    partner: npt.NDArray[np.int32],
) -> None:
    """Set the flags and partners of the predictions that wait.

    A prediction takes the free annotation that it overlaps most, of equal ones the last; one that
    is left out only where no other is in reach, and a crowd as often as it likes.
    """
    several, most = len(waiting), max(len(one.columns) for one in waiting)
    iou = np.full((several, max(len(one.rows) for one in waiting), most), -1.0)
    out = np.ones((several, len(AREAS), 1, most), np.bool_)
    crowd = np.zeros((several, most), np.bool_)
    columns = np.zeros((several, most), np.int32)
    place = np.full(iou.shape[:2], -1)
    for number, one in enumerate(waiting):
        rows, count = one.iou.shape
        iou[number, :rows, :count] = one.iou
        out[number, :, 0, :count] = one.left_out
        crowd[number, :count] = one.crowd
        columns[number, :count] = one.columns
        place[number, :rows] = one.rows
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
        for which, level in enumerate((AT_50, AT_75)):
            found, skipped = hit[:, 0, level], left_out[:, 0, level]
            annotation = np.take_along_axis(columns[have], best[:, 0, level], axis=-1)[:, 0]
            partner[which, at] = np.where(found, np.where(skipped, IGNORED, annotation), UNMATCHED)

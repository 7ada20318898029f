"""The ground truth of a dataset, and which prediction matches which annotation: once per task.

Average precision, its intervals, the curves, the kinds of mistakes and the galleries all follow
from these matches, a few bytes per prediction. The overlaps come from faster-coco-eval's C++.
Python cannot read the matches of its evaluation, so this file matches greedily, many images at
once, by the rules of `pycocotools.cocoeval.COCOeval.evaluateImg`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from faster_coco_eval.core import mask as engine
from pycocotools.coco import COCO

from persondet.errors import DatasetError
from persondet.evaluation.predictions import Detection

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Of `pycocotools.cocoeval.Params`; bit `t` of a prediction's flags belongs to the t-th."""
AT_50, AT_75 = 0, 5
"""Among `IOU_THRESHOLDS`."""
AREAS = {"": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}
"""Suffix of the metric to the range of areas, square pixels, both ends included."""
UNMATCHED, IGNORED = -1, -2

# What pycocotools compares with: a perfect overlap may fall short of 1 by a rounding error.
_REACHED = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
_BITS = (1 << np.arange(len(IOU_THRESHOLDS))).astype(np.uint16)
_AT_ONCE = 256  # images that are matched together

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Flags = npt.NDArray[np.uint16]
Read = Callable[[int], Sequence[Detection]]
"""Returns the predictions on the image of an id."""


class GroundTruth:
    """COCO's ground truth, ready to be compared with predictions.

    As in pycocotools, annotations of categories that the file does not list play no part. Their
    ids play none either, so an annotation with the id 0, which pycocotools skips, counts.

    Args:
        coco: the ground truth.
        image_ids: the images to score; None: all.

    Attributes:
        images: COCO's records, by rising id.
        category_ids: rising; the place of an id is the number of its class.
        class_names: by class number.
        annotations: one list of COCO annotations per image, crowd regions among them.
        objects: number of annotations that are not crowd regions.
        has_masks: whether the annotations have masks.

    Raises: DatasetError: when some annotations have a mask and others have none.
    """

    def __init__(self, coco: COCO, image_ids: Sequence[int] | None = None) -> None:
        ids = sorted(set(coco.imgs if image_ids is None else image_ids))
        self.images: list[Mapping[str, Any]] = [coco.imgs[image_id] for image_id in ids]
        self.category_ids = sorted(coco.cats)
        self.class_names = tuple(str(coco.cats[i].get("name", i)) for i in self.category_ids)
        self.class_of = {category: number for number, category in enumerate(self.category_ids)}
        self.annotations: list[list[dict[str, Any]]] = [
            [a for a in coco.imgToAnns.get(image_id, ()) if a["category_id"] in self.class_of]
            for image_id in ids
        ]
        everything = [a for annotations in self.annotations for a in annotations]
        self.objects = sum(not is_crowd(a) for a in everything)
        without = [a for a in everything if not a.get("segmentation")]
        self.has_masks = not everything or len(without) < len(everything)
        if without and self.has_masks:
            raise DatasetError(
                f"the ground truth: annotation {without[0]['id']} has no mask, and others have "
                f"one; {len(without)} are like it; give each a mask, or none."
            )

    def classes(self, number: int) -> IntArray:
        """Return the class number of each annotation of an image: int64, (G,)."""
        return np.array(
            [self.class_of[a["category_id"]] for a in self.annotations[number]], np.int64
        )

    def crowds(self, number: int) -> BoolArray:
        """Return which annotations of an image are crowd regions: bool, (G,)."""
        return np.array([is_crowd(a) for a in self.annotations[number]], np.bool_)

    def left_out(self, number: int) -> BoolArray:
        """Return which annotations need not be found in each range of `AREAS`: bool, (areas, G)."""
        return self.crowds(number) | _outside([a["area"] for a in self.annotations[number]])

    def shapes(self, number: int, task: str) -> list[Any]:
        """Return the boxes (XYWH_ABS, pixels) or run-length codes of an image's annotations."""
        if task == "bbox":
            return [a["bbox"] for a in self.annotations[number]]
        size = self.images[number]["width"], self.images[number]["height"]
        return [run_lengths(a["segmentation"], *size) for a in self.annotations[number]]


def is_crowd(annotation: Mapping[str, Any]) -> bool:
    """Return whether an annotation is a crowd region: nobody counts or misses its objects."""
    return bool(annotation.get("iscrowd", 0))


def run_lengths(segmentation: Any, width: int, height: int) -> dict[str, Any]:
    """Return a COCO segmentation (polygons, or a run-length code) as a compressed code.

    Args:
        segmentation: in pixels of the image.
        width, height: of the image.
    """
    if isinstance(segmentation, Mapping) and not isinstance(segmentation["counts"], list):
        return dict(segmentation)
    return dict(engine.segmToRle(segmentation, width, height))


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

    @cached_property
    def images(self) -> list[ImageMatches]:
        """The predictions on every image, in the order of the image ids."""
        return [self.of_image(number) for number in range(len(self.ground_truth.images))]


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
    images = range(len(ground_truth.images))
    objects = np.zeros((len(AREAS), len(ground_truth.category_ids), len(images)), np.int32)
    for number in images:
        to_find = ~ground_truth.left_out(number)
        np.add.at(objects[..., number].T, ground_truth.classes(number), to_find.T)
    batches, total = [], 0
    for first in range(0, max(len(images), 1), _AT_ONCE):
        several = images[first : first + _AT_ONCE]
        batches.append(_match_images(ground_truth, several, read, task, limit))
        batches[-1][-2][0] += total
        total += len(batches[-1][1])
    keys, *arrays = (np.concatenate(parts, axis=-1) for parts in zip(*batches, strict=True))
    names = ("scores", "matched", "ignored", "partner", "near", "near_iou")
    return Matches(
        ground_truth=ground_truth,
        objects=objects,
        **dict(zip(("image", "category", "rank", "source"), keys, strict=True)),
        **dict(zip(names, arrays, strict=True)),
    )


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


def _match_images(
    ground_truth: GroundTruth, numbers: Sequence[int], read: Read, task: str, limit: int
) -> tuple[npt.NDArray[Any], ...]:
    """Return image, category, rank and source (4, N) of the predictions on some images, and more.

    The rest are the scores, `matched`, `ignored`, `partner`, `near` and `near_iou` of `Matches`,
    the predictions in `near` numbered within these images.
    """
    keys, scores, areas = [np.zeros((4, 0), np.int32)], [np.zeros(0)], [np.zeros(0)]
    near, near_iou = [np.zeros((2, 0), np.int32)], [np.zeros(0)]
    waiting: list[_Waiting] = []
    total = 0
    for number in numbers:
        image = ground_truth.images[number]
        detections = read(image["id"])
        order, categories, ranks = _ranked(detections, ground_truth.class_of, limit)
        if not len(order):
            continue
        chosen = [detections[index] for index in order]
        if task == "bbox":
            shapes: list[Any] = [one.bbox for one in chosen]
            areas.append(np.array([w * h for _, _, w, h in shapes], np.float64))
        else:
            size = image["width"], image["height"]
            shapes = [run_lengths(one.segmentation, *size) for one in chosen]
            areas.append(np.asarray(engine.area(shapes), np.float64))
        keys.append(np.stack((np.full(len(order), number), categories, ranks, order)).astype("i4"))
        scores.append(np.array([one.score for one in chosen], np.float64))
        if ground_truth.annotations[number]:
            crowds = ground_truth.crowds(number).tolist()
            annotated = ground_truth.shapes(number, task)
            iou = np.asarray(engine.iou(shapes, annotated, crowds), np.float64)
            rows, columns = np.nonzero(iou)
            near.append(np.stack((rows + total, columns)).astype(np.int32))
            near_iou.append(iou[rows, columns])
            waiting += _by_class(ground_truth, number, categories, iou, total)
        total += len(order)
    flags = _greedy(waiting, total)
    outside = _outside(np.concatenate(areas))
    flags[1][outside] |= ~flags[0][outside] & _BITS.sum(dtype=np.uint16)
    return (
        np.concatenate(keys, axis=-1),
        np.concatenate(scores),
        *flags,
        np.concatenate(near, axis=-1),
        np.concatenate(near_iou),
    )


def _ranked(
    detections: Sequence[Detection], class_of: Mapping[int, int], limit: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Return which predictions count, by class and falling score, their classes and ranks."""
    classes = np.array([class_of.get(d.category_id, -1) for d in detections], np.int64)
    order = np.lexsort((np.array([-d.score for d in detections], np.float64), classes))
    order = order[classes[order] >= 0]
    classes = classes[order]
    ranks = np.arange(len(order)) - np.searchsorted(classes, classes)
    kept = ranks < limit
    return order[kept], classes[kept], ranks[kept]


def _by_class(
    ground_truth: GroundTruth, number: int, categories: IntArray, iou: FloatArray, first: int
) -> Iterator[_Waiting]:
    """Yield each class of an image that has something to match; its predictions follow `first`."""
    crowd, left_out = ground_truth.crowds(number), ground_truth.left_out(number)
    classes = ground_truth.classes(number)
    for category in np.unique(classes):
        own, columns = np.flatnonzero(categories == category), np.flatnonzero(classes == category)
        overlap = iou[np.ix_(own, columns)]
        close = np.flatnonzero((overlap >= _REACHED[0]).any(axis=1))
        if len(close):
            yield _Waiting(
                first + own[close], overlap[close], columns, crowd[columns], left_out[:, columns]
            )


def _outside(areas: npt.ArrayLike) -> BoolArray:
    """Return which of N areas (pixels) lie outside each range of `AREAS`: bool, (areas, N)."""
    low, high = np.array(list(AREAS.values())).T[..., None]
    numbers = np.asarray(areas, np.float64)
    return np.asarray((numbers < low) | (numbers > high))


def _greedy(waiting: list[_Waiting], total: int) -> tuple[Flags, Flags, npt.NDArray[np.int32]]:
    """Return `matched`, `ignored` and `partner` of `total` predictions; see `Matches`.

    A prediction takes the free annotation that it overlaps most, of equal ones the last; one that
    is left out only where no other is in reach, and a crowd as often as it likes.
    """
    matched = np.zeros((len(AREAS), total), np.uint16)
    ignored = np.zeros_like(matched)
    partner = np.full((2, total), UNMATCHED, np.int32)
    waiting = sorted(waiting, key=lambda one: -len(one.rows))
    turns = [len(one.rows) for one in waiting]
    several, most = len(waiting), max((len(one.columns) for one in waiting), default=0)
    iou = np.full((several, max(turns, default=0), most), -1.0)
    out = np.ones((several, len(AREAS), most), np.bool_)
    crowd = np.zeros((several, most), np.bool_)
    columns = np.zeros((several, most), np.int32)
    for number, one in enumerate(waiting):
        rows, count = one.iou.shape
        iou[number, :rows, :count] = one.iou
        out[number, :, :count] = one.left_out
        crowd[number, :count] = one.crowd
        columns[number, :count] = one.columns
    taken = np.zeros((several, len(AREAS), len(_BITS), most), np.bool_)
    for turn in range(iou.shape[1]):
        have = sum(count > turn for count in turns)
        case, area, level = np.ogrid[:have, : len(AREAS), : len(_BITS)]
        row = iou[:have, turn, None, None]
        reach = (row >= _REACHED[:, None]) & ~taken[:have]
        wanted = reach & ~out[:have, :, None]
        pool = np.where(wanted.any(axis=-1, keepdims=True), wanted, reach)
        best = most - 1 - np.where(pool, row, -1.0)[..., ::-1].argmax(axis=-1)
        hit = pool.any(axis=-1)
        left_out = hit & out[case, area, best]
        taken[case, area, level, best] |= hit & ~crowd[case, best]
        at = [one.rows[turn] for one in waiting[:have]]
        matched[:, at] = (hit * _BITS).sum(axis=-1, dtype=np.uint16).T
        ignored[:, at] = (left_out * _BITS).sum(axis=-1, dtype=np.uint16).T
        found = np.where(hit, np.where(left_out, IGNORED, columns[case, best]), UNMATCHED)
        partner[:, at] = found[:, 0, [AT_50, AT_75]].T
    return matched, ignored, partner

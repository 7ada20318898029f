"""COCO's numbers from what became of each prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from persondet.evaluation.matching import (
    AREAS,
    AT_50,
    AT_75,
    IGNORED,
    IOU_THRESHOLDS,
    BoolArray,
    Flags,
    FloatArray,
    IntArray,
    Matches,
)

RECALLS = np.linspace(0.0, 1.0, 101)
"""Where the precision is read, `pycocotools.cocoeval.Params.recThrs`."""
STANDARD_LIMIT = 100
"""How many predictions of a class COCO counts on an image, those with the best scores."""


@dataclass(frozen=True)
class Ranking:
    """The N predictions of one class in one range of areas that may count, by falling score.

    Attributes:
        image: int32, (N,).
        right: uint16, (N,): bit t is set when it is right at the t-th IoU.
        counted: uint16, (N,): bit t is set when it is right or wrong there.
        objects: int32, (images,): annotations to be found.
    """

    image: npt.NDArray[np.int32]
    right: Flags
    counted: Flags
    objects: npt.NDArray[np.int32]


def rankings(matches: Matches, area: int, limit: int) -> list[Ranking]:
    """Return the ranking of each class.

    Args:
        matches: of a task.
        area: number of the range in `AREAS`.
        limit: how many predictions count on an image.
    """
    by_class = []
    for category, objects in enumerate(matches.objects[area]):
        own = np.flatnonzero((matches.category == category) & (matches.rank < limit))
        own = own[np.argsort(-matches.scores[own], kind="mergesort")]
        counted = ~matches.ignored[area, own]
        right = matches.matched[area, own] & counted
        by_class.append(Ranking(matches.image[own], right, counted, objects))
    return by_class


def coco_metrics(
    matches: Matches, class_names: Sequence[str] | None, *, limit: int = STANDARD_LIMIT
) -> dict[str, float]:
    """Return the metrics of a task, in points from 0 to 100; NaN where there is nothing to find.

    Args:
        matches: of the task, with the predictions of a class on an image that `limit` allows.
        class_names: in the order of the category ids; None: no rows of classes.
        limit: how many predictions a model makes on an image; above 100 it adds `AP@<limit>`.

    Returns: AP, AP50, AP75, APs, APm, APl, AR, all at 100 predictions, `AP-<class>`, `AP@<limit>`.

    Source: `pycocotools.cocoeval.COCOeval.accumulate` and `summarize`, numbers included.
    """
    precisions = {
        suffix: _precisions(rankings(matches, number, STANDARD_LIMIT))
        for number, suffix in enumerate(AREAS)
    }
    everything, recall = precisions[""]
    metrics = {
        "AP": _mean(everything),
        "AP50": _mean(everything[AT_50]),
        "AP75": _mean(everything[AT_75]),
        **{f"AP{suffix}": _mean(both[0]) for suffix, both in precisions.items() if suffix},
        "AR": _mean(recall),
    }
    if class_names is not None:
        for name, precision in zip(class_names, np.moveaxis(everything, -1, 0), strict=True):
            metrics[f"AP-{name}"] = _mean(precision)
    if limit > STANDARD_LIMIT:
        metrics[f"AP@{limit}"] = _mean(_precisions(rankings(matches, 0, limit))[0])
    return metrics


def _mean(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(np.mean(known)) * 100 if len(known) else float("nan")


def _precisions(by_class: Sequence[Ranking]) -> tuple[FloatArray, FloatArray]:
    """Return precision (thresholds, recalls, classes) and recall (thresholds, classes), 0 to 1.

    The axes are in pycocotools' order, so that the means agree to the last digit.
    """
    precision = np.full((len(IOU_THRESHOLDS), len(RECALLS), len(by_class)), np.nan)
    recall = np.full((len(IOU_THRESHOLDS), len(by_class)), np.nan)
    for category, ranking in enumerate(by_class):
        objects = int(ranking.objects.sum())
        for number, counted, right in by_threshold(ranking) if objects else ():
            hits = right[counted]
            precision[number, :, category] = interpolated_precision(
                hits, objects, smallest=np.spacing(1)
            )
            recall[number, category] = hits.sum() / objects
    return precision, recall


def interpolated_precision(right: BoolArray, objects: int, *, smallest: float = 0.0) -> FloatArray:
    """Return the interpolated precision at the recalls 0, 0.01 … 1: float64, (101,), 0..1.

    Args:
        right: bool, (N,), of predictions by falling score.
        objects: how many were to be found, at least one.
        smallest: what pycocotools adds to each divisor.

    Source: `pycocotools.cocoeval.COCOeval.accumulate`.
    """
    hits = np.cumsum(right, dtype=np.float64)
    precision = hits / (np.arange(1, len(hits) + 1) + smallest)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return np.asarray(envelope[np.searchsorted(hits / objects, RECALLS, side="left")], np.float64)


def by_threshold(ranking: Ranking) -> Iterator[tuple[int, BoolArray, BoolArray]]:
    """Yield the number of each IoU threshold, and which predictions count and are right there."""
    for number in range(len(IOU_THRESHOLDS)):
        bit = np.uint16(1 << number)
        yield number, (ranking.counted & bit) != 0, (ranking.right & bit) != 0


@dataclass(frozen=True)
class Detections:
    """The N predictions of a dataset that count at one IoU, and the objects to be found.

    Attributes:
        scores: float64, (N,), 0..1, image by image.
        hit: bool, (N,): whether it found an object.
        class_of: int64, (N,), class numbers.
        objects: int64, (C,): annotated objects of each class, crowd regions left out.
    """

    scores: FloatArray
    hit: BoolArray
    class_of: IntArray
    objects: IntArray

    def only(self, kept: BoolArray) -> Detections:
        """Return some of the predictions, with the same objects to be found."""
        return Detections(self.scores[kept], self.hit[kept], self.class_of[kept], self.objects)

    def precision(self) -> FloatArray:
        """Return the mean over classes of the interpolated precision: float64, (101,), 0..1.

        A class without an object has no precision and is left out; NaN without any object.
        """
        rows = []
        for number in np.flatnonzero(self.objects):
            own = self.class_of == number
            order = np.argsort(-self.scores[own], kind="mergesort")
            rows.append(interpolated_precision(self.hit[own][order], self.objects[number]))
        return np.mean(rows, axis=0) if rows else np.full(len(RECALLS), np.nan)

    def average_precision(self) -> float:
        """Return the mean of `precision` in points, 0..100; NaN without any object."""
        return float(self.precision().mean()) * 100


def detections_of(matches: Matches, *, strict: bool = False) -> Detections:
    """Return the predictions of a dataset, those in crowd regions left out.

    Args:
        matches: of a task.
        strict: matched at IoU 0.75 and not at 0.5.
    """
    partner = matches.partner[int(strict)]
    kept = partner != IGNORED
    return Detections(
        scores=matches.scores[kept],
        hit=partner[kept] >= 0,
        class_of=matches.category[kept].astype(np.int64),
        objects=matches.objects[0].sum(axis=-1, dtype=np.int64),
    )

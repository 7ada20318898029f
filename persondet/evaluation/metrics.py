"""COCO's numbers from what became of each prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from persondet.evaluation.image_matches import AREAS, IOU_THRESHOLDS, Flags, Floats, Matches

RECALLS = np.linspace(0.0, 1.0, 101)
"""Where the precision is read, `pycocotools.cocoeval.Params.recThrs`."""
STANDARD_LIMIT = 100
"""How many predictions of a class COCO counts on an image, those with the best scores."""
AT_50, AT_75 = 0, 5  # among IOU_THRESHOLDS


@dataclass(frozen=True)
class Ranking:
    """The N predictions of one class in one range of areas that may count, by falling score.

    Attributes:
        image: int32, (N,).
        right: uint16, (N,): bit t is set when it is right at the t-th IoU.
        counted: uint16, (N,): bit t is set when it is right or wrong there.
        people: int32, (images,): annotations to be found.
    """

    image: npt.NDArray[np.int32]
    right: Flags
    counted: Flags
    people: npt.NDArray[np.int32]


def rankings(matches: Matches, area: int, limit: int) -> list[Ranking]:
    """Return the ranking of each class.

    Args:
        matches: of a task.
        area: number of the range in `AREAS`.
        limit: how many predictions count on an image.
    """
    found = []
    for category, people in enumerate(matches.people[area]):
        own = np.flatnonzero((matches.category == category) & (matches.rank < limit))
        own = own[np.argsort(-matches.scores[own], kind="mergesort")]
        counted = ~matches.ignored[area, own]
        right = matches.matched[area, own] & counted
        found.append(Ranking(matches.image[own], right, counted, people))
    return found


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
    everything = precisions[""][0]
    metrics = {
        "AP": _mean(everything),
        "AP50": _mean(everything[AT_50]),
        "AP75": _mean(everything[AT_75]),
        **{f"AP{suffix}": _mean(found[0]) for suffix, found in precisions.items() if suffix},
        "AR": _mean(precisions[""][1]),
    }
    if class_names is not None:
        for name, found in zip(class_names, np.moveaxis(everything, -1, 0), strict=True):
            metrics[f"AP-{name}"] = _mean(found)
    if limit > STANDARD_LIMIT:
        metrics[f"AP@{limit}"] = _mean(_precisions(rankings(matches, 0, limit))[0])
    return metrics


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(np.mean(known)) * 100 if len(known) else float("nan")


def _precisions(found: Sequence[Ranking]) -> tuple[Floats, Floats]:
    """Return precision (thresholds, recalls, classes) and recall (thresholds, classes), 0 to 1.

    The axes are in pycocotools' order, so that the means agree to the last digit.
    """
    precision = np.zeros((len(IOU_THRESHOLDS), len(RECALLS), len(found)))
    recall = np.zeros((len(IOU_THRESHOLDS), len(found)))
    for category, ranking in enumerate(found):
        people = int(ranking.people.sum())
        if not people:
            precision[..., category] = recall[..., category] = np.nan
            continue
        for number, counted, right in by_threshold(ranking):
            hits = np.cumsum(right[counted], dtype=np.float64)
            if not len(hits):
                continue
            misses = np.cumsum(~right[counted], dtype=np.float64)
            exact = hits / (misses + hits + np.spacing(1))
            envelope = np.append(np.maximum.accumulate(exact[::-1])[::-1], 0.0)
            reached = np.searchsorted(hits / people, RECALLS, side="left")
            precision[number, :, category] = envelope[reached]
            recall[number, category] = hits[-1] / people
    return precision, recall


def by_threshold(
    ranking: Ranking,
) -> Iterator[tuple[int, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Yield the number of each IoU threshold, and which predictions count and are right there."""
    for number in range(len(IOU_THRESHOLDS)):
        bit = np.uint16(1 << number)
        yield number, (ranking.counted & bit) != 0, (ranking.right & bit) != 0

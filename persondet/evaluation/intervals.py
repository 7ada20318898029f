"""How far a score may be off because other images might have been in the split.

A split is a sample: other images of the same kind would have given another score. The bootstrap
draws as many images from the split as it has, some of them several times, scores the draw, and does
so a thousand times; the middle 95 % of these scores are the interval, a little more than that for
few images, whose draws differ too little. Images are drawn and not people, because the people of
one image are alike.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentiles);
Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69(4), 2015
(the expanded percentile interval).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from persondet.evaluation.coco_metrics import (
    AT_50,
    AT_75,
    RECALLS,
    STANDARD_LIMIT,
    Ranking,
    by_threshold,
    rankings,
)
from persondet.evaluation.image_matches import AREAS, IOU_THRESHOLDS, Floats, Matches

REPLICATES = 1000
LEVEL = 0.95
"""How often an interval should hold the score on all images of the kind."""
FEW_IMAGES = 20
"""Below this the images say too little about each other for an interval to be trusted."""

# A long ranking is looked at in so many places, and many images are drawn in so many parts of
# several each: both move an interval by far less than its length.
_PLACES = 512
_PARTS = 500

Weights = npt.NDArray[np.float32]
Interval = tuple[float, float]


def bootstrap_intervals(
    matches: Matches,
    class_names: Sequence[str] | None,
    *,
    limit: int = STANDARD_LIMIT,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return the 95 % interval of every AP of a task, in points from 0 to 100.

    Nothing is matched again: an image that is drawn twice counts twice, with its predictions.

    Args:
        matches: of the task.
        class_names: in the order of the category ids; None: no rows of classes.
        limit: as in `coco_metrics`.
        replicates: draws.
        seed: of the draws; the same matches and seed give the same intervals.

    Returns: metric (those of `coco_metrics`, AR left out) to (low, high); a metric without a number
    is left out. Empty for fewer than two images: one tells nothing about another.
    """
    images = matches.people.shape[-1]
    if images < 2:
        return {}
    asked = {suffix: (number, STANDARD_LIMIT) for number, suffix in enumerate(AREAS)}
    if limit > STANDARD_LIMIT:
        asked[f"@{limit}"] = (0, limit)
    rng = np.random.default_rng(seed)
    parts = min(images, _PARTS)
    part_of = rng.permutation(images) % parts
    weights = _draws(rng, parts, replicates)
    joined = {
        name: np.stack(
            [average_precisions(one, part_of, weights) for one in rankings(matches, *what)]
        )
        for name, what in asked.items()
    }
    everything = joined[""]
    series = {f"AP{name}": found for name, found in joined.items()}
    series |= {"AP50": everything[:, [AT_50]], "AP75": everything[:, [AT_75]]}
    if class_names is not None:
        series |= {f"AP-{name}": everything[[k]] for k, name in enumerate(class_names)}
    tail = _tail(images)
    return {
        name: found for name, of in series.items() if (found := _interval(of, tail)) is not None
    }


def average_precisions(
    ranking: Ranking, part_of: npt.NDArray[np.int64], weights: Weights
) -> Floats:
    """Return the average precision of each draw, (thresholds, draws), 0 to 1; NaN without people.

    Args:
        ranking: of one class.
        part_of: int64, (images,): the part that an image belongs to; small datasets: itself.
        weights: float32, (draws, parts): how often each part was drawn.
    """
    draws, parts = weights.shape
    per_part = np.bincount(part_of, ranking.people, minlength=parts)
    people = (weights @ per_part).astype(np.int64)
    found = np.zeros((len(IOU_THRESHOLDS), draws))
    total = len(ranking.image)
    if total and people.any():
        needed = _hits_needed(people)
        places = min(total, _PLACES)
        cells = part_of[ranking.image] * places + np.arange(total) * places // total
        before: tuple[bytes, Weights] | None = None
        for number, counted, right in by_threshold(ranking):
            key = np.packbits(counted).tobytes()
            if before is None or before[0] != key:  # the same at most thresholds
                before = (key, weights @ _passed(cells[counted], parts, places))
            hits = weights @ _passed(cells[right], parts, places)
            precision = hits / np.maximum(before[1], 1.0)
            envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            reached = np.stack([h.searchsorted(n) for h, n in zip(hits, needed, strict=True)])
            read = np.take_along_axis(envelope, np.minimum(reached, places - 1), axis=1)
            found[number] = np.where(reached < places, read, 0.0).mean(axis=1)
    found[:, people == 0] = np.nan
    return found


def _draws(rng: np.random.Generator, parts: int, draws: int) -> Weights:
    chosen = rng.integers(0, parts, (draws, parts)) + np.arange(draws)[:, None] * parts
    counts = np.bincount(chosen.ravel(), minlength=parts * draws)
    return counts.reshape(draws, parts).astype(np.float32)


def _passed(cells: npt.NDArray[np.int64], parts: int, places: int) -> Weights:
    """Return how many predictions of each part stand up to each place, (parts, places)."""
    counts = np.bincount(cells, minlength=parts * places).reshape(parts, places)
    return np.cumsum(counts, axis=1, dtype=np.float32)


def _hits_needed(people: npt.NDArray[np.int64]) -> Weights:
    """Return how many hits reach each recall, (draws, recalls), as COCO compares the numbers."""
    several = np.maximum(people, 1)[:, None]
    needed = np.ceil(RECALLS * several)
    needed -= (needed - 1) / several >= RECALLS
    needed += needed / several < RECALLS
    return needed.astype(np.float32)


def _tail(images: int) -> float:
    """Return the share of draws beyond each end of an interval; Student's t by its expansion.

    Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.5.
    """
    normal, free = NormalDist(), images - 1
    z = normal.inv_cdf((1 + LEVEL) / 2)
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return normal.cdf(-t * (images / free) ** 0.5)


def _interval(draws: Floats, tail: float) -> Interval | None:
    """Return the middle of the means over classes and thresholds, in points."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a draw in which there is nothing to find
        means: Any = np.nanmean(draws, axis=(0, 1))
    known = means[~np.isnan(means)]
    if not len(known):
        return None
    low, high = np.quantile(known, [tail, 1 - tail]) * 100
    return float(low), float(high)

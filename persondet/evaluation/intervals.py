"""How far a score may be off because other images might have been in the split.

A split is a sample: other images of the same kind would have given another score. The bootstrap
draws as many images from the split as it has, some of them several times, scores the draw, and does
so a thousand times; the middle 95 % of these scores are the interval, a little more than that for
few images, whose draws differ too little. Images are drawn and not objects, because the objects
of one image are alike.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentiles);
Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69(4), 2015
(the expanded percentile interval).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from persondet.evaluation.matching import AREAS, AT_50, AT_75, IOU_THRESHOLDS, FloatArray, Matches
from persondet.evaluation.metrics import RECALLS, STANDARD_LIMIT, Ranking, by_threshold, rankings
from persondet.text import listed

REPLICATES = 1000
LEVEL = 0.95
"""How often an interval should hold the score on all images of the kind."""
FEW_IMAGES = 20
"""With fewer images that hold what is measured, an interval is rough, and a note says so."""
LEAST_IMAGES = 8
"""With fewer no interval is given: their draws differ too little to hold the score often enough."""

# A long ranking is looked at in so many places, and many images are drawn in so many parts of
# several each: both move an interval by far less than its length.
_PLACES = 512
_PARTS = 500

_SIZES = ("an object", "a small object", "a medium-sized object", "a large object")  # AREAS

Weights = npt.NDArray[np.float32]
Interval = tuple[float, float]


def bootstrap_intervals(
    matches: Matches,
    class_names: Sequence[str] | None,
    *,
    limit: int = STANDARD_LIMIT,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """Return the 95 % interval of every AP of a task, in points from 0 to 100.

    Nothing is matched again: an image that is drawn twice counts twice, with its predictions.

    Args:
        matches: of the task.
        class_names: in the order of the category ids; None: no rows of classes.
        limit: as in `coco_metrics`.
        replicates: draws.
        seed: of the draws; the same matches and seed give the same intervals.

    Returns: metric (those of `coco_metrics`, AR left out) to (low, high); None where fewer than
    `LEAST_IMAGES` images hold what is measured, in any one class of a mean. A metric without a
    number is left out.
    """
    images = matches.objects.shape[-1]
    sources = told_by(matches, class_names, limit=limit)
    if all(source.images < LEAST_IMAGES for source in sources.values()):
        return dict.fromkeys(sources)
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
    return {
        name: _interval(series[name], _tail(told.images)) if told.images >= LEAST_IMAGES else None
        for name, told in sources.items()
    }


class Told(NamedTuple):
    """How many images hold what a metric measures, and what that is, in words."""

    images: int
    of: str


def told_by(
    matches: Matches, class_names: Sequence[str] | None, *, limit: int = STANDARD_LIMIT
) -> dict[str, Told]:
    """Return how many images each AP rests on: those with an object of that size, of that class.

    A mean over classes rests on the images of its rarest class. A metric without such images is
    missing from the result.

    Args:
        matches, class_names, limit: as in `bootstrap_intervals`.
    """
    # (areas, classes): images with an annotation to be found.
    images = np.count_nonzero(matches.objects, axis=-1)
    names = class_names or range(images.shape[1])

    def told(area: int, number: int) -> Told:
        of_class = f" of the class {names[number]!r}" if len(names) > 1 else ""
        return Told(int(images[area, number]), f"{_SIZES[area]}{of_class}")

    found = {}
    for area, suffix in enumerate(AREAS):
        there = np.flatnonzero(images[area])
        if len(there):
            found[f"AP{suffix}"] = told(area, int(there[images[area, there].argmin()]))
    if "AP" in found:
        above = [f"AP@{limit}"] if limit > STANDARD_LIMIT else []
        found |= dict.fromkeys(("AP50", "AP75", *above), found["AP"])
    for number, name in enumerate(class_names or ()):
        if images[0, number]:
            found[f"AP-{name}"] = told(0, number)
    return found


def interval_notes(
    matches: Matches, class_names: Sequence[str] | None, *, limit: int = STANDARD_LIMIT
) -> list[str]:
    """Return why intervals or APs are missing or rough, as sentences that begin in small letters.

    Args:
        matches, class_names, limit: as in `bootstrap_intervals`.
    """
    sources = told_by(matches, class_names, limit=limit)
    missing = [metric for metric, source in sources.items() if source.images < LEAST_IMAGES]
    rest = {sources[metric] for metric in missing}
    why = f"{_only(*rest)}, and it takes" if len(rest) == 1 else "fewer images show each than"
    notes = [f"no interval for {listed(missing)}: {why} {LEAST_IMAGES}."] if missing else []
    absent = [name for name in class_names or () if sources and f"AP-{name}" not in sources]
    if absent:
        notes.append(f"no AP for {listed(absent)}: no object of it is in this split.")
    score = sources.get("AP")
    if score is not None and LEAST_IMAGES <= score.images < FEW_IMAGES:
        notes.append(f"{_only(score)}: even its intervals are rough.")
    return notes


def _only(source: Told) -> str:
    one = source.images == 1
    return f"only {source.images} image{'' if one else 's'} show{'s' if one else ''} {source.of}"


def average_precisions(
    ranking: Ranking, part_of: npt.NDArray[np.int64], weights: Weights
) -> FloatArray:
    """Return the average precision of each draw, (thresholds, draws), 0 to 1; NaN without objects.

    Args:
        ranking: of one class.
        part_of: int64, (images,): the part that an image belongs to; small datasets: itself.
        weights: float32, (draws, parts): how often each part was drawn.
    """
    draws, parts = weights.shape
    per_part = np.bincount(part_of, ranking.objects, minlength=parts)
    objects = (weights @ per_part).astype(np.int64)
    found = np.zeros((len(IOU_THRESHOLDS), draws))
    total = len(ranking.image)
    if total and objects.any():
        needed = _hits_needed(objects)
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
    found[:, objects == 0] = np.nan
    return found


def _draws(rng: np.random.Generator, parts: int, draws: int) -> Weights:
    chosen = rng.integers(0, parts, (draws, parts)) + np.arange(draws)[:, None] * parts
    counts = np.bincount(chosen.ravel(), minlength=parts * draws)
    return counts.reshape(draws, parts).astype(np.float32)


def _passed(cells: npt.NDArray[np.int64], parts: int, places: int) -> Weights:
    """Return how many predictions of each part stand up to each place, (parts, places)."""
    counts = np.bincount(cells, minlength=parts * places).reshape(parts, places)
    return np.cumsum(counts, axis=1, dtype=np.float32)


def _hits_needed(objects: npt.NDArray[np.int64]) -> Weights:
    """Return how many hits reach each recall, (draws, recalls), as COCO compares the numbers."""
    several = np.maximum(objects, 1)[:, None]
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


def _interval(draws: FloatArray, tail: float) -> Interval | None:
    """Return the middle of the means over classes and thresholds, in points."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a draw in which there is nothing to find
        means: Any = np.nanmean(draws, axis=(0, 1))
    known = means[~np.isnan(means)]
    if not len(known):
        return None
    low, high = np.quantile(known, [tail, 1 - tail]) * 100
    return float(low), float(high)

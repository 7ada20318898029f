"""Which kind of mistake costs how much average precision.

What a wrong prediction overlaps tells its kind; an object is missed when no prediction found it or
nearly found it. The cost of a kind is what AP50 would gain if that kind alone were mended.

Source: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020,
sections 2.2 and 2.3, with its foreground threshold 0.5 and its background threshold 0.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from persondet.evaluation.matching import (
    IGNORED,
    UNMATCHED,
    BoolArray,
    ImageMatches,
    IntArray,
    Matches,
)
from persondet.evaluation.metrics import Detections, detections_of

FOREGROUND, BACKGROUND = 0.5, 0.1
KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
_CLASSIFICATION, _LOCALISATION, _BOTH, _DUPLICATE, _BACKGROUND = range(5)
_HIT = -1


class Mistakes(NamedTuple):
    """The mistakes on one image, with D predictions and G annotations.

    Attributes:
        kind: int64, (D,): index into `KINDS`; -1: a hit, or ignored in a crowd region.
        mended: int64, (D,): the class of the object that a classification or localisation error
            finds once it is mended; -1: none, or another prediction has that object already, or
            one of its kind with a better score means it too.
        missed: bool, (G,): no prediction found it, and no such error meant it.
    """

    kind: IntArray
    mended: IntArray
    missed: BoolArray


def find_mistakes(image: ImageMatches) -> Mistakes:
    """Tell the kind of every mistake on one image.

    The questions are asked in this order: does it overlap an object of its class, between the two
    thresholds (localisation); does it lie well on one of another class (classification), or on one
    of its class that a surer prediction has (duplicate); is it nowhere near any (background); else
    both its class and its place are wrong. Crowd regions are no objects.
    """
    partner = image.partner
    # A column more than there are annotations, with which nothing overlaps.
    iou = np.pad(np.where(image.crowd, 0.0, image.iou), ((0, 0), (0, 1)))
    same_class = image.class_of[:, None] == np.append(image.annotated_class, -1)
    own, other = np.where(same_class, iou, 0.0), np.where(same_class, 0.0, iou)
    nearest, foreign = own.max(axis=1), other.max(axis=1)
    rules = {
        _HIT: partner != UNMATCHED,
        _LOCALISATION: (nearest >= BACKGROUND) & (nearest < FOREGROUND),
        _CLASSIFICATION: foreign >= FOREGROUND,
        _DUPLICATE: nearest >= FOREGROUND,
        _BACKGROUND: np.maximum(nearest, foreign) < BACKGROUND,
    }
    kind = np.select(list(rules.values()), list(rules), _BOTH).astype(np.int64)
    meant, mended = np.full((2, len(partner)), -1)
    for number, overlap in ((_CLASSIFICATION, other), (_LOCALISATION, own)):
        rows = np.flatnonzero(kind == number)
        meant[rows] = overlap[rows].argmax(axis=1)
        rows = rows[~np.isin(meant[rows], partner)]
        first = rows[np.unique(meant[rows], return_index=True)[1]]  # by falling score
        mended[first] = image.annotated_class[meant[first]]
    missed = ~image.crowd
    missed[np.concatenate((partner[partner >= 0], meant[meant >= 0]))] = False
    return Mistakes(kind, mended, missed)


def count_mistakes(mistakes: Sequence[Mistakes]) -> dict[str, int]:
    """Return how many mistakes of each kind there are on all images."""
    counts = [sum(int((one.kind == number).sum()) for one in mistakes) for number in range(5)]
    missed = sum(int(one.missed.sum()) for one in mistakes)
    return dict(zip(KINDS, [*counts, missed], strict=True))


def error_costs(matches: Matches, threshold: float) -> dict[str, Any]:
    """Return what each kind of mistake costs, mended alone, and how many there are.

    Mending a classification or localisation error makes it a hit, unless another prediction has
    its object already; of several that mean one object, only the one with the best score becomes a
    hit, and the others go. Background errors, duplicates and those that are both go too. Nobody
    asks any longer for what was missed.

    Returns: an entry of `tasks` in `errors.json`: `AP50` (points), `cost` of each of `KINDS`,
    `cost_false_positives` (of all wrong predictions together), `cost_false_negatives` (of all
    objects that were not found together), NaN without any object; `counts` of the predictions that
    reach `threshold`, and `counts_all`.
    """
    images = matches.images
    mistakes = [find_mistakes(one) for one in images]
    objects = detections_of(matches).objects
    scores = np.concatenate([np.zeros(0), *(one.scores for one in images)])
    partner, class_of, kind, mended, missed = (
        np.concatenate([np.zeros(0, np.int64), *parts])
        for parts in (
            [one.partner for one in images],
            [one.class_of for one in images],
            [one.kind for one in mistakes],
            [one.mended for one in mistakes],
            [i.annotated_class[one.missed] for i, one in zip(images, mistakes, strict=True)],
        )
    )
    counted = partner != IGNORED
    kind, mended = kind[counted], mended[counted]
    base = Detections(scores, partner >= 0, class_of, objects).only(counted)
    ap50 = base.average_precision()

    def without(number: int) -> float:
        better = (kind == number) & (mended >= 0)
        classes = np.where(better, mended, base.class_of)
        repaired = replace(base, hit=base.hit | better, class_of=classes)
        return repaired.only((kind != number) | better).average_precision()

    there = _with_fewer_objects(base, objects - np.bincount(missed, minlength=len(objects)))
    hits = np.bincount(base.class_of[base.hit], minlength=len(objects))
    mended_alone = [*(without(number) for number in range(5)), there]
    return {
        "AP50": ap50,
        "cost": {name: ap - ap50 for name, ap in zip(KINDS, mended_alone, strict=True)},
        "cost_false_positives": base.only(base.hit).average_precision() - ap50,
        "cost_false_negatives": _with_fewer_objects(base, hits) - ap50,
        "counts": count_mistakes([find_mistakes(one.reaching(threshold)) for one in images]),
        "counts_all": count_mistakes(mistakes),
    }


def _with_fewer_objects(base: Detections, objects: IntArray) -> float:
    """Return AP50 where only `objects` (C,) were to be found; 0..100, NaN without any in `base`.

    A class of which nothing is left to find has no precision of its own: it counts 100 when nothing
    was reported of it, and 0 when all that was reported is wrong.
    """
    scores = []
    for number in np.flatnonzero(base.objects):
        own = base.only(base.class_of == number)
        if objects[number]:
            alone = np.where(np.arange(len(objects)) == number, objects, 0)
            scores.append(replace(own, objects=alone).average_precision())
        else:
            scores.append(0.0 if len(own.scores) else 100.0)
    return float(np.mean(scores)) if scores else math.nan

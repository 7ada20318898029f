"""Which kind of mistake costs how much average precision.

Each prediction that found nobody is of one kind, told by what it overlaps; each object that nobody
found, and that no such prediction nearly found, is missed. The cost of a kind is what AP50 would
gain if that kind alone were mended.

Source: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020,
sections 2.2 and 2.3, with its foreground threshold 0.5 and its background threshold 0.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from persondet.evaluation.average_precision import (
    Detections,
    average_precision,
    count_detections,
)
from persondet.evaluation.matching import IGNORED, UNMATCHED, IntArray, Overlaps, match

FOREGROUND, BACKGROUND = 0.5, 0.1
KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
_CLASSIFICATION, _LOCALISATION, _BOTH, _DUPLICATE, _BACKGROUND = range(5)
_HIT = -1


@dataclass(frozen=True)
class Mistakes:
    """The mistakes on one image, with D predictions and G annotations.

    Attributes:
        kind: int64, (D,): index into `KINDS`; -1: a hit, or ignored in a crowd region.
        meant: int64, (D,): of a classification or localisation error the annotation that it
            would have found, else -1.
        missed: bool, (G,): found by nobody, and meant by no such error.
    """

    kind: IntArray
    meant: IntArray
    missed: np.ndarray


def find_mistakes(overlaps: Overlaps, partner: IntArray) -> Mistakes:
    """Tell the kind of every mistake on one image.

    The questions are asked in this order: does it overlap an object of its class, between the two
    thresholds (localisation); does it lie well on one of another class (classification), or on one
    of its class that a surer prediction has (duplicate); is it nowhere near any (background); else
    both its class and its place are wrong. Crowd regions are no objects.

    Args:
        overlaps: of the image.
        partner: from `match` at `FOREGROUND`.
    """
    count = len(partner)
    kind, meant = np.full(count, _HIT, np.int64), np.full(count, -1, np.int64)
    iou = np.where(overlaps.crowd[None, :], 0.0, overlaps.iou)
    own = np.where(overlaps.same_class, iou, 0.0)
    other = np.where(overlaps.same_class, 0.0, iou)
    for row in np.flatnonzero(partner == UNMATCHED):
        if not iou.shape[1]:
            kind[row] = _BACKGROUND
            continue
        nearest, foreign = int(own[row].argmax()), int(other[row].argmax())
        if BACKGROUND <= own[row, nearest] < FOREGROUND:
            kind[row], meant[row] = _LOCALISATION, nearest
        elif other[row, foreign] >= FOREGROUND:
            kind[row], meant[row] = _CLASSIFICATION, foreign
        elif own[row, nearest] >= FOREGROUND:
            kind[row] = _DUPLICATE
        elif iou[row].max() < BACKGROUND:
            kind[row] = _BACKGROUND
        else:
            kind[row] = _BOTH
    missed = ~overlaps.crowd
    missed[partner[partner >= 0]] = False
    missed[meant[meant >= 0]] = False
    return Mistakes(kind, meant, missed)


def count_mistakes(mistakes: Sequence[Mistakes]) -> dict[str, int]:
    """Return how many mistakes of each kind there are on all images."""
    counts = {
        name: sum(int((one.kind == number).sum()) for one in mistakes)
        for number, name in enumerate(KINDS[:-1])
    }
    return {**counts, KINDS[-1]: sum(int(one.missed.sum()) for one in mistakes)}


@dataclass(frozen=True)
class ErrorCosts:
    """AP50 in points, and what each kind of mistake takes from it; NaN without any object.

    Attributes:
        ap50: mean over the classes that have objects.
        cost: of each of `KINDS`.
        false_positives: what all wrong predictions together take.
        false_negatives: what all objects that were not found together take.
    """

    ap50: float
    cost: dict[str, float]
    false_positives: float
    false_negatives: float


def error_costs(overlaps: Sequence[Overlaps], classes: int) -> ErrorCosts:
    """Return what each kind of mistake costs, mended alone.

    A classification or localisation error is mended by making it a hit, if nobody else has its
    object, and of several that mean one object only the surest; the others go, as do background
    errors, duplicates and those that are both. What is missed is no longer asked for.

    Args:
        overlaps: of each image, in the order of their ids.
        classes: number of classes.
    """
    partners = [match(one, FOREGROUND) for one in overlaps]
    mistakes = [find_mistakes(one, p) for one, p in zip(overlaps, partners, strict=True)]
    base = count_detections(overlaps, partners, classes)
    ap50 = average_precision(base)
    if math.isnan(ap50):
        nothing = dict.fromkeys(KINDS, math.nan)
        return ErrorCosts(math.nan, nothing, math.nan, math.nan)
    kinds = [one.kind[p != IGNORED] for one, p in zip(mistakes, partners, strict=True)]
    kind = np.concatenate([np.zeros(0, np.int64), *kinds])
    cost = {
        KINDS[number]: average_precision(_only(base, kind != number)) - ap50
        for number in (_BOTH, _DUPLICATE, _BACKGROUND)
    }
    for number in (_CLASSIFICATION, _LOCALISATION):
        mended = _mended(base, overlaps, partners, mistakes, number)
        cost[KINDS[number]] = average_precision(mended) - ap50
    missed = np.zeros(classes, np.int64)
    for one, its in zip(overlaps, mistakes, strict=True):
        missed += np.bincount(one.truth_class[its.missed], minlength=classes)
    hits = np.bincount(base.class_of[base.hit], minlength=classes)
    cost[KINDS[-1]] = _with_fewer_people(base, base.people - missed) - ap50
    return ErrorCosts(
        ap50=ap50,
        cost={name: cost[name] for name in KINDS},
        false_positives=average_precision(_only(base, base.hit)) - ap50,
        false_negatives=_with_fewer_people(base, hits) - ap50,
    )


def _only(detections: Detections, kept: np.ndarray) -> Detections:
    return replace(
        detections,
        scores=detections.scores[kept],
        hit=detections.hit[kept],
        class_of=detections.class_of[kept],
    )


def _mended(
    base: Detections,
    overlaps: Sequence[Overlaps],
    partners: Sequence[IntArray],
    mistakes: Sequence[Mistakes],
    kind: int,
) -> Detections:
    """Return the detections in which the errors of one kind found the object that they meant."""
    hit, gone, class_of = [], [], []
    for one, partner, its in zip(overlaps, partners, mistakes, strict=True):
        new_hit, new_gone, new_class = partner >= 0, its.kind == kind, one.found_class.copy()
        taken = set(partner[partner >= 0].tolist())
        for row in np.flatnonzero(its.kind == kind):  # by falling score
            target = int(its.meant[row])
            if target not in taken:
                taken.add(target)
                new_hit[row], new_gone[row] = True, False
                new_class[row] = one.truth_class[target]
        kept = partner != IGNORED
        hit.append(new_hit[kept])
        gone.append(new_gone[kept])
        class_of.append(new_class[kept])
    mended = replace(base, hit=np.concatenate(hit), class_of=np.concatenate(class_of))
    return _only(mended, ~np.concatenate(gone))


def _with_fewer_people(base: Detections, people: IntArray) -> float:
    """Return AP50 where only `people` (C,) were to be found; 0..100.

    A class of which nobody is left to find has no precision of its own: it counts 100 when nothing
    was reported of it, and 0 when all that was reported is wrong.
    """
    scores = []
    for number in np.flatnonzero(base.people):
        own = _only(base, base.class_of == number)
        if people[number]:
            only = np.zeros_like(people)
            only[number] = people[number]
            scores.append(average_precision(replace(own, people=only)))
        else:
            scores.append(0.0 if len(own.scores) else 100.0)
    return float(np.mean(scores))

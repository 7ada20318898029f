"""Which kind of mistake costs how much average precision.

What a wrong prediction overlaps tells its kind; an object is missed when no prediction found it or
nearly found it. The cost of a kind is what AP50 would
gain if that kind alone were mended.

Source: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020,
sections 2.2 and 2.3, with its foreground threshold 0.5 and its background threshold 0.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from persondet.evaluation.matching import (
    IGNORED,
    UNMATCHED,
    ImageMatches,
    IntArray,
    Matches,
)
from persondet.evaluation.metrics import Detections, detections_of

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
        missed: bool, (G,): no prediction found it, and no such error meant it.
    """

    kind: IntArray
    meant: IntArray
    missed: np.ndarray


def find_mistakes(image: ImageMatches) -> Mistakes:
    """Tell the kind of every mistake on one image.

    The questions are asked in this order: does it overlap an object of its class, between the two
    thresholds (localisation); does it lie well on one of another class (classification), or on one
    of its class that a surer prediction has (duplicate); is it nowhere near any (background); else
    both its class and its place are wrong. Crowd regions are no objects.

    """
    partner = image.partner
    count = len(partner)
    kind, meant = np.full(count, _HIT, np.int64), np.full(count, -1, np.int64)
    iou = np.where(image.crowd[None, :], 0.0, image.iou)
    own = np.where(image.same_class, iou, 0.0)
    other = np.where(image.same_class, 0.0, iou)
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
    missed = ~image.crowd
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


def error_costs(matches: Matches) -> ErrorCosts:
    """Return what each kind of mistake costs, mended alone.

    Mending a classification or localisation error makes it a hit, unless another prediction has
    its object already; of several that mean one object, only the one with the best score becomes a
    hit, and the others go. Background errors, duplicates and those that are both go too. Nobody
    asks any longer for what was missed.
    """
    images = matches.images
    mistakes = [find_mistakes(one) for one in images]
    base = _detections(images, detections_of(matches).objects)
    ap50 = base.average_precision()
    if math.isnan(ap50):
        nothing = dict.fromkeys(KINDS, math.nan)
        return ErrorCosts(math.nan, nothing, math.nan, math.nan)
    kinds = [
        one.kind[image.partner != IGNORED] for one, image in zip(mistakes, images, strict=True)
    ]
    kind = np.concatenate([np.zeros(0, np.int64), *kinds])
    cost = {
        KINDS[number]: base.only(kind != number).average_precision() - ap50
        for number in (_BOTH, _DUPLICATE, _BACKGROUND)
    }
    for number in (_CLASSIFICATION, _LOCALISATION):
        cost[KINDS[number]] = _mended(base, images, mistakes, number).average_precision() - ap50
    missed = np.zeros_like(base.objects)
    for image, its in zip(images, mistakes, strict=True):
        missed += np.bincount(image.annotated_class[its.missed], minlength=len(missed))
    hits = np.bincount(base.class_of[base.hit], minlength=len(missed))
    cost[KINDS[-1]] = _with_fewer_objects(base, base.objects - missed) - ap50
    return ErrorCosts(
        ap50=ap50,
        cost={name: cost[name] for name in KINDS},
        false_positives=base.only(base.hit).average_precision() - ap50,
        false_negatives=_with_fewer_objects(base, hits) - ap50,
    )


def _detections(images: Sequence[ImageMatches], objects: IntArray) -> Detections:
    """Return the predictions that count, in the order of `images`."""
    kept = [one.partner != IGNORED for one in images]
    empty = np.zeros(0)
    pairs = list(zip(images, kept, strict=True))
    return Detections(
        scores=np.concatenate([empty, *(one.scores[k] for one, k in pairs)]),
        hit=np.concatenate([empty.astype(bool), *(one.partner[k] >= 0 for one, k in pairs)]),
        class_of=np.concatenate([empty.astype(np.int64), *(one.class_of[k] for one, k in pairs)]),
        objects=objects,
    )


def _mended(
    base: Detections, images: Sequence[ImageMatches], mistakes: Sequence[Mistakes], kind: int
) -> Detections:
    """Return the detections in which the errors of one kind found the object that they meant."""
    hit, gone, class_of = [], [], []
    for image, its in zip(images, mistakes, strict=True):
        partner = image.partner
        new_hit, new_gone, new_class = partner >= 0, its.kind == kind, image.class_of.copy()
        taken = set(partner[partner >= 0].tolist())
        for row in np.flatnonzero(its.kind == kind):  # by falling score
            target = int(its.meant[row])
            if target not in taken:
                taken.add(target)
                new_hit[row], new_gone[row] = True, False
                new_class[row] = image.annotated_class[target]
        kept = partner != IGNORED
        hit.append(new_hit[kept])
        gone.append(new_gone[kept])
        class_of.append(new_class[kept])
    mended = replace(base, hit=np.concatenate(hit), class_of=np.concatenate(class_of))
    return mended.only(~np.concatenate(gone))


def _with_fewer_objects(base: Detections, objects: IntArray) -> float:
    """Return AP50 where only `objects` (C,) were to be found; 0..100.

    A class of which nothing is left to find has no precision of its own: it counts 100 when nothing
    was reported of it, and 0 when all that was reported is wrong.
    """
    scores = []
    for number in np.flatnonzero(base.objects):
        own = base.only(base.class_of == number)
        if objects[number]:
            alone = np.zeros_like(objects)
            alone[number] = objects[number]
            scores.append(replace(own, objects=alone).average_precision())
        else:
            scores.append(0.0 if len(own.scores) else 100.0)
    return float(np.mean(scores))

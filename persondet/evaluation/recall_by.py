"""Whom the detector finds: recall by size, by crowding, and by closeness to the border."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pycocotools.mask as mask_util

from persondet.evaluation.average_precision import ratio
from persondet.evaluation.matching import BoolArray, FloatArray, Scored, is_crowd

# COCO's sizes, √area in pixels; a class begins at its limit.
SIZE_LIMITS = (32.0, 96.0)
SIZES = ("small (< 32 px)", "medium (32 to 96 px)", "large (from 96 px)")
# The largest IoU of a person's box with another box.
CROWDING_LIMITS = (1e-9, 0.1, 0.3)
CROWDING = (
    "alone (no other box overlaps)",
    "touching (IoU up to 0.1)",
    "overlapping (IoU 0.1 to 0.3)",
    "crowded (IoU from 0.3)",
)
AT_BORDER, NEAR_BORDER = 2.0, 0.05  # pixels; share of the picture's short side
BORDER = (
    "at the border (within 2 px)",
    "near it (within 5 % of the short side)",
    "inside the picture",
)


@dataclass(frozen=True)
class Surroundings:
    """What may make the N annotated objects of a dataset hard to find; crowd regions left out.

    Attributes:
        side: float64, (N,), √area in pixels, of the mask where there is one.
        crowding: float64, (N,), the largest box IoU with another object of the picture, 0..1.
        border: float64, (N,), pixels from the box to the nearest edge of the picture.
        short_side: float64, (N,), pixels, of the picture.
    """

    side: FloatArray
    crowding: FloatArray
    border: FloatArray
    short_side: FloatArray


def surroundings(scored: Scored) -> Surroundings:
    """Measure the surroundings of every object, image by image, in the order of the file."""
    side, crowding, border, short = [], [], [], []
    for image, truth in zip(scored.images, scored.truth, strict=True):
        people = [one for one in truth if not is_crowd(one)]
        if not people:
            continue
        boxes = np.array([one["bbox"] for one in people], np.float64)
        overlap = mask_util.iou(boxes, boxes, [0] * len(people))
        np.fill_diagonal(overlap, 0.0)
        size = np.array([image["width"], image["height"]], np.float64)
        margins = np.hstack([boxes[:, :2], size - boxes[:, :2] - boxes[:, 2:]])
        side.append(np.sqrt([float(one["area"]) for one in people]))
        crowding.append(overlap.max(axis=1))
        border.append(np.clip(margins.min(axis=1), 0.0, None))
        short.append(np.full(len(people), size.min()))
    joined = (np.concatenate([np.zeros(0), *part]) for part in (side, crowding, border, short))
    return Surroundings(*joined)


def recall_by(around: Surroundings, found: BoolArray) -> dict[str, list[dict[str, Any]]]:
    """Return the recall in classes of size, crowding and closeness to the border.

    Args:
        around: of N objects.
        found: bool, (N,).

    Returns: `size`, `crowding`, `border`: lists of `label`, `people`, `found`, `recall` (0..1, NaN
    where there is nobody). Every object is in one class of each list.
    """
    near = np.maximum(NEAR_BORDER * around.short_side, AT_BORDER)
    place = (around.border >= AT_BORDER).astype(np.int64) + (around.border >= near)
    return {
        "size": _rows(SIZES, np.digitize(around.side, SIZE_LIMITS), found),
        "crowding": _rows(CROWDING, np.digitize(around.crowding, CROWDING_LIMITS), found),
        "border": _rows(BORDER, place, found),
    }


def _rows(
    labels: Sequence[str], number: npt.NDArray[np.int64], found: BoolArray
) -> list[dict[str, Any]]:
    rows = []
    for index, label in enumerate(labels):
        people, hits = int((number == index).sum()), int(found[number == index].sum())
        rows.append(
            {"label": label, "people": people, "found": hits, "recall": ratio(hits, people)}
        )
    return rows

"""How many people of a clip were found: the records of an annotated clip against the truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class VideoScore:
    """Counts over all frames of a clip; `recall` and `precision` from 0 to 1."""

    frames: int
    hits: int
    misses: int
    false_alarms: int

    @property
    def recall(self) -> float:
        """Share of the people who were found."""
        return self.hits / max(self.hits + self.misses, 1)

    @property
    def precision(self) -> float:
        """Share of the detections that are people."""
        return self.hits / max(self.hits + self.false_alarms, 1)


def score_frames(
    detections: Iterable[Sequence[Mapping[str, Any]]],
    truth: Iterable[Sequence[Mapping[str, Any]]],
    *,
    iou: float = 0.5,
    min_visible: float = 0.2,
    min_height: float = 24.0,
) -> VideoScore:
    """Match the boxes of each frame to people, best score first, one to one.

    A person counts when at least `min_visible` of them shows and the box is at least
    `min_height` pixels tall. A detection that matches nobody who counts is a false alarm, also
    when it matches somebody who does not: the stricter of the two customs.

    Args:
        detections: per frame, dicts with `box` (XYXY, pixels) and `score`.
        truth: per frame, dicts with `box` (XYXY, pixels) and `visible_share` (0 to 1).
    """
    frames = hits = misses = false_alarms = 0
    for found, people in zip(detections, truth, strict=True):
        counted = [
            person["box"]
            for person in people
            if person["visible_share"] >= min_visible
            and person["box"][3] - person["box"][1] >= min_height
        ]
        ranked = sorted(found, key=lambda detection: -detection["score"])
        matched = _matches([detection["box"] for detection in ranked], counted, iou)
        frames += 1
        hits += matched
        misses += len(counted) - matched
        false_alarms += len(ranked) - matched
    return VideoScore(frames, hits, misses, false_alarms)


def _matches(
    boxes: Sequence[Sequence[float]], people: Sequence[Sequence[float]], iou: float
) -> int:
    if not boxes or not people:
        return 0
    overlaps = box_iou(np.asarray(boxes, dtype=np.float64), np.asarray(people, dtype=np.float64))
    free = np.ones(len(people), dtype=bool)
    matched = 0
    for row in overlaps:
        best = int(np.argmax(np.where(free, row, -1.0)))
        if free[best] and row[best] >= iou:
            free[best] = False
            matched += 1
    return matched


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the IoU of every pair of boxes: float (N, 4) and (M, 4), XYXY → float (N, M)."""
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = np.prod(np.clip(bottom_right - top_left, 0, None), axis=2)
    area_first = np.prod(first[:, 2:] - first[:, :2], axis=1)
    area_second = np.prod(second[:, 2:] - second[:, :2], axis=1)
    union = area_first[:, None] + area_second[None, :] - overlap
    return overlap / np.maximum(union, 1e-9)

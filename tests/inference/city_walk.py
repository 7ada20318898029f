"""The people in a drawn clip, and what a bad detector would see of them.

`city_walk_gt.txt` holds their boxes as a MOT-challenge gt.txt: frame, id, left, top, width, height,
1, 1, visible share.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torchvision.ops import box_iou

from persondet.inference.tracking_score import read_ground_truth

GROUND_TRUTH = Path(__file__).with_name("city_walk_gt.txt")
FRAMES, FPS = 260, 25.0
Frame = list[dict[str, Any]]


def degraded(
    seed: int, *, drop: float = 0.2, jitter: float = 2.0, stride: int = 1
) -> tuple[list[Frame], list[np.ndarray]]:
    """Return the people who are kept, per frame, and their boxes (N, 4) with noise.

    drop: share of the boxes that is left out at random; jitter: standard deviation of the noise on
    each side of a box, pixels; stride: every n-th frame.
    """
    rng = np.random.default_rng(seed)
    truth = read_ground_truth(GROUND_TRUTH)
    kept, seen = [], []
    for index in range(0, FRAMES, stride):
        people = [person for person in truth[index] if rng.random() >= drop]
        boxes = np.array([person["box"] for person in people], np.float64).reshape(-1, 4)
        kept.append(people)
        seen.append(boxes + rng.normal(0.0, jitter, boxes.shape))
    return kept, seen


def detections(boxes: np.ndarray) -> Instances:
    """Return boxes (N, 4) as a model returns them, all with a score of 0.9."""
    found = Instances((720, 1280), pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32)))
    found.scores = torch.full((len(boxes),), 0.9)
    found.pred_classes = torch.zeros(len(boxes), dtype=torch.int64)
    return found


def tracked(tracker: Any, frames: list[np.ndarray]) -> list[Frame]:
    """Return what a tracker makes of the boxes of each frame, for `score_tracks`."""
    result = []
    for boxes in frames:
        found = detections(boxes)
        tracker.update(found)
        result.append(
            [{"box": b, "track_id": i} for b, i in zip(boxes.tolist(), found.ID, strict=True)]
        )
    return result


class GreedyTracker:
    """The simplest tracker: largest overlap with the frame before, best pair first."""

    def __init__(self, min_iou: float = 0.5) -> None:
        self.min_iou, self.given = min_iou, 0
        self.boxes, self.ids = np.zeros((0, 4)), []

    def update(self, instances: Instances) -> None:
        boxes = instances.pred_boxes.tensor.numpy().astype(np.float64)
        overlap = box_iou(torch.from_numpy(boxes), torch.from_numpy(self.boxes)).numpy()
        ids = [0] * len(boxes)
        while overlap.size and overlap.max() >= self.min_iou:
            new, old = np.unravel_index(overlap.argmax(), overlap.shape)
            ids[new] = self.ids[old]
            overlap[new], overlap[:, old] = -1.0, -1.0
        for k, number in enumerate(ids):
            if number == 0:
                self.given += 1
                ids[k] = self.given
        self.boxes, self.ids, instances.ID = boxes, ids, ids

"""What the predictions of a model on a dataset say: curves, kinds of mistakes, worst images.

Works from files alone, and writes `curves.json`, `errors.json` and `gallery/` beside the
predictions. `errors.json`:

    {"schema": 1, "model": {"file": "model_best.pth", "iteration": 350, "sha256": "9f2c..."},
     "dataset": "person_test", "task": "segm", "threshold": 0.43, "tuned": true, "classes": 1, "tasks": {"bbox": {"AP50": 88.7,
         "cost": {"classification": 0.0, "localisation": 3.1, "both": 0.0, "duplicate": 0.4,
                  "background": 2.0, "missed": 4.9},
         "cost_false_positives": 5.2, "cost_false_negatives": 6.0,
         "counts": {... mistakes at the threshold}, "counts_all": {... at any score}}, "segm": {}},
     "recall": {"size": [{"label": "small (< 32 px)", "people": 10, "found": 7, "recall": 0.7}],
                "crowding": [...], "border": [...]}}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from persondet.evaluation.average_precision import Detections, count_detections
from persondet.evaluation.curves import (
    best_threshold,
    counts_at,
    recall_by,
    size_histogram,
    surroundings,
    threshold_curves,
)
from persondet.evaluation.errors import count_mistakes, error_costs, find_mistakes
from persondet.evaluation.galleries import Matched, write_galleries
from persondet.evaluation.matching import (
    BoolArray,
    IntArray,
    Overlaps,
    Scored,
    match,
    measure_overlaps,
    read_scored,
)
from persondet.files import write_json

SCHEMA = 1
FOUND_IOU, STRICT_IOU = 0.5, 0.75
DEFAULT_THRESHOLD = 0.5
"""Where no threshold was tuned: what `predict` uses then."""
PREDICTIONS = "coco_instances_results.json"


@dataclass(frozen=True)
class _Task:
    overlaps: list[Overlaps]
    partners: list[IntArray]
    detections: Detections
    strict: Detections


class Analysis:
    """The predictions of a model on one dataset, matched to the ground truth.

    Attributes:
        task: the one that the threshold is tuned for: "segm" where the model has masks.
        scored: ground truth and predictions.
    """

    def __init__(
        self, truth_file: str | Path, predictions_file: str | Path, *, masks: bool
    ) -> None:
        """Read both files and match them.

        Args:
            truth_file: COCO json as the evaluator reads it.
            predictions_file: COCO results, every score that the model gave; where the file is not
                there, the model predicted nothing.
            masks: whether the model predicts masks.
        """
        self.scored: Scored = read_scored(truth_file, predictions_file, masks=masks)
        self.task = "segm" if self.scored.has_masks else "bbox"
        classes = len(self.scored.class_names)
        self._tasks: dict[str, _Task] = {}
        for task in ("bbox", "segm") if self.scored.has_masks else ("bbox",):
            overlaps = measure_overlaps(self.scored, task)
            found, strict = (
                [match(one, iou) for one in overlaps] for iou in (FOUND_IOU, STRICT_IOU)
            )
            self._tasks[task] = _Task(
                overlaps,
                found,
                count_detections(overlaps, found, classes),
                count_detections(overlaps, strict, classes),
            )

    def best_threshold(self) -> float | None:
        """Return the score threshold with the best F1 in `task`; None: nothing was found."""
        return best_threshold(self._tasks[self.task].detections)

    def counts_at(self, threshold: float) -> dict[str, Any]:
        """Return precision, recall, F1 and the counts of `task`; see `curves.counts_at`."""
        return counts_at(self._tasks[self.task].detections, threshold)

    def write(
        self,
        folder: str | Path,
        dataset: str,
        files: Mapping[int, str],
        *,
        threshold: float | None,
        model: Mapping[str, Any] | None = None,
    ) -> None:
        """Write `curves.json`, `errors.json` and `gallery/`.

        Args:
            folder: where the predictions lie.
            dataset: its name.
            files: image id to the path of the picture.
            threshold: the one that the model carries; None: 0.5 stands in.
            model: which checkpoint made the predictions, written into each file: `file`,
                `iteration` and `sha256`; None: nobody says.
        """
        folder = Path(folder)
        used = DEFAULT_THRESHOLD if threshold is None else threshold
        known = {"schema": SCHEMA, **({} if model is None else {"model": dict(model)})}
        facts = {"threshold": used, "tuned": threshold is not None}
        around, found = surroundings(self.scored), self._found(used)
        curves = {
            **known,
            "dataset": dataset,
            "images": len(self.scored.images),
            "task": self.task,
            **facts,
            "tasks": {
                name: threshold_curves(task.detections, task.strict, iou=FOUND_IOU, threshold=used)
                for name, task in self._tasks.items()
            },
            "sizes": size_histogram(around.side, found),
        }
        errors = {
            **known,
            "dataset": dataset,
            "task": self.task,
            **facts,
            "classes": len(self.scored.class_names),
            "tasks": {name: self._mistakes(task, used) for name, task in self._tasks.items()},
            "recall": recall_by(around, found),
        }
        write_json(folder / "curves.json", _plain(curves), indent=None)
        write_json(folder / "errors.json", _plain(errors))
        write_galleries(folder / "gallery", self._matched(used), files, model=model)

    def _found(self, threshold: float) -> BoolArray:
        """Return which objects were found at a threshold, bool (N,), image by image."""
        task = self._tasks[self.task]
        parts = [np.zeros(0, np.bool_)]
        for overlaps, partner in zip(task.overlaps, task.partners, strict=True):
            found = np.zeros(len(overlaps.crowd), np.bool_)
            found[partner[(partner >= 0) & (overlaps.scores >= threshold)]] = True
            parts.append(found[~overlaps.crowd])
        return np.concatenate(parts)

    def _mistakes(self, task: _Task, threshold: float) -> dict[str, Any]:
        costs = error_costs(task.overlaps, len(self.scored.class_names))
        counts = {}
        for name, least in (("counts", threshold), ("counts_all", -math.inf)):
            kept = [
                _at_least(*one, least) for one in zip(task.overlaps, task.partners, strict=True)
            ]
            counts[name] = count_mistakes([find_mistakes(*one) for one in kept])
        return {
            "AP50": costs.ap50,
            "cost": costs.cost,
            "cost_false_positives": costs.false_positives,
            "cost_false_negatives": costs.false_negatives,
            **counts,
        }

    def _matched(self, threshold: float) -> Matched:
        kept = {
            name: [_at_least(*one, threshold) for one in zip(t.overlaps, t.partners, strict=True)]
            for name, t in self._tasks.items()
        }
        return Matched(
            scored=self.scored,
            overlaps=[overlaps for overlaps, _ in kept[self.task]],
            partners=[partner for _, partner in kept[self.task]],
            box_partners=[partner for _, partner in kept["bbox"]],
            threshold=threshold,
        )


def _at_least(overlaps: Overlaps, partner: IntArray, threshold: float) -> tuple[Overlaps, IntArray]:
    """Return the predictions of an image that reach a threshold; the surest never change."""
    count = int((overlaps.scores >= threshold).sum())
    kept = replace(
        overlaps,
        scores=overlaps.scores[:count],
        found_class=overlaps.found_class[:count],
        iou=overlaps.iou[:count],
    )
    return kept, partner[:count]


def _plain(value: Any) -> Any:
    """Return `value` with NaN made null, which JSON can say."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

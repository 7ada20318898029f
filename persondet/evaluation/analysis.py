"""What explains a score: curves, kinds of mistakes, and the worst images of a dataset.

Works from files alone, and writes `curves.json`, `errors.json` and `gallery/` beside the
predictions. `errors.json`:

    {"schema": 1, "model": {"file": "model_best.pth", "iteration": 350, "sha256": "9f2c..."},
     "dataset": "person_test", "task": "segm", "threshold": 0.43, "tuned": true, "classes": 1,
     "tasks": {"bbox": {"AP50": 88.7,
         "cost": {"classification": 0.0, "localisation": 3.1, "both": 0.0, "duplicate": 0.4,
                  "background": 2.0, "missed": 4.9},
         "cost_false_positives": 5.2, "cost_false_negatives": 6.0,
         "counts": {... mistakes at the threshold}, "counts_all": {... at any score}}, "segm": {}},
     "recall": {"size": [{"label": "small (< 32 px)", "people": 10, "found": 7, "recall": 0.7}],
                "crowding": [...], "border": [...]}}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from persondet.evaluation.curves import (
    best_threshold,
    counts_at,
    recall_by,
    size_histogram,
    surroundings,
    threshold_curves,
)
from persondet.evaluation.errors import error_costs
from persondet.evaluation.galleries import write_galleries
from persondet.evaluation.matching import BoolArray, ImageMatches, Matches, Read
from persondet.evaluation.metrics import detections_of
from persondet.files import write_json
from persondet.results import DEFAULT_THRESHOLD, as_json

SCHEMA = 1
FOUND_IOU = 0.5


class Analysis:
    """The predictions of a model on one dataset, matched to the ground truth.

    Args:
        matches: of each task, "bbox" first.
        read: returns the predictions on an image; the galleries ask for the few that they show.

    Attributes:
        task: the one that the threshold is tuned for: "segm" where masks are compared.
    """

    def __init__(self, matches: Mapping[str, Matches], read: Read) -> None:
        self._matches, self._read = dict(matches), read
        self._detections = {task: detections_of(one) for task, one in matches.items()}
        self.task = "segm" if "segm" in matches else "bbox"
        self.ground_truth = self._matches[self.task].ground_truth

    def operating_threshold(self) -> float | None:
        """Return the threshold for the model to carry; None: no prediction is a hit.

        The lowest whose F1 in `task` is within two points of the best. F1 has a broad top, whose
        highest place is chance on a small split, and who is dropped is lost to whatever follows.
        """
        return best_threshold(self._detections[self.task], tolerance=0.02)

    def counts_at(self, threshold: float) -> dict[str, Any]:
        """Return precision, recall, F1 and the counts of `task`; see `curves.counts_at`."""
        return counts_at(self._detections[self.task], threshold)

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
            files: image id to the path of the image.
            threshold: the one that the model carries; None: 0.5 stands in.
            model: which checkpoint made the predictions, written into each file: `file`,
                `iteration` and `sha256`; None: unknown.
        """
        folder = Path(folder)
        used = DEFAULT_THRESHOLD if threshold is None else threshold
        facts = {"schema": SCHEMA, "threshold": used, **({"model": dict(model)} if model else {})}
        named = {**facts, "dataset": dataset, "task": self.task, "tuned": threshold is not None}
        images = {
            task: [image.reaching(used) for image in one.images]
            for task, one in self._matches.items()
        }
        around, found = surroundings(self.ground_truth), _found(images[self.task])
        curves = {
            **named,
            "images": len(self.ground_truth.images),
            "tasks": {
                task: threshold_curves(
                    self._detections[task],
                    detections_of(one, strict=True),
                    iou=FOUND_IOU,
                    threshold=used,
                )
                for task, one in self._matches.items()
            },
            "sizes": size_histogram(around.side, found),
        }
        errors = {
            **named,
            "classes": len(self.ground_truth.class_names),
            "tasks": {task: error_costs(one, used) for task, one in self._matches.items()},
            "recall": recall_by(around, found),
        }
        write_json(folder / "curves.json", as_json(curves), indent=None)
        write_json(folder / "errors.json", as_json(errors))
        write_galleries(
            folder / "gallery", self.ground_truth, self._read, images, files, facts=facts
        )


def _found(images: list[ImageMatches]) -> BoolArray:
    """Return which objects were found, crowd regions left out: bool, (N,), image by image."""
    found = [np.isin(np.flatnonzero(~image.crowd), image.partner) for image in images]
    return np.concatenate([np.zeros(0, np.bool_), *found])

"""What the files of a run say, as values that can be of no wrong kind: `Facts`, and what is made
of it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from persondet.results import TASKS

FloatArray = npt.NDArray[np.float64]
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Facts:
    """A value out of JSON or YAML, or of nothing; `facts["a"]["b"]` never fails.

    Every method answers with nothing where the file has nothing of that kind, so a chapter of the
    report needs no exceptions.
    """

    value: Any = None

    def __getitem__(self, key: str | int) -> Facts:
        if isinstance(self.value, dict):
            return Facts(self.value.get(key))
        if isinstance(self.value, list) and isinstance(key, int):
            return Facts(self.value[key] if -len(self.value) <= key < len(self.value) else None)
        return Facts()

    def __bool__(self) -> bool:
        """Return whether there is a value, and it is not empty."""
        return self.value is not None and self.value not in ("", [], {})

    def number(self) -> float | None:
        """Return a finite number, None where there is none."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            return None
        return float(self.value) if abs(self.value) < 1e300 and math.isfinite(self.value) else None

    def count(self) -> int | None:
        """Return a whole number that is not negative, None where there is none."""
        number = self.number()
        return int(number) if number is not None and number >= 0 and number % 1 == 0 else None

    def text(self) -> str:
        """Return a string, empty where there is none."""
        return self.value if isinstance(self.value, str) else ""

    def shown(self) -> str:
        """Return a plain value or a flat list of such as text; empty for anything else."""
        if isinstance(self.value, list):
            return ", ".join(item for entry in self.entries() if (item := entry.shown()))
        if isinstance(self.value, float):
            return f"{self.value:.6g}"
        return str(self.value) if isinstance(self.value, str | int) else ""

    def entries(self) -> list[Facts]:
        """Return the items of a list, none where there is no list."""
        return [Facts(item) for item in self.value] if isinstance(self.value, list) else []

    def items(self) -> list[tuple[str, Facts]]:
        """Return the (key, value) pairs of an object, none where there is no object."""
        pairs = self.value.items() if isinstance(self.value, dict) else ()
        return [(str(key), Facts(value)) for key, value in pairs]

    def texts(self) -> list[str]:
        """Return the strings of a list."""
        return [text for entry in self.entries() if (text := entry.text())]

    def array(self, count: int | None = None) -> FloatArray:
        """Return a list of numbers, null as NaN: (N,); empty for anything else, or another N."""
        entries = self.entries()
        known = all(entry.value is None or entry.number() is not None for entry in entries)
        if not known or len(entries) != (len(entries) if count is None else count):
            return np.zeros(0)
        return np.array([entry.number() for entry in entries], dtype=np.float64)


def _all_or_none(*arrays: FloatArray) -> tuple[Any, ...]:
    """Return the arrays; empty ones where one of them is empty."""
    return arrays if all(map(len, arrays)) else tuple(np.zeros(0) for _ in arrays)


class Model(NamedTuple):
    """A checkpoint as a file of scores names it.

    file: its name; empty: unknown. iteration: from 0; None: unknown. sha256: empty: unknown.
    """

    file: str = ""
    iteration: int | None = None
    sha256: str = ""

    @classmethod
    def of(cls, record: Facts, iteration: Facts = Facts()) -> Model:
        """Return the model of a field `model`; version 0.1.0 wrote a path, and a field
        `iteration`.
        """
        if record.text():
            record = Facts({"file": record.value, "iteration": iteration.value})
        digest = record["sha256"].text()
        digest = digest if _DIGEST.fullmatch(digest) else ""
        file = PurePosixPath(record["file"].text()).name
        return cls(file, record["iteration"].count(), digest)

    def words(self) -> str:
        """Return it in words: "model_0000599.pth, after 600 steps"."""
        steps = "" if self.iteration is None else f", after {self.iteration + 1:,} steps"
        return (self.file or "a model without a name") + steps


class Point(NamedTuple):
    """Precision, recall and F1 (0 to 1) of the detections that reach `threshold` (0 to 1)."""

    threshold: float
    precision: float
    recall: float
    f1: float

    @classmethod
    def of(cls, facts: Facts) -> Point | None:
        """Return the point of a JSON object; None where a number is missing."""
        values = [facts[name].number() for name in cls._fields]
        return cls(*values) if None not in values else None  # type: ignore[arg-type]


@dataclass(frozen=True)
class TaskCurves:
    """The curves of one task, boxes or masks.

    Attributes:
        iou: from which IoU on a detection counts as right, 0 to 1; NaN: unknown.
        thresholds, precision, recall, f1: (N,), thresholds increase, all 0 to 1; or empty.
        best: the point with the best F1; None where there is none.
        at_threshold: the point at the threshold in use; None where there is none.
        pr_recall: recall of the precision-recall curves, (R,).
        pr_precision: IoU in percent ("50", "75") → precision at each of `pr_recall`, (R,), the
            mean over the classes.
        pooled: (recall, precision), (R,) each, at IoU 0.5 with the detections of all classes in one
            row; empty where the file has none.
        score_edges, score_true, score_false: score histogram: (B + 1,), right and wrong
            detections (B,).
    """

    iou: float
    thresholds: FloatArray
    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    best: Point | None
    at_threshold: Point | None
    pr_recall: FloatArray
    pr_precision: dict[str, FloatArray]
    pooled: tuple[FloatArray, FloatArray]
    score_edges: FloatArray
    score_true: FloatArray
    score_false: FloatArray

    @classmethod
    def of(cls, facts: Facts) -> TaskCurves:
        """Return the curves of one entry under `tasks` in curves.json."""
        thresholds, pr = facts["thresholds"].array(), facts["pr"]
        curves = (facts[name].array(len(thresholds)) for name in ("precision", "recall", "f1"))
        recall, together = pr["recall"].array(), facts["pooled"]["recall"].array()
        precisions = {
            key.removeprefix("precision@"): values.array(len(recall))
            for key, values in sorted(pr.items())
            if key.startswith("precision@")
        }
        histogram, iou = facts["score_histogram"], facts["iou"].number()
        edges = histogram["edges"].array()
        counts = (histogram[name].array(len(edges) - 1) for name in ("true", "false"))
        values: tuple[Any, ...] = (
            math.nan if iou is None else iou,
            *_all_or_none(thresholds, *curves),
            Point.of(facts["best"]),
            Point.of(facts["at_threshold"]),
            recall,
            {key: values for key, values in precisions.items() if len(values)},
            _all_or_none(together, facts["pooled"]["precision"].array(len(together))),
            *_all_or_none(edges, *counts),
        )
        return cls(*values)

    def at(self, threshold: float) -> Point | None:
        """Return the point at a threshold: the file's own, else that of the closest threshold.

        None where there is none.
        """
        own = self.at_threshold
        if own is not None and abs(own.threshold - threshold) < 1e-9:
            return own
        if not len(self.thresholds):
            return None
        index = int(np.argmin(np.abs(self.thresholds - threshold)))
        values = (self.precision[index], self.recall[index], self.f1[index])
        return Point(threshold, *map(float, values)) if np.isfinite(values[:2]).all() else None


@dataclass(frozen=True)
class Evaluation:
    """One dataset's evaluation.

    Attributes:
        dataset: its name, which anybody may have chosen.
        role: "valid", "test", or "" for another dataset.
        images: number of images; None: unknown.
        curves: "bbox" and "segm" → their curves.
        sizes: edges (√area in pixels, (B + 1,)), ground truth (B,), found (B,); or empty.
        errors: `errors.json`; nothing where it is missing.
    """

    dataset: str
    role: str
    images: int | None
    curves: dict[str, TaskCurves]
    sizes: tuple[FloatArray, FloatArray, FloatArray]
    errors: Facts

    @classmethod
    def of(cls, dataset: str, role: str, curves: Facts, errors: Facts) -> Evaluation:
        """Return what curves.json and errors.json hold; either may be missing."""
        tasks, sizes = curves["tasks"], curves["sizes"]
        edges = sizes["edges"].array()
        counts = (sizes[name].array(len(edges) - 1) for name in ("ground_truth", "found"))
        found = {task: TaskCurves.of(tasks[task]) for task in TASKS if tasks[task].items()}
        sizes_found: Any = _all_or_none(edges, *counts)
        return cls(dataset, role, curves["images"].count(), found, sizes_found, errors)


@dataclass(frozen=True)
class Clip:
    """An annotated clip, by its records.

    Attributes:
        path: the records.
        header: their first line.
        times: seconds from the start of the clip, float64 (N,), increasing.
        counts: detections in the frame at that time, int64 (N,).
        people: how many different people the tracker counted; None: there was no tracker.
    """

    path: Path
    header: Facts
    times: FloatArray
    counts: npt.NDArray[np.int64]
    people: int | None

    @property
    def source(self) -> str:
        """File name of the clip, which anybody may have chosen."""
        return self.header["source"].text() or self.path.name

    @property
    def seconds(self) -> float:
        """The length of the clip."""
        rate = self.header["fps"].number() or 0
        return float(self.times[-1]) + (1 / rate if rate > 0 else 0)

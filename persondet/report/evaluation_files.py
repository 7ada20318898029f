"""What an evaluation wrote under `inference/<dataset>/`: `curves.json` and `errors.json`.

Files about another model than the run's are left out. A file that is missing, damaged or of a newer
schema is None, and a part of one that cannot be used
is None too: a plot is left out then, and the log says why. Numbers that do not exist are NaN here
and null in the files.
"""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from persondet.report.run_scores import ROLES, RunScores, mapping, model_words, read_scores
from persondet.results import TASKS

SCHEMA = 1
CONFIG = "config.yaml"
FloatArray = npt.NDArray[np.float64]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """Precision, recall and F1 (0 to 1) of the detections that reach `threshold` (0 to 1)."""

    threshold: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class TaskCurves:
    """The curves of one task, boxes or masks.

    Attributes:
        iou: from which overlap on a detection counts as right, 0 to 1.
        thresholds, precision, recall, f1: (N,), thresholds increase, all 0 to 1; empty where
            the file has none.
        best: the point with the best F1; None where there is none.
        at_threshold: the point at the threshold in use; None where there is none.
        pr_recall: recall of the precision-recall curves, (R,).
        pr_precision: IoU in percent ("50", "75") → precision at each of `pr_recall`, (R,), the
            mean over the classes.
        pooled: (recall, precision), (R,) each, at IoU 0.5 with the finds of all classes in one
            row; None where the file has none.
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
    pooled: tuple[FloatArray, FloatArray] | None
    score_edges: FloatArray
    score_true: FloatArray
    score_false: FloatArray

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
        sizes: edges (√area in pixels, (B + 1,)), ground truth (B,), found (B,); None: unknown.
        errors: `errors.json` as it is; None: unknown.
    """

    dataset: str
    role: str
    images: int | None = None
    curves: dict[str, TaskCurves] = field(default_factory=dict)
    sizes: tuple[FloatArray, FloatArray, FloatArray] | None = None
    errors: dict[str, Any] | None = None


def read_run_scores(run_dir: str | Path) -> RunScores:
    """Return what a run has scored, as `persondet.report.run_scores` puts it together."""
    run_dir = Path(run_dir)

    def read(name: str) -> dict[str, Any]:
        return read_config(run_dir) if name == CONFIG else read_object(run_dir / name) or {}

    return read_scores(run_dir, read)


def read_evaluations(run_dir: str | Path, scores: RunScores | None = None) -> list[Evaluation]:
    """Return the evaluations of a run that left curves or errors: validation, test, then others.

    Args:
        run_dir: the run folder.
        scores: what the run has scored; None: it is read.
    """
    run_dir = Path(run_dir)
    scores = scores or read_run_scores(run_dir)
    found = []
    for folder in sorted((run_dir / "inference").glob("*/")):
        curves, errors = (_of_run(folder / name, scores) for name in ("curves.json", "errors.json"))
        if curves is None and errors is None:
            continue
        tasks = mapping((curves or {}).get("tasks"))
        images = (curves or {}).get("images")
        found.append(
            Evaluation(
                dataset=folder.name,
                role=scores.role(folder.name),
                images=images if type(images) is int else None,
                curves={task: _task(tasks[task]) for task in TASKS if mapping(tasks.get(task))},
                sizes=_sizes((curves or {}).get("sizes")),
                errors=errors,
            )
        )
    order = [*ROLES, ""]
    return sorted(found, key=lambda evaluation: order.index(evaluation.role))


def read_object(path: Path) -> dict[str, Any] | None:
    """Return a JSON object; None, and a warning unless it is missing, when it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("%s cannot be read (%s) and is left out", path, error)
        return None
    if not isinstance(value, dict):
        logger.warning("%s is no JSON object and is left out", path)
        return None
    return value


def read_config(run_dir: str | Path) -> dict[str, Any]:
    """Return `config.yaml` of a run as plain dicts; empty when it is missing or damaged."""
    try:
        text = (Path(run_dir) / CONFIG).read_text(encoding="utf-8")
        return mapping(yaml.safe_load(text))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}


def numbers(value: Any, count: int | None = None) -> FloatArray:
    """Return a JSON list of numbers, null as NaN; empty when it is none, or not of `count`."""
    if not isinstance(value, list) or len(value) != (len(value) if count is None else count):
        return np.zeros(0)
    array = np.array([number(item) for item in value], dtype=np.float64)
    known = np.isfinite(array) | np.array([item is None for item in value], dtype=bool)
    return array if known.all() else np.zeros(0)


def number(value: Any) -> float:
    """Return a JSON number; NaN for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if abs(value) < 2**1023 else math.nan


def _read(path: Path) -> dict[str, Any] | None:
    value = read_object(path)
    if value is None or value.get("schema") == SCHEMA:
        return value
    logger.warning("%s has schema %r, not %d, and is left out", path, value.get("schema"), SCHEMA)
    return None


def _of_run(path: Path, scores: RunScores) -> dict[str, Any] | None:
    value = _read(path)
    if value is None or scores.counts(path.parent.name, value.get("model")):
        return value
    other = model_words(value.get("model"))
    logger.warning("%s is of another model (%s) and is left out", path, other)
    return None


def _task(value: Any) -> TaskCurves:
    row = mapping(value)
    thresholds = numbers(row.get("thresholds"))
    curve = {name: numbers(row.get(name), len(thresholds)) for name in ("precision", "recall")}
    curve["f1"] = numbers(row.get("f1"), len(thresholds))
    if not all(map(len, curve.values())):
        thresholds, curve = np.zeros(0), {name: np.zeros(0) for name in curve}
    pr = mapping(row.get("pr"))
    recall = numbers(pr.get("recall"))
    precision = {
        key.removeprefix("precision@"): numbers(pr[key], len(recall))
        for key in sorted(pr)
        if key.startswith("precision@")
    }
    histogram = mapping(row.get("score_histogram"))
    edges = numbers(histogram.get("edges"))
    return TaskCurves(
        iou=number(row.get("iou")),
        thresholds=thresholds,
        **curve,
        best=_point(row.get("best")),
        at_threshold=_point(row.get("at_threshold")),
        pr_recall=recall,
        pr_precision={key: values for key, values in precision.items() if len(values)},
        pooled=_pooled(row.get("pooled")),
        score_edges=edges,
        score_true=numbers(histogram.get("true"), len(edges) - 1),
        score_false=numbers(histogram.get("false"), len(edges) - 1),
    )


def _point(value: Any) -> Point | None:
    values = [number(mapping(value).get(n)) for n in ("threshold", "precision", "recall", "f1")]
    return Point(*values) if np.isfinite(values).all() else None


def _pooled(value: Any) -> tuple[FloatArray, FloatArray] | None:
    row = mapping(value)
    recall = numbers(row.get("recall"))
    precision = numbers(row.get("precision"), len(recall))
    return (recall, precision) if len(recall) and len(precision) else None


def _sizes(value: Any) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    row = mapping(value)
    edges = numbers(row.get("edges"))
    truth, found = (numbers(row.get(name), len(edges) - 1) for name in ("ground_truth", "found"))
    return (edges, truth, found) if len(truth) and len(found) else None

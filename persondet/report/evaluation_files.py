"""What an evaluation wrote under `inference/<dataset>/`: `curves.json` and `errors.json`.

A file that is missing, damaged or of a newer schema is None, and a part of one that cannot be used
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

from persondet.results import TASKS

SCHEMA = 1
ROLES = ("valid", "test")
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
        pr_recall: recall of the precision-recall curves, (R,).
        pr_precision: IoU in percent ("50", "75") → precision at each of `pr_recall`, (R,).
        score_edges, score_true, score_false: score histogram: (B + 1,), right and wrong
            detections (B,).
    """

    iou: float
    thresholds: FloatArray
    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    best: Point | None
    pr_recall: FloatArray
    pr_precision: dict[str, FloatArray]
    score_edges: FloatArray
    score_true: FloatArray
    score_false: FloatArray

    def at(self, threshold: float) -> Point | None:
        """Return the point of the curve whose threshold is closest; None where there is none."""
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


def read_evaluations(run_dir: str | Path) -> list[Evaluation]:
    """Return the evaluations of a run that left curves or errors: validation, test, then others."""
    run_dir = Path(run_dir)
    roles = _roles(run_dir)
    found = []
    for folder in sorted((run_dir / "inference").glob("*/")):
        curves, errors = (_read(folder / name) for name in ("curves.json", "errors.json"))
        if curves is None and errors is None:
            continue
        tasks = _mapping((curves or {}).get("tasks"))
        images = (curves or {}).get("images")
        found.append(
            Evaluation(
                dataset=folder.name,
                role=roles.get(folder.name, _role_by_name(folder.name)),
                images=images if type(images) is int else None,
                curves={task: _task(tasks[task]) for task in TASKS if _mapping(tasks.get(task))},
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
        text = (Path(run_dir) / "config.yaml").read_text(encoding="utf-8")
        return _mapping(yaml.safe_load(text))
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


def _roles(run_dir: Path) -> dict[str, str]:
    """Return dataset → role, as the run's config names them; the first of each counts."""
    datasets = _mapping(read_config(run_dir).get("DATASETS"))
    roles: dict[str, str] = {}
    for role, key in zip(ROLES, ("VAL", "TEST"), strict=True):
        names = datasets.get(key)
        if isinstance(names, list) and names and isinstance(names[0], str):
            roles[names[0]] = role
            roles |= {name: "" for name in names[1:] if isinstance(name, str)}
    return roles


def _role_by_name(dataset: str) -> str:
    return next((role for role in ROLES if dataset.endswith(f"_{role}")), "")


def _task(value: Any) -> TaskCurves:
    row = _mapping(value)
    thresholds = numbers(row.get("thresholds"))
    curve = {name: numbers(row.get(name), len(thresholds)) for name in ("precision", "recall")}
    curve["f1"] = numbers(row.get("f1"), len(thresholds))
    if not all(map(len, curve.values())):
        thresholds, curve = np.zeros(0), {name: np.zeros(0) for name in curve}
    pr = _mapping(row.get("pr"))
    recall = numbers(pr.get("recall"))
    precision = {
        key.removeprefix("precision@"): numbers(pr[key], len(recall))
        for key in sorted(pr)
        if key.startswith("precision@")
    }
    histogram = _mapping(row.get("score_histogram"))
    edges = numbers(histogram.get("edges"))
    return TaskCurves(
        iou=number(row.get("iou")),
        thresholds=thresholds,
        **curve,
        best=_point(row.get("best")),
        pr_recall=recall,
        pr_precision={key: values for key, values in precision.items() if len(values)},
        score_edges=edges,
        score_true=numbers(histogram.get("true"), len(edges) - 1),
        score_false=numbers(histogram.get("false"), len(edges) - 1),
    )


def _point(value: Any) -> Point | None:
    values = [number(_mapping(value).get(n)) for n in ("threshold", "precision", "recall", "f1")]
    return Point(*values) if np.isfinite(values).all() else None


def _sizes(value: Any) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    row = _mapping(value)
    edges = numbers(row.get("edges"))
    truth, found = (numbers(row.get(name), len(edges) - 1) for name in ("ground_truth", "found"))
    return (edges, truth, found) if len(truth) and len(found) else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

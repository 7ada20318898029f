"""`results.csv`: a row of numbers per run, for a spreadsheet.

AP is in points, 0 to 100; precision, recall, F1 and thresholds from 0 to 1. A number that does not
exist is an empty cell.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from persondet.files import write_text
from persondet.report.names import one_line
from persondet.report.own_files import refuse_foreign
from persondet.report.run_data import RunData, read_run
from persondet.report.scalars import best_model
from persondet.results import METRICS, TASKS

FILE_NAME = "results.csv"
FIRST = ("run", "steps", "best_step", "best_score", "model", "batch_size", "seconds_per_step")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet computes what begins so


def write_results_csv(
    run_dirs: Sequence[str | Path], path: str | Path, *, overwrite: bool = False
) -> Path:
    """Write a row for each run to `path`, whole or not at all, and return the path.

    Columns: the run's folder as given; steps done; the best model by the validation split; the
    smallest losses; then for each split and task AP and its parts, with the 95 % interval where the
    run has one, the same for further test sets, and the operating point.

    Raises: OutputExistsError: when a file is there that this function did not write, unless
        `overwrite`.
    """
    path = Path(path)
    refuse_foreign([path], overwrite=overwrite)
    rows = [_row(str(run_dir), read_run(run_dir)) for run_dir in run_dirs]
    columns = list(dict.fromkeys([*FIRST, *(name for row in rows for name in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows([{name: _cell(value) for name, value in row.items()} for row in rows])
    write_text(path, text.getvalue())
    return path


def _row(name: str, run: RunData) -> dict[str, Any]:
    best, seconds = best_model(run), run.events.finite("time")
    results = run.results
    row: dict[str, Any] = {
        "run": name,
        "steps": run.events.last_step or results.get("steps"),
        "best_step": best.step if best else None,
        "best_score": best.text if best else None,
        "model": results.get("model"),
        "batch_size": run.batch_size or None,
        "seconds_per_step": float(np.median(seconds.values)) if seconds else None,
    }
    for scalar in ("total_loss", "val/total_loss"):
        series = run.events.finite(scalar)
        if series is not None:
            row[f"last {scalar}"] = float(series.values[-1])
            row[f"smallest {scalar}"] = float(series.values.min())
    for split in ("valid", "test"):
        row |= _scores(split, _mapping(results.get(split)))
    for dataset, scores in _mapping(results.get("tests")).items():
        row |= _scores(f"test set {one_line(dataset)}", _mapping(scores))
    point = _mapping(results.get("operating_point"))
    row |= {f"operating_point {key}": point[key] for key in ("task", "threshold") if key in point}
    for split in ("valid", "test"):
        for key, value in _mapping(point.get(split)).items():
            row[f"operating_point {split} {key}"] = value
    for task in TASKS:
        scores = _mapping(_mapping(results.get("constant_box")).get(task))
        if "AP" in scores:
            row[f"constant_box {task} AP"] = scores["AP"]
    return row


def _scores(split: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells of one split; of a table's metrics the known ones come first."""
    if not scores:
        return {}
    row: dict[str, Any] = {f"{split} {key}": scores.get(key) for key in ("dataset", "images")}
    intervals = _mapping(scores.get("intervals"))
    for task in TASKS:
        values, bounds = _mapping(scores.get(task)), _mapping(intervals.get(task))
        for metric in [*(m for m in METRICS if m in values), *sorted(values.keys() - METRICS)]:
            row[f"{split} {task} {metric}"] = values[metric]
            pair = bounds.get(metric)
            if isinstance(pair, list) and len(pair) == 2:
                row[f"{split} {task} {metric} low"] = pair[0]
                row[f"{split} {task} {metric} high"] = pair[1]
    return row


def _cell(value: Any) -> str:
    """Return a value as text that a spreadsheet takes for a number or for plain text."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bool | int):
        return str(value)
    if not isinstance(value, str):
        return ""
    return f"'{value}" if value.startswith(FORMULA) else value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}

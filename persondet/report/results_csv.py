"""`results.csv`: a row of numbers per run, for a spreadsheet.

AP is in points, 0 to 100; precision, recall, F1 and thresholds from 0 to 1. A number that does not
exist is an empty cell.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from persondet.files import write_text
from persondet.report.facts import Facts
from persondet.report.run import Run, refuse_elsewhere
from persondet.report.wording import one_line
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

    Raises: OutputExistsError: when a file is there outside these run folders, unless `overwrite`.
    """
    path = Path(path)
    refuse_elsewhere(run_dirs, [path], overwrite=overwrite)
    rows = [_row(str(run_dir), Run(Path(run_dir))) for run_dir in run_dirs]
    columns = list(dict.fromkeys([*FIRST, *(name for row in rows for name in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows([{name: _cell(value) for name, value in row.items()} for row in rows])
    write_text(path, text.getvalue())
    return path


def _row(name: str, run: Run) -> dict[str, Any]:
    best, seconds, results = run.best, run.events.finite("time"), run.results
    row: dict[str, Any] = {
        "run": name,
        "steps": run.events.last_step or results["steps"].value,
        "best_step": best.step if best else None,
        "best_score": best.text if best else None,
        "model": results["model"].value,
        "batch_size": run.batch_size or None,
        "seconds_per_step": float(np.median(seconds.values)) if seconds else None,
    }
    for scalar in ("total_loss", "val/total_loss"):
        series = run.events.finite(scalar)
        if series is not None:
            row[f"last {scalar}"] = float(series.values[-1])
            row[f"smallest {scalar}"] = float(series.values.min())
    for split in ("valid", "test"):
        row |= _scores(split, results[split])
    for dataset, scores in results["tests"].items():
        row |= _scores(f"test set {one_line(dataset)}", scores)
    point = results["operating_point"]
    known = dict(point.items())
    row |= {f"operating_point {k}": known[k].value for k in ("task", "threshold") if k in known}
    for split in ("valid", "test"):
        row |= {f"operating_point {split} {k}": v.value for k, v in point[split].items()}
    for task in TASKS:
        constant = dict(results["constant_box"][task].items())
        row |= {f"constant_box {task} AP": constant["AP"].value} if "AP" in constant else {}
    return row


def _scores(split: str, scores: Facts) -> dict[str, Any]:
    """Return the cells of one split; of a table's metrics the known ones come first."""
    if not scores.items():
        return {}
    row: dict[str, Any] = {f"{split} {key}": scores[key].value for key in ("dataset", "images")}
    for task in TASKS:
        values = dict(scores[task].items())
        for metric in [*(m for m in METRICS if m in values), *sorted(values.keys() - METRICS)]:
            row[f"{split} {task} {metric}"] = values[metric].value
            bounds = scores["intervals"][task][metric].entries()
            if len(bounds) == 2:
                row[f"{split} {task} {metric} low"] = bounds[0].value
                row[f"{split} {task} {metric} high"] = bounds[1].value
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

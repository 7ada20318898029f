"""What goes wrong: what each kind of mistake costs, and for whom recall is low.

From `inference/<dataset>/errors.json`. Kinds of mistakes: Bolya et al., "TIDE: A General Toolbox
for Identifying Object Detection Errors", ECCV 2020.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from persondet.report.evaluation_files import Evaluation, number
from persondet.report.names import one_line
from persondet.report.plots.detection import dataset_title
from persondet.report.plots.style import (
    BAR,
    BLACK,
    SKY,
    TASK_LOOKS,
    add_legend,
    label_axes,
    new_figure,
)
from persondet.report.run_data import RunData
from persondet.report.wording import points
from persondet.results import TASKS

KINDS = {
    "missed": "missed: not found at all",
    "localisation": "localisation: the place is inexact",
    "duplicate": "duplicate: found twice",
    "background": "background: nobody is there",
    "classification": "classification: another class",
    "both": "both: class and place",
}
ALWAYS_SHOWN = ("missed", "localisation", "duplicate", "background")
GROUPS = {
    "size": ("Recall by size in the picture", "size"),
    "crowding": ("Recall by crowding", "crowding"),
    "border": ("Recall by closeness to the picture's border", "place"),
}
Z = 1.959964  # of the normal distribution's central 95 %


def draw_errors(run: RunData) -> Figure | None:
    """Draw what each kind of mistake costs, in points of AP50."""
    evaluation = _evaluation(run, lambda errors: bool(_costs(errors)))
    if evaluation is None:
        return None
    costs = _costs(evaluation.errors)
    counts = {task: _counts(evaluation.errors, task) for task in costs}
    kinds = [
        kind
        for kind in KINDS
        if kind in ALWAYS_SHOWN or any(counts[t].get(kind) or costs[t].get(kind) for t in costs)
    ]
    names = [KINDS[kind].replace("nobody", _nobody(run)) for kind in kinds]
    figure = new_figure(size=(8.2, 1.8 + 0.55 * len(kinds) * (0.6 + 0.4 * len(costs))))
    (axes,) = figure.axes
    height = 0.8 / len(costs)
    most = 0.0
    for index, (task, cost) in enumerate(costs.items()):
        color, _, hatch = TASK_LOOKS[task]
        places = np.arange(len(kinds)) + (index - (len(costs) - 1) / 2) * height
        values = np.array([cost.get(kind, math.nan) for kind in kinds])
        label = "boxes" if task == "bbox" else "masks"
        drawn = np.nan_to_num(values)
        axes.barh(places, drawn, height, label=label, color=color, hatch=hatch, **BAR)
        for place, value, kind in zip(places, values, kinds, strict=True):
            text = "not known" if math.isnan(value) else points(value)
            text += _times(counts[task].get(kind))
            axes.annotate(
                text,
                (np.nan_to_num(value), place),
                (4, 0),
                va="center",
                fontsize=8,
                textcoords="offset points",
            )
        most = max(most, float(np.nanmax(values, initial=0)))
    axes.set_yticks(range(len(kinds)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, max(1.0, most) * 1.25)
    axes.grid(axis="y", visible=False)
    title = f"What each kind of mistake costs\n{dataset_title(evaluation)}"
    threshold = number(evaluation.errors.get("threshold") if evaluation.errors else None)
    if any(_times(n) for kinds in counts.values() for n in kinds.values()):
        at = f" {threshold:.2f}" if math.isfinite(threshold) else ""
        title += f"\nBars: all scores; brackets: number from the threshold{at} on"
    label_axes(axes, title, "AP50 gained if there were none of them (points)", "kind of mistake")
    add_legend(axes)
    return figure


def draw_recall(run: RunData) -> Figure | None:
    """Draw which share is found, by size, crowding and closeness to the border."""
    evaluation = _evaluation(run, lambda errors: bool(_groups(errors)))
    if evaluation is None:
        return None
    groups = _groups(evaluation.errors)
    heights = [1.1 + 0.5 * len(rows) for rows in groups.values()]
    figure = new_figure(len(groups), 1, (8.2, 0.5 + sum(heights)), heights)
    for axes, (name, rows) in zip(figure.axes, groups.items(), strict=True):
        _draw_group(axes, run, name, rows)
    figure.suptitle(_recall_title(run, evaluation), x=0.01, ha="left", fontsize=10)
    return figure


def _draw_group(axes: Axes, run: RunData, name: str, rows: list[dict[str, Any]]) -> None:
    shares, lows, highs, labels = [], [], [], []
    for row in rows:
        share, (low, high) = row["found"] / row["people"], wilson(row["found"], row["people"])
        shares.append(100 * share)
        lows.append(100 * (share - low))
        highs.append(100 * (high - share))
        labels.append(f"{one_line(row.get('label'), 42)}\n{row['found']} of {row['people']}")
    places = range(len(rows))
    spread = (np.maximum(lows, 0), np.maximum(highs, 0))
    axes.barh(places, shares, 0.7, color=SKY, edgecolor=BLACK, linewidth=0.6)
    axes.errorbar(shares, places, xerr=spread, fmt="none", ecolor=BLACK, elinewidth=1.2, capsize=3)
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.grid(axis="y", visible=False)
    title, y_label = GROUPS[name]
    label_axes(axes, title, f"recall (% of the {run.objects})", y_label)


def wilson(found: float, total: float) -> tuple[float, float]:
    """Return the 95 % interval of a share, 0 to 1, from `found` of `total` independent cases.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22, 1927.
    """
    if total <= 0:
        return 0.0, 1.0
    share, weight = found / total, Z**2 / total
    middle = (share + weight / 2) / (1 + weight)
    spread = Z / (1 + weight) * math.sqrt(share * (1 - share) / total + weight / (4 * total))
    low, high = max(0.0, middle - spread), min(1.0, middle + spread)
    return (0.0 if found <= 0 else low), (1.0 if found >= total else high)


def _evaluation(run: RunData, usable: Any) -> Evaluation | None:
    order = [run.evaluation("test"), run.evaluation("valid"), *run.evaluations]
    return next((e for e in order if e is not None and e.errors and usable(e.errors)), None)


def _costs(errors: Mapping[str, Any] | None) -> dict[str, dict[str, float]]:
    """Return task → kind of mistake → points; tasks without a number are left out."""
    tasks = _mapping((errors or {}).get("tasks"))
    costs = {task: _mapping(_mapping(tasks.get(task)).get("cost")) for task in TASKS}
    plain = {task: {k: number(v) for k, v in cost.items()} for task, cost in costs.items()}
    return {t: cost for t, cost in plain.items() if any(map(math.isfinite, cost.values()))}


def _counts(errors: Mapping[str, Any] | None, task: str) -> Mapping[str, Any]:
    return _mapping(_mapping(_mapping((errors or {}).get("tasks")).get(task)).get("counts"))


def _groups(errors: Mapping[str, Any] | None) -> dict[str, list[dict[str, Any]]]:
    """Return what recall is divided by → the rows that have people in them."""
    recall = _mapping((errors or {}).get("recall"))
    groups = {}
    for name in GROUPS:
        rows = recall.get(name) if isinstance(recall.get(name), list) else []
        kept = [row for row in rows or [] if _is_group(row)]
        if kept:
            groups[name] = kept
    return groups


def _is_group(row: Any) -> bool:
    people, found = (number(_mapping(row).get(name)) for name in ("people", "found"))
    return people > 0 and 0 <= found <= people


def _recall_title(run: RunData, evaluation: Evaluation) -> str:
    errors = evaluation.errors or {}
    threshold, task = number(errors.get("threshold")), errors.get("task")
    kind = f", by {TASKS[task]}" if task in TASKS else ""
    kept = f", detections that score {threshold:.2f} or more" if math.isfinite(threshold) else ""
    return f"{dataset_title(evaluation)}{kind}{kept}\nThin lines: 95 % intervals"


def _nobody(run: RunData) -> str:
    return "nobody" if run.objects == "people" else "nothing"


def _times(count: Any) -> str:
    return f"  ({count:,} ×)" if type(count) is int else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}

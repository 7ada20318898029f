"""What goes wrong: what each kind of mistake costs, and for whom recall is low.

From `inference/<dataset>/errors.json`. Kinds of mistakes: Bolya et al., "TIDE: A General Toolbox
for Identifying Object Detection Errors", ECCV 2020.
"""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from persondet.report.facts import Evaluation, Facts
from persondet.report.plots import style
from persondet.report.plots.detection import KINDS as TASK_KINDS
from persondet.report.plots.detection import dataset_title, preferred
from persondet.report.run import Run
from persondet.report.wording import one_line, points
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
    "size": ("Recall by size in the image", "size"),
    "crowding": ("Recall by crowding", "crowding"),
    "border": ("Recall by closeness to the border of the image", "place"),
}
Z = 1.959964  # of the normal distribution's central 95 %


def draw_errors(run: Run) -> Figure | None:
    """Draw what each kind of mistake costs, in points of AP50."""
    evaluation = preferred(run, lambda evaluation: bool(_costs(evaluation.errors)))
    if evaluation is None:
        return None
    errors = evaluation.errors
    costs = _costs(errors)
    counts = {task: errors["tasks"][task]["counts"] for task in costs}
    kinds = [
        kind
        for kind in KINDS
        if kind in ALWAYS_SHOWN
        or any(counts[task][kind].number() or costs[task].get(kind) for task in costs)
    ]
    figure = style.new_figure(size=(8.2, 1.8 + 0.55 * len(kinds) * (0.6 + 0.4 * len(costs))))
    (axes,) = figure.axes
    height = 0.8 / len(costs)
    for index, (task, cost) in enumerate(costs.items()):
        places = np.arange(len(kinds)) + (index - (len(costs) - 1) / 2) * height
        texts = [points(cost.get(kind)) + _times(counts[task][kind]) for kind in kinds]
        color, _, hatch = style.TASK_LOOKS[task]
        widths = [cost.get(kind, 0.0) for kind in kinds]
        look = {"color": color, "hatch": hatch, "label": TASK_KINDS[task], **style.BAR}
        axes.bar_label(axes.barh(places, widths, height, **look), texts, padding=4, fontsize=8)
    nobody = "nobody" if run.objects == "people" else "nothing"
    axes.set_yticks(range(len(kinds)), [KINDS[kind].replace("nobody", nobody) for kind in kinds])
    axes.invert_yaxis()
    most = max((value for cost in costs.values() for value in cost.values()), default=0.0)
    axes.set_xlim(0, max(1.0, most) * 1.25)
    axes.grid(axis="y", visible=False)
    title = f"What each kind of mistake costs\n{dataset_title(evaluation)}"
    if any(_times(count) for kinds in counts.values() for _, count in kinds.items()):
        threshold = errors["threshold"].number()
        at = "" if threshold is None else f" {threshold:.2f}"
        title += f"\nBars: all scores; brackets: number from the threshold{at} on"
    style.label_axes(
        axes, title, "AP50 gained if there were none of them (points)", "kind of mistake"
    )
    style.add_legend(axes)
    return figure


def draw_recall(run: Run) -> Figure | None:
    """Draw which share is found, by size, crowding and closeness to the border."""
    evaluation = preferred(run, lambda evaluation: bool(_groups(evaluation.errors)))
    if evaluation is None:
        return None
    groups = _groups(evaluation.errors)
    heights = [1.1 + 0.5 * len(rows) for rows in groups.values()]
    figure = style.new_figure(len(groups), 1, (8.2, 0.5 + sum(heights)), heights)
    for axes, (name, rows) in zip(figure.axes, groups.items(), strict=True):
        title, y_label = GROUPS[name]
        _draw_group(axes, rows)
        style.label_axes(axes, title, f"recall (% of the {run.objects})", y_label)
    figure.suptitle(_recall_title(evaluation), x=0.01, ha="left", fontsize=10)
    return figure


def _draw_group(axes: Axes, rows: list[tuple[str, int, int]]) -> None:
    """Draw a bar for each (label, number found, number of all), with its interval."""
    shares = np.array([100 * found / total for _, found, total in rows])
    bounds = np.array([wilson(found, total) for _, found, total in rows])
    spread = np.maximum([shares - 100 * bounds[:, 0], 100 * bounds[:, 1] - shares], 0)
    places = range(len(rows))
    axes.barh(places, shares, 0.7, color=style.SKY, edgecolor=style.BLACK, linewidth=0.6)
    axes.errorbar(
        shares, places, xerr=spread, fmt="none", ecolor=style.BLACK, elinewidth=1.2, capsize=3
    )
    axes.set_yticks(places, [f"{label}\n{found} of {total}" for label, found, total in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.grid(axis="y", visible=False)


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


def _costs(errors: Facts) -> dict[str, dict[str, float]]:
    """Return task → kind of mistake → points; tasks without a number are left out."""
    costs = {
        task: {
            kind: value
            for kind, cost in errors["tasks"][task]["cost"].items()
            if (value := cost.number()) is not None
        }
        for task in TASKS
    }
    return {task: cost for task, cost in costs.items() if cost}


def _groups(errors: Facts) -> dict[str, list[tuple[str, int, int]]]:
    """Return what recall is divided by → (label, number found, number of all) where there are
    any.
    """
    groups: dict[str, list[tuple[str, int, int]]] = {}
    for name in GROUPS:
        for row in errors["recall"][name].entries():
            found, total = row["found"].count(), row["people"].count()
            if found is not None and total and found <= total:
                label = one_line(row["label"].shown(), 42)
                groups.setdefault(name, []).append((label, found, total))
    return groups


def _recall_title(evaluation: Evaluation) -> str:
    task, threshold = evaluation.errors["task"].text(), evaluation.errors["threshold"].number()
    kind = f", by {TASKS[task]}" if task in TASKS else ""
    kept = "" if threshold is None else f", detections that score {threshold:.2f} or more"
    return f"{dataset_title(evaluation)}{kind}{kept}\nThin lines: 95 % intervals"


def _times(count: Facts) -> str:
    number = count.count()
    return "" if number is None else f"  ({number:,} ×)"

"""A comparison of settings as one figure: the curves on the left, the test scores on the right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from persondet.report.events import Series, load_events
from persondet.report.plots.style import (
    LOOKS,
    add_legend,
    drawing,
    label_axes,
    new_figure,
    save,
    whole_numbers,
)
from persondet.report.plots.training import X_LABEL
from persondet.results import TASKS, RunError


def plot_comparison(
    result: Mapping[str, Any], runs: Mapping[str, Sequence[Path]], path: str | Path
) -> None:
    """Draw validation AP over the steps, and the test AP of every seed, into a PNG file.

    Args:
        result: what `comparison.json` holds.
        runs: variant → its run folders, in the order of the seeds.
        path: the file; replaced.
    """
    task = "segm" if all("segm" in row for row in result["variants"]) else "bbox"
    with drawing():
        figure = new_figure(1, 2, (9.6, 4.2), widths=(3, 2))
        curves, scores = figure.axes
        for index, row in enumerate(result["variants"]):
            color, marker = LOOKS[index % len(LOOKS)]
            _draw_curves(curves, row["name"], runs[row["name"]], task, color, marker)
            _draw_scores(scores, index, row, task, color, marker)
        what, y_label = TASKS[task].capitalize(), "AP (points, 0 to 100)"
        label_axes(curves, f"{what} AP on the validation split", X_LABEL, y_label)
        curves.set_ylim(bottom=0)
        curves.set_xlim(left=0)
        whole_numbers(curves, 6)
        add_legend(curves)
        label_axes(scores, f"{what} AP on the test split", "", y_label)
        names = [row["name"] for row in result["variants"]]
        scores.set_xticks(range(len(names)), names, rotation=20 if len(names) > 3 else 0)
        scores.set_xlim(-0.6, len(names) - 0.4)
        scores.set_ylim(bottom=0)
        save(figure, Path(path))


def _draw_curves(
    axes: Axes, name: str, runs: Sequence[Path], task: str, color: str, marker: str
) -> None:
    """Draw each run faint, and their mean over the steps that all have."""
    found = [series for folder in runs if (series := _validation(folder, task)) is not None]
    if not found:
        return
    for series in found:
        axes.plot(series.iterations, series.values, color=color, alpha=0.3, linewidth=0.9)
    shared = sorted(set.intersection(*(set(series.iterations.tolist()) for series in found)))
    if shared:
        rows = [dict(zip(s.iterations.tolist(), s.values, strict=True)) for s in found]
        mean = [np.mean([row[step] for row in rows]) for step in shared]
        seeds = "seed" if len(found) == 1 else f"{len(found)} seeds"
        label = f"{name} (mean of {seeds})"
        axes.plot(np.array(shared), mean, color=color, marker=marker, label=label)


def _draw_scores(
    axes: Axes, index: int, row: Mapping[str, Any], task: str, color: str, marker: str
) -> None:
    values = [run[task]["AP"] for run in row["runs"] if run[task].get("AP") is not None]
    spots = index + np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else [index]
    axes.plot(spots, values, marker, color=color, alpha=0.8)
    if values:
        mean = float(np.mean(values))
        axes.hlines(mean, index - 0.3, index + 0.3, color=color)
        axes.annotate(f"{mean:.1f}", (index + 0.32, mean), va="center", fontsize=9, color=color)


def _validation(folder: Path, task: str) -> Series | None:
    """Return validation AP over the steps done; None where there is none."""
    try:
        events = load_events(folder)
    except RunError:
        return None
    series = events.finite(f"{task}/AP")
    return None if series is None else Series(events.steps(series), series.values)

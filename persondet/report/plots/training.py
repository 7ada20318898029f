"""The curves of one training, from its `metrics.json`.

Training is a solid line and validation a dashed one with dots.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from persondet.report import events as log
from persondet.report.facts import one_line
from persondet.report.plots import style
from persondet.report.run import Run
from persondet.results import TASKS

X_LABEL = "training (steps)"
ACCURACIES = {
    "fast_rcnn/cls_accuracy": ("proposal classes", style.GREEN, "o"),
    "mask_rcnn/accuracy": ("mask pixels", style.PURPLE, "s"),
}
METRIC_LINES = {"AP": "-", "AP50": ":"}
SET_FILLS = ("full", "none", "left", "top")  # of the markers, one per validation set
SPIKE = 4.0  # what exceeds so many times the value that 9 of 10 stay below is no part of the curve
MARKERS_PER_LINE = 8

_NOTE: dict[str, Any] = {"fontsize": 8, "color": style.VERMILION}
Panel = Callable[[Axes, Run], bool]


def panel_loss(axes: Axes, run: Run, name: str = "total_loss", title: str = "Loss") -> bool:
    """Draw a loss in training and validation; return whether there was any."""
    if not _draw_pair(axes, run.events, name, (style.BLUE, style.VERMILION), ""):
        return False
    limit_spikes(axes)
    _finish(axes, run.events, title, "loss (no unit)")
    return True


def panel_accuracy(axes: Axes, run: Run) -> bool:
    """Draw the accuracies of the two heads; return whether there was any."""
    drawn = [
        _draw_pair(axes, run.events, name, (color, color), f"{what}, ", 100, marker)
        for name, (what, color, marker) in ACCURACIES.items()
    ]
    if any(drawn):
        axes.set_ylim(top=101)
        _finish(axes, run.events, "Accuracy", "correct (%)", legend=2)
    return any(drawn)


def panel_average_precision(axes: Axes, run: Run) -> bool:
    """Draw validation AP and AP50 with the best model marked; return whether there was any."""
    datasets: list[str] = []
    for task, (color, marker, _) in style.TASK_LOOKS.items():
        for metric, line in METRIC_LINES.items():
            for dataset, series in log.validation_series(run.events, f"{task}/{metric}"):
                datasets += [dataset] if dataset not in datasets else []
                fill = SET_FILLS[datasets.index(dataset) % len(SET_FILLS)]
                label = f"{TASKS[task]} {metric}" + (f", {one_line(dataset)}" if dataset else "")
                steps = run.events.steps(series)
                look: dict[str, Any] = {"color": color, "fillstyle": fill, "label": label}
                axes.plot(steps, series.values, marker + line, **look)
    if not datasets:
        return False
    best = run.best
    if best is not None:
        label = f"best model: {best.text} after {best.step} steps"
        axes.axvline(best.step, color=style.BLACK, linewidth=0.9, linestyle=(0, (1, 2)))
        if best.drawn:
            axes.plot(best.step, best.value, label=label, **style.STAR)
        else:
            axes.plot([], [], color=style.BLACK, linewidth=0.9, linestyle=(0, (1, 2)), label=label)
    axes.set_ylim(0, 102)
    title = "Average precision on the validation split"
    _finish(axes, run.events, title, "AP (points, 0 to 100)", legend=2)
    return True


def panel_learning_rate(axes: Axes, run: Run) -> bool:
    """Draw the learning rate; return whether there was any."""
    series = run.events.finite("lr")
    if series is None:
        return False
    dot = "o" if len(series.values) == 1 else None
    axes.plot(run.events.steps(series), series.values, marker=dot, color=style.BLACK)
    axes.set_ylim(bottom=0)
    _finish(axes, run.events, "Learning rate", "learning rate (per step)", legend=0)
    return True


def panel_speed(axes: Axes, run: Run) -> bool:
    """Draw the time of a step and what of it is waiting for data; return whether there was any."""
    series = run.events.finite("time")
    if series is None:
        return False
    median = float(np.median(series.values))
    rate = f" = {run.batch_size / median:.3g} images per second" if run.batch_size * median else ""
    whole = f"a whole step (median {median:.3g} s{rate})"
    lines = [
        ("time", whole, style.BLUE, "-"),
        ("data_time", "of it, waiting for data", style.VERMILION, "--"),
    ]
    for name, label, color, line in lines:
        found = run.events.finite(name)
        if found is not None:
            dot = "o" if len(found.values) == 1 else None
            steps = run.events.steps(found)
            axes.plot(steps, found.values, line, marker=dot, color=color, label=label)
    limit_spikes(axes)
    _finish(axes, run.events, "Speed of the training", "time of a step (seconds)")
    return True


def single(panel: Panel) -> Callable[[Run], Figure | None]:
    """Return the function that draws a figure of one panel, None when it has nothing to show."""

    def draw(run: Run) -> Figure | None:
        figure = style.new_figure()
        return figure if panel(figure.axes[0], run) else None

    return draw


def draw_components(run: Run) -> Figure | None:
    """Draw each part of the loss in a panel of its own, in the order of the model's stages."""
    names = log.loss_components(run.events)
    if not names:
        return None
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = style.new_figure(rows, columns, (1 + 3.6 * columns, 0.4 + 2.9 * rows))
    for axes, name in zip(figure.axes, names, strict=False):
        panel_loss(axes, run, name, log.component_title(name))
        style.whole_numbers(axes, 5)
    for axes in figure.axes[len(names) :]:
        axes.set_axis_off()
    return figure


def draw_overview(run: Run) -> Figure | None:
    """Draw loss, accuracy, average precision and learning rate on one page."""
    figure = style.new_figure(2, 2, (11.0, 7.6))
    drawn = []
    for axes, (panel, missing) in zip(figure.axes, OVERVIEW.items(), strict=True):
        drawn.append(panel(axes, run))
        if not drawn[-1]:
            style.hide(axes, f"no {missing} in this run")
    return figure if any(drawn) else None


OVERVIEW: dict[Panel, str] = {
    panel_loss: "total loss",
    panel_average_precision: "average precision",
    panel_accuracy: "accuracy",
    panel_learning_rate: "learning rate",
}


def limit_spikes(axes: Axes) -> None:
    """Start the y axis at 0, and end it where single spikes would flatten the curve.

    How many values lie above is said in the figure.
    """
    lines = [np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.get_lines()]
    values = np.concatenate([line[np.isfinite(line)] for line in lines] or [np.zeros(0)])
    top = None
    if len(values) and values.max() > SPIKE * (usual := float(np.quantile(values, 0.9))) > 0:
        top = SPIKE / 2 * usual
        above = int((values > top).sum())
        note = f"{above} values lie above, up to {values.max():.3g}"
        where = axes.transAxes
        axes.text(0.99, 0.99, note, transform=where, ha="right", va="top", **_NOTE)
    axes.set_ylim(0, top)


def draw_training(
    axes: Axes, events: log.Events, series: log.Series, color: str, what: str, marker: str = ""
) -> None:
    """Draw a noisy training series: the raw values faint, their moving average on top.

    Where several stand in one panel, `marker` tells them apart in grey.
    """
    values = np.where(np.isfinite(series.values), series.values, np.nan)
    steps, window = events.steps(series), log.smoothing_window(len(values))
    label = f"{what}training"
    if window > 1:
        axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
        label += "" if what else f" (mean of {window} rows)"
    dot = "o" if np.isfinite(values).sum() == 1 else None  # a line needs two points to be seen
    every = None if dot else max(1, len(values) // MARKERS_PER_LINE)
    look: dict[str, Any] = {"marker": dot or marker, "markevery": every, "markersize": 4}
    axes.plot(steps, log.smooth(values, window), color=color, label=label, **look)
    lost = int(np.isnan(values).sum())
    if lost:
        note = f"{lost} of {len(values)} training values are not finite"
        axes.text(0.02, 0.02, note, transform=axes.transAxes, **_NOTE)


def _draw_pair(
    axes: Axes,
    events: log.Events,
    name: str,
    colors: tuple[str, str],
    what: str,
    scale: float = 1.0,
    marker: str = "",
) -> bool:
    """Draw scalar `name` and its validation twins, times `scale`; return whether there was any."""
    training, twins = events.finite(name), log.validation_series(events, name, "val/")
    if training is not None:
        iterations, values = events[name]  # with its NaN: a gap in the line
        draw_training(axes, events, log.Series(iterations, values * scale), colors[0], what, marker)
    for index, (dataset, series) in enumerate(twins):
        label = f"{what}validation" + (f", {one_line(dataset)}" if dataset else "")
        fill = SET_FILLS[index % len(SET_FILLS)]
        look: dict[str, Any] = {"color": colors[1], "fillstyle": fill, "label": label}
        axes.plot(events.steps(series), series.values * scale, f"{marker or 'o'}--", **look)
    return training is not None or bool(twins)


def _finish(axes: Axes, events: log.Events, title: str, y_label: str, *, legend: int = 1) -> None:
    """Give `axes` title, labels, the range of the training, and a legend of `legend` columns."""
    style.label_axes(axes, title, X_LABEL, y_label)
    axes.set_xlim(0, max(1, events.last_step) * 1.02)
    style.whole_numbers(axes)
    if legend:
        style.add_legend(axes, legend)

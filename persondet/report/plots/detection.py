"""How well a dataset's objects are found: precision, recall, F1, scores and sizes.

From `inference/<dataset>/curves.json`. Shares are in percent, score thresholds from 0 to 1 as on
the command line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from persondet.report.facts import Evaluation, TaskCurves
from persondet.report.plots import style
from persondet.report.run import Run
from persondet.report.wording import one_line
from persondet.results import TASKS

KINDS = {"bbox": "boxes", "segm": "masks"}
SPLITS = {"valid": "Validation split", "test": "Test split"}
IOU_LINES = {"50": "-", "75": ":"}
SCORE_LABEL = "score threshold (0 to 1)"
SMALL, MEDIUM = 32, 96  # COCO's bounds between small, medium and large, √area in pixels
CROWDED = 20.0  # so much taller than the right ones' are the wrong ones' bars where both are shown


def draw_precision_recall(run: Run) -> Figure | None:
    """Draw precision against recall, a panel for each dataset."""
    shown = _with_curves(run, lambda curves: bool(curves.pr_precision))
    if not shown:
        return None
    figure = style.new_figure(1, len(shown), (0.8 + 5.0 * len(shown), 5.2))
    for axes, evaluation in zip(figure.axes, shown, strict=True):
        for task, curves in evaluation.curves.items():
            color, marker, _ = style.TASK_LOOKS[task]
            for iou, precision in curves.pr_precision.items():
                line = IOU_LINES.get(iou, "-.")
                label = f"{TASKS[task]}, IoU {float(iou) / 100:g}" if iou.isdigit() else iou
                x, y = 100 * curves.pr_recall, 100 * precision
                every = (5 * (task == "segm"), 10)  # lines that coincide keep their markers apart
                axes.plot(x, y, line, color=color, marker=marker, markevery=every, label=label)
            recall, precision = curves.pooled
            if task == run.operating_task and len(precision):
                label = f"{TASKS[task]}, IoU 0.5, all classes as one"
                axes.plot(100 * recall, 100 * precision, "--", color=style.BLACK, label=label)
        _draw_point(axes, run, evaluation)
        objects = run.objects
        x_label = f"recall ({objects} found, % of all {objects})"
        style.label_axes(
            axes, dataset_title(evaluation), x_label, "precision (right, % of detections)"
        )
        axes.set_xlim(0, 101)
        axes.set_ylim(0, 102)
        style.add_legend(axes, 2, lowered=0.14)
    return figure


def draw_f1(run: Run) -> Figure | None:
    """Draw precision, recall and F1 against the score threshold, a row for each dataset."""
    shown = _with_curves(run, lambda curves: bool(len(curves.thresholds)))
    if not shown:
        return None
    tasks = [task for task in TASKS if any(task in evaluation.curves for evaluation in shown)]
    size = (0.8 + 5.0 * len(tasks), 0.4 + 4.3 * len(shown))
    figure = style.new_figure(len(shown), len(tasks), size)
    places = [(evaluation, task) for evaluation in shown for task in tasks]
    for axes, (evaluation, task) in zip(figure.axes, places, strict=True):
        curves = evaluation.curves.get(task)
        if curves is None or not len(curves.thresholds):
            style.hide(axes, f"no {TASKS[task]} predictions were scored")
            continue
        color, _, _ = style.TASK_LOOKS[task]
        for values, label, line, shade in (
            (curves.precision, "precision", "--", style.BLUE),
            (curves.recall, "recall", ":", style.BLACK),
            (curves.f1, "F1", "-", color),
        ):
            width = 2.6 if label == "F1" else 1.6
            look: Any = {"linewidth": width, "color": shade, "label": label}
            axes.plot(curves.thresholds, 100 * values, line, **look)
        _draw_threshold(axes, run, evaluation, curves)
        title = f"{dataset_title(evaluation)}\n{KINDS[task]}, right from IoU {curves.iou:g}"
        style.label_axes(axes, title, SCORE_LABEL, "precision, recall, F1 (%)")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 102)
        style.add_legend(axes, 2)
    return figure


def draw_score_histogram(run: Run) -> Figure | None:
    """Draw how sure the model is of its right and of its wrong detections, a panel per task."""
    evaluation = preferred(run, lambda e: any(len(c.score_true) for c in e.curves.values()))
    if evaluation is None:
        return None
    found = {task: curves for task, curves in evaluation.curves.items() if len(curves.score_true)}
    figure = style.new_figure(1, len(found), (0.8 + 5.0 * len(found), 4.6))
    for axes, (task, curves) in zip(figure.axes, found.items(), strict=True):
        edges, right, wrong = curves.score_edges, curves.score_true, curves.score_false
        half = np.diff(edges) / 2
        look: Any = {"align": "edge", **style.BAR}
        axes.bar(edges[:-1], right, half, color=style.BLUE, label="right", **look)
        axes.bar(
            edges[1:] - half,
            wrong,
            half,
            color=style.VERMILION,
            hatch="////",
            label="wrong",
            **look,
        )
        y_label = "detections (number)"
        if np.nanmax(wrong) > CROWDED * max(1.0, np.nanmax(right)):
            _count_by_powers_of_ten(axes)
            y_label = "detections (number; each line is 10 times the one below)"
        if run.operating_point is not None:
            label = f"threshold in use, {run.operating_point:.2f}"
            axes.axvline(run.operating_point, color=style.BLACK, linestyle="--", label=label)
        kind = f"{KINDS[task].capitalize()}, right from IoU {curves.iou:g}"
        title = f"{kind}\n{dataset_title(evaluation)}"
        style.label_axes(axes, title, "score (0 to 1)", y_label)
        axes.set_xlim(float(edges[0]), float(edges[-1]))
        axes.set_ylim(bottom=0)
        axes.grid(axis="x", visible=False)
        style.add_legend(axes, 3)
    return figure


def draw_size_histogram(run: Run) -> Figure | None:
    """Draw how many objects of each size there are, and how many of them were found."""
    evaluation = preferred(run, lambda e: all(map(len, e.sizes)))
    if evaluation is None:
        return None
    edges, annotated, found = evaluation.sizes
    figure = style.new_figure(size=(7.4, 4.6))
    (axes,) = figure.axes
    places = np.arange(len(annotated)) + 0.5
    axes.bar(
        places, annotated, 0.9, color="white", edgecolor=style.BLACK, label=f"all {run.objects}"
    )
    axes.bar(
        places, found, 0.9, color=style.SKY, edgecolor=style.BLACK, hatch="////", label="found"
    )
    every = max(1, -(-len(edges) // 13))
    axes.set_xticks(range(0, len(edges), every), [f"{edge:.0f}" for edge in edges[::every]])
    axes.set_xlim(0, len(annotated))
    axes.set_ylim(0, max(1.0, float(np.nanmax(annotated, initial=0))) * 1.15)
    for bound in (SMALL, MEDIUM):
        if edges[0] < bound < edges[-1]:
            place = float(np.interp(bound, edges, np.arange(len(edges))))
            axes.axvline(place, 0, 0.93, color=style.BLACK, linestyle=":", linewidth=1.2)
            words = {SMALL: "small | medium", MEDIUM: "medium | large"}[bound]
            axes.text(place, 0.99, words, ha="center", va="top", fontsize=8, bbox=_PLATE)
            axes.texts[-1].set_transform(axes.get_xaxis_transform())
    title = f"Sizes of the {run.objects}\n{dataset_title(evaluation)}"
    style.label_axes(axes, title, "size: √area (pixels)", f"{run.objects} (number)")
    axes.grid(axis="x", visible=False)
    style.add_legend(axes, 2)
    return figure


_PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.8}


def dataset_title(evaluation: Evaluation) -> str:
    """Return what dataset a figure shows, as its title: its role, name and number of images."""
    name = one_line(evaluation.dataset, 28)
    images = "" if evaluation.images is None else f", {evaluation.images} images"
    return f"{SPLITS.get(evaluation.role, 'Dataset')}: {name}{images}"


def _with_curves(run: Run, usable: Callable[[TaskCurves], bool]) -> list[Evaluation]:
    """Return validation and test where they have usable curves; without either, the others."""
    found = [e for e in run.evaluations if any(map(usable, e.curves.values()))]
    return [evaluation for evaluation in found if evaluation.role] or found[:2]


def preferred(run: Run, usable: Callable[[Evaluation], bool]) -> Evaluation | None:
    """Return the test split's evaluation where it is usable, else validation's, else another."""
    order = [run.evaluation("test"), run.evaluation("valid"), *run.evaluations]
    return next((e for e in order if e is not None and usable(e)), None)


def _draw_point(axes: Axes, run: Run, evaluation: Evaluation) -> None:
    """Mark where the stored threshold lies on the curve of the task that it was chosen on."""
    curves = evaluation.curves.get(run.operating_task)
    point = curves.at(run.operating_point) if curves and run.operating_point is not None else None
    if point is None:
        return
    label = f"threshold {point.threshold:.2f} ({TASKS[run.operating_task]})"
    axes.plot(100 * point.recall, 100 * point.precision, label=label, **style.STAR)


def _draw_threshold(axes: Axes, run: Run, evaluation: Evaluation, curves: TaskCurves) -> None:
    """Mark the threshold in use, and where F1 is best; the test split has no say in that."""
    best, stored = curves.best, run.operating_point
    if stored is not None:
        at = curves.at(stored)
        value = "" if at is None else f": F1 {100 * at.f1:.0f} %"
        label = f"threshold in use, {stored:.2f}{value}"
        axes.axvline(stored, color=style.GREY, linestyle="-.", label=label)
    if best is not None and evaluation.role != "test":
        label = f"best F1: {100 * best.f1:.0f} % at {best.threshold:.2f}"
        axes.plot(best.threshold, 100 * best.f1, label=label, **style.STAR)


def _count_by_powers_of_ten(axes: Axes) -> None:
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_locator(MultipleLocator(1e12))  # none

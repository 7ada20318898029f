"""What an evaluation found, what goes wrong, and people over time in annotated clips.

From `inference/<dataset>/curves.json` and `errors.json`, and from the records of clips. Shares are
in percent, score thresholds from 0 to 1 as on the command line. Kinds of mistakes: Bolya et al.,
"TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from persondet.report.facts import Clip, Evaluation, Facts, TaskCurves, decimals, one_line, points
from persondet.report.plots import style
from persondet.report.run import Run
from persondet.results import TASKS

KINDS = {"bbox": "boxes", "segm": "masks"}
SPLITS = {"valid": "Validation split", "test": "Test split"}
IOU_LINES = {"50": "-", "75": ":"}
SCORE_LABEL = "score threshold (0 to 1)"
SIZES = {32: "small | medium", 96: "medium | large"}  # COCO's bounds, √area in pixels
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
        axes.set(xlim=(0, 101), ylim=(0, 102))
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
        axes.set(xlim=(0, 1), ylim=(0, 102))
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
        look |= {"color": style.VERMILION, "hatch": "////", "label": "wrong"}
        axes.bar(edges[1:] - half, wrong, half, **look)
        y_label = "detections (number)"
        if np.nanmax(wrong) > CROWDED * max(1.0, np.nanmax(right)):
            axes.set_yscale("symlog", linthresh=1)
            axes.yaxis.set_major_formatter("{x:,.0f}")
            axes.yaxis.set_minor_locator(NullLocator())
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
    look: dict[str, Any] = {"width": 0.9, "edgecolor": style.BLACK}
    axes.bar(places, annotated, color="white", label=f"all {run.objects}", **look)
    axes.bar(places, found, color=style.SKY, hatch="////", label="found", **look)
    every = max(1, -(-len(edges) // 13))
    axes.set_xticks(range(0, len(edges), every), [f"{edge:.0f}" for edge in edges[::every]])
    axes.set_xlim(0, len(annotated))
    axes.set_ylim(0, max(1.0, float(np.nanmax(annotated, initial=0))) * 1.15)
    for bound, words in SIZES.items():
        if edges[0] < bound < edges[-1]:
            place = float(np.interp(bound, edges, np.arange(len(edges))))
            axes.axvline(place, 0, 0.93, color=style.BLACK, linestyle=":", linewidth=1.2)
            look = {"ha": "center", "va": "top", "fontsize": 8, "bbox": _PLATE}
            axes.text(place, 0.99, words, transform=axes.get_xaxis_transform(), **look)
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


KINDS_OF_MISTAKES = {
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
        for kind in KINDS_OF_MISTAKES
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
        look = {"color": color, "hatch": hatch, "label": KINDS[task], **style.BAR}
        bars = axes.barh(places, [cost.get(kind, 0.0) for kind in kinds], height, **look)
        axes.bar_label(bars, texts, padding=4, fontsize=8)
    nobody = "nobody" if run.objects == "people" else "nothing"
    axes.set_yticks(
        range(len(kinds)), [KINDS_OF_MISTAKES[kind].replace("nobody", nobody) for kind in kinds]
    )
    axes.invert_yaxis()
    most = max((value for cost in costs.values() for value in cost.values()), default=0.0)
    axes.set_xlim(0, max(1.0, most) * 1.25)
    axes.grid(axis="y", visible=False)
    title = f"What each kind of mistake costs\n{dataset_title(evaluation)}"
    if any(_times(count) for kinds in counts.values() for _, count in kinds.items()):
        title += "\nBars: all scores; brackets: number from the threshold "
        title += f"{decimals(errors['threshold'])} on"
    x_label = "AP50 gained if there were none of them (points)"
    style.label_axes(axes, title, x_label, "kind of mistake")
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
    task, threshold = evaluation.errors["task"].text(), decimals(evaluation.errors["threshold"])
    title = f"{dataset_title(evaluation)}, by {TASKS.get(task, 'object')}, detections that score "
    title += f"{threshold} or more\nThin lines: 95 % intervals"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
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


def _times(count: Facts) -> str:
    number = count.count()
    return "" if number is None else f"  ({number:,} ×)"


MOST_CLIPS = 6
MINUTES_FROM = 300.0  # seconds


def draw_people(run: Run) -> Figure | None:
    """Draw how many people each frame shows, a panel for each clip, up to six of them."""
    clips = run.clips[:MOST_CLIPS]
    if not clips:
        return None
    figure = style.new_figure(len(clips), 1, (8.2, 0.6 + 3.2 * len(clips)))
    for axes, clip in zip(figure.axes, clips, strict=True):
        _draw_clip(axes, clip)
    return figure


def moving_mean(times: np.ndarray, counts: np.ndarray, seconds: float) -> np.ndarray:
    """Return the mean of `counts` over the frames within ± `seconds` / 2 of each time: (N,)."""
    total = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])
    first = np.searchsorted(times, times - seconds / 2, side="left")
    last = np.searchsorted(times, times + seconds / 2, side="right")
    return (total[last] - total[first]) / (last - first)


def _draw_clip(axes: Axes, clip: Clip) -> None:
    length = float(clip.times[-1])
    unit, divisor = ("minutes", 60.0) if length >= MINUTES_FROM else ("seconds", 1.0)
    times = clip.times / divisor
    window = max(1.0, length / 60)
    several = len(times) > 2 and length > 2 * window
    look: dict[str, Any] = {"alpha": 0.45 if several else 1.0, "drawstyle": "steps-post"}
    look |= {"label": "each frame", "marker": "o" if len(times) == 1 else None}
    axes.plot(times, clip.counts, color=style.BLUE, linewidth=1.0, **look)
    if several:
        smooth = moving_mean(clip.times, clip.counts, window)
        label = f"mean over {window:.3g} s"
        axes.plot(times, smooth, color=style.VERMILION, label=label, linestyle="--")
    most, mean = int(clip.counts.max()), float(clip.counts.mean())
    facts = f"on average {mean:.1f}, at most {most}"
    facts += f", {clip.people} different people" if clip.people else ""
    facts += f"; score {decimals(clip.header['confidence_threshold'])} or more"
    title = f"People in {one_line(clip.source)}\n{facts}"
    style.label_axes(axes, title, f"time in the clip ({unit})", "people in view (number)")
    axes.set_xlim(min(0.0, float(times[0])), max(float(times[-1]), 1e-3))
    axes.set_ylim(0, max(1, most) * 1.1 + 0.2)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if several:
        style.add_legend(axes, 2, lowered=0.2)

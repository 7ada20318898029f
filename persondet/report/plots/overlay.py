"""Several runs in one figure: their curves over each other, and a comparison of settings."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from persondet.report import events as log
from persondet.report.events import Series, load_events
from persondet.report.facts import TaskCurves
from persondet.report.plots import style
from persondet.report.plots.detection import SCORE_LABEL, SPLITS
from persondet.report.plots.style import (
    LOOKS,
    add_legend,
    drawing,
    label_axes,
    new_figure,
    save,
    whole_numbers,
)
from persondet.report.plots.training import ACCURACIES, MARKERS_PER_LINE, X_LABEL, limit_spikes
from persondet.report.run import Run, refuse_elsewhere
from persondet.report.wording import distinct, one_line
from persondet.results import TASKS, RunError

logger = logging.getLogger(__name__)


class Curve(NamedTuple):
    """A run's line in a panel: x and y (N,), and whether it is dashed, as validation is."""

    x: np.ndarray
    y: np.ndarray
    dashed: bool = False


class Panel(NamedTuple):
    """One pair of axes: its texts, what it shows of a run, and the top of its y axis (0: open)."""

    title: str
    x_label: str
    y_label: str
    curves: Callable[[Run], list[Curve]]
    top: float = 0.0


class Overlay(NamedTuple):
    """One figure of several runs: its file name, what it needs, and its panels for these runs."""

    file_name: str
    needs: str
    panels: Callable[[Sequence[Run]], list[Panel]]


def plot_runs(
    run_dirs: Sequence[str | Path], output: str | Path, *, overwrite: bool = False
) -> list[Path]:
    """Lay the curves of several runs over each other and return the PNG files, in reading order.

    They go to the folder `output`; with `overwrite` they replace files there. A run takes part with
    what it has come to; a figure that would show no run is left out, and the log says so.

    Raises: RunError: when a run has nothing at all to draw. OutputExistsError: when `output` holds
        a
        file with the name of a figure, unless `overwrite`.
    """
    paths = (Path(output) / overlay.file_name for overlay in OVERLAYS)
    refuse_elsewhere(run_dirs, paths, overwrite=overwrite)
    runs = [Run(Path(run_dir)) for run_dir in run_dirs]
    for run in runs:
        if run.problem is not None and not run.evaluations:
            raise run.problem
    names = run_names(run_dirs)
    written = []
    for overlay in OVERLAYS:
        path = Path(output) / overlay.file_name
        with style.drawing():
            figure = _draw(overlay.panels(runs), runs, names)
            if figure is not None:
                written.append(style.save(figure, path))
                continue
        logger.info("%s is left out: no run has %s", path.name, overlay.needs)
    return written


def run_names(run_dirs: Sequence[str | Path]) -> list[str]:
    """Return a short name for each run: its path below the folder that holds them all."""
    shared = common_folder(run_dirs)
    return distinct([str(Path(run).resolve().relative_to(shared)) for run in run_dirs])


def common_folder(run_dirs: Sequence[str | Path]) -> Path:
    """Return the closest folder that holds all runs and is none of them."""
    paths = [Path(run_dir).resolve() for run_dir in run_dirs]
    above = (folder for folder in paths[0].parents if all(folder in p.parents for p in paths))
    return next(above, Path(paths[0].anchor))


def default_folder(run_dirs: Sequence[str | Path]) -> Path:
    """Return the folder where the figures of several runs go: `comparison` beside them.

    Runs that share nothing but the root of the disk have no such place: then it is in the working
    directory.
    """
    shared = common_folder(run_dirs)
    return (Path.cwd() if shared == Path(shared.anchor) else shared) / "comparison"


def _draw(panels: Sequence[Panel], runs: Sequence[Run], names: Sequence[str]) -> Figure | None:
    """Draw the panels that show a run; None when there is none."""
    drawn = [(panel, [panel.curves(run) for run in runs]) for panel in panels]
    drawn = [(panel, curves) for panel, curves in drawn if any(curves)]
    if not drawn:
        return None
    columns = len(drawn) if len(drawn) <= 3 else (2 if len(drawn) == 4 else 3)
    rows = math.ceil(len(drawn) / columns)
    legend_rows = math.ceil(len(names) / columns)
    height = (4.0 if rows == 1 else 3.4) * rows + 0.4 + 0.25 * legend_rows
    figure = style.new_figure(
        rows, columns, (2.6 + 4.4 * columns if columns == 1 else 4.8 * columns, height)
    )
    for axes, (panel, curves) in zip(figure.axes, drawn, strict=False):
        _draw_panel(axes, panel, curves)
    for axes in figure.axes[len(drawn) :]:
        axes.set_axis_off()
    handles = [Line2D([], [], color=_look(i)[0], marker=_look(i)[1]) for i in range(len(names))]
    labels = list(names)
    every = [curve for _, curves in drawn for run in curves for curve in run]
    if any(curve.dashed for curve in every) and not all(curve.dashed for curve in every):
        handles += [Line2D([], [], color=style.BLACK, linestyle=line) for line in ("-", "--")]
        labels += ["training", "validation"]
    longest = max(map(len, labels))
    most = max(1, int(figure.get_figwidth() * 10 / (longest + 7)))
    figure.legend(handles, labels, loc="outside lower center", ncols=min(most, len(labels)))
    return figure


def _draw_panel(axes: Axes, panel: Panel, curves: Sequence[Sequence[Curve]]) -> None:
    for index, lines in enumerate(curves):
        color, marker = _look(index)
        for line in lines:
            every = max(1, len(line.x) // MARKERS_PER_LINE)
            # Runs that are the same, or nearly so, get their markers at other places.
            first = (index * every // max(1, len(curves))) if len(line.x) > MARKERS_PER_LINE else 0
            dashes = "--" if line.dashed else "-"
            axes.plot(line.x, line.y, dashes, color=color, marker=marker, markevery=(first, every))
    style.label_axes(axes, panel.title, panel.x_label, panel.y_label)
    if panel.top:
        axes.set_ylim(0, panel.top)
    else:
        limit_spikes(axes)
    if panel.x_label == X_LABEL:
        axes.set_xlim(left=0)
        style.whole_numbers(axes, 6)


def _look(index: int) -> tuple[str, str]:
    """Return the colour and the marker of a run; no pair comes twice in the first 49."""
    count = len(style.LOOKS)
    return style.LOOKS[index % count][0], style.LOOKS[(index + index // count) % count][1]


def _scalar(name: str, *, scale: float = 1.0) -> Callable[[Run], list[Curve]]:
    """Return what draws a training scalar, smoothed, and its first validation twin."""

    def curves(run: Run) -> list[Curve]:
        found = []
        series = run.events.finite(name)
        if series is not None:
            values = log.smooth(series.values, log.smoothing_window(len(series.values)))
            found.append(Curve(run.events.steps(series), scale * values))
        for _, twin in log.validation_twins(run.events, name)[:1]:
            found.append(Curve(run.events.steps(twin), scale * twin.values, dashed=True))
        return found

    return curves


def _loss(name: str = "total_loss") -> Panel:
    known, shown = log.COMPONENT_TITLES.get(name), one_line(name, 30)
    title = "Loss" if name == "total_loss" else f"{known}\n{shown}" if known else shown
    return Panel(title, X_LABEL, "loss (no unit)", _scalar(name))


def _components(runs: Sequence[Run]) -> list[Panel]:
    names = [name for run in runs for name in log.loss_components(run.events)]
    order = [*log.COMPONENT_TITLES, *sorted(set(names) - log.COMPONENT_TITLES.keys())]
    return [_loss(name) for name in order if name in names]


def _accuracies(runs: Sequence[Run]) -> list[Panel]:
    return [
        Panel(f"Accuracy: {what}", X_LABEL, "correct (%)", _scalar(name, scale=100), 101)
        for name, (what, *_) in ACCURACIES.items()
    ]


def _average_precisions(runs: Sequence[Run]) -> list[Panel]:
    def panel(task: str, metric: str) -> Panel:
        def curves(run: Run) -> list[Curve]:
            found = log.average_precisions(run.events, task, metric)[:1]
            return [Curve(run.events.steps(line), line.values, True) for *_, line in found]

        title = f"Validation split: {TASKS[task]} {metric}"
        return Panel(title, X_LABEL, f"{metric} (points, 0 to 100)", curves, 102)

    return [panel(task, metric) for metric in ("AP", "AP50") for task in TASKS]


def _learning_rate(runs: Sequence[Run]) -> list[Panel]:
    return [Panel("Learning rate", X_LABEL, "learning rate (per step)", _scalar("lr"))]


def _speed(runs: Sequence[Run]) -> list[Panel]:
    return [Panel("Speed of the training", X_LABEL, "time of a step (seconds)", _scalar("time"))]


def _overview(runs: Sequence[Run]) -> list[Panel]:
    box, mask = _average_precisions(runs)[:2]
    scores = mask if any(map(mask.curves, runs)) else box
    return [_loss(), scores, *_learning_rate(runs), *_speed(runs)]


def _of_curves(
    x_label: str, y_label: str, line: Callable[[TaskCurves], Curve]
) -> Callable[[Sequence[Run]], list[Panel]]:
    """Return the panels of curves.json: a column for each task, on the test split where all runs
    have it, else on the validation split."""

    def panel(role: str, task: str) -> Panel:
        def curves(run: Run) -> list[Curve]:
            evaluation = run.evaluation(role)
            found = evaluation.curves.get(task) if evaluation else None
            return [drawn] if found and len((drawn := line(found)).x) else []

        return Panel(f"{SPLITS[role]}: {TASKS[task]}, IoU 0.5", x_label, y_label, curves, 102)

    def panels(runs: Sequence[Run]) -> list[Panel]:
        scored = [run for run in runs if run.evaluations]
        role = "test" if all(run.evaluation("test") for run in scored) else "valid"
        return [panel(role, task) for task in TASKS]

    return panels


def _precision_recall(found: TaskCurves) -> Curve:
    precision = found.pr_precision.get("50", np.zeros(0))
    return Curve(100 * found.pr_recall[: len(precision)], 100 * precision)


_RECALL, _PRECISION = "recall (found, % of all)", "precision (right, % of detections)"
OVERLAYS = (
    Overlay("training_curves.png", "scalar to plot", _overview),
    Overlay("loss.png", "total_loss", lambda runs: [_loss()]),
    Overlay("loss_components.png", "loss_*", _components),
    Overlay("accuracy.png", "accuracy", _accuracies),
    Overlay("average_precision.png", "bbox/AP or segm/AP", _average_precisions),
    Overlay("learning_rate.png", "lr", _learning_rate),
    Overlay("speed.png", "time of a step", _speed),
    Overlay(
        "pr_curve.png",
        "inference/*/curves.json",
        _of_curves(_RECALL, _PRECISION, _precision_recall),
    ),
    Overlay(
        "f1_curve.png",
        "inference/*/curves.json",
        _of_curves(SCORE_LABEL, "F1 (%)", lambda found: Curve(found.thresholds, 100 * found.f1)),
    ),
)


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

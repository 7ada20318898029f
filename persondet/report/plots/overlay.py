"""Several runs side by side: their curves in one figure, a comparison of settings, and a table.

The table is `results.csv`, a row of numbers per run, for a spreadsheet. AP is in points, 0 to 100;
precision, recall, F1 and thresholds from 0 to 1. A number that does not exist is an empty cell.
"""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from persondet.files import write_text
from persondet.report import events as log
from persondet.report.facts import Facts, TaskCurves, distinct, one_line
from persondet.report.plots import style
from persondet.report.plots.evaluation import SCORE_LABEL, SPLITS
from persondet.report.plots.training import ACCURACIES, MARKERS_PER_LINE, X_LABEL, limit_spikes
from persondet.report.run import Run, refuse_elsewhere
from persondet.results import METRICS, TASKS

logger = logging.getLogger(__name__)

FILE_NAME = "results.csv"
FIRST = ("run", "steps", "best_step", "best_score", "model", "batch_size", "seconds_per_step")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet computes what begins so


class Curve(NamedTuple):
    """A run's line in a panel: x and y (N,), and whether it is dashed, as validation is."""

    x: np.ndarray
    y: np.ndarray
    dashed: bool = False


class Panel(NamedTuple):
    """One pair of axes: its texts, what it shows of a run, and the top of its y axis (0: open)."""

    title: str
    y_label: str
    curves: Callable[[Run], list[Curve]]
    top: float = 0.0
    x_label: str = X_LABEL


def _scalar(
    title: str, y_label: str, name: str, *, scale: float = 1, top: float = 0, scored: bool = False
) -> Panel:
    """Return the panel of a training scalar, smoothed, and of its first validation twin.

    `scored`: the scalar is a score, which the validation split alone has.
    """

    def curves(run: Run) -> list[Curve]:
        series, steps = None if scored else run.events.finite(name), run.events.steps
        twins = log.validation_series(run.events, name, "" if scored else "val/")[:1]
        found = [Curve(steps(twin), scale * twin.values, dashed=True) for _, twin in twins]
        if series is None:
            return found
        smooth = log.smooth(series.values, log.smoothing_window(len(series.values)))
        return [Curve(steps(series), scale * smooth), *found]

    return Panel(title, y_label, curves, top)


LOSS = _scalar("Loss", "loss (no unit)", "total_loss")
LEARNING_RATE = _scalar("Learning rate", "learning rate (per step)", "lr")
SPEED = _scalar("Speed of the training", "time of a step (seconds)", "time")
ACCURACY = [
    _scalar(f"Accuracy: {what}", "correct (%)", name, scale=100, top=101)
    for name, (what, *_) in ACCURACIES.items()
]
AVERAGE_PRECISION = [
    _scalar(
        f"Validation split: {TASKS[task]} {metric}",
        f"{metric} (points, 0 to 100)",
        f"{task}/{metric}",
        top=102,
        scored=True,
    )
    for metric in ("AP", "AP50")
    for task in TASKS
]


def _overview(runs: Sequence[Run]) -> list[Panel]:
    box, mask, *_ = AVERAGE_PRECISION
    return [LOSS, mask if any(map(mask.curves, runs)) else box, LEARNING_RATE, SPEED]


def _components(runs: Sequence[Run]) -> list[Panel]:
    names = {name: None for run in runs for name in log.loss_components(run.events)}
    return [
        _scalar(log.component_title(name), "loss (no unit)", name)
        for name in sorted(names, key=log.component_order)
    ]


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

        return Panel(f"{SPLITS[role]}: {TASKS[task]}, IoU 0.5", y_label, curves, 102, x_label)

    def panels(runs: Sequence[Run]) -> list[Panel]:
        scored = [run for run in runs if run.evaluations]
        role = "test" if all(run.evaluation("test") for run in scored) else "valid"
        return [panel(role, task) for task in TASKS]

    return panels


def _precision_recall(found: TaskCurves) -> Curve:
    precision = found.pr_precision.get("50", np.zeros(0))
    return Curve(100 * found.pr_recall[: len(precision)], 100 * precision)


_RECALL, _PRECISION = "recall (found, % of all)", "precision (right, % of detections)"
# File → the panels for these runs.
OVERLAYS: dict[str, Callable[[Sequence[Run]], list[Panel]]] = {
    "training_curves.png": _overview,
    "loss.png": lambda runs: [LOSS],
    "loss_components.png": _components,
    "accuracy.png": lambda runs: ACCURACY,
    "average_precision.png": lambda runs: AVERAGE_PRECISION,
    "learning_rate.png": lambda runs: [LEARNING_RATE],
    "speed.png": lambda runs: [SPEED],
    "pr_curve.png": _of_curves(_RECALL, _PRECISION, _precision_recall),
    "f1_curve.png": _of_curves(
        SCORE_LABEL, "F1 (%)", lambda found: Curve(found.thresholds, 100 * found.f1)
    ),
}


def plot_runs(
    run_dirs: Sequence[str | Path], output: str | Path, *, overwrite: bool = False
) -> list[Path]:
    """Lay the curves of several runs over each other and return the PNG files, in reading order.

    They go to the folder `output`; with `overwrite` they replace files there. A run takes part with
    what it has come to; a figure that would show no run is left out, and the log says so.

    Raises: RunError: when a run has nothing at all to draw. OutputExistsError: when `output` holds
        a file with the name of a figure, unless `overwrite`.
    """
    paths = {Path(output) / name: panels for name, panels in OVERLAYS.items()}
    refuse_elsewhere(run_dirs, paths, overwrite=overwrite)
    runs = [Run(Path(run_dir)) for run_dir in run_dirs]
    for run in runs:
        if run.problem is not None and not run.evaluations:
            raise run.problem
    names = run_names(run_dirs)
    written = []
    for path, panels in paths.items():
        with style.drawing():
            figure = _draw(panels(runs), runs, names)
            if figure is not None:
                written.append(style.save(figure, path))
                continue
        logger.info("%s is left out: no run has numbers for it", path.name)
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
    found = [(panel, [panel.curves(run) for run in runs]) for panel in panels]
    drawn = [(panel, curves) for panel, curves in found if any(curves)]
    if not drawn:
        return None
    columns = {1: 1, 2: 2, 4: 2}.get(len(drawn), 3)
    rows, legend_rows = (math.ceil(len(part) / columns) for part in (drawn, names))
    height = (4.0 if rows == 1 else 3.4) * rows + 0.4 + 0.25 * legend_rows
    figure = style.new_figure(rows, columns, (7.0 if columns == 1 else 4.8 * columns, height))
    for axes, (panel, curves) in zip(figure.axes, drawn, strict=False):
        _draw_panel(axes, panel, curves)
    for axes in figure.axes[len(drawn) :]:
        axes.set_axis_off()
    looks = [_look(index) for index in range(len(names))]
    lines = [(name, Line2D([], [], **look)) for name, look in zip(names, looks, strict=True)]
    if len({curve.dashed for _, curves in drawn for run in curves for curve in run}) == 2:
        lines.append(("training", Line2D([], [], color=style.BLACK, linestyle="-")))
        lines.append(("validation", Line2D([], [], color=style.BLACK, linestyle="--")))
    labels, handles = zip(*lines, strict=True)
    most = max(1, int(figure.get_figwidth() * 10 / (max(map(len, labels)) + 7)))
    figure.legend(handles, labels, loc="outside lower center", ncols=min(most, len(labels)))
    return figure


def _draw_panel(axes: Axes, panel: Panel, curves: Sequence[Sequence[Curve]]) -> None:
    for index, lines in enumerate(curves):
        for line in lines:
            every = max(1, len(line.x) // MARKERS_PER_LINE)
            # Runs that are the same, or nearly so, get their markers at other places.
            first = index * every // len(curves) if len(line.x) > MARKERS_PER_LINE else 0
            dashes, places = "--" if line.dashed else "-", (first, every)
            axes.plot(line.x, line.y, linestyle=dashes, markevery=places, **_look(index))
    style.label_axes(axes, panel.title, panel.x_label, panel.y_label)
    if panel.top:
        axes.set_ylim(0, panel.top)
    else:
        limit_spikes(axes)
    if panel.x_label == X_LABEL:
        axes.set_xlim(left=0)
        style.whole_numbers(axes, 6)


def _look(index: int) -> dict[str, Any]:
    """Return the colour and the marker of a run; no pair comes twice in the first 49."""
    count = len(style.LOOKS)
    marker = style.LOOKS[(index + index // count) % count][1]
    return {"color": style.LOOKS[index % count][0], "marker": marker}


def plot_comparison(
    result: Mapping[str, Any], runs: Mapping[str, Sequence[Path]], path: str | Path
) -> None:
    """Draw validation AP over the steps, and the test AP of every seed, into a PNG file.

    Args:
        result: what `comparison.json` holds.
        runs: variant → its run folders, in the order of the seeds.
        path: the file; replaced.
    """
    rows = result["variants"]
    task = "segm" if all("segm" in row for row in rows) else "bbox"
    with style.drawing():
        figure = style.new_figure(1, 2, (9.6, 4.2), widths=(3, 2))
        curves, scores = figure.axes
        for index, row in enumerate(rows):
            _draw_curves(curves, row["name"], runs[row["name"]], task, _look(index))
            values = [run[task]["AP"] for run in row["runs"] if run[task].get("AP") is not None]
            _draw_scores(scores, index, values, _look(index))
        what, y_label = TASKS[task].capitalize(), "AP (points, 0 to 100)"
        style.label_axes(curves, f"{what} AP on the validation split", X_LABEL, y_label)
        curves.set_xlim(left=0)
        style.whole_numbers(curves, 6)
        style.add_legend(curves)
        style.label_axes(scores, f"{what} AP on the test split", "", y_label)
        names = [row["name"] for row in rows]
        scores.set_xticks(range(len(names)), names, rotation=20 if len(names) > 3 else 0)
        scores.set_xlim(-0.6, len(names) - 0.4)
        for axes in (curves, scores):
            axes.set_ylim(bottom=0)
        style.save(figure, Path(path))


def _draw_curves(
    axes: Axes, name: str, folders: Sequence[Path], task: str, look: dict[str, Any]
) -> None:
    """Draw each run faint, and their mean over the steps that all have."""
    found = []
    for events in (Run(folder).events for folder in folders):
        series = events.finite(f"{task}/AP")
        if series is not None:
            found.append(dict(zip(events.steps(series).tolist(), series.values, strict=True)))
    for row in found:
        axes.plot([*row], [*row.values()], color=look["color"], alpha=0.3, linewidth=0.9)
    shared = sorted(set.intersection(*map(set, found))) if found else []
    if shared:
        mean = np.mean([[row[step] for step in shared] for row in found], axis=0)
        seeds = "seed" if len(found) == 1 else f"{len(found)} seeds"
        axes.plot(shared, mean, label=f"{name} (mean of {seeds})", **look)


def _draw_scores(axes: Axes, index: int, values: Sequence[float], look: dict[str, Any]) -> None:
    spots = index + np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else [index]
    axes.plot(spots[: len(values)], values, alpha=0.8, linestyle="none", **look)
    if values:
        mean, color = float(np.mean(values)), look["color"]
        axes.hlines(mean, index - 0.3, index + 0.3, color=color)
        axes.annotate(f"{mean:.1f}", (index + 0.32, mean), va="center", fontsize=9, color=color)


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
    point, constant = results["operating_point"], results["constant_box"]
    row |= _cells("operating_point", point, ("task", "threshold"))
    for split in ("valid", "test"):
        row |= _cells(f"operating_point {split}", point[split])
    for task in TASKS:
        row |= _cells(f"constant_box {task}", constant[task], ("AP",))
    return row


def _scores(split: str, scores: Facts) -> dict[str, Any]:
    """Return the cells of one split; of a table's metrics the known ones come first."""
    row = _cells(split, scores, ("dataset", "images"))
    for task in TASKS:
        others = sorted(name for name, _ in scores[task].items() if name not in METRICS)
        for metric in (*METRICS, *others):
            row |= (cell := _cells(f"{split} {task}", scores[task], (metric,)))
            bounds = scores["intervals"][task][metric].entries() if cell else []
            for end, bound in zip(("low", "high"), bounds, strict=False):
                row[f"{split} {task} {metric} {end}"] = bound.value
    return row


def _cells(prefix: str, facts: Facts, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Return the cells of an object: those of `keys` that it has, or all."""
    values = {key: value.value for key, value in facts.items()}
    return {f"{prefix} {key}": values[key] for key in keys or values if key in values}


def _cell(value: Any) -> str:
    """Return a value as text that a spreadsheet takes for a number or for plain text."""
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    if isinstance(value, bool | int):
        return str(value)
    if not isinstance(value, str):
        return ""
    return f"'{value}" if value.startswith(FORMULA) else value

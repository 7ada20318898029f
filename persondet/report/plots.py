"""Event series → figures. The only file that uses matplotlib, through objects, without pyplot.

One style for all: colours of Okabe and Ito (2008), which colour-blind readers can tell apart;
training is a solid line and validation a dashed one with dots, so that a grey print reads as well.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from persondet.files import atomic_path
from persondet.report.events import Events, Series, load_events
from persondet.report.smoothing import smooth, smoothing_window

logger = logging.getLogger(__name__)

FOLDER = "plots"
BLUE, VERMILION, GREEN, PURPLE, BLACK = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#333333"
STYLE: dict[Any, Any] = {
    "figure.dpi": 150,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.limits": (-4, 5),
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "legend.fontsize": 9,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
}
X_LABEL = "iteration (batches)"
ACCURACIES = {
    "fast_rcnn/cls_accuracy": ("proposal classes", GREEN),
    "mask_rcnn/accuracy": ("mask pixels", PURPLE),
}
TASKS = {"bbox": ("box", GREEN), "segm": ("mask", PURPLE)}
COMPONENT_TITLES = {
    "loss_rpn_cls": "proposals: object or not",
    "loss_rpn_loc": "proposals: place",
    "loss_cls": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
}


class Plot(NamedTuple):
    """One figure: its file name, what it needs, and the function that draws it (None: cannot)."""

    file_name: str
    needs: str
    draw: Callable[[Events], Figure | None]


def plot_run(run_dir: str | Path, output: str | Path | None = None) -> list[Path]:
    """Draw the curves of a run from its metrics.json and return the PNG files, in reading order.

    They go to `run_dir/plots` or to `output`, and replace files of the same name. A figure whose
    scalars are missing is left out and the log says so; its file of an earlier call is removed
    from `run_dir/plots`, since it no longer shows this run.

    Raises: RunError: when metrics.json is missing, cannot be read, or holds no row.
    """
    events = load_events(run_dir)
    folder = Path(run_dir) / FOLDER if output is None else Path(output)
    written = []
    for plot in PLOTS:
        path = folder / plot.file_name
        with matplotlib.rc_context(STYLE):
            figure = plot.draw(events)
            if figure is None:
                logger.info("%s is left out: %s has no %s", path.name, events.path, plot.needs)
                if output is None:
                    path.unlink(missing_ok=True)
                continue
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format="png", metadata={"Software": None})
        written.append(path)
    return written


def _figure(rows: int = 1, columns: int = 1, size: tuple[float, float] = (7.0, 4.2)) -> Figure:
    """Return a figure of `size` inches with `rows` × `columns` axes and its own Agg canvas."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    figure.subplots(rows, columns, squeeze=False)
    return figure


def _finish(axes: Axes, events: Events, title: str, y_label: str, *, legend: int = 1) -> None:
    """Give `axes` its title, labels and a legend of `legend` columns (0: none).

    A legend of several columns has many entries and stands below the axes, where it hides nothing.
    A name that came out of a file is never read as a formula.
    """
    axes.set_title(title, parse_math=False)
    axes.set_xlabel(X_LABEL)
    axes.set_ylabel(y_label)
    axes.set_xlim(0, max(1, events.last_iteration) * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 2.5, 5, 10], integer=True))
    if legend == 1:
        axes.legend(loc="best")
    elif legend:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=legend)


def _draw_training(axes: Axes, series: Series, color: str, what: str) -> None:
    """Draw a noisy training series: the raw values faint, their moving average on top."""
    values = np.where(np.isfinite(series.values), series.values, np.nan)
    window = smoothing_window(len(values))
    label = f"{what}training"
    if window > 1:
        axes.plot(series.iterations, values, color=color, alpha=0.25, linewidth=0.8)
        label += "" if what else f" (mean of {window} rows)"
    dot = "o" if np.isfinite(values).sum() == 1 else None  # a line needs two points to be seen
    axes.plot(series.iterations, smooth(values, window), marker=dot, color=color, label=label)
    lost = int(np.isnan(values).sum())
    if lost:
        note = f"{lost} of {len(values)} training values are not finite"
        axes.text(0.02, 0.02, note, transform=axes.transAxes, fontsize=8, color=VERMILION)


def _draw_pair(
    axes: Axes, events: Events, name: str, colors: tuple[str, str], what: str, scale: float = 1.0
) -> bool:
    """Draw scalar `name` and its validation twin, times `scale`; return whether there was any."""
    training, validation = events.finite(name), events.finite(f"val/{name}")
    if training is not None:
        iterations, values = events[name]  # with its NaN: a gap in the line
        _draw_training(axes, Series(iterations, values * scale), colors[0], what)
    if validation is not None:
        iterations, values = validation
        axes.plot(iterations, values * scale, "o--", color=colors[1], label=f"{what}validation")
    return training is not None or validation is not None


def _panel_loss(axes: Axes, events: Events, name: str = "total_loss", title: str = "Loss") -> bool:
    if not _draw_pair(axes, events, name, (BLUE, VERMILION), ""):
        return False
    axes.set_ylim(bottom=0)
    _finish(axes, events, title, "loss (no unit)")
    return True


def _panel_accuracy(axes: Axes, events: Events) -> bool:
    drawn = [
        _draw_pair(axes, events, name, (color, color), f"{what}, ", scale=100)
        for name, (what, color) in ACCURACIES.items()
    ]
    if any(drawn):
        axes.set_ylim(top=100)
        _finish(axes, events, "Accuracy", "correct (%)", legend=2)
    return any(drawn)


def _panel_average_precision(axes: Axes, events: Events) -> bool:
    drawn = False
    for task, (what, color) in TASKS.items():
        for metric, line in (("AP", "o-"), ("AP50", "s:")):
            series = events.finite(f"{task}/{metric}")
            if series is None:
                continue
            drawn = True
            axes.plot(series.iterations, series.values, line, color=color, label=f"{what} {metric}")
            best = series.best() if metric == "AP" else None
            if best is not None:
                label = f"best {what} AP: {best[1]:.1f} at {best[0]}"
                axes.plot(
                    *best, "*", markersize=13, color=color, markeredgecolor="black", label=label
                )
    if drawn:
        axes.set_ylim(0, 102)
        title = "Average precision on the validation split"
        _finish(axes, events, title, "AP (points, 0 to 100)", legend=2)
    return drawn


def _panel_learning_rate(axes: Axes, events: Events) -> bool:
    series = events.finite("lr")
    if series is None:
        return False
    dot = "o" if len(series.values) == 1 else None
    axes.plot(series.iterations, series.values, marker=dot, color=BLACK)
    axes.set_ylim(bottom=0)
    _finish(axes, events, "Learning rate", "learning rate (per step)", legend=0)
    return True


def _single(panel: Callable[[Axes, Events], bool]) -> Callable[[Events], Figure | None]:
    """Return the function that draws a figure of one panel."""

    def draw(events: Events) -> Figure | None:
        figure = _figure()
        return figure if panel(figure.axes[0], events) else None

    return draw


def _components(events: Events) -> Figure | None:
    """Draw each part of the loss in a panel of its own, in the order of the model's stages."""
    found = {
        name.removeprefix("val/") for name in (*events.names("loss_"), *events.names("val/loss_"))
    }
    order = list(COMPONENT_TITLES)
    names = sorted(
        (name for name in found if events.finite(name) or events.finite(f"val/{name}")),
        key=lambda name: (order.index(name) if name in order else len(order), name),
    )
    if not names:
        return None
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = _figure(rows, columns, (1 + 3.6 * columns, 0.4 + 2.9 * rows))
    for axes, name in zip(figure.axes, names, strict=False):
        known = COMPONENT_TITLES.get(name)
        _panel_loss(axes, events, name, f"{known}\n{name}" if known else name)
    for axes in figure.axes[len(names) :]:
        axes.set_axis_off()
    return figure


def _overview(events: Events) -> Figure | None:
    """Draw loss, accuracy, average precision and learning rate on one page."""
    figure = _figure(2, 2, (11.0, 7.6))
    drawn = []
    for axes, (panel, missing) in zip(figure.axes, OVERVIEW.items(), strict=True):
        drawn.append(panel(axes, events))
        if not drawn[-1]:
            axes.set_axis_off()
            axes.text(0.5, 0.5, f"no {missing} in this run", ha="center", transform=axes.transAxes)
    return figure if any(drawn) else None


OVERVIEW: dict[Callable[[Axes, Events], bool], str] = {
    _panel_loss: "total loss",
    _panel_average_precision: "average precision",
    _panel_accuracy: "accuracy",
    _panel_learning_rate: "learning rate",
}
PLOTS = (
    Plot("training_curves.png", "scalar to plot", _overview),
    Plot("loss.png", "total_loss and val/total_loss", _single(_panel_loss)),
    Plot("loss_components.png", "loss_* and val/loss_*", _components),
    Plot("accuracy.png", "accuracy, of training or validation", _single(_panel_accuracy)),
    Plot("average_precision.png", "bbox/AP and segm/AP", _single(_panel_average_precision)),
    Plot("learning_rate.png", "lr", _single(_panel_learning_rate)),
)

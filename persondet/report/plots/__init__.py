"""Figures of runs: `plot_run` draws one run, `plot_runs` lays several over each other.

Only this folder and `dataset_page.py` use matplotlib, which takes a while to import.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from persondet.report.plots import evaluation as detection
from persondet.report.plots import evaluation as mistakes
from persondet.report.plots import evaluation as people
from persondet.report.plots import training
from persondet.report.plots.overlay import OVERLAYS, default_folder, plot_runs
from persondet.report.plots.style import drawing, save
from persondet.report.run import Run, refuse_elsewhere

logger = logging.getLogger(__name__)

FOLDER = "plots"
__all__ = ["FOLDER", "OVERLAYS", "PLOTS", "Plot", "default_folder", "plot_run", "plot_runs"]


class Plot(NamedTuple):
    """One figure: its file name, what it needs, and the function that draws it (None: cannot)."""

    file_name: str
    needs: str
    draw: Callable[[Run], Figure | None]


_CURVES = "inference/*/curves.json"
_ERRORS = "inference/*/errors.json"
PLOTS = (
    Plot("training_curves.png", "scalar to plot in metrics.json", training.draw_overview),
    Plot("loss.png", "total_loss and val/total_loss", training.single(training.panel_loss)),
    Plot("loss_components.png", "loss_* and val/loss_*", training.draw_components),
    Plot(
        "accuracy.png",
        "accuracy, of training or validation",
        training.single(training.panel_accuracy),
    ),
    Plot(
        "average_precision.png",
        "bbox/AP and segm/AP",
        training.single(training.panel_average_precision),
    ),
    Plot("learning_rate.png", "lr", training.single(training.panel_learning_rate)),
    Plot("speed.png", "time of a step", training.single(training.panel_speed)),
    Plot("pr_curve.png", f"precision-recall curve in {_CURVES}", detection.draw_precision_recall),
    Plot("f1_curve.png", f"curve over thresholds in {_CURVES}", detection.draw_f1),
    Plot("score_histogram.png", f"scores in {_CURVES}", detection.draw_score_histogram),
    Plot("size_histogram.png", f"sizes in {_CURVES}", detection.draw_size_histogram),
    Plot("errors.png", f"costs of mistakes in {_ERRORS}", mistakes.draw_errors),
    Plot("recall_by.png", f"recall of groups in {_ERRORS}", mistakes.draw_recall),
    Plot("people_over_time.png", "records (*.jsonl) of an annotated clip", people.draw_people),
)


def plot_run(
    run_dir: str | Path, output: str | Path | None = None, *, overwrite: bool = False
) -> list[Path]:
    """Draw what a run has come to so far and return the PNG files, in reading order.

    They go to `run_dir/plots` or to `output`; in the run folder they replace those of an earlier
    call. A figure without numbers is left out and the log says so; its file of an earlier call is
    removed from `run_dir/plots`, since it no longer shows this run.

    Args:
        run_dir: the OUTPUT_DIR of a training, finished or not.
        output: the folder for the figures; None: `run_dir/plots`.
        overwrite: replace files outside the run folder too.

    Raises: RunError: when there is nothing to draw because metrics.json is missing, cannot be read,
        or holds no row. OutputExistsError: when `output` is outside the run folder and holds a file
        with the name of a figure.
    """
    run = Run(Path(run_dir))
    folder = Path(run_dir) / FOLDER if output is None else Path(output)
    own = folder.resolve() == (Path(run_dir) / FOLDER).resolve()
    paths = (folder / plot.file_name for plot in PLOTS)
    refuse_elsewhere([run_dir], paths, overwrite=overwrite)
    written, left_out = [], []
    for plot in PLOTS:
        path = folder / plot.file_name
        with drawing():
            figure = plot.draw(run)
            if figure is not None:
                written.append(save(figure, path))
                continue
        left_out.append(plot)
        if own and path.is_file():
            path.unlink(missing_ok=True)
    if run.problem is not None and not written:
        raise run.problem
    for plot in left_out:
        logger.info("%s is left out: %s has no %s", plot.file_name, run_dir, plot.needs)
    return written

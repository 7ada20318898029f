"""Figures of runs: `plot_run` draws one run, `plot_runs` lays several over each other.

Only this folder and `dataset_page.py` use matplotlib, which takes a while to import.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from persondet.report.plots import evaluation, training
from persondet.report.plots.overlay import OVERLAYS, default_folder, plot_runs
from persondet.report.plots.style import drawing, save
from persondet.report.run import Run, refuse_elsewhere

logger = logging.getLogger(__name__)

FOLDER = "plots"
__all__ = ["FOLDER", "OVERLAYS", "PLOTS", "default_folder", "plot_run", "plot_runs"]


# File → the function that draws it; None: this run has nothing for it.
PLOTS: dict[str, Callable[[Run], Figure | None]] = {
    "training_curves.png": training.draw_overview,
    "loss.png": training.single(training.panel_loss),
    "loss_components.png": training.draw_components,
    "accuracy.png": training.single(training.panel_accuracy),
    "average_precision.png": training.single(training.panel_average_precision),
    "learning_rate.png": training.single(training.panel_learning_rate),
    "speed.png": training.single(training.panel_speed),
    "pr_curve.png": evaluation.draw_precision_recall,
    "f1_curve.png": evaluation.draw_f1,
    "score_histogram.png": evaluation.draw_score_histogram,
    "size_histogram.png": evaluation.draw_size_histogram,
    "errors.png": evaluation.draw_errors,
    "recall_by.png": evaluation.draw_recall,
    "people_over_time.png": evaluation.draw_people,
}


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
    refuse_elsewhere([run_dir], (folder / name for name in PLOTS), overwrite=overwrite)
    written, left_out = [], []
    for name, draw in PLOTS.items():
        with drawing():
            figure = draw(run)
            if figure is not None:
                written.append(save(figure, folder / name))
                continue
        left_out.append(name)
        if own and (folder / name).is_file():
            (folder / name).unlink(missing_ok=True)
    if run.problem is not None and not written:
        raise run.problem
    for name in left_out:
        logger.info("%s is left out: %s has nothing for it", name, run_dir)
    return written

"""Figures of runs: `plot_run` draws one run, `plot_runs` lays several over each other.

Only this folder, `dataset_page.py` and `comparison_plot.py` use matplotlib, which takes a while to
import.
"""

from persondet.report.plots.all_plots import FOLDER, PLOTS, Plot, plot_run
from persondet.report.plots.overlay import OVERLAYS, default_folder, plot_runs

__all__ = ["FOLDER", "OVERLAYS", "PLOTS", "Plot", "default_folder", "plot_run", "plot_runs"]

"""The one look of all figures, on the screen, on paper and in grey.

Colours are those of Okabe and Ito (2008), with a purple of Tol's, which colour-blind readers can
tell apart. Nothing is told by colour alone: lines differ in dashes or markers too, bars in
hatching. Figures are objects with their own Agg canvas, without pyplot, so that no display is
needed. Names come from strangers: inside `drawing()` a `$` is a `$`.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import MaxNLocator

from persondet.files import atomic_path
from persondet.report.facts import TEMPLATES

BLUE, VERMILION, GREEN, PURPLE, BLACK = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#333333"
ORANGE, SKY, GREY = "#E69F00", "#56B4E9", "#999999"
# For scripts that DejaVu lacks; whichever is installed.
FALLBACK_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "WenQuanYi Zen Hei",
    "Noto Sans",
    "Unifont",
)
# The looks of runs and variants that are laid over each other: (colour, marker).
_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, BLACK, ORANGE, SKY)
LOOKS = tuple(zip(_COLOURS, "os^DvPX", strict=True))
TASK_LOOKS = {"bbox": (GREEN, "o", ""), "segm": (PURPLE, "s", "////")}  # colour, marker, hatch
STAR: dict[str, Any] = {
    "linestyle": "none",
    "marker": "*",
    "markersize": 14,
    "color": ORANGE,
    "markeredgecolor": "black",
    "zorder": 5,
}
BAR: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.3}


@contextmanager
def drawing(changes: Mapping[Any, Any] | None = None) -> Iterator[None]:
    """Give the figures that are made and saved inside the block their look.

    Args:
        changes: settings of matplotlib that differ from `templates/figures.mplstyle`.
    """
    installed = set(fontManager.get_font_names())
    families = ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]
    look = {**_style(), "font.family": families, **(changes or {})}
    with matplotlib.rc_context(look), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box is drawn in its place
        yield


@functools.cache
def _style() -> Mapping[Any, Any]:
    path = TEMPLATES / "figures.mplstyle"
    return matplotlib.rc_params_from_file(path, use_default_template=False)


def new_figure(
    rows: int = 1,
    columns: int = 1,
    size: tuple[float, float] = (7.0, 4.2),
    heights: Sequence[float] | None = None,
    widths: Sequence[float] | None = None,
) -> Figure:
    """Return a figure of `size` inches with `rows` × `columns` axes, read row by row.

    `heights` are those of the rows, `widths` those of the columns, in relation to each other;
    default: all the same.
    """
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    figure.subplots(rows, columns, squeeze=False, height_ratios=heights, width_ratios=widths)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all; the same figure gives the same bytes."""
    with atomic_path(path) as temporary:
        # Level 6 takes twice as long, for files that are a few percent smaller.
        look: dict[str, Any] = {"metadata": {"Software": "persondet"}}
        figure.savefig(temporary, format="png", pil_kwargs={"compress_level": 4}, **look)
    return path


def label_axes(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Give axes their title and their labels, each with its unit."""
    axes.set(title=title, xlabel=x_label, ylabel=y_label)


def add_legend(axes: Axes, columns: int = 1, *, lowered: float = 0.16) -> None:
    """Add a legend: inside the axes, or for several columns below them, where it hides nothing."""
    if not axes.get_legend_handles_labels()[0]:
        return
    if columns == 1:
        axes.legend(loc="best")
    else:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -lowered), ncols=columns)


def whole_numbers(axes: Axes, most: int = 8) -> None:
    """Let the x axis count in whole numbers, with at most `most` of them."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10], integer=True))


def hide(axes: Axes, text: str) -> None:
    """Say in words why there is nothing to see in these axes."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)

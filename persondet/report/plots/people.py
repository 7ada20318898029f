"""People over time in the annotated clips of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from persondet.report.facts import Clip
from persondet.report.plots.style import BLUE, VERMILION, add_legend, label_axes, new_figure
from persondet.report.run import Run
from persondet.report.wording import one_line

MOST_CLIPS = 6
MINUTES_FROM, HOURS_FROM = 300.0, 10800.0  # seconds


def draw_people(run: Run) -> Figure | None:
    """Draw how many people each frame shows, a panel for each clip, up to six of them."""
    clips = run.clips[:MOST_CLIPS]
    if not clips:
        return None
    figure = new_figure(len(clips), 1, (8.2, 0.6 + 3.2 * len(clips)))
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
    unit, divisor = "seconds", 1.0
    if length >= MINUTES_FROM:
        unit, divisor = ("hours", 3600.0) if length >= HOURS_FROM else ("minutes", 60.0)
    times = clip.times / divisor
    window = max(1.0, length / 60)
    several = len(times) > 2 and length > 2 * window
    look: dict[str, Any] = {"alpha": 0.45 if several else 1.0, "drawstyle": "steps-post"}
    look |= {"label": "each frame", "marker": "o" if len(times) == 1 else None}
    axes.plot(times, clip.counts, color=BLUE, linewidth=1.0, **look)
    if several:
        smooth = moving_mean(clip.times, clip.counts, window)
        label = f"mean over {window:.3g} s"
        axes.plot(times, smooth, color=VERMILION, label=label, linestyle="--")
    most, mean = int(clip.counts.max()), float(clip.counts.mean())
    threshold = clip.header["confidence_threshold"].number()
    facts = f"on average {mean:.1f}, at most {most}"
    facts += f", {clip.people} different people" if clip.people else ""
    facts += "" if threshold is None else f"; score {threshold:.2f} or more"
    title = f"People in {one_line(clip.source)}\n{facts}"
    label_axes(axes, title, f"time in the clip ({unit})", "people in view (number)")
    axes.set_xlim(min(0.0, float(times[0])), max(float(times[-1]), 1e-3))
    axes.set_ylim(0, max(1, most) * 1.1 + 0.2)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if several:
        add_legend(axes, 2, lowered=0.2)

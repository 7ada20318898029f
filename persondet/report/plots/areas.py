"""Figures of the areas of a clip: one page of plots, the heat map, the ways that people took."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from persondet.analysis.clip import CELL, ClipAnalysis, write_tables
from persondet.files import make_folder
from persondet.report.plots import style
from persondet.text import one_line

MINUTES_FROM = 300.0  # seconds from which an axis of time has minutes
_MOST_SHOWN = 7  # lines, or zones, in one panel: as many as there are looks
_SPREAD = 3.0  # cells: how far a foot warms its surroundings
Frame = npt.NDArray[np.uint8] | None
PAGE, HEAT, WAYS = "analysis.png", "heat_map.png", "trajectories.png"


def write_analysis(analysis: ClipAnalysis, folder: Path, frame: Frame) -> None:
    """Write the tables, `analysis.json`, the page of plots, the heat map and the ways.

    Without areas, the page of plots has the people at once alone.

    Args:
        analysis: of a clip.
        folder: where the files go; made if it is missing.
        frame: of the clip, uint8, (H, W, 3), RGB, to draw on; None: on grey.
    """
    make_folder(folder)
    write_tables(analysis, folder)
    with style.drawing():
        style.save(_page(analysis, frame), folder / PAGE)
        for name, panel in ((HEAT, panel_heat), (WAYS, panel_ways)):
            width, height = analysis.header.width, analysis.header.height
            figure = style.new_figure(size=(9.6, 9.6 * min(height / width, 1.5) + 0.9))
            panel(figure.axes[0], analysis, frame)
            style.save(figure, folder / name)


def _page(analysis: ClipAnalysis, frame: Frame) -> Figure:
    if not (analysis.areas.lines or analysis.areas.zones or analysis.walks):
        figure = style.new_figure()
        panel_occupancy(figure.axes[0], analysis)
        return figure
    figure = style.new_figure(3, 2, (11.0, 12.0))
    panels = (panel_crossings, panel_occupancy, panel_dwell, panel_speed)
    for axes, panel in zip(figure.axes[:4], panels, strict=True):
        panel(axes, analysis)
    panel_heat(figure.axes[4], analysis, frame)
    panel_ways(figure.axes[5], analysis, frame)
    header, people = analysis.header, len(analysis.people)
    title = f"{one_line(header.source, 60)}: {people} people in {analysis.clock.seconds:.0f} s"
    figure.suptitle(title)
    return figure


def _time_axis(axes: Axes, analysis: ClipAnalysis) -> tuple[float, str]:
    """Set the limits of an axis of time; return by what to divide seconds, and its label."""
    first, last = analysis.clock.times[0], analysis.clock.until[-1]
    divisor, unit = (60.0, "minutes") if last - first >= MINUTES_FROM else (1.0, "seconds")
    axes.set_xlim(first / divisor, last / divisor)
    return divisor, f"time in the clip ({unit})"


def panel_crossings(axes: Axes, analysis: ClipAnalysis) -> None:
    """Draw how many people have crossed each line, both ways."""
    if not analysis.crossings:
        style.hide(axes, "no lines are given")
        return
    divisor, label = _time_axis(axes, analysis)
    end = analysis.clock.until[-1]
    shown = zip(analysis.areas.lines, analysis.crossings, style.LOOKS, strict=False)
    most = 1
    for line, found, (color, _) in itertools.islice(shown, _MOST_SHOWN):
        for way, into, dashes in (("in", True, "-"), ("out", False, "--")):
            times = found.times[found.into == into]
            most = max(most, len(times))
            times = np.concatenate([[analysis.clock.times[0]], times, [end]]) / divisor
            counts = np.append(np.arange(len(times) - 1), len(times) - 2)
            name = f"{one_line(line.name, 24)}: {len(times) - 2} {way}"
            axes.step(times, counts, where="post", color=color, linestyle=dashes, label=name)
    axes.set_ylim(0, 1.08 * most)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    style.label_axes(axes, "Crossings", label, "people so far (number)")
    style.add_legend(axes)


def panel_occupancy(axes: Axes, analysis: ClipAnalysis) -> None:
    """Draw how many people there are in view, and in each zone, over time."""
    clock = analysis.clock
    divisor, label = _time_axis(axes, analysis)
    rows = [("in view", analysis.in_view, style.GREY)]
    shown = zip(analysis.areas.zones, analysis.visits, style.LOOKS, strict=False)
    for zone, found, (color, _) in itertools.islice(shown, _MOST_SHOWN):
        rows.append((one_line(zone.name, 24), found.occupancy(clock), color))
    for name, counts, color in rows:
        # Of an hour, only the frames in which the number changes make the line.
        keep = np.append(True, np.diff(counts) != 0)
        times = np.append(clock.times[keep], clock.until[-1]) / divisor
        values = np.append(counts[keep], counts[-1])
        axes.step(times, values, where="post", color=color, linewidth=1.2, label=name)
    axes.set_ylim(0, 1.08 * max(1, analysis.in_view.max()))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    style.label_axes(axes, "People at once", label, "people (number)")
    style.add_legend(axes)


def panel_dwell(axes: Axes, analysis: ClipAnalysis) -> None:
    """Draw how long the visits of each zone took."""
    found = [visits.dwell for visits in analysis.visits if len(visits.dwell)]
    if not found:
        style.hide(axes, "no visits" if analysis.visits else "no zones are given")
        return
    longest = max(float(dwell.max()) for dwell in found)
    edges = np.linspace(0, longest * 1.0001, 21)
    names = [zone.name for zone, v in zip(analysis.areas.zones, analysis.visits, strict=True)]
    shown = zip(names, analysis.visits, style.LOOKS, strict=False)
    for name, visits, (color, marker) in itertools.islice(shown, _MOST_SHOWN):
        if len(visits.dwell):
            counts, _ = np.histogram(visits.dwell, edges)
            label = f"{one_line(name, 24)}: {len(visits.dwell)}, mean {visits.dwell.mean():.1f} s"
            middle = (edges[:-1] + edges[1:]) / 2
            axes.step(middle, counts, where="mid", color=color, marker=marker, label=label)
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    style.label_axes(axes, "How long visits take", "dwell time (seconds)", "visits (number)")
    style.add_legend(axes)


def panel_speed(axes: Axes, analysis: ClipAnalysis) -> None:
    """Draw how fast people walk; needs a homography."""
    walks = analysis.walks
    speeds = walks.mean[np.isfinite(walks.mean)] if walks is not None else np.zeros(0)
    if not len(speeds):
        style.hide(axes, "no speeds: no homography is given" if walks is None else "no speeds")
        return
    edges = np.linspace(0, 1.1 * max(float(speeds.max()), 0.1), 21)
    axes.hist(speeds, edges.tolist(), color=style.BLUE, **style.BAR)
    median = float(np.median(speeds))
    axes.axvline(median, color=style.VERMILION, linestyle="--", label=f"median {median:.2f} m/s")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    style.label_axes(axes, "Mean speeds", "metres per second", "people (number)")
    style.add_legend(axes)


def panel_heat(axes: Axes, analysis: ClipAnalysis, frame: Frame) -> None:
    """Draw where feet stood for how long, over a frame."""
    _ground(axes, analysis, frame)
    # Seconds per square metre would need the ground; a cell of the frame serves everybody.
    warm = _blurred(analysis.heat)
    if warm.max() > 0:
        shown = np.ma.masked_less(warm, 0.02 * warm.max())
        height, width = (CELL * side for side in warm.shape)
        image = axes.imshow(
            shown, cmap="inferno", alpha=0.7, extent=(0, width, height, 0), norm="log"
        )
        label = f"seconds per {CELL} × {CELL} pixels"
        look: dict[str, Any] = {"location": "bottom", "shrink": 0.7, "aspect": 40, "pad": 0.02}
        axes.figure.colorbar(image, ax=axes, label=label, format="%g", **look)
    axes.set_title("Where people stand")


def panel_ways(axes: Axes, analysis: ClipAnalysis, frame: Frame) -> None:
    """Draw the way of each person, lines and zones, over a frame."""
    _ground(axes, analysis, frame)
    colors = itertools.cycle(color for color, _ in style.LOOKS)
    drawn = list(zip(analysis.ways, colors, strict=False))
    thin = 1.4 if len(drawn) <= 50 else 0.5
    axes.add_collection(
        LineCollection(
            [way for way, _ in drawn], colors=[c for _, c in drawn], linewidths=thin, alpha=0.8
        )
    )
    if drawn:  # one collection: three hundred lines take a second to draw
        ends = np.array([way[-1] for way, _ in drawn])
        x, y = ends.T
        axes.scatter(x, y, s=(2.5 * thin) ** 2, c=[c for _, c in drawn], zorder=3)
    some = "" if len(drawn) == len(analysis.people) else f"first {len(drawn)} of the "
    axes.set_title(f"The ways of the {some}{len(analysis.people)} people; a dot is the end")
    for zone in analysis.areas.zones:
        axes.fill(*zone.points.T, facecolor="none", edgecolor="white", linestyle=":")
    for line in analysis.areas.lines:
        axes.plot(*line.points.T, color="white", linewidth=2)
    places = [(line.name, line.points[0]) for line in analysis.areas.lines]
    places += [
        (zone.name, zone.points[zone.points[:, 1].argmin()]) for zone in analysis.areas.zones
    ]
    look = {"boxstyle": "round,pad=0.2", "facecolor": "black", "alpha": 0.6, "linewidth": 0}
    for name, (x, y) in places:
        text = one_line(name, 24)
        axes.text(x, y, text, color="white", fontsize=7, va="bottom", bbox=look, clip_on=True)


def _ground(axes: Axes, analysis: ClipAnalysis, frame: Frame) -> None:
    """Show the frame, dimmed and without its colours, or a plain grey one."""
    width, height = analysis.header.width, analysis.header.height
    if frame is None:
        frame = np.full((1, 1, 3), 130, np.uint8)
    grey = frame.mean(axis=2) * 0.6 + 40
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal", xticks=[], yticks=[])
    axes.grid(visible=False)


def _blurred(heat: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the heat, (rows, columns), each cell spread over its surroundings by a Gaussian."""
    reach = int(3 * _SPREAD)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _SPREAD) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        rows = np.moveaxis(heat, axis, -1)
        wide = np.array([np.convolve(row, weights) for row in rows])
        heat = np.moveaxis(wide[:, reach:-reach], -1, axis)
    return heat

"""The report on a dataset as one page of figures, A4 across, for the screen and for paper.

Splits differ in colour (Okabe and Ito, as in `persondet.report.plots`) and in hatching, so that a
grey print reads as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from persondet.errors import MediaError
from persondet.files import atomic_path
from persondet.report.plots import style
from persondet.text import one_line

FloatArray = npt.NDArray[np.float64]
# A square anchor of side a meets square boxes of side a/√2 to a·√2 with an IoU of 0.5 or more.
REACH = 2**0.5
A4 = (11.69, 8.27)  # inches
FORMATS = {".png": "png", ".pdf": "pdf"}
_SPLITS = {
    "train": (style.BLUE, ""),
    "valid": (style.VERMILION, "////"),
    "test": (style.GREEN, "...."),
}
_CLASSES, _NAME, _PEOPLE, _SIZES = 9, 22, 12, 7
_MASKS = {"polygon": "polygons", "rle": "RLE", "empty": "box only", "other": "faulty"}
_STYLE = {
    "font.size": 8.5,
    "axes.titlesize": 10,
    "legend.fontsize": 8,
    "hatch.linewidth": 0.6,
    "pdf.fonttype": 42,
}


def write_dataset_page(
    report: Mapping[str, Any], path: str | Path, *, anchors: Mapping[str, Any] | None = None
) -> None:
    """Draw a dataset's numbers as one page and write it as PNG or PDF, whole or not at all.

    Args:
        report: the report on a dataset, as the json of `check`.
        path: a name that ends in `.png` or `.pdf`.
        anchors: what the boxes are held against: `sizes` (sides of the anchors in pixels),
            `shortest_edge` and `longest_edge` (to which training resizes, pixels; 0: it does not).
            None: the boxes are shown in the pixels of the stored images.

    Raises: MediaError: when `path` has another ending.
    """
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise MediaError(f"{path}: the page is written as .png or .pdf; choose one of them.")
    metadata = {"Software": None} if kind == "png" else {"CreationDate": None}
    with style.drawing(_STYLE):
        figure = _page(report, anchors)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=kind, metadata=metadata)


def _page(report: Mapping[str, Any], anchors: Mapping[str, Any] | None) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, hspace=0.04, wspace=0.03)
    figure = Figure(figsize=A4, layout=layout)
    FigureCanvasAgg(figure)
    statistics = report["statistics"]
    images = sum(part["images"] for part in statistics["splits"].values())
    objects = sum(part["annotations"] for part in statistics["splits"].values())
    found = f"kinds of errors: {report['errors']}, of warnings: {report['warnings']}"
    name = one_line(Path(report["folder"]).name, 26) if report.get("folder") else ""
    title = f"{name or 'dataset'}: {images} images, {objects} objects — {found}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    splits = [Patch(label=split, **_look(split)) for split in statistics["splits"]]
    figure.legend(handles=splits, loc="upper right", ncols=3)
    rows: Any = figure.subfigures(2, 1, height_ratios=(1.1, 1))
    upper, lower = rows
    classes, people, sizes = upper.subplots(1, 3, width_ratios=(1.25, 1, 1))
    _draw_classes(classes, statistics)
    _draw_people(people, statistics)
    _draw_image_sizes(sizes, statistics)
    wide, narrow = lower.subfigures(1, 2, width_ratios=(2.1, 1))
    _draw_box_sizes(wide.subplots(), statistics, anchors)
    masks, leaks = narrow.subplots(2, 1)
    _draw_masks(masks, statistics["masks"])
    _draw_leaks(leaks, report["leaks"] if len(report["splits"]) > 1 else {})
    return figure


def _draw_classes(axes: Axes, statistics: Mapping[str, Any]) -> None:
    """Draw the objects of each split, by class: one bar per split."""
    entries = [(one_line(e["name"], _NAME), e["boxes"]) for e in statistics["classes"]]
    rest = entries[_CLASSES:]
    if len(rest) > 1:
        sums = {s: sum(boxes.get(s, 0) for _, boxes in rest) for s in statistics["splits"]}
        entries = [*entries[:_CLASSES], (f"{len(rest)} more classes", sums)]
    bars = [
        (split, [boxes.get(split, 0) for _, boxes in entries]) for split in statistics["splits"]
    ]
    _bars(axes, [name for name, _ in entries], bars)
    style.label_axes(axes, "Objects by class", "objects (number)", "")
    most = max((value for _, values in bars for value in values), default=0)
    axes.set_xlim(0, max(1, most) * 1.18)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def _draw_people(axes: Axes, statistics: Mapping[str, Any]) -> None:
    """Draw how many objects the images of each split show, in percent of its images."""
    splits = statistics["splits"]
    pairs = {split: part["per_image"]["histogram"] for split, part in splits.items()}
    most = max((count for histogram in pairs.values() for count, _ in histogram), default=0)
    step = -(-(most + 1) // (_PEOPLE + 1))  # objects per bar; 0 keeps a bar of its own
    last = -(-most // step)
    names = ["0"] + [
        f"{step * (i - 1) + 1}" if step == 1 else f"{step * (i - 1) + 1}–{step * i}"
        for i in range(1, last + 1)
    ]
    width = 0.8 / max(1, len(pairs))
    for index, (split, histogram) in enumerate(pairs.items()):
        heights = np.zeros(last + 1)
        for count, images in histogram:
            heights[-(-count // step)] += images
        share = 100 * heights / max(1.0, heights.sum())
        places = np.arange(last + 1) + (index - (len(pairs) - 1) / 2) * width
        axes.bar(places, share, width, label=split, **_look(split))
    axes.set_xticks(range(last + 1), names, rotation=90 if step > 1 else 0)
    style.label_axes(
        axes, "Objects per image", "objects in an image (number)", "images of the split (%)"
    )
    axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
    axes.grid(axis="x", visible=False)


def _draw_image_sizes(axes: Axes, statistics: Mapping[str, Any]) -> None:
    """Draw the most frequent image sizes as bars, or all known ones as points when many."""
    sizes = statistics["image_sizes"]
    if statistics["image_sizes_total"] <= _SIZES:
        names = [f"{s['width']} × {s['height']}" for s in sizes]
        _bars(axes, names, [("", [s["images"] for s in sizes])])
        style.label_axes(axes, "Image sizes", "images (number)", "width × height (pixels)")
        axes.set_xlim(0, max([1, *(s["images"] for s in sizes)]) * 1.18)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        return
    counts = np.array([s["images"] for s in sizes], np.float64)
    area = 15 + 300 * counts / counts.max()
    x, y = [s["width"] for s in sizes], [s["height"] for s in sizes]
    axes.scatter(x, y, area, color=style.BLUE, alpha=0.55, edgecolors=style.BLACK, linewidths=0.5)
    axes.set(xlim=(0, max(x) * 1.12), ylim=(0, max(y) * 1.12))
    total = statistics["image_sizes_total"]
    title = f"Image sizes (the {len(sizes)} most frequent)"
    title = title if len(sizes) < total else f"Image sizes ({total})"
    style.label_axes(axes, title, "width (pixels)", "height (pixels); area of a dot: images")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))


def _draw_box_sizes(
    axes: Axes, statistics: Mapping[str, Any], anchors: Mapping[str, Any] | None
) -> None:
    """Draw √area of the boxes as training sees them, over the sides of the anchors."""
    sample = statistics["box_sample"]
    sides = np.array(sample["side"], np.float64)
    sizes = sorted(float(size) for size in anchors["sizes"]) if anchors else []
    title, scale = "Box sizes in the stored images", "in the stored image"
    if anchors:
        width, height = (np.array(sample[key], np.float64) for key in ("width", "height"))
        shortest, longest = float(anchors["shortest_edge"]), float(anchors["longest_edge"])
        sides = sides * training_scale(width, height, shortest, longest)
        title, scale = "Box sizes against the anchors", "after the resizing of training"
    label = f"√area of the box {scale} (pixels, logarithmic scale)"
    if not len(sides):
        axes.set_title(title)
        style.hide(axes, "no valid box")
        return
    shown = np.concatenate([sides, np.array(sizes) * REACH, np.array(sizes) / REACH])
    low, high = np.floor(np.log2(max(1.0, shown.min()))), np.ceil(np.log2(max(2.0, shown.max())))
    edges = 2 ** np.arange(low, high + 0.01, 0.25)
    counts, _ = np.histogram(np.clip(sides, edges[0], edges[-1]), edges)
    share = 100 * counts / len(sides)
    axes.bar(edges[:-1], share, np.diff(edges), align="edge", color=style.BLUE, edgecolor="white")
    axes.set_xscale("log", base=2)
    ticks = (2 ** np.arange(low, high + 1)).tolist()
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, share.max() * 1.3))
    for size in sizes:
        axes.axvline(size, color=style.VERMILION, linestyle="--", linewidth=1.3)
        axes.text(
            size, share.max() * 1.29, f" {size:g}", color=style.VERMILION, va="top", fontsize=8
        )
    if sizes:
        label += "\ndashed: sides of the anchors; shaded: boxes that they meet with an IoU of 0.5"
        title += f" ({reach_in_words(sides, sizes)})"
        axes.axvspan(
            sizes[0] / REACH,
            sizes[-1] * REACH,
            color=style.VERMILION,
            alpha=0.08,
            linewidth=0,
            zorder=0,
        )
    style.label_axes(axes, title, label, "boxes (%)")


def _draw_masks(axes: Axes, masks: Mapping[str, int]) -> None:
    """Draw the kinds of masks as shares of all annotations."""
    kinds = [kind for kind in _MASKS if masks[kind]] or ["polygon"]
    total = max(1, sum(masks.values()))
    bars = [(_MASKS[kind], masks[kind] / total, f"{masks[kind]}") for kind in kinds]
    _shares(axes, bars, style.PURPLE)
    style.label_axes(axes, "Masks", "objects (%)", "")


def _draw_leaks(axes: Axes, leaks: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw the share of each held-out split that training knows already."""
    bars = []
    for split, leak in ((split, leaks[split]) for split in ("test", "valid") if split in leaks):
        clips = leak.get("clip_mates", 0)
        text = f"{leak['leaked']} of {leak['images']}" + (
            f"; {clips} share a clip" if clips else ""
        )
        bars.append((split, leak["leaked"] / max(1, leak["images"]), text))
    if not bars:
        style.hide(axes, "no two splits to compare")
    _shares(axes, bars, style.VERMILION)
    style.label_axes(axes, "Leaks between splits", "images known from a split that learns (%)", "")


def _shares(axes: Axes, bars: Sequence[tuple[str, float, str]], color: str) -> None:
    """Draw a bar for each (name, share, text), with the text beside it or in it."""
    axes.barh([name for name, *_ in bars], [100 * share for _, share, _ in bars], 0.6, color=color)
    for place, (_, share, text) in enumerate(bars):
        inside = share > 0.55 and len(text) > 8
        look: Any = (
            {"ha": "right", "color": "white"} if inside else {"ha": "left", "color": style.BLACK}
        )
        axes.text(100 * share, place, f" {text} ", va="center", fontsize=8, **look)
    _ranked(axes, len(bars), 2)
    axes.set_xlim(0, 118)
    axes.set_xticks(range(0, 101, 25))


def _bars(axes: Axes, names: Sequence[str], bars: Sequence[tuple[str, Sequence[int]]]) -> None:
    """Draw horizontal bars: a group per name from top to bottom, in it one bar per split."""
    height = 0.8 / max(1, len(bars))
    for index, (split, values) in enumerate(bars):
        places = np.arange(len(names)) + (index - (len(bars) - 1) / 2) * height
        drawn = axes.barh(places, values, height, label=split, **_look(split))
        size = 8 if len(names) * len(bars) <= 20 else 6
        axes.bar_label(drawn, [f" {value}" for value in values], fontsize=size)
    axes.set_yticks(range(len(names)), names)
    _ranked(axes, len(names), 3)


def _ranked(axes: Axes, count: int, least: int) -> None:
    """Put the first bar on top, and keep few bars from growing thick."""
    room = max(count, least)
    middle = (count - 1) / 2
    axes.set_ylim(middle + room / 2, middle - room / 2)
    axes.grid(axis="y", visible=False)


def _look(split: str) -> dict[str, Any]:
    color, hatch = _SPLITS.get(split, (style.BLUE, ""))
    return {"facecolor": color, "hatch": hatch, "edgecolor": "white", "linewidth": 0.4}


def training_scale(
    width: FloatArray, height: FloatArray, shortest_edge: float, longest_edge: float
) -> FloatArray:
    """Return by how much training enlarges images, as Detectron2's `ResizeShortestEdge`.

    Args:
        width, height: of the images, pixels, (N,), above 0.
        shortest_edge: what the shorter edge becomes, pixels; 0: images are not resized.
        longest_edge: what the longer edge is at most, pixels; 0: there is no limit.

    Returns: float64, (N,).
    """
    if not shortest_edge:
        return np.ones(len(width))
    scale = shortest_edge / np.minimum(width, height)
    return np.minimum(scale, longest_edge / np.maximum(width, height)) if longest_edge else scale


def reach_in_words(sides: FloatArray, sizes: Sequence[float]) -> str:
    """Say which share of boxes is too small or too large for the anchors.

    Args:
        sides: √area of the boxes, pixels, (N,), N > 0.
        sizes: sides of the anchors, pixels, at least one.
    """
    low, high = min(sizes) / REACH, max(sizes) * REACH
    under, over = float((sides < low).mean()), float((sides > high).mean())
    if not under and not over:
        return "every box is within their reach"
    parts = [f"{_percent(under)} too small, under {low:.0f} px"] if under else []
    parts += [f"{_percent(over)} too large, over {high:.0f} px"] if over else []
    return "; ".join(parts)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"

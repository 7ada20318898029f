"""The lines that the benchmarks end with: what was measured, the ratio, its spread, the goal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BASELINES: Mapping[str, str] = {
    "dataset": "dataset.py",
    "train": "stock_train.py",
    "mapper": "stock_mapper.py",
    "startup": "stock_startup.py",
    "evaluate": "stock_evaluate.py",
    "video": "stock_video.py",
}
"""Mode to the file, beside this one, that holds what it is measured against."""

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: the work, and what it is measured against.
        figures: the statistics of `PairedTimes`, or `ratio` alone.
        goal: what the ratio should be at least, or at most; 0: none is set.
        absolute: the numbers behind the ratio, ours first.
        at_most: the ratio is of a cost.
    """

    what: str
    figures: Result
    goal: float
    absolute: str
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the median reaches the goal."""
        ratio = float(self.figures["ratio"])
        return ratio <= self.goal if self.at_most else ratio >= self.goal

    def __str__(self) -> str:
        """Return the line."""
        spread = ""
        if "low" in self.figures:
            spread = f" ({self.figures['low']:.2f} to {self.figures['high']:.2f})"
        goal = ""
        if self.goal:
            bound = "at most" if self.at_most else "at least"
            digits = 1 if round(self.goal, 1) == self.goal else 2
            goal = f", goal {bound} {self.goal:.{digits}f}: {'met' if self.met else 'missed'}"
        return f"{self.what}: {self.figures['ratio']:.2f} x{spread}{goal}; {self.absolute}"


def baseline(mode: str) -> str:
    """Return the source of what a mode is measured against."""
    return (Path(__file__).parent / BASELINES[mode]).read_text(encoding="utf-8")


def lines_of(mode: str, found: Result) -> list[str]:
    """Return the lines of what the benchmark of `mode` returned."""
    if mode == "dataset":
        return _dataset_lines(found)
    if mode == "video":
        return [str(row) for row in _video_rows(found)] + [_growth_line(found["memory"])]
    rows = {
        "train": _train_rows,
        "mapper": _mapper_rows,
        "startup": _startup_rows,
        "evaluate": _evaluate_rows,
    }[mode](found)
    return [str(row) for row in rows]


def _train_rows(found: Result) -> list[Row]:
    rows = found["rows"]
    gpu = str(found["device"]) != "cpu"
    default, exact, saved = rows["default"], rows["float32"], rows["saved"]
    ours, stock = exact["losses"]["ours"], exact["losses"]["stock"]
    apart = max(abs(ours[name] - stock[name]) / max(abs(stock[name]), 1e-9) for name in stock)
    return [
        Row(
            f"training step, default settings ({default['dtype']}), against stock in float32",
            default,
            1.5 if gpu else 2.0,
            _seconds(default),
        ),
        Row(
            "training step, float32, against the same",
            exact,
            0.0 if gpu else 1.2,
            f"{_seconds(exact)}, losses within {100 * apart:.2f} %",
        ),
        Row(
            "bytes saved for backward, default settings",
            saved,
            0.6,
            f"{saved['ours'] / 1e6:.0f} MB against {saved['stock'] / 1e6:.0f} MB",
            at_most=True,
        ),
    ]


def _mapper_rows(found: Result) -> list[Row]:
    rows = []
    for name, what, goal in (
        ("street", "mapper, street pipeline, against rasterised masks", 3.5),
        ("geometry", "mapper, flip and affine, against rasterised masks", 3.5),
        ("flip", "mapper, resize and flip, against stock DatasetMapper", 1.6),
    ):
        one = found[name]
        absolute = (
            f"{one['first_images_per_second']:.1f} against "
            f"{one['second_images_per_second']:.1f} images per second and core"
        )
        if "boundary_mean" in one:
            absolute += (
                f", outlines {one['boundary_mean']:.2f} px apart on average, "
                f"{100 * one['boundary_within_1']:.0f} % within 1 px"
            )
        rows.append(Row(what, one, goal, absolute))
    return rows


def _startup_rows(found: Result) -> list[Row]:
    return [
        Row(f"command to first step, {what}", found[name], goal, _seconds(found[name]))
        for name, what, goal in (
            ("small", "a small model on small pictures", 1.3),
            ("default", "the default model on pictures of 800 px", 1.3),
        )
        if name in found
    ]


def _evaluate_rows(found: Result) -> list[Row]:
    images, masks = found["images"], found["masks_per_image"]
    memory = found["memory"]
    what = f"{images} images with {masks} masks each"
    apart = found["apart"]
    return [
        Row(
            f"process() and evaluate(), {what}, against COCOEvaluator with pycocotools",
            found["both"],
            3.0,
            f"{_seconds(found['both'])}, scores within {apart:.1g} points",
        ),
        Row(
            "evaluate() alone, with intervals", found["evaluate"], 2.5, _seconds(found["evaluate"])
        ),
        Row(
            "from the mask head's output to COCO's code",
            found["encode"],
            0.0,
            f"{_seconds(found['encode'])} for {found['encoded_images']} images",
        ),
        Row(
            f"memory that grows over {images} images",
            memory,
            0.25,
            f"{memory['ours']:.0f} MB against {memory['stock']:.0f} MB",
            at_most=True,
        ),
    ]


def _video_rows(found: Result) -> list[Row]:
    people = found["people"]
    rows = [
        Row(
            f"paste and draw, 1280 x 720, {people} people, against VideoVisualizer",
            found["draw"],
            35.0,
            _each_frame(found["draw"]),
        ),
        Row(
            "whole clip with a simulated model of 15 ms, H.264, against the serial way",
            found["simulated"],
            12.0,
            _each_frame(found["simulated"]),
        ),
    ]
    for name, goal in (("exact", 0.0), ("default", 3.0)):
        if one := found.get(name):
            rows.append(
                Row(
                    f"whole clip with the trained model ({one['dtype']}, {one['cores']} cores), "
                    "against the serial way",
                    one,
                    goal,
                    f"{_each_frame(one)}, {100 * one['matched']:.1f} % of the people on both, "
                    f"boxes within {one['box_apart']:.2f} px, scores within "
                    f"{one['score_apart']:.3f}",
                )
            )
    if one := found.get("gpu"):
        absolute = _each_frame(
            {**one, "first_seconds": one["second_seconds"], "second_seconds": one["first_seconds"]}
        )
        rows.append(
            Row("whole clip over the model alone, on a GPU", one, 1.15, absolute, at_most=True)
        )
    return rows


def _growth_line(memory: Result) -> str:
    grown, goal = memory["grown_mb"], 20.0
    return (
        f"memory growth from frame {memory['from']} to {memory['to']}: {grown:.1f} MB, goal at "
        f"most {goal:.0f} MB: {'met' if grown <= goal else 'missed'}"
    )


def _each_frame(figures: Result) -> str:
    ours, stock = (
        1000 * sorted(figures[key])[len(figures[key]) // 2] / figures["frames"]
        for key in ("first_seconds", "second_seconds")
    )
    return f"{ours:.1f} ms against {stock:.1f} ms per frame"


def _dataset_lines(found: Result) -> list[str]:
    check, mending, leaks = found["check"], found["json"], found["leaks"]
    absolute = (
        f"{check['check_images_per_second']:.0f} against "
        f"{check['decode_images_per_second']:.0f} images per second"
    )
    return [
        str(Row("check, against a bare parallel cv2.imread", check, 0.0, absolute)),
        f"json: {mending['annotations']} annotations read, cleaned and written in "
        f"{mending['seconds']:.1f} s with at most {mending['peak_mb']:.0f} MB",
        f"leaks: {leaks['hashes']} hashes searched in {leaks['seconds']:.1f} s",
    ]


def _seconds(figures: Result) -> str:
    ours, stock = (sorted(figures[key]) for key in ("first_seconds", "second_seconds"))
    return f"{ours[len(ours) // 2]:.2f} s against {stock[len(stock) // 2]:.2f} s"

"""`metrics.json`, the event log of a run: one series per scalar, and which scalars belong together.

Detectron2 appends a JSON object per line. After a resume the iterations go backwards, rows lack
keys, `NaN` appears where the loss diverged, and a killed run leaves half a line.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from persondet.report.wording import one_line
from persondet.results import TASKS, RunError

FILE_NAME = "metrics.json"
_OF_TRAINING = ("total_loss", "lr", "time")  # written after a step, never by an evaluation
COMPONENT_TITLES = {
    "loss_rpn_cls": "proposals: object or not",
    "loss_rpn_loc": "proposals: place",
    "loss_cls": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
}
_DRAWN = ("AP", "AP50")  # what the figure of average precision shows
logger = logging.getLogger(__name__)


class Series(NamedTuple):
    """One scalar over the run: `iterations` int64 (N,), increasing; `values` float64 (N,)."""

    iterations: np.ndarray
    values: np.ndarray

    def finite(self) -> Series:
        """Return the series without its NaN and infinite values."""
        keep = np.isfinite(self.values)
        return Series(self.iterations[keep], self.values[keep])

    def best(self, mode: str = "max") -> tuple[int, float] | None:
        """Return (iteration, value) of the largest or smallest finite value, the last of equals:
        of two equal models the one that has seen more is kept.

        `mode` is "max" or "min"; None when no value is finite.
        """
        iterations, values = self.finite()
        if not len(values):
            return None
        backwards = values[::-1]
        index = len(values) - 1
        index -= int(np.argmax(backwards) if mode == "max" else np.argmin(backwards))
        return int(iterations[index]), float(values[index])


@dataclass(frozen=True)
class Events:
    """The scalars of a run by name, as Detectron2 names them (`total_loss`, `val/total_loss`).

    `restarts` are the iterations at which a resume went back, and `unreadable_lines` counts the
    lines that were skipped.
    """

    path: Path
    series: dict[str, Series]
    restarts: tuple[int, ...] = field(default=())
    unreadable_lines: int = 0

    def __contains__(self, name: object) -> bool:
        return name in self.series

    def __getitem__(self, name: str) -> Series:
        return self.series[name]

    @property
    def last_iteration(self) -> int:
        """The largest iteration of any scalar; -1 when there is none."""
        return max((int(series.iterations[-1]) for series in self.series.values()), default=-1)

    @property
    def last_step(self) -> int:
        """How many steps were done when the last training row was written; 0 when there is none."""
        trained = [self.series[name] for name in _OF_TRAINING if name in self.series]
        if not trained:
            return self.last_iteration + 1
        return max(int(series.iterations[-1]) for series in trained) + 1

    def steps(self, series: Series) -> np.ndarray:
        """Return how many steps were done when each value of `series` was taken: int64, (N,).

        Iterations count from 0. What is scored when the training has ended stands one iteration
        behind the last step, in a row of its own.
        """
        steps: np.ndarray = series.iterations + 1
        ended = max(self.last_step, 1)
        return np.where(steps == ended + 1, ended, steps)

    def names(self, prefix: str = "") -> list[str]:
        """Return the names of the scalars that begin with `prefix`, sorted."""
        return sorted(name for name in self.series if name.startswith(prefix))

    def finite(self, name: str) -> Series | None:
        """Return the finite part of scalar `name`; None when that is missing or empty."""
        series = self.series.get(name)
        finite = series.finite() if series is not None else None
        return finite if finite is not None and len(finite.values) else None


def load_events(run_dir: str | Path) -> Events:
    """Return the scalars of `run_dir/metrics.json`.

    When iterations go backwards (a resume, or an older run in the same file), or one comes again
    with another loss of the training, the rows from that iteration on are superseded and dropped,
    also those that the later run did not reach. Several rows of one iteration are joined, the last
    value of a key wins. NaN stays NaN.

    Raises: RunError: when the file is missing, cannot be read, or holds no row.

    Example:
        >>> events = load_events("output/person")
        >>> events["total_loss"].values[-1]
        np.float64(0.5)
    """
    path = Path(run_dir) / FILE_NAME
    rows: dict[int, dict[str, float]] = {}
    restarts: list[int] = []
    unreadable = 0
    newest = -1
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if not line.strip():
                    continue
                parsed = list(_rows_of_line(line))
                unreadable += not parsed
                for iteration, scalars in parsed:
                    again = rows.get(iteration, {}) if iteration == newest else {}
                    # A step is logged once: its second row is of another start.
                    if iteration < newest or any(k in again and k in scalars for k in _OF_TRAINING):
                        restarts.append(iteration)
                        rows = {k: row for k, row in rows.items() if k < iteration}
                    rows.setdefault(iteration, {}).update(scalars)
                    newest = iteration
    except OSError as error:
        raise RunError(
            f"{path} cannot be read ({error.strerror or error}); give the OUTPUT_DIR of a training."
        ) from None
    if not rows:
        raise RunError(
            f"{path} holds no row yet; wait for the first LOG_PERIOD iterations of the training."
        )
    if unreadable:
        logger.warning("%s: %d unreadable lines were skipped", path, unreadable)
    return Events(path, _series_of_rows(rows), tuple(restarts), unreadable)


def _rows_of_line(line: str) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield (iteration, scalars) of one line; nothing when it cannot be read.

    Rows are flat objects, so the last brace of a line begins a row: that finds the row that a
    resumed run appended to half a line of the run that was killed.
    """
    for text in (line, line[max(line.rfind("{"), 0) :]):
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            continue
        iteration = row.get("iteration") if isinstance(row, dict) else None
        if _is_number(iteration) and float(iteration).is_integer() and 0 <= iteration < 2**53:
            yield (
                int(iteration),
                {
                    key: math.nan if value is None else float(value)
                    for key, value in row.items()
                    if key != "iteration" and (value is None or _is_number(value))
                },
            )
        return


def _is_number(value: Any) -> TypeGuard[float]:
    """Return whether `value` is a number that fits a float (True and False are none)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) < 2**1023


def _series_of_rows(rows: dict[int, dict[str, float]]) -> dict[str, Series]:
    """Return the columns of `rows`, which are in order: per key its iterations and values."""
    columns: dict[str, tuple[list[int], list[float]]] = {}
    for iteration, scalars in rows.items():
        for key, value in scalars.items():
            iterations, values = columns.setdefault(key, ([], []))
            iterations.append(iteration)
            values.append(value)
    return {
        key: Series(np.array(iterations, dtype=np.int64), np.array(values, dtype=np.float64))
        for key, (iterations, values) in sorted(columns.items())
    }


class BestModel(NamedTuple):
    """The model that the validation split chose.

    step: steps done; text: its score in words; value: the score; drawn: whether that is an AP or
    AP50, which the figure of average precision shows.
    """

    step: int
    text: str
    value: float
    drawn: bool


def loss_components(events: Events) -> list[str]:
    """Return the names of the losses with a finite value, in the order of the model's stages."""
    found = {
        last
        for name in events.names()
        if (last := name.rpartition("/")[2]).startswith("loss_") and events.finite(name)
    }
    order = list(COMPONENT_TITLES)
    return sorted(found, key=lambda n: (order.index(n) if n in order else len(order), n))


def validation_twins(events: Events, name: str) -> list[tuple[str, Series]]:
    """Return (dataset, finite series) of scalar `name` on each validation set.

    With one set the twin of `x` is `val/x`, and `dataset` is empty; with several `val/<set>/x`.
    """
    return [
        (twin.removeprefix("val/").removesuffix(name).rstrip("/"), series)
        for twin in events.names("val/")
        if twin.endswith(f"/{name}") and (series := events.finite(twin)) is not None
    ]


def average_precisions(events: Events, task: str, metric: str) -> list[tuple[str, str, Series]]:
    """Return (scalar, dataset, finite series) of an AP on each validation set.

    With one set the scalar is `segm/AP`, and `dataset` is empty; with several `<set>/segm/AP`.
    """
    end = f"{task}/{metric}"
    return [
        (name, name.removesuffix(end).rstrip("/"), series)
        for name in events.names()
        if name == end or name.endswith(f"/{end}")
        if (series := events.finite(name)) is not None
    ]


def best_model(events: Events, metric: str, iteration: int | None) -> BestModel | None:
    """Return the best model by the validation split; None when nothing was scored there.

    Args:
        events: the scalars of the run.
        metric: the scalar that chose the model; empty: mask AP, else box AP.
        iteration: the iteration of the model, for a scalar that is no AP; None: unknown.
    """
    series = events.finite(metric) if metric else None
    if series is None:
        scored = (average_precisions(events, task, "AP") for task in reversed(TASKS))
        metric, _, series = next((found[0] for found in scored if found), ("", "", None))
    if series is None:
        return None
    steps = events.steps(series)
    *_, task, name = ["", *metric.split("/")]
    if task in TASKS and name.startswith("AP"):
        best = series.best()
        index = int(np.flatnonzero(series.iterations == best[0])[0]) if best else -1
        text = f"{TASKS[task]} {name} {series.values[index]:.1f}"
    elif iteration is None:
        return None
    else:
        index = int(np.argmin(np.abs(steps - (iteration + 1))))
        name, text = "", f"{one_line(metric)} {series.values[index]:.4g}"
    return BestModel(int(steps[index]), text, float(series.values[index]), name in _DRAWN)


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Return the centred moving average of `values`: float64, (N,), NaN where nothing is known.

    Args:
        values: float64, (N,), N of at least `window`; NaN does not count in a mean.
        window: number of values, odd; at both ends only the half that exists counts.
    """
    known = np.isfinite(values)
    kernel = np.ones(window)
    total = np.convolve(np.where(known, values, 0.0), kernel, "same")
    count = np.convolve(known, kernel, "same")
    return np.where(known, total / np.maximum(count, 1), np.nan)


def smoothing_window(count: int) -> int:
    """Return the odd window that suits `count` values: 1 (nothing) below 40, else about 1/20."""
    return 1 if count < 40 else 2 * (count // 40) + 1

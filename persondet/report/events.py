"""`metrics.json`, the event log of a run: one series per scalar, and which scalars belong together.

Detectron2 appends a JSON object per line. After a resume the iterations go backwards, rows lack
keys, `NaN` appears where the loss diverged, and a killed run leaves half a line.
"""

from __future__ import annotations

import json
import logging
import math
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from persondet.report.facts import one_line
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
                row = _row_of_line(line)
                if row is None:
                    unreadable += 1
                    continue
                iteration, scalars = row
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


def _row_of_line(line: str) -> tuple[int, dict[str, float]] | None:
    """Return (iteration, scalars) of one line; None when it cannot be read.

    Rows are flat objects, so the last brace of a line begins a row: that finds the row that a
    resumed run appended to half a line of the run that was killed.
    """
    for text in (line, line[max(line.rfind("{"), 0) :]):
        with suppress(ValueError, RecursionError):
            row = json.loads(text)
            break
    else:
        return None
    iteration = row.get("iteration") if isinstance(row, dict) else None
    if not (_is_number(iteration) and 0 <= iteration < 2**53 and float(iteration).is_integer()):
        return None
    scalars = {key: math.nan if value is None else value for key, value in row.items()}
    del scalars["iteration"]
    return int(iteration), {key: float(v) for key, v in scalars.items() if _is_number(v)}


def _is_number(value: Any) -> TypeGuard[float]:
    """Return whether `value` is a number that fits a float (True and False are none)."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and (isinstance(value, float) or abs(value) < 2**1023)


def _series_of_rows(rows: dict[int, dict[str, float]]) -> dict[str, Series]:
    """Return the columns of `rows`, which are in order: per key its iterations and values."""
    columns: dict[str, list[tuple[int, float]]] = {}
    for iteration, scalars in rows.items():
        for key, value in scalars.items():
            columns.setdefault(key, []).append((iteration, value))
    return {
        key: Series(np.array([i for i, _ in column]), np.array([v for _, v in column]))
        for key, column in sorted(columns.items())
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
    return sorted(found, key=component_order)


def component_order(name: str) -> tuple[int, str]:
    """Return the place of a loss in the order of the model's stages, unknown ones last."""
    order = [*COMPONENT_TITLES, name]
    return order.index(name), name


def component_title(name: str) -> str:
    """Return the title of the panel of a loss."""
    known, shown = COMPONENT_TITLES.get(name), one_line(name, 30)
    return f"{known}\n{shown}" if known else shown


def validation_series(events: Events, name: str, prefix: str = "") -> list[tuple[str, Series]]:
    """Return (dataset, finite series) of scalar `name` on each validation set.

    With one set the scalar is called `segm/AP`, and `dataset` is empty; with several
    `<set>/segm/AP`. The losses have a `prefix`: the twin of `x` is `val/x`.
    """
    found = {scalar.removeprefix(prefix): scalar for scalar in events.names(prefix)}
    return [
        (rest.removesuffix(name).rstrip("/"), series)
        for rest, scalar in found.items()
        if rest == name or rest.endswith(f"/{name}")
        if (series := events.finite(scalar)) is not None
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
        scored = {
            f"{task}/AP": validation_series(events, f"{task}/AP") for task in ("segm", "bbox")
        }
        metric, series = next(
            ((m, found[0][1]) for m, found in scored.items() if found), ("", None)
        )
    if series is None:
        return None
    steps = events.steps(series)
    *_, task, name = ["", *metric.split("/")]
    if task in TASKS and name.startswith("AP"):
        # Of equals the last: of two equal models the one that has seen more is kept.
        index = len(steps) - 1 - int(np.argmax(series.values[::-1]))
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

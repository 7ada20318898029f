"""Which scalars of a run belong together: parts of the loss, validation twins, the best model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from persondet.report.events import Events, Series
from persondet.report.names import one_line
from persondet.report.run_data import RunData
from persondet.results import TASKS

COMPONENT_TITLES = {
    "loss_rpn_cls": "proposals: object or not",
    "loss_rpn_loc": "proposals: place",
    "loss_cls": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
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


def chosen_scalar(run: RunData) -> tuple[str, Series] | None:
    """Return the AP that chose the best model: what model_best.json names, else mask or box AP."""
    series = run.events.finite(run.best_metric) if run.best_metric else None
    if series is not None:
        return run.best_metric, series
    for task in reversed(TASKS):
        for name, _, found in average_precisions(run.events, task, "AP"):
            return name, found
    return None


def best_model(run: RunData) -> BestModel | None:
    """Return the best model by the validation split; None when nothing was scored there."""
    chosen = chosen_scalar(run)
    if chosen is None:
        return None
    name, series = chosen
    steps = run.events.steps(series)
    *_, task, metric = ["", *name.split("/")]
    if task in TASKS and metric.startswith("AP"):
        best = series.best()
        index = int(np.flatnonzero(series.iterations == best[0])[0]) if best else -1
        text = f"{TASKS[task]} {metric} {series.values[index]:.1f}"
        return BestModel(int(steps[index]), text, float(series.values[index]), metric in _DRAWN)
    if run.best_iteration is None:
        return None
    index = int(np.argmin(np.abs(steps - (run.best_iteration + 1))))
    value = float(series.values[index])
    return BestModel(int(steps[index]), f"{one_line(name)} {value:.4g}", value, False)


_DRAWN = ("AP", "AP50")

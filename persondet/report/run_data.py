"""What of a run folder the plots show: read once, each part as far as it is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from persondet.report.evaluation_files import (
    Evaluation,
    number,
    read_config,
    read_evaluations,
    read_object,
    read_run_scores,
)
from persondet.report.events import Events, load_events
from persondet.report.people_counts import PeopleCounts, find_people_counts
from persondet.results import RunError

PEOPLE_NAMES = {"person", "people", "pedestrian", "human"}
NO_EVENTS = Events(Path(), {})


@dataclass(frozen=True)
class RunData:
    """A run, as far as it has come.

    Attributes:
        folder: the run folder.
        events: its scalars; without any where metrics.json cannot be used.
        problem: why metrics.json cannot be used; None: it can.
        evaluations: validation, test, then others.
        people: counts of the annotated clips.
        best_metric: scalar by which the best model was chosen; empty: unknown.
        best_iteration: iteration of that model, from 0; None: unknown.
        batch_size: images per step; 0: unknown.
        operating_point: the stored score threshold, 0 to 1; None: unknown.
        operating_task: the task that it was chosen on, "bbox" or "segm"; empty: unknown.
        objects: what is found: "people", or "objects" of several or other classes.
        results: `results.json`, completed by the evaluations of the same model; empty where
            nothing is scored.
    """

    folder: Path
    events: Events = NO_EVENTS
    problem: RunError | None = None
    evaluations: tuple[Evaluation, ...] = ()
    people: tuple[PeopleCounts, ...] = ()
    best_metric: str = ""
    best_iteration: int | None = None
    batch_size: int = 0
    operating_point: float | None = None
    operating_task: str = ""
    objects: str = "objects"
    results: dict[str, Any] = field(default_factory=dict)

    def evaluation(self, *roles: str) -> Evaluation | None:
        """Return the first evaluation of one of `roles`, which stand in order of preference."""
        return next((e for role in roles for e in self.evaluations if e.role == role), None)


def read_run(run_dir: str | Path) -> RunData:
    """Return what a run folder holds; a part that is missing or damaged is empty."""
    folder = Path(run_dir)
    events, problem = NO_EVENTS, None
    try:
        events = load_events(folder)
    except RunError as error:
        problem = error
    best = read_object(folder / "model_best.json") or {}
    scores = read_run_scores(folder)
    results = scores.results
    metric, iteration = best.get("metric"), best.get("iteration")
    point = results.get("operating_point")
    point = point if isinstance(point, dict) else {}
    threshold = number(point.get("threshold"))
    return RunData(
        folder=folder,
        events=events,
        problem=problem,
        evaluations=tuple(read_evaluations(folder, scores)),
        people=tuple(find_people_counts(folder)),
        best_metric=metric if isinstance(metric, str) else "",
        best_iteration=iteration if type(iteration) is int else None,
        batch_size=_batch_size(folder),
        operating_point=threshold if np.isfinite(threshold) else None,
        operating_task=point["task"] if point.get("task") in ("bbox", "segm") else "",
        objects=_objects(results.get("classes")),
        results=results,
    )


def _batch_size(folder: Path) -> int:
    solver = read_config(folder).get("SOLVER")
    size = solver.get("IMS_PER_BATCH") if isinstance(solver, dict) else None
    return size if type(size) is int and size > 0 else 0


def _objects(classes: Any) -> str:
    names = classes if isinstance(classes, list) else []
    people = bool(names) and {str(name).lower() for name in names} <= PEOPLE_NAMES
    return "people" if people else "objects"

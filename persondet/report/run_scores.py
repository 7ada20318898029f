"""The scores of a run: `results.json`, completed by what `--eval-only` wrote later.

An evaluation leaves `inference/<dataset>/results.json`. It counts for the run where it is of the
run's model: the checkpoint has the same digest, or, in files without one, the same name and step.
What another model scored is never mixed in; it is listed, so that a report can say so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from persondet.files import sha256_of_file
from persondet.results import FILE_NAME

BEST = "model_best.pth"
ROLES = ("valid", "test")
_DIGEST = re.compile(r"[0-9a-f]{64}")

Json = dict[str, Any]
Reader = Callable[[str], Json]  # name of a file, relative to the run folder → what it holds


@dataclass(frozen=True)
class RunModel:
    """The model that a run's scores are about.

    Attributes:
        folder: the run folder.
        file: name of the checkpoint; empty: unknown, and then any model is the run's.
        iteration: iteration of the checkpoint, from 0; None: unknown.
        digest: SHA-256 of the checkpoint by results.json; empty: not recorded.
    """

    folder: Path
    file: str = ""
    iteration: int | None = None
    digest: str = ""

    @cached_property
    def sha256(self) -> str:
        """The recorded digest, else that of the checkpoint in the run folder; empty: neither."""
        if self.digest or not self.file:
            return self.digest
        try:
            return sha256_of_file(self.folder / PurePosixPath(self.file).name)
        except (OSError, ValueError):
            return ""

    def made(self, record: Any, iteration: Any = None) -> bool:
        """Return whether a file of scores is about this model.

        Args:
            record: its field `model`: {"file", "iteration", "sha256"}; of an older version a path,
                or nothing, which counts as the run's.
            iteration: its field `iteration`, of an older version.
        """
        known = model_record(record, iteration)
        if known is None or not self.file:
            return True
        if known["sha256"] and self.sha256:
            return bool(known["sha256"] == self.sha256)
        steps = {self.iteration, known["iteration"]} - {None}
        return known["file"] == PurePosixPath(self.file).name and len(steps) < 2


@dataclass(frozen=True)
class RunScores:
    """What a run has scored.

    Attributes:
        results: `results.json`, completed: `test`, `valid`, their intervals, `operating_point`,
            `classes` and `tests`.
        model: the model that they are about.
        roles: dataset → "valid", "test", or "" for another one.
        foreign: dataset → the model, in words, of an evaluation of another model.
    """

    results: Json = field(default_factory=dict)
    model: RunModel = field(default_factory=lambda: RunModel(Path()))
    roles: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)

    def role(self, dataset: str) -> str:
        """Return what a dataset is in this run.

        By its name's ending only where neither config nor results name any dataset.
        """
        if self.roles:
            return self.roles.get(dataset, "")
        return next((role for role in ROLES if dataset.endswith(f"_{role}")), "")

    def counts(self, dataset: str, record: Any) -> bool:
        """Return whether a file under `inference/<dataset>/` is about the run's model.

        Args:
            dataset: the name of the dataset.
            record: the file's field `model`; without one it is taken for as old as its neighbour.
        """
        return dataset not in self.foreign if record is None else self.model.made(record)


def read_scores(folder: Path, read: Reader) -> RunScores:
    """Return what a run has scored; a file that is missing or damaged says nothing.

    Args:
        folder: the run folder.
        read: returns a JSON or YAML file of it, empty when it is missing or damaged.
    """
    own = read(FILE_NAME)
    roles = _roles(read("config.yaml"), own)
    found = {
        path.parent.name: read(f"inference/{path.parent.name}/{FILE_NAME}")
        for path in sorted((folder / "inference").glob(f"*/{FILE_NAME}"))
    }
    found = {name: file for name, file in found.items() if mapping(file.get("test"))}
    # Without a model of its own the folder is about the model of its first evaluation.
    order = sorted(found, key=lambda name: ("test", "valid", "").index(roles.get(name, "")))
    model = _model(folder, own, [found[name] for name in order])
    foreign = {}
    for name, file in found.items():
        if not model.made(file.get("model"), file.get("iteration")):
            foreign[name] = model_words(file.get("model"), file.get("iteration"))
    ours = {name: found[name] for name in order if name not in foreign}
    return RunScores(_completed(own, ours, roles), model, roles, foreign)


def model_record(record: Any, iteration: Any = None) -> Json | None:
    """Return {"file", "iteration", "sha256"} of a field `model`; None where it says nothing."""
    if isinstance(record, str) and record:
        record = {"file": record, "iteration": iteration}
    if not isinstance(record, dict):
        return None
    file, digest, steps = (record.get(key) for key in ("file", "sha256", "iteration"))
    file = PurePosixPath(file).name if isinstance(file, str) else ""
    digest = digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else ""
    if not file and not digest:
        return None
    return {"file": file, "iteration": steps if type(steps) is int else None, "sha256": digest}


def model_words(record: Any, iteration: Any = None) -> str:
    """Return a field `model` in words: "model_0000599.pth, after 600 steps"."""
    known = model_record(record, iteration) or {"file": "", "iteration": None}
    steps = "" if known["iteration"] is None else f", after {known['iteration'] + 1:,} steps"
    return (known["file"] or "a model without a name") + steps


def mapping(value: Any) -> Json:
    """Return a JSON object, empty for anything else."""
    return value if isinstance(value, dict) else {}


def _roles(config: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, str]:
    """Return dataset → role as results.json and the config name them; the first of each counts."""
    datasets = mapping(config.get("DATASETS"))
    roles: dict[str, str] = {}
    for role, key in zip(ROLES, ("VAL", "TEST"), strict=True):
        listed = datasets.get(key)
        names = (
            [n for n in listed if isinstance(n, str)] if isinstance(listed, list | tuple) else []
        )
        scored = mapping(own.get(role)).get("dataset")
        names = [scored, *names] if isinstance(scored, str) else names
        for index, name in enumerate(dict.fromkeys(names)):
            roles.setdefault(name, "" if index else role)
    return roles


def _model(folder: Path, own: Mapping[str, Any], found: list[Json]) -> RunModel:
    digest = own.get("model_sha256")
    digest = digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else ""
    file, iteration = own.get("model"), own.get("iteration")
    if isinstance(file, str) and file:
        return RunModel(folder, file, iteration if type(iteration) is int else None, digest)
    if (folder / BEST).is_file():
        return RunModel(folder, BEST)
    for row in found:
        known = model_record(row.get("model"), row.get("iteration"))
        if known is not None:
            return RunModel(folder, known["file"] or "?", known["iteration"], known["sha256"])
    return RunModel(folder)


def _completed(own: Json, found: Mapping[str, Json], roles: Mapping[str, str]) -> Json:
    """Return results.json with what it lacks out of the evaluations `found` of the same model."""
    results = dict(own)
    roles = dict(roles)
    if found and not any(roles.get(name) for name in found) and not results.get("test"):
        # A dataset of another name, scored alone, is what there is to report.
        roles[next(iter(found))] = "test"
    tests = {name: scores for name, scores in mapping(own.get("tests")).items() if mapping(scores)}
    for name, file in found.items():
        role, scores = roles.get(name, ""), mapping(file["test"])
        if not role:
            tests.setdefault(name, scores)
            continue
        known = mapping(results.get(role))
        if not known or (
            known.get("dataset") in (None, name) and not mapping(known.get("intervals"))
        ):
            results[role] = scores
        for key in ("classes", "iteration"):
            if results.get(key) is None and file.get(key) is not None:
                results[key] = file[key]
        results["operating_point"] = _point(
            mapping(results.get("operating_point")), mapping(file.get("operating_point")), role
        )
    if found and not results.get("model"):
        record = model_record(next(iter(found.values())).get("model"))
        results["model"] = record["file"] if record else None
    first = mapping(results.get("test")).get("dataset")
    results["tests"] = {name: scores for name, scores in tests.items() if name != first}
    return {key: value for key, value in results.items() if value or key in own}


def _point(known: Json, evaluated: Json, role: str) -> Json:
    """Return the operating point with what an evaluation counted on the split of `role` at it."""
    other = "valid" if role == "test" else "test"
    if not known:
        return evaluated and evaluated | {role: evaluated.get("test"), other: None}
    same = all(known.get(key) == evaluated.get(key) for key in ("task", "threshold", "iou"))
    return known | {role: evaluated.get("test")} if same and not known.get(role) else known

"""A run folder as everybody in the report sees it: `Run` is its only reader.

A run may be old, half done, or made by another version. So nothing here raises: a missing or
damaged file says nothing, and `Run.why_not` and the log say why.

The scores are those of `results.json`, completed by what `--eval-only` wrote later into
`inference/<dataset>/`. Such a file counts when it is about the model of the run: its checkpoint has
the same digest or, where a file has none, the same name and step.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import yaml

from persondet.errors import DatasetError, MediaError
from persondet.files import path_inside, refuse_existing, sha256_of_file
from persondet.records import read_records
from persondet.report.events import BestModel, Events, best_model, load_events
from persondet.report.facts import Clip, Evaluation, Facts, Model
from persondet.results import FILE_NAME, TASKS, RunError

BEST, CONFIG = "model_best.pth", "config.yaml"
ROLES = {"valid": "VAL", "test": "TEST"}  # of a dataset, and its key under DATASETS
PEOPLE_NAMES = {"person", "people", "pedestrian", "human"}
_ANALYSIS = ("curves.json", "errors.json", "gallery/gallery.json")  # of an evaluation
_SCHEMA = 1  # of those
_LONGEST_TEXT = 2_000_000  # bytes of a text file that is read
logger = logging.getLogger(__name__)


class Scored(NamedTuple):
    """The split whose score the report gives: the test split, else the validation split.

    key: its name in results.json, "test" or "valid". kind: what it is in words: "test",
    "validation" or "training". dataset: the name of the dataset. scores: its entry in results.json;
    nothing when it is not scored.
    """

    key: str
    kind: str
    dataset: str
    scores: Facts

    @property
    def word(self) -> str:
        """The split in words."""
        return f"{self.kind} split"


@dataclass(frozen=True)
class Run:
    """A run folder, each file of it read at most once.

    Attributes:
        folder: the run folder, as the user gave it.
    """

    folder: Path
    _read: dict[str, tuple[Facts, str]] = field(default_factory=dict)

    def facts(self, name: str) -> Facts:
        """Return what a JSON or YAML file says; nothing when it is missing, damaged, of a newer
        version, or about another model."""
        return Facts() if self.why_not(name) else self._reading(name)[0]

    def why_not(self, name: str) -> str:
        """Return why a file says nothing, as the end of a sentence; empty when it says
        something.
        """
        facts, reason = self._reading(name)
        top, dataset, *rest = [*PurePosixPath(name).parts, "", ""]
        if reason or top != "inference" or "/".join(filter(None, rest)) not in _ANALYSIS:
            return reason
        if facts["schema"].value != _SCHEMA:
            return f"has schema {facts['schema'].value!r}, not {_SCHEMA}"
        # A file without a model is as old as its neighbour.
        model = Model.of(facts["model"]) if facts["model"] else self._scorer(dataset)
        return "" if self._is_own(model) else f"is of another model ({model.words()})"

    def text(self, name: str) -> str:
        """Return a text file, empty when it is missing."""
        try:
            with (self.folder / name).open("rb") as file:
                return file.read(_LONGEST_TEXT).decode("utf-8", "replace")
        except OSError:
            return ""

    def inside(self, name: str) -> Path | None:
        """Return the path of a file of this run, None when the name leads out of the folder."""
        try:
            return path_inside(self.folder, name)
        except (DatasetError, OSError, ValueError):
            return None

    def _reading(self, name: str) -> tuple[Facts, str]:
        if name not in self._read:
            self._read[name] = _read(self.inside(name))
        return self._read[name]

    @cached_property
    def _log(self) -> tuple[Events, RunError | None]:
        try:
            return load_events(self.folder), None
        except RunError as error:
            return Events(self.folder, {}), error

    @property
    def events(self) -> Events:
        """The scalars of metrics.json; none where the file cannot be used."""
        return self._log[0]

    @property
    def problem(self) -> RunError | None:
        """Why metrics.json cannot be used; None: it can."""
        return self._log[1]

    @cached_property
    def config(self) -> Facts:
        """The resolved config of the run."""
        return self.facts(CONFIG)

    @cached_property
    def starts(self) -> list[Facts]:
        """The starts of the training in provenance.json, the first one first."""
        return self.facts("provenance.json")["starts"].entries()

    @cached_property
    def last_start(self) -> Facts:
        """The newest entry of provenance.json."""
        return self.starts[-1] if self.starts else Facts()

    @cached_property
    def roles(self) -> dict[str, str]:
        """Dataset → "valid", "test" or "" (another), as results.json and the config name them."""
        roles: dict[str, str] = {}
        for role, key in ROLES.items():
            scored = self.facts(FILE_NAME)[role]["dataset"].text()
            names = [scored, *self.config["DATASETS"][key].texts()]
            for index, name in enumerate(dict.fromkeys(filter(None, names))):
                roles.setdefault(name, "" if index else role)
        return roles

    def role(self, dataset: str) -> str:
        """Return what a dataset is in this run.

        By its name's ending only where neither config nor results name any dataset.
        """
        if self.roles:
            return self.roles.get(dataset, "")
        return next((role for role in ROLES if dataset.endswith(f"_{role}")), "")

    @cached_property
    def _scored_sets(self) -> dict[str, Facts]:
        """Dataset → its inference/<dataset>/results.json: the test split, validation, others."""
        paths = sorted((self.folder / "inference").glob(f"*/{FILE_NAME}"))
        paths.sort(
            key=lambda path: ("test", "valid", "").index(self.roles.get(path.parent.name, ""))
        )
        files = {path.parent.name: self.facts(str(path.relative_to(self.folder))) for path in paths}
        return {name: file for name, file in files.items() if file["test"].items()}

    def _scorer(self, dataset: str) -> Model:
        """The model that the scores of a dataset are about."""
        file = self._scored_sets.get(dataset, Facts())
        return Model.of(file["model"], file["iteration"])

    @cached_property
    def model(self) -> Model:
        """The model that the scores are about; without a file: any model may be it."""
        own = self.facts(FILE_NAME)
        if own["model"].text():
            record = {"file": own["model"].value, "iteration": own["iteration"].value}
            return Model.of(Facts(record | {"sha256": own["model_sha256"].value}))
        if (self.folder / BEST).is_file():
            return Model(BEST)
        # Without a model of its own the folder is about the model of its first evaluation.
        found = map(self._scorer, self._scored_sets)
        known = next((model for model in found if model.file or model.sha256), Model())
        return known._replace(file=known.file or "?") if known.sha256 else known

    @cached_property
    def _sha256(self) -> str:
        """The recorded digest of the model, else that of its file; empty: neither."""
        if self.model.sha256 or not self.model.file:
            return self.model.sha256
        try:
            return sha256_of_file(self.folder / self.model.file)
        except (OSError, ValueError):
            return ""

    def _is_own(self, other: Model) -> bool:
        """Return whether a file of scores that names the model `other` is about the run's model."""
        if not (other.file or other.sha256) or not self.model.file:
            return True
        if other.sha256 and self._sha256:
            return other.sha256 == self._sha256
        steps = {self.model.iteration, other.iteration} - {None}
        return other.file == self.model.file and len(steps) < 2

    @cached_property
    def other_models(self) -> dict[str, str]:
        """Dataset → the model, in words, of any file of its evaluation about another model."""
        found: dict[str, str] = {}
        for name in dict.fromkeys([*self._scored_sets, self.scored.dataset, *self.roles]):
            files = [self._reading(f"inference/{name}/{file}")[0] for file in _ANALYSIS]
            for model in (self._scorer(name), *(Model.of(file["model"]) for file in files)):
                if not self._is_own(model):
                    found.setdefault(name, model.words())
        return found

    @cached_property
    def results(self) -> Facts:
        """What results.json holds, completed by the evaluations of the same model."""
        own, roles = self.facts(FILE_NAME), dict(self.roles)
        results: dict[str, Any] = dict(own.value or {})
        scored = self._scored_sets.items()
        ours = {name: file for name, file in scored if self._is_own(self._scorer(name))}
        if ours and not any(roles.get(name) for name in ours) and not results.get("test"):
            roles[next(iter(ours))] = "test"  # scored alone, it is what there is to report
        tests = {name: scores.value for name, scores in own["tests"].items() if scores.items()}
        for name, file in ours.items():
            if roles.get(name):
                _complete(results, roles[name], name, file)
            else:
                tests.setdefault(name, file["test"].value)
        if ours and not results.get("model"):
            results["model"] = Model.of(next(iter(ours.values()))["model"]).file or None
        first = Facts(results.get("test"))["dataset"].text()
        results["tests"] = {name: scores for name, scores in tests.items() if name != first}
        kept = {key: value for key, value in results.items() if value or key in (own.value or {})}
        return Facts(kept)

    @cached_property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """The evaluations that left curves or errors: validation, test, then others."""
        found = []
        for path in sorted((self.folder / "inference").glob("*/")):
            names = [f"inference/{path.name}/{file}" for file in ("curves.json", "errors.json")]
            for name in names:
                if (reason := self.why_not(name)).startswith(("has", "is of")):
                    logger.warning("%s %s and is left out", name, reason)
            files = [self.facts(name) for name in names]
            if any(files):
                found.append(Evaluation.of(path.name, self.role(path.name), *files))
        order = [*ROLES, ""]
        return tuple(sorted(found, key=lambda evaluation: order.index(evaluation.role)))

    def evaluation(self, role: str) -> Evaluation | None:
        """Return the evaluation of the split "valid" or "test"; None where there is none."""
        return next((e for e in self.evaluations if e.role == role), None)

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        """The annotated clips in the run folder and below its `video/`, by path.

        The partial records of a killed run are left out.
        """
        paths = [*self.folder.glob("*.jsonl"), *self.folder.glob("video/**/*.jsonl")]
        whole = sorted(path for path in paths if not path.stem.endswith(".partial"))
        return tuple(clip for path in whole if (clip := _clip(path)))

    @cached_property
    def best(self) -> BestModel | None:
        """The best model by the validation split."""
        chosen = self.facts("model_best.json")
        return best_model(self.events, chosen["metric"].text(), chosen["iteration"].count())

    @property
    def batch_size(self) -> int:
        """Images per step; 0: unknown."""
        return self.config["SOLVER"]["IMS_PER_BATCH"].count() or 0

    @property
    def operating_point(self) -> float | None:
        """The stored score threshold, 0 to 1; None: unknown."""
        return self.results["operating_point"]["threshold"].number()

    @property
    def operating_task(self) -> str:
        """The task that the threshold was chosen on, "bbox" or "segm"; empty: unknown."""
        task = self.results["operating_point"]["task"].text()
        return task if task in TASKS else ""

    @property
    def errors_file(self) -> str:
        """The name of the error analysis of the scored split."""
        return f"inference/{self.scored.dataset}/errors.json"

    @property
    def errors(self) -> Facts:
        """The error analysis of the scored split."""
        return self.facts(self.errors_file)

    @property
    def objects(self) -> str:
        """What the model detects: "people", or "objects" of several or other classes."""
        names = {entry.shown().lower() for entry in self.results["classes"].entries()}
        return "people" if names and names <= PEOPLE_NAMES else "objects"

    @cached_property
    def scored(self) -> Scored:
        """The split whose score the report gives."""
        datasets, results = self.config["DATASETS"], self.results
        planned = {key: datasets[ROLES[key]][0].text() for key in ("test", "valid")}
        key = next((key for key in planned if results[key]), "")
        key = key or next((key for key in planned if planned[key]), "test")
        dataset = results[key]["dataset"].text() or planned[key]
        chose = [results["valid"]["dataset"].text(), *datasets["VAL"].texts()]
        if key == "valid" or dataset in filter(None, chose):
            kind = "validation"
        else:
            kind = "training" if dataset in datasets["TRAIN"].texts() else "test"
        return Scored(key, kind, dataset, results[key])

    @cached_property
    def dataset_report(self) -> Facts:
        """The report on the dataset: dataset.json of the run, else that of the evaluation."""
        return self.facts("dataset.json") or self.facts(
            f"inference/{self.scored.dataset}/dataset.json"
        )

    @cached_property
    def leaked(self) -> tuple[int, float] | None:
        """How many images of the scored split were known, and their share; None: not compared."""
        leak = self.scored.scores["leaks"]
        images, part = leak["images"].count(), leak["share"].number()
        if images is None or part is None:
            leak = self._leaks_of_dataset
            images, part = leak["leaked"].count(), leak["share"].number()
        return None if images is None or part is None else (images, part)

    @cached_property
    def clip_mates(self) -> int:
        """How many further images of the scored split are of a clip that was known."""
        told = self.scored.scores["leaks"]["clip_mates"].count()
        return (self._leaks_of_dataset["clip_mates"].count() if told is None else told) or 0

    @cached_property
    def _leaks_of_dataset(self) -> Facts:
        export = self.config["DATASETS"]["ROBOFLOW"]["NAME"].text()
        split = self.scored.dataset.removeprefix(f"{export}_") if export else self.scored.key
        compared = self.dataset_report["decoded"].value is True
        return self.dataset_report["leaks" if compared else "-"][split]

    @cached_property
    def evaluation_only(self) -> bool:
        """Whether the folder holds the scores of a model, and nothing of a training."""
        trained = self.facts(FILE_NAME) or self.starts or self.events.series
        return not (trained or any(self.folder.glob("*.pth"))) and bool(self.scored.scores)

    @cached_property
    def classes(self) -> list[str]:
        """The classes that the detector knows; of an unfinished run those that have objects."""
        entries = self.dataset_report["statistics"]["classes"].entries()
        return self.results["classes"].texts() or [
            entry["name"].text()
            for entry in entries
            if any(boxes.number() for _, boxes in entry["boxes"].items())
        ]

    @property
    def masks(self) -> bool:
        """Whether the model draws masks besides boxes."""
        return self.config["MODEL"]["MASK_ON"].value is True or bool(self.scored.scores["segm"])

    @property
    def planned_steps(self) -> int:
        """How many steps the training was to take; 0 when the config does not say."""
        return self.config["SOLVER"]["MAX_ITER"].count() or 0

    @cached_property
    def steps_done(self) -> int:
        """How many steps the training has taken, as far as the files tell."""
        told = [start["steps_done"].count() or 0 for start in self.starts]
        return max(*told, self.results["steps"].count() or 0, self.events.last_step, 0)

    @cached_property
    def end(self) -> str:
        """How the training ended: "finished", "stopped early", "interrupted", an error in words, or
        nothing when no end is recorded."""
        return self.last_start["exit"].text()

    @cached_property
    def complete(self) -> bool:
        """Whether the training took all steps that it was to take, or stopped by its own rule."""
        enough = 0 < self.planned_steps <= self.steps_done
        return self.evaluation_only or enough or self.end in ("finished", "stopped early")


def refuse_elsewhere(
    run_dirs: Sequence[str | Path], paths: Iterable[Path], *, overwrite: bool = False
) -> None:
    """Refuse to replace files outside the run folder; inside, plots and reports are made again.

    What several runs have in common belongs to none of them: nothing of it is replaced.

    Raises: OutputExistsError: naming the first file, unless `overwrite`.
    """
    own = Path(run_dirs[0]).resolve() if len(run_dirs) == 1 else None
    for path in paths:
        if own is None or not path.resolve().is_relative_to(own):
            refuse_existing(path, overwrite=overwrite)


def _complete(results: dict[str, Any], role: str, dataset: str, file: Facts) -> None:
    """Add to `results` what an evaluation of the split of `role` knows and they do not."""
    known, point = Facts(results.get(role)), Facts(results.get("operating_point"))
    unmeasured = known["dataset"].value in (None, dataset) and not known["intervals"].items()
    if not known.items() or unmeasured:
        results[role] = file["test"].value
    for key in ("classes", "iteration"):
        if results.get(key) is None:
            results[key] = file[key].value
    scored, other = file["operating_point"], "valid" if role == "test" else "test"
    if not point.items():
        own = {role: scored["test"].value, other: None}
        results["operating_point"] = scored.items() and scored.value | own
    elif all(point[key].value == scored[key].value for key in ("task", "threshold", "iou")):
        results["operating_point"] = point.value | {role: point[role].value or scored["test"].value}


def _read(path: Path | None) -> tuple[Facts, str]:
    """Return what a JSON or YAML file holds, and why that is nothing."""
    if path is None or not path.is_file():
        return Facts(), "is not in the run folder"
    try:
        text = path.read_bytes().decode("utf-8", "replace")
        value = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        logger.warning("%s cannot be read (%s) and is left out", path, error)
        return Facts(), "is damaged and cannot be read"
    if isinstance(value, dict):
        return Facts(value), ""
    logger.warning("%s is no JSON object and is left out", path)
    return Facts(), "is damaged: it holds no object"


def _clip(path: Path) -> Clip | None:
    """Return what records say; None when the file is none, or holds no frame.

    The frames before a damaged line count.
    """
    frames = []
    try:
        header, rows = read_records(path)
        for frame in rows:
            frames.append((frame.time, len(frame.people), frame.unique))
    except MediaError as error:
        logger.warning("%s What follows is left out.", error)
    frames = [frame for frame in frames if math.isfinite(frame[0])]
    if not frames:
        return None
    times, counts, numbers = zip(*sorted(frames, key=itemgetter(0)), strict=True)
    people = next((number for number in reversed(numbers) if number is not None), None)
    facts = Facts({**vars(header), "fps": float(header.frame_rate)})
    return Clip(path, facts, np.array(times), np.array(counts, np.int64), people)

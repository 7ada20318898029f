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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import yaml

from persondet.errors import DatasetError
from persondet.files import path_inside, refuse_existing, sha256_of_file
from persondet.report.events import BestModel, Events, best_model, load_events
from persondet.report.facts import Clip, Evaluation, Facts, Model
from persondet.results import FILE_NAME, TASKS, RunError

BEST, CONFIG = "model_best.pth", "config.yaml"
ROLES = {"valid": "VAL", "test": "TEST"}  # of a dataset, and its key under DATASETS
PEOPLE_NAMES = {"person", "people", "pedestrian", "human"}
RECORDS, RECORD_VERSIONS = "persondet-video-records", (1, 2)
_ANALYSIS = ("curves.json", "errors.json", "gallery/gallery.json")  # of an evaluation
_SCHEMA = 1  # of those
_LONGEST_TEXT = 2_000_000  # bytes of a text file that is read
_ABSENT = "is not in the run folder"
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
        plots: where the files of its `plots/` lie; None: there.
    """

    folder: Path
    plots: Path | None = None
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
        record = facts["model"]
        # A file without a model is as old as its neighbour.
        own = (
            dataset not in self.foreign if record.value is None else self._is_own(Model.of(record))
        )
        return "" if own else f"is of another model ({Model.of(record).words()})"

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
            if self.plots is not None and name.startswith("plots/"):
                return path_inside(self.plots, name.removeprefix("plots/"))
            return path_inside(self.folder, name)
        except (DatasetError, OSError, ValueError):
            return None

    def _reading(self, name: str) -> tuple[Facts, str]:
        if name not in self._read:
            self._read[name] = self._read_now(name)
        return self._read[name]

    def _read_now(self, name: str) -> tuple[Facts, str]:
        path = self.inside(name)
        if path is None or not path.is_file():
            return Facts(), _ABSENT
        try:
            text = path.read_bytes().decode("utf-8", "replace")
            value = yaml.safe_load(text) if name.endswith(".yaml") else json.loads(text)
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            logger.warning("%s cannot be read (%s) and is left out", path, error)
            return Facts(), "is damaged and cannot be read"
        if isinstance(value, dict):
            return Facts(value), ""
        logger.warning("%s is no JSON object and is left out", path)
        return Facts(), "is damaged: it holds no object"

    @cached_property
    def _log(self) -> Events | RunError:
        try:
            return load_events(self.folder)
        except RunError as error:
            return error

    @property
    def events(self) -> Events:
        """The scalars of metrics.json; none where the file cannot be used."""
        return self._log if isinstance(self._log, Events) else Events(self.folder, {})

    @property
    def problem(self) -> RunError | None:
        """Why metrics.json cannot be used; None: it can."""
        return self._log if isinstance(self._log, RunError) else None

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
        names = [path.parent.name for path in paths]
        files = {name: self.facts(f"inference/{name}/{FILE_NAME}") for name in names}
        order = sorted(
            files, key=lambda name: ("test", "valid", "").index(self.roles.get(name, ""))
        )
        return {name: files[name] for name in order if files[name]["test"].items()}

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
        found = (Model.of(file["model"], file["iteration"]) for file in self._scored_sets.values())
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
    def foreign(self) -> dict[str, str]:
        """Dataset → the model, in words, of an evaluation of another model."""
        models = {
            name: Model.of(file["model"], file["iteration"])
            for name, file in self._scored_sets.items()
        }
        return {name: m.words() for name, m in models.items() if not self._is_own(m)}

    @cached_property
    def other_models(self) -> dict[str, str]:
        """Dataset → the model, in words, of any file of its evaluation about another model."""
        found = dict(self.foreign)
        for name in dict.fromkeys([self.scored.dataset, *self.roles]):
            for file in _ANALYSIS:
                model = Model.of(self._reading(f"inference/{name}/{file}")[0]["model"])
                if not self._is_own(model):
                    found.setdefault(name, model.words())
        return found

    @cached_property
    def results(self) -> Facts:
        """What results.json holds, completed by the evaluations of the same model."""
        own, roles = self.facts(FILE_NAME), dict(self.roles)
        results: dict[str, Any] = dict(own.value or {})
        ours = {k: file for k, file in self._scored_sets.items() if k not in self.foreign}
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
        return tuple(clip for path in whole if path.is_file() and (clip := _clip(path)))

    @cached_property
    def best(self) -> BestModel | None:
        """The best model by the validation split."""
        chosen = self.facts("model_best.json")
        iteration = chosen["iteration"].number()
        return best_model(
            self.events, chosen["metric"].text(), None if iteration is None else int(iteration)
        )

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
        if (images is None or part is None) and self.dataset_report["decoded"].value is True:
            export = self.config["DATASETS"]["ROBOFLOW"]["NAME"].text()
            split = self.scored.dataset.removeprefix(f"{export}_") if export else self.scored.key
            leak = self.dataset_report["leaks"][split]
            images, part = leak["leaked"].count(), leak["share"].number()
        return None if images is None or part is None else (images, part)

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


def _clip(path: Path) -> Clip | None:
    """Return what records say; None when the file is none, or holds no frame.

    The frames before a damaged line count.
    """
    header, times, counts = Facts(), [], []
    people: int | None = None
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            rows = _rows(lines, path)
            header = next(rows, Facts())
            version = header["version"].value
            if header["schema"].value != RECORDS or version not in RECORD_VERSIONS:
                return None
            for row in rows:
                time, found = row["time"].number(), row["people"]
                if time is None or not isinstance(found.value, list):
                    logger.warning("%s: a line is no frame; what follows is left out", path)
                    break
                times.append(time)
                counts.append(len(found.value))
                people = row["unique"].count() if row["unique"].value is not None else people
    except OSError as error:
        logger.warning("%s cannot be read (%s) and is left out", path, error.strerror or error)
    if not times:
        logger.info("%s holds no frame and is left out", path)
        return None
    order = np.argsort(times, kind="stable")
    return Clip(path, header, np.array(times)[order], np.array(counts, np.int64)[order], people)


def _rows(lines: Any, path: Path) -> Iterator[Facts]:
    """Yield the object of each line, up to one that is damaged or cut off."""
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            logger.warning("%s: line %d cannot be read; the rest is left out", path, number)
            return
        yield Facts(row)

"""What a run is and how far it came, put together from all of its files."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from persondet.report.document import Note
from persondet.report.facts import Facts
from persondet.report.run_folder import RunFolder
from persondet.report.run_scores import BEST, RunScores, model_words, read_scores
from persondet.report.wording import whole

TRAINS = "A training (tools/train_net.py) writes it at its start."


_ANALYSIS = ("results.json", "curves.json", "errors.json", "gallery/gallery.json")


def exit_of(start: Facts) -> str:
    """Return how a start of the training ended: "finished", "stopped early", "interrupted", an
    error in words, or nothing when no end is recorded."""
    end = start["exit"].text()
    return "interrupted" if end.startswith("InterruptedRun") else end


@dataclass(frozen=True)
class ScoredSplit:
    """The split whose score the report gives: the test split, else the validation split.

    Attributes:
        key: its name in results.json, "test" or "valid".
        kind: what it is in words: "test", "validation" or "training".
        dataset: the name of the dataset.
        scores: its entry in results.json; nothing when it is not scored.
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
class RunState:
    """A run's answers to the questions that several sections ask."""

    run: RunFolder

    @cached_property
    def config(self) -> Facts:
        """The resolved config of the run."""
        return self.run.facts("config.yaml")

    @cached_property
    def scores(self) -> RunScores:
        """What results.json and the evaluations of the same model hold."""
        return read_scores(self.run.path, lambda name: self.run.facts(name).value or {})

    @cached_property
    def results(self) -> Facts:
        """What results.json holds, completed by the evaluations of the same model."""
        return Facts(self.scores.results)

    @cached_property
    def starts(self) -> list[Facts]:
        """The starts of the training in provenance.json, the first one first."""
        return self.run.facts("provenance.json")["starts"].entries()

    @cached_property
    def last_start(self) -> Facts:
        """The newest entry of provenance.json."""
        return self.starts[-1] if self.starts else Facts()

    @cached_property
    def scored(self) -> ScoredSplit:
        """The split whose score the report gives."""
        datasets, key = self.config["DATASETS"], "test"
        planned = {"test": datasets["TEST"][0].text(), "valid": datasets["VAL"][0].text()}
        told = [split for split in planned if self.results[split]]
        key = next(iter([*told, *(split for split in planned if planned[split])]), "test")
        dataset = self.results[key]["dataset"].text() or planned[key]
        chose = [self.results["valid"]["dataset"].text(), *datasets["VAL"].texts()]
        if key == "valid" or dataset in filter(None, chose):
            kind = "validation"
        else:
            kind = "training" if dataset in datasets["TRAIN"].texts() else "test"
        return ScoredSplit(key, kind, dataset, self.results[key])

    @cached_property
    def caution(self) -> list[Note]:
        """The warning that the score is of a split with a part in the making of the model."""
        part = {
            "validation": "The validation split had a part in choosing the model and its threshold",
            "training": "The model has learned from the training split",
        }.get(self.scored.kind)
        if part is None or not self.scored.scores:
            return []
        text = f"{part}: the score looks better than it is. A test split would give a fair one."
        return [Note("warning", text)]

    def evaluation_command(self, dataset: str = "") -> str:
        """Return the command that scores the model of this run, on `dataset` or the scored split."""
        run, dataset = self.run.word, dataset or self.scored.dataset
        weights = shlex.quote(str(self.run.path / BEST))
        if self.evaluation_only:
            weights = shlex.quote(self.config["MODEL"]["WEIGHTS"].text() or "MODEL.pth")
        config = shlex.quote(str(self.run.path / "config.yaml"))
        words = [f"python tools/train_net.py --config-file {config} --eval-only"]
        words += [f"MODEL.WEIGHTS {weights} OUTPUT_DIR {run}"]
        if dataset and dataset != self.config["DATASETS"]["TEST"][0].text():
            value = repr((dataset,))
            plain = re.fullmatch(r"[\w.-]+", dataset)  # then the word is easier to read
            words.append(
                f'DATASETS.TEST "{value}"' if plain else f"DATASETS.TEST {shlex.quote(value)}"
            )
        return " ".join(words)

    @cached_property
    def evaluates(self) -> str:
        """The sentence that says what writes the files of an evaluation."""
        return (
            "A training writes it when it ends; for a trained model this command does: "
            f"{self.evaluation_command()}"
        )

    def analysis(self, name: str) -> Facts:
        """Return a file of the evaluation; nothing when it is of another model."""
        facts, dataset = self.run.facts(name), PurePosixPath(name).parts[1]
        return facts if self.scores.counts(dataset, facts["model"].value) else Facts()

    def missing_analysis(self, name: str, what: str) -> Note:
        """Return the note for a file of the evaluation without which `what` (a sentence) holds."""
        if self.run.facts(name) and not self.analysis(name):
            return Note("missing", f"{what} {name} is of another model. {self.evaluates}")
        return self.run.missing(name, what, self.evaluates)

    @cached_property
    def other_models(self) -> list[str]:
        """Sentences on the evaluations in this folder that are of another model."""
        found = dict(self.scores.foreign)
        for name in dict.fromkeys([self.scored.dataset, *self.scores.roles]):
            for file in _ANALYSIS[1:]:
                path = f"inference/{name}/{file}"
                if self.run.facts(path) and not self.analysis(path):
                    found.setdefault(name, model_words(self.run.facts(path)["model"].value))
        return [
            f"inference/{name} is about another model ({words}) than this report, which leaves it "
            f"out. To score the model of this run there: {self.evaluation_command(name)}"
            for name, words in found.items()
        ]

    @cached_property
    def dataset_report(self) -> Facts:
        """The report on the dataset: dataset.json of the run, else that of the evaluation."""
        return self.run.facts("dataset.json") or self.run.facts(
            f"inference/{self.scored.dataset}/dataset.json"
        )

    @cached_property
    def leaked(self) -> tuple[int, float] | None:
        """How many pictures of the scored split were known, and their share; None: not compared."""
        leak = self.scored.scores["leaks"]
        images, part = leak["images"].count(), leak["share"].number()
        if images is None or part is None:
            if self.dataset_report["decoded"].value is not True:
                return None
            export = self.config["DATASETS"]["ROBOFLOW"]["NAME"].text()
            split = self.scored.dataset.removeprefix(f"{export}_") if export else self.scored.key
            leak = self.dataset_report["leaks"][split]
            images, part = leak["leaked"].count(), leak["share"].number()
        return None if images is None or part is None else (images, part)

    @cached_property
    def evaluation_only(self) -> bool:
        """Whether nothing of a training lies in the folder, only the scores of a model."""
        trained = self.run.facts("results.json") or self.starts or self.run.events() is not None
        return not (trained or any(self.run.path.glob("*.pth"))) and bool(self.scored.scores)

    @cached_property
    def classes(self) -> list[str]:
        """The classes that the detector knows; of an unfinished run those that have objects."""
        found = self.results["classes"].texts()
        entries = self.dataset_report["statistics"]["classes"].entries()
        return found or [
            entry["name"].text()
            for entry in entries
            if any(boxes.number() for _, boxes in entry["boxes"].items())
        ]

    @cached_property
    def masks(self) -> bool:
        """Whether the model draws outlines besides boxes."""
        return self.config["MODEL"]["MASK_ON"].value is True or bool(self.scored.scores["segm"])

    @cached_property
    def tasks(self) -> tuple[tuple[str, str], ...]:
        """The tasks that were scored: ("bbox", "box") and ("segm", "mask")."""
        known = (("bbox", "box"), ("segm", "mask"))
        return tuple((task, name) for task, name in known if self.scored.scores[task].items())

    @cached_property
    def planned_steps(self) -> int:
        """How many steps the training was to take; 0 when the config does not say."""
        return self.config["SOLVER"]["MAX_ITER"].count() or 0

    @cached_property
    def steps_done(self) -> int:
        """How many steps the training has taken, as far as the files tell."""
        told = [start["steps_done"].count() or 0 for start in self.starts]
        told.append(self.results["steps"].count() or 0)
        events = self.run.events()
        told.append(events.last_step if events else 0)
        return max(told)

    @cached_property
    def is_demo(self) -> bool:
        """Whether this is the run of the demo: its people are drawn."""
        return self.results["seconds"]["sample"].number() is not None

    @cached_property
    def complete(self) -> bool:
        """Whether the training took all steps that it was to take, or stopped by its own rule."""
        if self.evaluation_only:
            return True
        enough = 0 < self.planned_steps <= self.steps_done
        return enough or exit_of(self.last_start) in ("finished", "stopped early")

    def how_it_ended(self) -> str:
        """Say in a sentence or two how far the training came."""
        if self.evaluation_only:
            model = self.scores.model
            name = model_words({"file": model.file, "iteration": model.iteration})
            return (
                f"This folder holds an evaluation only: of the model {name}, on the {self.scored.word}"
                f" {self.scored.dataset}. How it was trained is told by the report of its own run."
            )
        done, planned = whole(self.steps_done), whole(self.planned_steps)
        end = exit_of(self.last_start)
        if end == "stopped early":
            return (
                f"The training stopped early, after {done} of at most {planned} steps: the score "
                "on the validation split no longer rose."
            )
        if self.complete:
            return f"The training took all of its {done} steps."
        of = f"{done} of {planned} steps" if self.planned_steps else f"{done} steps"
        if end == "interrupted":
            reason = f"The training was interrupted after {of}."
        elif end:
            reason = f"The training ended after {of} with an error: {end}."
        else:
            reason = (
                f"The training has taken {of}, and no end of it is recorded: it still runs, or it "
                "was killed."
            )
        resume = "The same command with --resume goes on. This report shows what there is so far."
        return f"{reason} {resume}"

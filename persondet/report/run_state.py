"""What a run is and how far it came, put together from all of its files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from persondet.report.facts import Facts
from persondet.report.run_folder import RunFolder
from persondet.report.wording import whole

EVALUATES = (
    "A training writes it when it ends; for a training that has ended, evaluate again with "
    "tools/train_net.py --eval-only."
)
TRAINS = "A training (tools/train_net.py) writes it at its start."


@dataclass(frozen=True)
class RunState:
    """A run's answers to the questions that several sections ask."""

    run: RunFolder

    @cached_property
    def config(self) -> Facts:
        """The resolved config of the run."""
        return self.run.facts("config.yaml")

    @cached_property
    def results(self) -> Facts:
        """What results.json holds."""
        return self.run.facts("results.json")

    @cached_property
    def starts(self) -> list[Facts]:
        """The starts of the training in provenance.json, the first one first."""
        return self.run.facts("provenance.json")["starts"].entries()

    @cached_property
    def last_start(self) -> Facts:
        """The newest entry of provenance.json."""
        return self.starts[-1] if self.starts else Facts()

    @cached_property
    def test_set(self) -> str:
        """The name of the split that gives the final score."""
        return self.results["test"]["dataset"].text() or self.config["DATASETS"]["TEST"][0].text()

    @cached_property
    def valid_set(self) -> str:
        """The name of the split that chooses the best model."""
        return self.results["valid"]["dataset"].text() or self.config["DATASETS"]["VAL"][0].text()

    @cached_property
    def classes(self) -> list[str]:
        """The classes that the detector knows; of an unfinished run those that have objects."""
        found = self.results["classes"].texts()
        entries = self.run.facts("dataset.json")["statistics"]["classes"].entries()
        return found or [
            entry["name"].text()
            for entry in entries
            if any(boxes.number() for _, boxes in entry["boxes"].items())
        ]

    @cached_property
    def masks(self) -> bool:
        """Whether the model draws outlines besides boxes."""
        return self.config["MODEL"]["MASK_ON"].value is True or bool(self.results["test"]["segm"])

    @cached_property
    def tasks(self) -> tuple[tuple[str, str], ...]:
        """The tasks that were scored: ("bbox", "box") and ("segm", "mask")."""
        scores = self.results["test"]
        known = (("bbox", "box"), ("segm", "mask"))
        return tuple((task, name) for task, name in known if scores[task].items())

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
        loss = events.finite("total_loss") if events else None
        if loss is not None:
            told.append(int(loss.iterations[-1]) + 1)
        return max(told)

    @cached_property
    def is_demo(self) -> bool:
        """Whether this is the run of the demo: its people are drawn."""
        return self.results["seconds"]["sample"].number() is not None

    @cached_property
    def complete(self) -> bool:
        """Whether the training took all steps that it was to take, or stopped by its own rule."""
        enough = 0 < self.planned_steps <= self.steps_done
        return enough or self.last_start["exit"].text() in ("finished", "stopped early")

    def how_it_ended(self) -> str:
        """Say in a sentence or two how far the training came."""
        done, planned = whole(self.steps_done), whole(self.planned_steps)
        end = self.last_start["exit"].text()
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

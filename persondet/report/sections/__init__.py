"""The chapters of the report, a file for each stage of the work, and what they share.

A chapter is a function of the run. Its standing text is in `templates/chapters.yaml`.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import yaml

from persondet.report.document import Block, Bullets, EncodedImage, Figure, Note, Paragraph, Table
from persondet.report.facts import Facts, points, read_template, whole
from persondet.report.run import BEST, CONFIG, Run

TRAINS = "A training (tools/train_net.py) writes it at its start."
MANY = {"bbox": "boxes", "segm": "masks"}
_MOST_ROWS = 60  # of a table


@functools.cache
def standing() -> dict[str, dict[str, Any]]:
    """Return the standing text of the report: `text`, `meanings`, `tables`, `figures`."""
    words: dict[str, dict[str, Any]] = yaml.safe_load(read_template("chapters.yaml"))
    return words


def said(key: str, **values: str) -> str:
    """Return a standing text with its names filled in."""
    text: str = standing()["text"][key]
    return text.format(**values)


def prose(key: str, **values: str) -> Paragraph:
    """Return a standing text as a paragraph."""
    return Paragraph(said(key, **values))


def note(kind: Literal["missing", "warning", "answer"], key: str, **values: str) -> Note:
    """Return a standing text as a note."""
    return Note(kind, said(key, **values))


def points_of(key: str) -> Bullets:
    """Return a standing list of points."""
    return Bullets(tuple((lead, text) for lead, text in standing()["text"][key]))


def meanings(key: str) -> dict[str, Any]:
    """Return what the rows of a table mean, in their order."""
    found: dict[str, Any] = standing()["meanings"][key]
    return found


def counts(facts: Facts, *keys: str) -> tuple[str, ...]:
    """Return the numbers of an object as whole numbers, for a row of a table."""
    return tuple(whole(facts[key]) for key in keys)


def table(key: str, rows: Iterable[Sequence[str]], *columns: str, **values: str) -> list[Block]:
    """Return a table in a list, which is empty where there are no rows.

    A long table is cut, and its caption says so.

    Args:
        key: the name of its standing caption and header.
        rows: as many cells each as there are columns.
        columns: what stands in the header behind the standing columns.
        values: what is filled into the caption.
    """
    words = standing()["tables"][key]
    caption, header = words["caption"].format(**values), (*words["header"], *columns)
    cells = tuple(map(tuple, rows))
    more = f" (the first {_MOST_ROWS} of {len(cells)})" if len(cells) > _MOST_ROWS else ""
    numeric = words.get("numeric", ())
    numeric = range(numeric, len(header)) if isinstance(numeric, int) else numeric
    return [Table(caption + more, header, cells[:_MOST_ROWS], tuple(numeric))] if cells else []


def folder_word(run: Run) -> str:
    """Return the run folder as a word of a command line."""
    return shlex.quote(str(run.folder))


def figure(run: Run, name: str, how: str = "", *, caption: str = "", more: str = "") -> Block:
    """Return an image of the run as a figure, or a note that it is missing.

    Args:
        run: the run.
        name: the file, relative to the run folder.
        how: the sentence that says which command makes it.
        caption: of an image that has no standing text.
        more: what is added to the sentence on how to read it.
    """
    path = run.inside(name)
    image = EncodedImage.of(path) if path else None
    if image is None:
        what = "cannot be read" if path and path.is_file() else "is not in the run folder"
        return Note("missing", f"{name} {what}. {how}".rstrip())
    words = standing()["figures"].get(name, {})
    return Figure(image, caption or words["caption"], words.get("reading", "") + more)


def missing(run: Run, name: str, what: str, how: str) -> Note:
    """Return the note for a file without which `what` (a sentence) holds."""
    return Note("missing", f"{what} {name} {run.why_not(name) or 'does not say it'}. {how}")


def evaluation_command(run: Run, dataset: str = "") -> str:
    """Return the command that scores the model of this run, on `dataset` or the scored split."""
    dataset = dataset or run.scored.dataset
    weights = str(run.folder / BEST)
    if run.evaluation_only:
        weights = run.config["MODEL"]["WEIGHTS"].text() or "MODEL.pth"
    config = shlex.quote(str(run.folder / CONFIG))
    command = f"python tools/train_net.py --config-file {config} --eval-only"
    command += f" MODEL.WEIGHTS {shlex.quote(weights)} OUTPUT_DIR {folder_word(run)}"
    if dataset and dataset != run.config["DATASETS"]["TEST"][0].text():
        value = repr((dataset,))
        plain = re.fullmatch(r"[\w.-]+", dataset)  # then the word is easier to read
        command += " DATASETS.TEST " + (f'"{value}"' if plain else shlex.quote(value))
    return command


def evaluates(run: Run) -> str:
    """Return the sentence that says what writes the files of an evaluation."""
    command = evaluation_command(run)
    return f"A training writes it when it ends; for a trained model, run: {command}"


def plots(run: Run) -> str:
    """Return the command that draws the figures of the run."""
    return f"python tools/plot_metrics.py {folder_word(run)}"


def with_interval(scores: Facts, task: str, metric: str) -> str:
    """Return a measure with its 95 % interval, such as "52.1 (47.9 to 56.0)"."""
    text, interval = points(scores[task][metric]), scores["intervals"][task][metric]
    low, high = interval[0].number(), interval[1].number()
    return text if low is None or high is None else f"{text} ({points(low)} to {points(high)})"


def scored_tasks(run: Run) -> list[str]:
    """Return the tasks that were scored on the split of the report, "bbox" and "segm"."""
    return [task for task in MANY if run.scored.scores[task].items()]


def unscored(run: Run) -> list[Block]:
    """Return the warning that a split was scored and has no AP."""
    scores = run.scored.scores
    if any(scores[task]["AP"].number() is not None for task in scored_tasks(run)):
        return []
    return [note("warning", "score.none", word=run.scored.word)]


def caution(run: Run) -> list[Note]:
    """Return the warning that the scored split had a part in the making of the model."""
    keys = {"validation": "score.caution.validation", "training": "score.caution.training"}
    key = keys.get(run.scored.kind)
    return [note("warning", key)] if key and run.scored.scores else []


_ENDS = {"stopped early": "end.early", "interrupted": "end.interrupted", "": "end.unknown"}


def ending(run: Run) -> Note:
    """Return the note that says how far the training came."""
    split, done, planned = run.scored, whole(run.steps_done), whole(run.planned_steps)
    if run.evaluation_only:
        words = {"model": run.model.words(), "word": split.word, "dataset": split.dataset}
        return note("answer", "end.evaluation", **words)
    of = f"{done} of {planned} steps" if run.planned_steps else f"{done} steps"
    words = {"done": done, "planned": planned, "of": of, "end": run.end}
    if not run.complete:
        words["resume"] = said("end.resume")
        return note("warning", _ENDS.get(run.end, "end.error"), **words)
    return note("answer", "end.early" if run.end == "stopped early" else "end.finished", **words)

"""The chapters of the report, a file for each or for two that belong together, and what they share.

A chapter is a function of the run. Its standing text is in `templates/chapters.yaml`.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from persondet.report.document import Block, Bullets, EncodedImage, Figure, Note, Paragraph, Table
from persondet.report.facts import Facts
from persondet.report.run import BEST, CONFIG, Run
from persondet.report.wording import points, read_template, whole

TRAINS = "A training (tools/train_net.py) writes it at its start."
MANY = {"bbox": "boxes", "segm": "masks"}


@functools.cache
def standing() -> dict[str, dict[str, Any]]:
    """Return the standing text of the report: `text`, `tables` and `figures`."""
    words: dict[str, dict[str, Any]] = yaml.safe_load(read_template("chapters.yaml"))
    return words


def said(key: str, **values: str) -> str:
    """Return a standing text with its names filled in."""
    text: str = standing()["text"][key]
    return text.format(**values)


def prose(key: str, **values: str) -> Paragraph:
    """Return a standing text as a paragraph."""
    return Paragraph(said(key, **values))


def warning(key: str, **values: str) -> Note:
    """Return a standing text as a warning."""
    return Note("warning", said(key, **values))


def points_of(key: str) -> Bullets:
    """Return a standing list of points."""
    return Bullets(tuple((lead, text) for lead, text in standing()["text"][key]))


def meanings(key: str) -> dict[str, Any]:
    """Return what the rows of a table mean."""
    found: dict[str, Any] = standing()["tables"][key]
    return found


def table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    numeric: int | tuple[int, ...] = (),
) -> Table:
    """Return a table.

    Args:
        numeric: the columns that are set flush right; a number: all from this one on.
    """
    numeric = tuple(range(numeric, len(header))) if isinstance(numeric, int) else numeric
    return Table(caption, tuple(header), tuple(map(tuple, rows)), numeric)


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
    weights = shlex.quote(str(run.folder / BEST))
    if run.evaluation_only:
        weights = shlex.quote(run.config["MODEL"]["WEIGHTS"].text() or "MODEL.pth")
    config = shlex.quote(str(run.folder / CONFIG))
    command = f"python tools/train_net.py --config-file {config} --eval-only"
    command += f" MODEL.WEIGHTS {weights} OUTPUT_DIR {folder_word(run)}"
    if dataset and dataset != run.config["DATASETS"]["TEST"][0].text():
        value = repr((dataset,))
        plain = re.fullmatch(r"[\w.-]+", dataset)  # then the word is easier to read
        command += " DATASETS.TEST " + (f'"{value}"' if plain else shlex.quote(value))
    return command


def evaluates(run: Run) -> str:
    """Return the sentence that says what writes the files of an evaluation."""
    command = evaluation_command(run)
    return f"A training writes it when it ends; for a trained model, run: {command}"


def with_interval(scores: Facts, task: str, metric: str) -> str:
    """Return a measure with its 95 % interval, such as "52.1 (47.9 to 56.0)"."""
    text = points(scores[task][metric].number())
    low, high = (scores["intervals"][task][metric][end].number() for end in (0, 1))
    return text if low is None or high is None else f"{text} ({points(low)} to {points(high)})"


def scored_tasks(run: Run) -> list[str]:
    """Return the tasks that were scored on the split of the report, "bbox" and "segm"."""
    return [task for task in MANY if run.scored.scores[task].items()]


def why_no_score(run: Run) -> str:
    """Return the sentence for a split that was scored and has no AP; empty where it has one."""
    scores = run.scored.scores
    if any(scores[task]["AP"].number() is not None for task in scored_tasks(run)):
        return ""
    return said("score.none", word=run.scored.word)


def caution(run: Run) -> list[Note]:
    """Return the warning that the scored split had a part in the making of the model."""
    if run.scored.kind == "test" or not run.scored.scores:
        return []
    if run.scored.kind == "validation":
        return [warning("score.caution.validation")]
    return [warning("score.caution.training")]


def ending(run: Run) -> Note:
    """Return the note that says how far the training came."""
    return Note("answer" if run.complete else "warning", _how_it_ended(run))


def _how_it_ended(run: Run) -> str:
    if run.evaluation_only:
        split, model = run.scored, run.model.words()
        return said("end.evaluation", model=model, word=split.word, dataset=split.dataset)
    done, planned = whole(run.steps_done), whole(run.planned_steps)
    if run.end == "stopped early":
        return said("end.early", done=done, planned=planned)
    if run.complete:
        return said("end.finished", done=done)
    of = f"{done} of {planned} steps" if run.planned_steps else f"{done} steps"
    resume = said("end.resume")
    if run.end == "interrupted":
        return said("end.interrupted", of=of, resume=resume)
    if run.end:
        return said("end.error", of=of, end=run.end, resume=resume)
    return said("end.unknown", of=of, resume=resume)

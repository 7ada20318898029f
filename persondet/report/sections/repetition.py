"""Section 9: how to make the run again: commands, versions, datasets, files."""

from __future__ import annotations

import shlex

from persondet.report.document import Block, Heading, Listing, Paragraph, Section, Table
from persondet.report.facts import Facts
from persondet.report.run_state import RunState, exit_of
from persondet.report.wording import DASH, listed, several, whole

_FILES = (
    ("model_best.pth", "the model: weights, config, class names and threshold in one file"),
    ("config.yaml", "every setting of the training"),
    ("metrics.json", "the log of the training, a line per row"),
    ("results.json", "the scores"),
    ("provenance.json", "commands, versions, datasets and hardware"),
    ("dataset.json", "the check of the dataset"),
    ("parameters.txt", "every tensor of the model, learning or frozen"),
    ("weights.txt", "what was loaded into the model"),
    ("inference", "predictions and their analysis, by split"),
    ("plots", "the figures"),
)
_OF_EVALUATION = ("config.yaml", "dataset.json", "inference", "plots")
_MOST_STARTS = 10


def repetition(state: RunState) -> Section:
    """Tell what the run was made of, and the commands that make and use it."""
    if state.evaluation_only:
        return Section("repetition", "How to make it again", (*_use(state), *_files(state)))
    blocks: list[Block] = [
        Paragraph(
            "With the same command, versions, seed and dataset a training on the same machine "
            "takes the same course. On another machine the digits behind the point may differ.",
        ),
        *_commands(state),
        *_versions(state),
        *_datasets(state),
        *_use(state),
        *_files(state),
    ]
    return Section("repetition", "How to make it again", tuple(blocks))


def _commands(state: RunState) -> list[Block]:
    heading = Heading("Commands")
    if not state.starts:
        how = "A training (tools/train_net.py) writes it at its start."
        return [heading, state.run.missing("provenance.json", "The command is not known.", how)]
    blocks: list[Block] = [heading]
    for start in state.starts[:_MOST_STARTS]:
        words = start["command"].texts()
        began, end = start["started"].text(), exit_of(start)
        first, done = start["first_step"].number(), start["steps_done"].number()
        how = {"finished": "finished", "": "its end is not recorded"}.get(end, end)
        text = (
            f"Started {began or 'at an unknown time'}, step {whole(first)} to {whole(done)}: {how}."
        )
        blocks += [Paragraph(text), Listing((_command(words),))]
    commit = state.last_start["git"]["commit"].text()
    if commit:
        changed = state.last_start["git"]["changed_files"].count() or 0
        more = f", with {several(changed, 'changed file')}" if changed else ""
        blocks.append(Paragraph(f"The code was at commit {commit}{more}."))
    files = state.last_start["config"]["files"].texts()
    if files:
        digest = state.last_start["config"]["sha256"].text()
        text = f"Config files: {listed(files)}."
        blocks.append(
            Paragraph(text + (f" SHA-256 of the resolved config: {digest}." if digest else ""))
        )
    return blocks


def _command(words: list[str]) -> str:
    if not words:
        return "(the command is not recorded)"
    python = [] if words[0].rpartition("/")[2].startswith("python") else ["python"]
    return shlex.join([*python, *words])


def _versions(state: RunState) -> list[Block]:
    rows = [(name, value.shown() or "none") for name, value in state.last_start["versions"].items()]
    if not rows:
        return []
    header = ("software", "version")
    return [Heading("Versions"), Table("What it ran with", header, tuple(rows[:40]))]


def _datasets(state: RunState) -> list[Block]:
    rows = [
        (
            name,
            whole(facts["images"].number()),
            whole(facts["annotations"].number()),
            _short(facts["json_sha256"]),
            _short(facts["files_sha256"]),
        )
        for name, facts in state.last_start["datasets"].items()[:20]
    ]
    if not rows:
        return []
    header = ("split", "pictures", "objects", "annotations' SHA-256", "pictures' SHA-256")
    caption = "Fingerprints of the datasets: the same digits, the same data"
    return [Heading("Datasets"), Table(caption, header, tuple(rows), (1, 2))]


def _short(digest: Facts) -> str:
    return digest.text()[:12] or DASH


def _use(state: RunState) -> list[Block]:
    run = state.run.word
    lines = (
        f"python tools/predict.py --run {run} --input PHOTOS --output ANNOTATED",
        f"python tools/video_demo.py --run {run} --video-input CLIP.mp4 --output OUT.mp4",
    )
    return [
        Heading("Using the model"),
        Listing(
            (
                *(() if state.evaluation_only else lines),
                state.evaluation_command(),
                f"python tools/make_report.py {run}",
            )
        ),
    ]


def _files(state: RunState) -> list[Block]:
    rows = []
    for name, meaning in _FILES:
        if state.evaluation_only and name not in _OF_EVALUATION:
            continue
        path = state.run.inside(name)
        rows.append((name, meaning, "yes" if path is not None and path.exists() else "missing"))
    header = ("file", "what it holds", "there")
    return [Heading("Files"), Table("The run folder", header, tuple(rows))]

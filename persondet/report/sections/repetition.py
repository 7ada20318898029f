"""Chapter "How to make it again": commands, versions, datasets, files."""

from __future__ import annotations

import shlex

from persondet.report import sections as say
from persondet.report.document import Block, Heading, Listing, Paragraph, Section
from persondet.report.run import Run
from persondet.report.wording import DASH, listed, several, whole

_OF_EVALUATION = ("config.yaml", "dataset.json", "inference", "plots")
_MOST_STARTS = 10


def repetition(run: Run) -> Section:
    """Tell what the run was made of, and the commands that make and use it."""
    blocks = [*_use(run), *_files(run)]
    if not run.evaluation_only:
        made = (*_commands(run), *_versions(run), *_datasets(run))
        blocks = [say.prose("repetition.intro"), *made, *blocks]
    return Section("repetition", "How to make it again", tuple(blocks))


def _commands(run: Run) -> list[Block]:
    blocks: list[Block] = [Heading("Commands")]
    if not run.starts:
        return [
            *blocks,
            say.missing(run, "provenance.json", "The command is not known.", say.TRAINS),
        ]
    for start in run.starts[:_MOST_STARTS]:
        first, done = start["first_step"].number(), start["steps_done"].number()
        began, end = start["started"].text() or "at an unknown time", start["exit"].text()
        how = end or "its end is not recorded"
        text = f"Started {began}, step {whole(first)} to {whole(done)}: {how}."
        blocks += [Paragraph(text), Listing((_command(start["command"].texts()),))]
    git, config = run.last_start["git"], run.last_start["config"]
    if git["commit"].text():
        changed = git["changed_files"].count() or 0
        more = f", with {several(changed, 'changed file')}" if changed else ""
        blocks.append(Paragraph(f"The code was at commit {git['commit'].text()}{more}."))
    if config["files"].texts():
        digest, text = config["sha256"].text(), f"Config files: {listed(config['files'].texts())}."
        more = f" SHA-256 of the resolved config: {digest}." if digest else ""
        blocks.append(Paragraph(text + more))
    return blocks


def _command(words: list[str]) -> str:
    if not words:
        return "(the command is not recorded)"
    python = [] if words[0].rpartition("/")[2].startswith("python") else ["python"]
    return shlex.join([*python, *words])


def _versions(run: Run) -> list[Block]:
    found = run.last_start["versions"].items()[:40]
    rows = [(name, value.shown() or "none") for name, value in found]
    versions = say.table("What it ran with", ("software", "version"), rows)
    return [Heading("Versions"), versions] if rows else []


def _datasets(run: Run) -> list[Block]:
    rows = [
        (
            name,
            whole(facts["images"].number()),
            whole(facts["annotations"].number()),
            facts["json_sha256"].text()[:12] or DASH,
            facts["files_sha256"].text()[:12] or DASH,
        )
        for name, facts in run.last_start["datasets"].items()[:20]
    ]
    header = ("split", "images", "objects", "annotations' SHA-256", "images' SHA-256")
    caption = "Fingerprints of the datasets: the same digits, the same data"
    return [Heading("Datasets"), say.table(caption, header, rows, (1, 2))] if rows else []


def _use(run: Run) -> list[Block]:
    word = say.folder_word(run)
    lines = [say.evaluation_command(run), f"python tools/make_report.py {word}"]
    if not run.evaluation_only:
        lines = [
            f"python tools/predict.py --run {word} --input PHOTOS --output ANNOTATED",
            f"python tools/video_demo.py --run {word} --video-input CLIP.mp4 --output OUT.mp4",
            *lines,
        ]
    return [Heading("Using the model"), Listing(tuple(lines))]


def _files(run: Run) -> list[Block]:
    rows = []
    for name, meaning in say.meanings("files").items():
        path = run.inside(name)
        if not run.evaluation_only or name in _OF_EVALUATION:
            rows.append((name, meaning, "yes" if path and path.exists() else "missing"))
    header = ("file", "what it holds", "there")
    return [Heading("Files"), say.table("The run folder", header, rows)]

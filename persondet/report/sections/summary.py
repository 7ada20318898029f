"""The chapters around the results: what was asked, the limits, how to repeat the run."""

from __future__ import annotations

import shlex

from persondet.report import sections as say
from persondet.report.document import Block, Bullets, Heading, Listing, Paragraph, Section
from persondet.report.facts import DASH, decimals, listed, points, several, share, whole
from persondet.report.run import Run
from persondet.report.sections import MANY, prose, said, table, with_interval

_WEAK = 0.5  # recall below this is named as a weakness
_FEW = 10  # objects; with fewer a recall says nothing
_MOST_STARTS = 10
_OF_EVALUATION = ("config.yaml", "dataset.json", "inference", "plots")


def asked(run: Run) -> Section:
    """Say what the detector is for, how good it turned out, and in what order the report goes."""
    classes = listed([f"“{name}”" for name in run.classes]) or "the objects of its dataset"
    mask = ", a mask (the set of pixels that belong to the object)" if run.masks else ""
    blocks = (
        prose("asked.task", classes=classes, outline=f"a box around the object{mask}"),
        prose("asked.question"),
        say.ending(run),
        *_answer(run),
        prose("asked.order"),
    )
    return Section("asked", "What was asked", blocks)


def _answer(run: Run) -> list[Block]:
    word = run.scored.word
    if not say.scored_tasks(run):
        what = f"There is no score on the {word} yet."
        return [say.missing(run, "results.json", what, say.evaluates(run))]
    rows = _score_rows(run) + _threshold_rows(run)
    answer = table("answer", rows, word=word)
    return [*say.caution(run), *say.unscored(run), *answer, say.points_of("asked.terms")]


def _score_rows(run: Run) -> list[tuple[str, str]]:
    scores, valid, tasks = run.scored.scores, run.results["valid"], say.scored_tasks(run)
    rows = [(f"Images in the {run.scored.word}", whole(scores["images"]))]
    for task in tasks:
        for metric in ("AP", "AP50"):
            rows.append((f"{metric} of the {MANY[task]}", with_interval(scores, task, metric)))
    for task in tasks if run.scored.kind == "test" else ():
        if valid[task]["AP"].number() is not None:
            what = f"AP of the {MANY[task]} on the validation split"
            rows.append((what, with_interval(valid, task, "AP")))
    constant = (
        "AP of the same box on every image",
        points(run.results["constant_box"]["bbox"]["AP"]),
    )
    return rows + ([constant] if constant[1] != DASH else [])


def _threshold_rows(run: Run) -> list[tuple[str, str]]:
    point, rows = run.results["operating_point"], []
    if point["threshold"].number() is not None:
        at = point[run.scored.key]
        rows = [
            ("Score threshold for use", decimals(point["threshold"])),
            ("Objects found at it (recall)", share(at["recall"])),
            ("Detections that are right (precision)", share(at["precision"])),
        ]
    if run.leaked is not None:
        what = f"{run.scored.kind.capitalize()} images known from an earlier split"
        rows.append((what, share(run.leaked[1])))
    return rows


def limits(run: Run) -> Section:
    """List the limits: those of this run by its numbers, and those of every such detector."""
    blocks = (
        *(() if run.complete else (say.ending(run),)),
        Paragraph("The numbers of this run show these limits:"),
        Bullets(tuple(_of_this_run(run))),
        Paragraph("Every detector made this way has these limits:"),
        say.points_of("limits.general"),
    )
    return Section("limits", "Limits", blocks)


def _of_this_run(run: Run) -> list[tuple[str, str]]:
    drawn = run.results["seconds"]["sample"].number() is not None  # the demo draws its people
    items = [("Drawn images.", said("limits.demo"))] if drawn else []
    images, kind = run.scored.scores["images"].count(), run.scored.kind
    if images is None:
        items.append(("No score.", "Without a score nothing can be promised."))
    elif images < 200:
        text = f"The score rests on {several(images, 'image')}; see its 95 % intervals."
        items.append(("A small test.", text))
    items.append(("One training.", said("limits.one_training")))
    items += [("No fair test.", note.text) for note in say.caution(run)]
    if run.leaked is None:
        text = f"Nobody has compared the {kind} images with the training images."
        items.append(("Known images.", text))
    elif run.leaked[0]:
        text = f"{share(run.leaked[1])} of the {kind} images lie in an earlier split."
        items.append(("Known images.", text))
    weak = _weak_situations(run)
    items += [("Often missed:", f"{listed(weak)}.")] if weak else []
    return items + ([] if run.masks else [("Boxes only.", "This model draws no masks.")])


def _weak_situations(run: Run) -> list[str]:
    weak = []
    for _, rows in run.errors["recall"].items():
        for row in rows.entries():
            recall, people = row["recall"].number(), row["people"].number()
            if recall is not None and people is not None and recall < _WEAK and people >= _FEW:
                weak.append(f"{row['label'].shown()} ({share(recall)} of {people:.0f} found)")
    return weak


def repetition(run: Run) -> Section:
    """Tell what the run was made of, and the commands that make and use it."""
    blocks = [*_use(run), *_files(run)]
    if not run.evaluation_only:
        made = (*_commands(run), *_versions(run), *_datasets(run))
        blocks = [prose("repetition.intro"), *made, *blocks]
    return Section("repetition", "How to make it again", tuple(blocks))


def _commands(run: Run) -> list[Block]:
    blocks: list[Block] = [Heading("Commands")]
    if not run.starts:
        what = "The command is not known."
        return [*blocks, say.missing(run, "provenance.json", what, say.TRAINS)]
    for start in run.starts[:_MOST_STARTS]:
        first, done = say.counts(start, "first_step", "steps_done")
        began, end = start["started"].text() or "at an unknown time", start["exit"].text()
        how = end or "its end is not recorded"
        text = f"Started {began}, step {first} to {done}: {how}."
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
    found = run.last_start["versions"].items()
    rows = [(name, value.shown() or "none") for name, value in found]
    versions = table("versions", rows)
    return [Heading("Versions"), *versions] if versions else []


def _datasets(run: Run) -> list[Block]:
    rows = [
        (
            name,
            *say.counts(facts, "images", "annotations"),
            *(facts[key].text()[:12] or DASH for key in ("json_sha256", "files_sha256")),
        )
        for name, facts in run.last_start["datasets"].items()
    ]
    datasets = table("datasets", rows)
    return [Heading("Datasets"), *datasets] if datasets else []


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
    return [Heading("Files"), *table("files", rows)]

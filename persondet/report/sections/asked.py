"""Chapter "What was asked": the task, and the answer in short."""

from __future__ import annotations

from persondet.report import sections as say
from persondet.report.document import Block, Note, Section
from persondet.report.run import Run
from persondet.report.wording import listed, points, share, whole


def asked(run: Run) -> Section:
    """Say what the detector is for, how good it turned out, and in what order the report goes."""
    classes = listed([f"“{name}”" for name in run.classes]) or "the objects of its dataset"
    mask = ", a mask (the set of pixels that belong to the object)" if run.masks else ""
    task = say.prose("asked.task", classes=classes, outline=f"a box around the object{mask}")
    blocks = (
        task,
        say.prose("asked.question"),
        say.ending(run),
        *_answer(run),
        say.prose("asked.order"),
    )
    return Section("asked", "What was asked", blocks)


def _answer(run: Run) -> list[Block]:
    if not say.scored_tasks(run):
        what = f"There is no score on the {run.scored.word} yet."
        return [say.missing(run, "results.json", what, say.evaluates(run))]
    unscored = say.why_no_score(run)
    rows = _score_rows(run) + _threshold_rows(run)
    return [
        *say.caution(run),
        *([Note("warning", unscored)] if unscored else []),
        say.table(f"The answer in short: the {run.scored.word}", ("what", "value"), rows, 1),
        say.points_of("asked.terms"),
    ]


def _score_rows(run: Run) -> list[tuple[str, str]]:
    scores, valid = run.scored.scores, run.results["valid"]
    tasks = say.scored_tasks(run)
    rows = [(f"Images in the {run.scored.word}", whole(scores["images"].number()))]
    for task in tasks:
        for metric in ("AP", "AP50"):
            rows.append(
                (f"{metric} of the {say.MANY[task]}", say.with_interval(scores, task, metric))
            )
    for task in tasks if run.scored.kind == "test" else ():
        if valid[task]["AP"].number() is not None:
            what = f"AP of the {say.MANY[task]} on the validation split"
            rows.append((what, say.with_interval(valid, task, "AP")))
    constant = run.results["constant_box"]["bbox"]["AP"].number()
    return rows + (
        [("AP of the same box on every image", points(constant))] if constant is not None else []
    )


def _threshold_rows(run: Run) -> list[tuple[str, str]]:
    point, rows = run.results["operating_point"], []
    threshold, at = point["threshold"].number(), point[run.scored.key]
    if threshold is not None:
        rows = [
            ("Score threshold for use", f"{threshold:.2f}"),
            ("Objects found at it (recall)", share(at["recall"].number())),
            ("Detections that are right (precision)", share(at["precision"].number())),
        ]
    if run.leaked is not None:
        what = f"{run.scored.kind.capitalize()} images known from an earlier split"
        rows.append((what, share(run.leaked[1])))
    return rows

"""Section 1: what was asked, and the answer in short."""

from __future__ import annotations

from persondet.report.document import Block, Bullets, Note, Paragraph, Section, Table
from persondet.report.run_state import RunState
from persondet.report.sections.evaluation import score_with_interval, why_no_score
from persondet.report.wording import listed, points, share, whole


def asked(state: RunState) -> Section:
    """Say what the detector is for, how good it turned out, and in what order the report goes."""
    return Section(
        "asked",
        "What was asked",
        (
            *_task(state),
            *_answer(state),
            Paragraph(
                "This report follows the order of the work. Each section first says what the step "
                "is for, in words that need no earlier knowledge, and then shows what happened in "
                "this run. All numbers and pictures come from the files of the run folder; where "
                "one is missing, a sentence says so and names the command that makes it.",
            ),
        ),
    )


def _task(state: RunState) -> list[Block]:
    classes = listed([f"“{name}”" for name in state.classes]) or "the objects of its dataset"
    outline = (
        "a box around it, and a mask: the set of pixels that belong to it"
        if state.masks
        else "a box around it"
    )
    return [
        Paragraph(
            "A detector gets a picture and answers with a list of what it sees. This one was built "
            f"to find {classes}. For each find it gives {outline}, and a score from 0 to 1 that "
            "says how sure it is.",
        ),
        Paragraph(
            "The question behind this report is whether its answers can be trusted, on which kind "
            "of pictures, and where it fails.",
        ),
    ]


def _answer(state: RunState) -> list[Block]:
    split = state.scored
    scores = split.scores
    ended = Note("answer" if state.complete else "warning", state.how_it_ended())
    if not state.tasks:
        return [
            ended,
            state.run.missing(
                "results.json",
                f"There is no score on the {split.word} yet.",
                state.evaluates,
            ),
        ]
    rows = [(f"Pictures in the {split.word}", whole(scores["images"].number()))]
    for task, name in state.tasks:
        rows.append((f"AP of the {name}es" if name == "box" else "AP of the masks",
                     score_with_interval(scores, task, "AP")))  # fmt: skip
        rows.append((f"AP50 of the {name}es" if name == "box" else "AP50 of the masks",
                     score_with_interval(scores, task, "AP50")))  # fmt: skip
    valid = state.results["valid"]
    for task, name in state.tasks if split.kind == "test" else ():
        if valid[task]["AP"].number() is not None:
            what = "boxes" if name == "box" else "masks"
            rows.append((f"AP of the {what} on the validation split",
                         score_with_interval(valid, task, "AP")))  # fmt: skip
    constant = state.results["constant_box"]["bbox"]["AP"].number()
    if constant is not None:
        rows.append(("AP of the same box on every picture", points(constant)))
    point = state.results["operating_point"]
    if point["threshold"].number() is not None:
        rows += [
            ("Score threshold for use", f"{point['threshold'].number():.2f}"),
            ("Objects found at it (recall)", share(point[split.key]["recall"].number())),
            ("Finds that are right (precision)", share(point[split.key]["precision"].number())),
        ]
    if state.leaked is not None:
        what = f"{split.kind.capitalize()} pictures known from an earlier split"
        rows.append((what, share(state.leaked[1])))
    unscored = [Note("warning", text) for text in [why_no_score(state)] if text]
    return [
        ended,
        *state.caution,
        *unscored,
        Table(f"The answer in short: the {split.word}", ("what", "value"), tuple(rows), (1,)),
        Bullets(
            (
                (
                    "AP",
                    "(average precision) runs from 0 to 100. It is 100 when every object is found, "
                    "nothing else is, and every box or mask fits closely. AP50 asks only for a "
                    "rough fit. The numbers in brackets are the 95 % interval: about as far as the "
                    "score could move with other pictures of the same kind. The section on the "
                    "evaluation explains both.",
                ),
                (
                    "Threshold",
                    ": finds with a lower score are not shown. Recall says how many of the real "
                    "objects are then found, precision how many of the finds are real.",
                ),
            )
        ),
    ]

"""The part of section 6 that is about the score threshold: the curves and the operating point."""

from __future__ import annotations

from persondet.report.document import Block, Heading, Note, Paragraph, Table
from persondet.report.run_state import RunState
from persondet.report.wording import DASH, share, whole

_SEVERAL = (
    " The lines are the mean over the classes; where there is a dashed one, it takes the finds of all"
    " classes in one row, and the threshold lies on it."
)


def precision_and_recall(state: RunState) -> list[Block]:
    """Return the blocks with the curves over all thresholds."""
    how = f"{state.evaluates} && python tools/plot_metrics.py {state.run.word}"
    return [
        Heading("Precision, recall and the score threshold"),
        state.run.figure(
            "plots/pr_curve.png",
            "Precision against recall.",
            "Each point of a line is one threshold. A good line stays near the top and falls late: "
            "most objects are found before false alarms come in. The area under the line of IoU 0.5 is AP50, that under the dotted one AP75."
            + (_SEVERAL if len(state.classes) > 1 else ""),
            how=how,
        ),
        state.run.figure(
            "plots/f1_curve.png",
            "Precision, recall and F1 against the score threshold.",
            "F1 is high only where precision and recall both are. Its highest point is the best "
            "balance; a broad top says that the exact threshold hardly matters.",
            how=how,
        ),
        state.run.figure(
            "plots/score_histogram.png",
            "The scores of right finds and of false alarms.",
            "The less the two overlap, the better the score tells right from wrong.",
            how=how,
        ),
    ]


def operating_point(state: RunState) -> list[Block]:
    """Return the blocks on the one threshold that is in use."""
    point = state.results["operating_point"]
    threshold = point["threshold"].number()
    blocks: list[Block] = [
        Heading("The operating point"),
        Paragraph(
            "AP looks at all scores. Who uses a detector needs one threshold: finds below it are "
            "not shown. "
            + (
                "The model carries none: a training chooses it when it ends, if there is a "
                "validation split on which the model finds anything. 0.5 stands in."
                if point["tuned"].value is False
                else "A training chooses it when it ends: where F1 is highest on the validation "
                "split."
                if threshold is None
                else "It is chosen where F1 is highest on the validation split, before the test "
                "split is looked at, and is stored in the model, so that pictures and clips are "
                "annotated with it unless another is asked for."
            ),
        ),
    ]
    if threshold is None:
        text = "No threshold is recorded for this run. "
        if state.complete:
            text += (
                "It cannot be chosen later; tools/predict.py and tools/video_demo.py take what "
                "--confidence-threshold says, else 0.5. What 0.5 finds is told by: "
                f"{state.evaluation_command()}"
            )
        else:
            text += "tools/train_net.py with --resume ends the training, and chooses it."
        return [*blocks, Note("missing", text)]
    task = "masks" if point["task"].text() == "segm" else "boxes"
    iou = point["iou"].number()
    demanded = "" if iou is None else f" of {task} with an IoU of {iou:.1f} or more"
    rows = []
    kinds = {"valid": "validation", "test": "test", state.scored.key: state.scored.kind}
    for split, name in kinds.items():
        part = point[split]
        if part:
            shares = (share(part[key].number()) for key in ("precision", "recall"))
            f1 = part["f1"].number()
            counts = (whole(part[key].number()) for key in ("hits", "misses", "false_alarms"))
            rows.append((name, *shares, DASH if f1 is None else f"{f1:.2f}", *counts))
    if not rows:
        text = f"What the threshold {threshold:.2f} finds is not recorded. {state.evaluates}"
        return [*blocks, Note("missing", text)]
    header = ("split", "precision", "recall", "F1", "hits", "misses", "false alarms")
    caption = f"At the threshold {threshold:.2f}: hits{demanded}"
    return [*blocks, Table(caption, header, tuple(rows), tuple(range(1, 7)))]

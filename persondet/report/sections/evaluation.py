"""Section 6: the score on the test split, the curves and the operating point."""

from __future__ import annotations

from persondet.report.document import Block, Bullets, Heading, Note, Paragraph, Section, Table
from persondet.report.facts import Facts
from persondet.report.run_state import EVALUATES, RunState
from persondet.report.sections.mistakes import mistakes
from persondet.report.wording import points, several, share, whole

_MEASURES = {
    "AP": "all objects, mean over the ten strictnesses",
    "AP50": "a rough fit is enough (IoU 0.5)",
    "AP75": "a close fit is asked for (IoU 0.75)",
    "APs": "small objects, under 32 × 32 pixels",
    "APm": "medium objects",
    "APl": "large objects, from 96 × 96 pixels",
    "AR": "share of the objects found, at most 100 finds per picture",
}
_MOST_CLASSES = 30


def score_with_interval(scores: Facts, task: str, metric: str) -> str:
    """Return a measure with its 95 % interval, such as "52.1 (47.9 to 56.0)"."""
    text = points(scores[task][metric].number())
    low, high = (scores["intervals"][task][metric][end].number() for end in (0, 1))
    return text if low is None or high is None else f"{text} ({points(low)} to {points(high)})"


def evaluation(state: RunState) -> Section:
    """Explain the measures, give the scores, and look at the mistakes."""
    return Section(
        "evaluation",
        "Evaluation on the test split",
        (
            *_measures(),
            *_scores(state),
            *_precision_and_recall(state),
            *_operating_point(state),
            *mistakes(state),
        ),
    )


def _measures() -> list[Block]:
    return [
        Heading("What is measured"),
        Bullets(
            (
                (
                    "IoU",
                    "(intersection over union) says how well two boxes or masks fit: the area "
                    "that both cover, divided by the area that at least one covers. 1 is a perfect "
                    "fit, 0 no contact. From about 0.5 on, a viewer calls it the same object.",
                ),
                (
                    "Hit, miss, false alarm:",
                    "a find whose IoU with a real object reaches the demanded value is a hit; an "
                    "object without a find is a miss; a find without an object, or the second one "
                    "for the same object, is a false alarm.",
                ),
                (
                    "Precision and recall:",
                    "precision is the share of finds that are hits, recall the share of objects "
                    "that are found. Showing only finds with high scores raises precision and "
                    "costs recall.",
                ),
                (
                    "AP",
                    "(average precision) joins both into one number from 0 to 100: the precision, "
                    "averaged over all values of recall. Plain AP is the mean over ten demanded "
                    "IoUs, 0.50 to 0.95, as the COCO benchmark defines it (Lin et al., 2014); AP50 "
                    "and AP75 are those at one IoU.",
                ),
                (
                    "95 % interval:",
                    "the test pictures are a sample, and others would give another score. The "
                    "pictures are drawn again and again with replacement (bootstrap), and 95 of "
                    "100 such scores lie in the interval. Two models whose intervals overlap "
                    "widely cannot be told apart by this test.",
                ),
            )
        ),
    ]


def _scores(state: RunState) -> list[Block]:
    test = state.results["test"]
    blocks: list[Block] = [Heading("The score")]
    blocks += [Note("warning", text) for text in test["notes"].texts()[:10]]
    if not state.tasks:
        how = (
            "A training ends with it; for a trained model, run tools/train_net.py with --eval-only."
        )
        missing = state.run.missing("results.json", "There is no score on the test split.", how)
        return [*blocks, missing]
    blocks.append(_score_table(state, test))
    images = test["images"].count()
    told = any(test["intervals"][task]["AP"][0].number() is not None for task, _ in state.tasks)
    if not told:
        text = "results.json has no intervals, so that nobody knows how far the scores may be off. "
        blocks.append(Note("missing", text + EVALUATES))
    if images:
        blocks.append(
            Paragraph(
                f"The test split has {several(images, 'picture')}. "
                + (
                    "With so few, only the first digit of a score should be believed, and small "
                    "differences mean nothing."
                    if images < 200
                    else "The digits after the point are still uncertain, as the intervals show."
                )
            )
        )
    blocks += _classes(state, test) + _constant_box(state) + _leaks(state, test)
    return blocks


def _score_table(state: RunState, test: Facts) -> Table:
    found = {name for task, _ in state.tasks for name, _ in test[task].items()}
    known = [name for name in _MEASURES if name in found]
    more = sorted(name for name in found if name.startswith("AP@"))
    rows = [
        (
            name,
            _MEASURES.get(name, f"with up to {name.removeprefix('AP@')} finds per picture"),
            *(score_with_interval(test, task, name) for task, _ in state.tasks),
        )
        for name in [*known, *more]
    ]
    header = ("measure", "what it says", *(f"{name}es" if name == "box" else f"{name}s" for _, name in state.tasks))  # fmt: skip
    caption = (
        f"Scores on {state.test_set or 'the test split'}, 0 to 100, with 95 % intervals; a dash: "
        "no such objects"
    )
    return Table(caption, header, tuple(rows), tuple(range(2, len(header))))


def _classes(state: RunState, test: Facts) -> list[Block]:
    """Return AP by class, where there are several."""
    if len(state.classes) < 2:
        return []
    rows = [
        (name, *(score_with_interval(test, task, f"AP-{name}") for task, _ in state.tasks))
        for name in state.classes[:_MOST_CLASSES]
    ]
    header = ("class", *(f"AP, {name}" for _, name in state.tasks))
    return [Table("AP of each class", header, tuple(rows), tuple(range(1, len(header))))]


def _constant_box(state: RunState) -> list[Block]:
    constant = state.results["constant_box"]
    scores = [
        f"{points(constant[task]['AP'].number())} ({name})"
        for task, name in state.tasks
        if constant[task]["AP"].number() is not None
    ]
    if not scores:
        return []
    return [
        Paragraph(
            "For comparison: a detector that looks at no picture and always gives the same box, "
            f"the middle one of the training split, has an AP of {', '.join(scores)}. What the "
            "model scores above that, it owes to looking.",
        )
    ]


def _leaks(state: RunState, test: Facts) -> list[Block]:
    leaks = test["leaks"]
    images, part = leaks["images"].number(), leaks["share"].number()
    if images is None:
        leak = state.run.facts("dataset.json")["leaks"]["test"]
        images, part = leak["leaked"].number(), leak["share"].number()
    if images is None:
        text = (
            "Whether test pictures were known from the training is not recorded. python "
            "tools/prepare_dataset.py check on the dataset's folder tells it."
        )
        return [Note("missing", text)]
    if not images:
        text = "No test picture has a copy, a version or a neighbouring frame in another split."
        return [Paragraph(text)]
    text = (
        f"{several(images, 'test picture')} ({share(part)}) "
        f"{'has' if images == 1 else 'have'} a copy or a version in a split that was learned "
        "from: the score looks better than it is."
    )
    return [Note("warning", text)]


def _precision_and_recall(state: RunState) -> list[Block]:
    how = f"{EVALUATES} Then: python tools/plot_metrics.py {state.run.word}"
    return [
        Heading("Precision, recall and the score threshold"),
        state.run.figure(
            "plots/pr_curve.png",
            "Precision against recall.",
            "Each point of a line is one threshold. A good line stays near the top and falls late: "
            "most objects are found before false alarms come in. The area under it is the AP.",
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


def _operating_point(state: RunState) -> list[Block]:
    point = state.results["operating_point"]
    threshold = point["threshold"].number()
    blocks: list[Block] = [
        Heading("The operating point"),
        Paragraph(
            "AP looks at all scores. Who uses a detector needs one threshold: finds below it are "
            "not shown. "
            + (
                "None could be chosen here, because there is no validation split on which the "
                "model finds anybody; 0.5 stands in."
                if point["tuned"].value is False
                else "It is chosen where F1 is highest on the validation split, before the test "
                "split is looked at, and is stored in the model, so that pictures and clips are "
                "annotated with it unless another is asked for."
            ),
        ),
    ]
    if threshold is None:
        why = (
            "results.json has no operating point. "
            if state.results
            else "results.json is missing. "
        )
        return [*blocks, Note("missing", why + EVALUATES)]
    task = "masks" if point["task"].text() == "segm" else "boxes"
    iou = point["iou"].number()
    demanded = "" if iou is None else f" of {task} with an IoU of {iou:.1f} or more"
    rows = []
    for split, name in (("valid", "validation"), ("test", "test")):
        part = point[split]
        if part:
            shares = (share(part[key].number()) for key in ("precision", "recall"))
            f1 = part["f1"].number()
            counts = (whole(part[key].number()) for key in ("hits", "misses", "false_alarms"))
            rows.append((name, *shares, "–" if f1 is None else f"{f1:.2f}", *counts))
    header = ("split", "precision", "recall", "F1", "hits", "misses", "false alarms")
    caption = f"At the threshold {threshold:.2f}: hits{demanded}"
    return [*blocks, Table(caption, header, tuple(rows), tuple(range(1, 7)))]

"""The evaluation: the score on the test split, the curves, the operating point, the mistakes."""

from __future__ import annotations

from persondet.report.document import Block, Bullets, Heading, Note, Paragraph, Section, Table
from persondet.report.facts import Facts
from persondet.report.run_state import RunState
from persondet.report.sections.mistakes import mistakes
from persondet.report.sections.threshold import operating_point, precision_and_recall
from persondet.report.wording import points, several, share

_MEASURES = {
    "AP": "all objects, mean over the ten strictnesses",
    "AP50": "a rough fit is enough (IoU 0.5)",
    "AP75": "a close fit is asked for (IoU 0.75)",
    "APs": "small objects, under 32 × 32 pixels",
    "APm": "medium objects",
    "APl": "large objects, from 96 × 96 pixels",
    "AR": "share of the objects found, at most 100 finds per picture",
}
_MOST_CLASSES, _MOST_SETS = 30, 10


def score_with_interval(scores: Facts, task: str, metric: str) -> str:
    """Return a measure with its 95 % interval, such as "52.1 (47.9 to 56.0)"."""
    text = points(scores[task][metric].number())
    low, high = (scores["intervals"][task][metric][end].number() for end in (0, 1))
    return text if low is None or high is None else f"{text} ({points(low)} to {points(high)})"


def evaluation(state: RunState) -> Section:
    """Explain the measures, give the scores, and look at the mistakes."""
    return Section(
        "evaluation",
        f"Evaluation on the {state.scored.word}",
        (
            *_measures(),
            *_scores(state),
            *precision_and_recall(state),
            *operating_point(state),
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
                    "the pictures are a sample, and others would give another score. The "
                    "pictures are drawn again and again with replacement (bootstrap), and 95 of "
                    "100 such scores lie in the interval. Two models whose intervals overlap "
                    "widely cannot be told apart by this test.",
                ),
            )
        ),
    ]


def _scores(state: RunState) -> list[Block]:
    split = state.scored
    blocks: list[Block] = [Heading("The score")]
    blocks += [Note("warning", text) for text in state.other_models]
    blocks += [Note("warning", text) for text in split.scores["notes"].texts()[:10]]
    blocks += state.caution
    if not state.tasks:
        what = f"There is no score on the {split.word}."
        return [*blocks, state.run.missing("results.json", what, state.evaluates)]
    blocks.append(_score_table(state, split.scores, split.dataset or f"the {split.word}"))
    images = split.scores["images"].count()
    blocks += _intervals(state)
    if images:
        blocks.append(
            Paragraph(
                f"The {split.word} has {several(images, 'picture')}. "
                + (
                    "With so few, only the first digit of a score should be believed, and small "
                    "differences mean nothing."
                    if images < 200
                    else "The digits after the point are still uncertain, as the intervals show."
                )
            )
        )
    blocks += _classes(state, split.scores) + _constant_box(state) + _leaks(state)
    return blocks + _beside_validation(state) + _other_sets(state)


def why_no_score(state: RunState) -> str:
    """Return the sentence for a split that was scored and has no AP; empty where it has one."""
    if any(state.scored.scores[task]["AP"].number() is not None for task, _ in state.tasks):
        return ""
    return f"There is no AP: no object is annotated on the {state.scored.word}."


def _intervals(state: RunState) -> list[Block]:
    """Return the note on intervals that are missing, with what can be done about it."""
    scores = state.scored.scores
    if any(scores["intervals"][task]["AP"][0].number() is not None for task, _ in state.tasks):
        return []
    text = why_no_score(state)
    if text:
        return [Note("warning", text)]
    given = "intervals" in (scores.value or ())
    if given and scores["notes"].texts():  # they say why
        return []
    if scores["images"].count() == 1:
        text = "One picture gives no interval: how far the score may be off cannot be said."
        return [Note("warning", text)]
    if given:
        return [Note("warning", "There is no interval: too few pictures hold objects.")]
    text = "results.json has no intervals, so that nobody knows how far the scores may be off. "
    return [Note("missing", text + state.evaluates)]


def _beside_validation(state: RunState) -> list[Block]:
    """Return the scores of test and validation split side by side, where there are both."""
    valid, test = state.results["valid"], state.scored.scores
    tasks = [task for task, _ in state.tasks if valid[task].items()]
    if state.scored.kind != "test" or not tasks:
        return []
    names = {"bbox": "boxes", "segm": "masks"}
    header = ["measure", *(f"{names[t]}, {s}" for t in tasks for s in ("test", "validation"))]
    rows = [
        (name, *(points(part[task][name].number()) for task in tasks for part in (test, valid)))
        for name in _MEASURES
    ]
    text = (
        "The validation split chose the model. Where its score is far above that of the test split,"
        " the choice fits those pictures by chance; the score of the test split counts."
    )
    caption = "The same measures on the test and on the validation split"
    return [
        Table(caption, tuple(header), tuple(rows), tuple(range(1, len(header)))),
        Paragraph(text),
    ]


def _other_sets(state: RunState) -> list[Block]:
    """Return a table for each further dataset that the same model was scored on."""
    found = state.results["tests"].items()[:_MOST_SETS]
    return [_score_table(state, scores, name) for name, scores in found]


def _score_table(state: RunState, test: Facts, dataset: str) -> Table:
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
        f"Scores on {dataset}, 0 to 100, with 95 % intervals where they can be given; a dash: no "
        "such objects"
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


def _leaks(state: RunState) -> list[Block]:
    kind = state.scored.kind
    if state.leaked is None:
        text = (
            f"Whether {kind} pictures were known from the training is not recorded: they are not "
            "compared. python tools/prepare_dataset.py check on the dataset's folder does it."
        )
        return [Note("missing", text)]
    images, part = state.leaked
    if not images:
        text = (
            f"No {kind} picture has a copy, a version or a neighbouring frame in an earlier split."
        )
        return [Paragraph(text)]
    text = (
        f"{several(images, f'{kind} picture')} ({share(part)}) "
        f"{'has' if images == 1 else 'have'} a copy or a version in a split that was learned "
        "from: the score looks better than it is."
    )
    return [Note("warning", text)]

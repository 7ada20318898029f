"""Chapter "Evaluation": the score, the curves and the threshold, the mistakes."""

from __future__ import annotations

from persondet.report.document import Block, Heading, Note, Paragraph, Section, Table
from persondet.report.facts import Facts
from persondet.report.run import Run
from persondet.report.sections import (
    MANY,
    caution,
    evaluates,
    evaluation_command,
    figure,
    folder_word,
    meanings,
    missing,
    points_of,
    prose,
    said,
    scored_tasks,
    table,
    warning,
    why_no_score,
    with_interval,
)
from persondet.report.wording import DASH, points, several, share, whole
from persondet.results import TASKS

_SUMS = {
    "cost_false_positives": ("all false alarms", "every detection that is no hit"),
    "cost_false_negatives": ("all misses", "every object that is not found"),
}
_MOST_CLASSES, _MOST_SETS, _MOST_ROWS, _SHOWN = 30, 10, 20, 4


def evaluation(run: Run) -> Section:
    """Explain the measures, give the scores, and look at the mistakes."""
    blocks = (
        *(Heading("What is measured"), points_of("evaluation.measures")),
        *(Heading("The score"), *_scores(run)),
        *(Heading("Precision, recall and the score threshold"), *_thresholds(run)),
        *(Heading("The operating point"), *_operating_point(run)),
        *(Heading("Which mistakes cost how much"), prose("evaluation.costs"), *_costs(run)),
        *(Heading("Where objects are missed"), prose("evaluation.situations"), *_situations(run)),
        *(Heading("The worst images"), prose("evaluation.gallery", kind=run.scored.kind)),
        *_galleries(run),
    )
    return Section("evaluation", f"Evaluation on the {run.scored.word}", blocks)


def _scores(run: Run) -> list[Block]:
    split, word = run.scored, run.scored.word
    blocks: list[Block] = [
        warning(
            "evaluation.other_model", name=name, words=words, command=evaluation_command(run, name)
        )
        for name, words in run.other_models.items()
    ]
    blocks += [Note("warning", text) for text in split.scores["notes"].texts()[:10]]
    blocks += caution(run)
    if not scored_tasks(run):
        what = f"There is no score on the {word}."
        return [*blocks, missing(run, "results.json", what, evaluates(run))]
    blocks += [_score_table(run, split.scores, split.dataset or f"the {word}"), *_intervals(run)]
    images = split.scores["images"].count()
    if images:
        key = "evaluation.few" if images < 200 else "evaluation.many"
        blocks.append(prose(key, word=f"The {word}", images=several(images, "image")))
    blocks += _classes(run) + _constant_box(run) + [_leaks(run)] + _beside_validation(run)
    others = run.results["tests"].items()[:_MOST_SETS]  # scored with the same model
    return blocks + [_score_table(run, scores, name) for name, scores in others]


def _score_table(run: Run, scores: Facts, dataset: str) -> Table:
    tasks = scored_tasks(run)
    found = {name for task in tasks for name, _ in scores[task].items()}
    above = sorted(name for name in found if name.startswith("AP@"))
    more = {name: f"with up to {name.removeprefix('AP@')} detections per image" for name in above}
    rows = [
        (name, meaning, *(with_interval(scores, task, name) for task in tasks))
        for name, meaning in (meanings("measures") | more).items()
        if name in found
    ]
    caption = (
        f"Scores on {dataset}, 0 to 100, with 95 % intervals where known; a dash: no such objects"
    )
    return table(caption, ("measure", "what it says", *(MANY[task] for task in tasks)), rows, 2)


def _intervals(run: Run) -> list[Block]:
    """Return the note on intervals that are missing, with what can be done about it."""
    scores = run.scored.scores
    if any(scores["intervals"][t]["AP"][0].number() is not None for t in scored_tasks(run)):
        return []
    given = "intervals" in (scores.value or ())
    if why_no_score(run):
        return [Note("warning", why_no_score(run))]
    if given and scores["notes"].texts():  # they say why
        return []
    if scores["images"].count() == 1:
        return [warning("evaluation.one_image")]
    if given:
        return [warning("evaluation.few_objects")]
    return [Note("missing", said("evaluation.no_intervals", how=evaluates(run)))]


def _classes(run: Run) -> list[Block]:
    """Return AP by class, where there are several."""
    tasks, scores = scored_tasks(run), run.scored.scores
    rows = [
        (name, *(with_interval(scores, task, f"AP-{name}") for task in tasks))
        for name in run.classes[:_MOST_CLASSES]
    ]
    header = ("class", *(f"AP, {TASKS[task]}" for task in tasks))
    return [table("AP of each class", header, rows, 1)] if len(run.classes) > 1 else []


def _constant_box(run: Run) -> list[Block]:
    constant = run.results["constant_box"]
    scores = [
        f"{points(constant[task]['AP'].number())} ({TASKS[task]})"
        for task in scored_tasks(run)
        if constant[task]["AP"].number() is not None
    ]
    return [prose("evaluation.evaluator", scores=", ".join(scores))] if scores else []


def _leaks(run: Run) -> Block:
    kind = run.scored.kind
    if run.leaked is None:
        return Note("missing", said("dataset.not_compared"))
    images, part = run.leaked
    if not images:
        return prose("evaluation.no_leak", kind=kind)
    counted, have = several(images, f"{kind} image"), "has" if images == 1 else "have"
    return warning("evaluation.leak", images=counted, part=share(part), have=have)


def _beside_validation(run: Run) -> list[Block]:
    """Return the scores of test and validation split side by side, where there are both."""
    valid, test = run.results["valid"], run.scored.scores
    tasks = [task for task in scored_tasks(run) if valid[task].items()]
    if run.scored.kind != "test" or not tasks:
        return []
    header = [
        "measure",
        *(f"{MANY[t]}, {split}" for t in tasks for split in ("test", "validation")),
    ]
    rows = [
        (name, *(points(part[task][name].number()) for task in tasks for part in (test, valid)))
        for name in meanings("measures")
    ]
    caption = "The same measures on the test and on the validation split"
    return [table(caption, header, rows, 1), prose("evaluation.beside")]


def _plots_how(run: Run) -> str:
    return f"{evaluates(run)} && python tools/plot_metrics.py {folder_word(run)}"


def _thresholds(run: Run) -> list[Block]:
    how, names = _plots_how(run), ("f1_curve", "score_histogram")
    more = " " + said("evaluation.several_classes") if len(run.classes) > 1 else ""
    curve = figure(run, "plots/pr_curve.png", how, more=more)
    return [curve, *(figure(run, f"plots/{name}.png", how) for name in names)]


def _operating_point(run: Run) -> list[Block]:
    """Return the blocks on the one threshold that is in use."""
    point = run.results["operating_point"]
    threshold = point["threshold"].number()
    if point["tuned"].value is False:
        chosen = said("evaluation.untuned")
    else:
        chosen = said("evaluation.to_choose" if threshold is None else "evaluation.chosen")
    blocks: list[Block] = [prose("evaluation.threshold", chosen=chosen)]
    if threshold is None:
        text = said("evaluation.no_threshold_yet")
        if run.complete:
            text = said("evaluation.no_threshold", command=evaluation_command(run))
        return [*blocks, Note("missing", text)]
    rows = _threshold_rows(run, point)
    if not rows:
        text = f"What the threshold {threshold:.2f} finds is not recorded. {evaluates(run)}"
        return [*blocks, Note("missing", text)]
    header = ("split", "precision", "recall", "F1", "hits", "misses", "false alarms")
    iou, kind = point["iou"].number(), MANY["segm" if point["task"].text() == "segm" else "bbox"]
    demanded = "" if iou is None else f" are {kind} with an IoU of {iou:.1f} or more"
    return [*blocks, table(f"At the threshold {threshold:.2f}; hits{demanded}", header, rows, 1)]


def _threshold_rows(run: Run, point: Facts) -> list[tuple[str, ...]]:
    kinds = {"valid": "validation", "test": "test", run.scored.key: run.scored.kind}
    rows = []
    for split, name in kinds.items():
        part = point[split]
        if part:
            shares = (share(part[key].number()) for key in ("precision", "recall"))
            f1 = part["f1"].number()
            counts = (whole(part[key].number()) for key in ("hits", "misses", "false_alarms"))
            rows.append((name, *shares, DASH if f1 is None else f"{f1:.2f}", *counts))
    return rows


def _errors_file(run: Run) -> str:
    return f"inference/{run.scored.dataset}/errors.json"


def _costs(run: Run) -> list[Block]:
    errors = run.facts(_errors_file(run))
    costs = {task: errors["tasks"][task] for task in MANY if errors["tasks"][task]["cost"].items()}
    if not costs:
        return [missing(run, _errors_file(run), "The error analysis is missing.", evaluates(run))]
    lines = [
        (kind, meaning, [cost["cost"][kind].number() for cost in costs.values()])
        for kind, meaning in meanings("mistakes").items()
        # With one class there is no wrong class.
        if errors["classes"].number() != 1 or kind not in ("classification", "both")
    ]
    lines += [
        (label, meaning, [cost[key].number() for cost in costs.values()])
        for key, (label, meaning) in _SUMS.items()
    ]
    rows = [
        (label, meaning, *map(points, values))
        for label, meaning, values in lines
        if any(value is not None for value in values)
    ]
    header = ("kind", "what it is", *(f"{MANY[task]}, points" for task in costs))
    return [
        table("What each kind of mistake costs, in points of AP50", header, rows, 2),
        figure(run, "plots/errors.png", _plots_how(run)),
    ]


def _situations(run: Run) -> list[Block]:
    recall = run.facts(_errors_file(run))["recall"]
    blocks: list[Block] = []
    for key, title in meanings("situations").items():
        rows = [
            (
                row["label"].shown(),
                whole(row["people"].number()),
                whole(row["found"].number()),
                share(row["recall"].number()),
            )
            for row in recall[key].entries()[:_MOST_ROWS]
        ]
        header = ("objects", "there are", "found", "recall")
        blocks += [table(f"Recall: {title}", header, rows, 1)] if rows else []
    if not blocks:
        what = "Recall by situation is missing."
        blocks = [missing(run, _errors_file(run), what, evaluates(run))]
    names = ("plots/recall_by.png", "plots/size_histogram.png")
    return [*blocks, *(figure(run, name, _plots_how(run)) for name in names)]


def _galleries(run: Run) -> list[Block]:
    folder = f"inference/{run.scored.dataset}/gallery"
    name = f"{folder}/gallery.json"
    gallery = run.facts(name)
    blocks: list[Block] = []
    if not gallery:
        return [missing(run, name, "There is no gallery.", evaluates(run))]
    for key, (title, meaning) in meanings("galleries").items():
        entries = gallery[key].entries()
        if key == "poor_masks" and not entries and not run.masks:
            continue
        blocks.append(Paragraph(meaning if entries else "none on this split.", f"{title}:"))
        blocks += [_gallery_image(run, folder, entry) for entry in entries[:_SHOWN]]
        if len(entries) > _SHOWN:
            more = several(len(entries) - _SHOWN, "more image")
            blocks.append(Paragraph(f"{folder} holds {more} of {title.lower()}."))
    return blocks


def _gallery_image(run: Run, folder: str, entry: Facts) -> Block:
    file = entry["file"].text()
    if not file:
        text = f"An entry of {folder}/gallery.json names no image. {evaluates(run)}"
        return Note("missing", text)
    caption = entry["caption"].text() or "Ground truth beside prediction."
    image = entry["image"].text()
    caption += f" Image: {image}." if image and image not in caption else ""
    return figure(run, f"{folder}/{file}", evaluates(run), caption=caption)

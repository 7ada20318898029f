"""Chapters "Evaluation" and "The video": scores, threshold, mistakes, and the annotated clips."""

from __future__ import annotations

from persondet.report import sections as say
from persondet.report.document import Block, Figure, Heading, Note, Paragraph, Section
from persondet.report.facts import (
    DASH,
    Facts,
    decimals,
    duration,
    plain,
    points,
    several,
    share,
    whole,
)
from persondet.report.run import Run
from persondet.report.sections import MANY, evaluates, figure, missing, note, prose, said, table
from persondet.results import TASKS

_SUMS = {
    "cost_false_positives": ("all false alarms", "every detection that is no hit"),
    "cost_false_negatives": ("all misses", "every object that is not found"),
}
_MOST_SETS, _MOST_IMAGES = 10, 4
STILLS = "plots/video_stills.json"


def evaluation(run: Run) -> Section:
    """Explain the measures, give the scores, and look at the mistakes."""
    blocks = (
        *(Heading("What is measured"), say.points_of("evaluation.measures")),
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
    blocks: list[Block] = []
    for name, words in run.other_models.items():
        known = {"name": name, "words": words, "command": say.evaluation_command(run, name)}
        blocks.append(note("warning", "evaluation.other_model", **known))
    blocks += [Note("warning", text) for text in split.scores["notes"].texts()[:10]]
    blocks += say.caution(run)
    if not say.scored_tasks(run):
        what = f"There is no score on the {word}."
        return [*blocks, missing(run, "results.json", what, evaluates(run))]
    blocks += _score_table(run, split.scores, split.dataset or f"the {word}") + _intervals(run)
    images = split.scores["images"].count()
    if images:
        key = "evaluation.few" if images < 200 else "evaluation.many"
        blocks.append(prose(key, word=f"The {word}", images=several(images, "image")))
    blocks += _classes(run) + _constant_box(run) + _leaks(run) + _beside_validation(run)
    for name, scores in run.results["tests"].items()[:_MOST_SETS]:  # scored with the same model
        blocks += _score_table(run, scores, name)
    return blocks


def _score_table(run: Run, scores: Facts, dataset: str) -> list[Block]:
    tasks = say.scored_tasks(run)
    found = {name for task in tasks for name, _ in scores[task].items()}
    above = sorted(name for name in found if name.startswith("AP@"))
    more = {name: f"with up to {name.removeprefix('AP@')} detections per image" for name in above}
    rows = [
        (name, meaning, *(say.with_interval(scores, task, name) for task in tasks))
        for name, meaning in (say.meanings("measures") | more).items()
        if name in found
    ]
    return table("scores", rows, *(MANY[task] for task in tasks), dataset=dataset)


def _intervals(run: Run) -> list[Block]:
    """Return the note on intervals that are missing, with what can be done about it."""
    scores, unscored = run.scored.scores, say.unscored(run)
    if any(scores["intervals"][t]["AP"][0].number() is not None for t in say.scored_tasks(run)):
        return []
    given = "intervals" in (scores.value or ())
    if unscored or (given and scores["notes"].texts()):  # they say why
        return unscored
    if given or scores["images"].count() == 1:
        return [note("warning", "evaluation.few_objects")]
    return [note("missing", "evaluation.no_intervals", how=evaluates(run))]


def _classes(run: Run) -> list[Block]:
    """Return AP by class, where there are several."""
    tasks, scores = say.scored_tasks(run), run.scored.scores
    rows = [
        (name, *(say.with_interval(scores, task, f"AP-{name}") for task in tasks))
        for name in run.classes
    ]
    header = (f"AP, {TASKS[task]}" for task in tasks)
    return table("class_scores", rows, *header) if len(rows) > 1 else []


def _constant_box(run: Run) -> list[Block]:
    constant = {task: run.results["constant_box"][task]["AP"] for task in say.scored_tasks(run)}
    scores = [
        f"{points(score)} ({TASKS[task]})"
        for task, score in constant.items()
        if score.number() is not None
    ]
    return [prose("evaluation.constant_box", scores=", ".join(scores))] if scores else []


def _leaks(run: Run) -> list[Block]:
    kind = run.scored.kind
    if run.leaked is None:
        return [note("missing", "dataset.not_compared")]
    images, part = run.leaked
    blocks: list[Block] = []
    if images:
        counted, have = several(images, f"{kind} image"), "has" if images == 1 else "have"
        words = {"images": counted, "part": share(part), "have": have}
        blocks.append(note("warning", "evaluation.leak", **words))
    if mates := run.clip_mates:
        counted, are = several(mates, f"{kind} image"), "is" if mates == 1 else "are"
        blocks.append(note("warning", "evaluation.clip_mates", images=counted, are=are))
    return blocks or [prose("evaluation.no_leak", kind=kind)]


def _beside_validation(run: Run) -> list[Block]:
    """Return the scores of test and validation split side by side, where there are both."""
    valid, test = run.results["valid"], run.scored.scores
    tasks = [task for task in say.scored_tasks(run) if valid[task].items()]
    if run.scored.kind != "test" or not tasks:
        return []
    splits = [f"{MANY[task]}, {split}" for task in tasks for split in ("test", "validation")]
    rows = [
        (name, *(points(part[task][name]) for task in tasks for part in (test, valid)))
        for name in say.meanings("measures")
    ]
    return [*table("beside", rows, *splits), prose("evaluation.beside")]


def _plots_how(run: Run) -> str:
    return f"{evaluates(run)} && {say.plots(run)}"


def _thresholds(run: Run) -> list[Block]:
    how, names = _plots_how(run), ("f1_curve", "score_histogram")
    more = " " + said("evaluation.several_classes") if len(run.classes) > 1 else ""
    curve = figure(run, "plots/pr_curve.png", how, more=more)
    return [curve, *(figure(run, f"plots/{name}.png", how) for name in names)]


def _operating_point(run: Run) -> list[Block]:
    """Return the blocks on the one threshold that is in use."""
    point = run.results["operating_point"]
    known, threshold = point["threshold"].number() is not None, decimals(point["threshold"])
    chosen = said("evaluation.chosen" if known else "evaluation.to_choose")
    if point["tuned"].value is False:
        chosen = said("evaluation.untuned")
    blocks: list[Block] = [prose("evaluation.threshold", chosen=chosen)]
    if not known and run.complete:
        command = say.evaluation_command(run)
        return [*blocks, note("missing", "evaluation.no_threshold", command=command)]
    if not known:
        return [*blocks, note("missing", "evaluation.no_threshold_yet")]
    iou, kind = point["iou"].number(), MANY["segm" if point["task"].text() == "segm" else "bbox"]
    demanded = "" if iou is None else f" are {kind} with an IoU of {iou:.1f} or more"
    rows = table(
        "operating_point", _threshold_rows(run, point), threshold=threshold, demanded=demanded
    )
    unknown = f"What the threshold {threshold} finds is not recorded. {evaluates(run)}"
    return blocks + (rows or [Note("missing", unknown)])


def _threshold_rows(run: Run, point: Facts) -> list[tuple[str, ...]]:
    kinds = {"valid": "validation", "test": "test", run.scored.key: run.scored.kind}
    return [
        (
            name,
            *(share(part[key]) for key in ("precision", "recall")),
            decimals(part["f1"]),
            *say.counts(part, "hits", "misses", "false_alarms"),
        )
        for split, name in kinds.items()
        if (part := point[split])
    ]


def _costs(run: Run) -> list[Block]:
    errors = run.errors
    costs = [errors["tasks"][task] for task in MANY if errors["tasks"][task]["cost"].items()]
    if not costs:
        what = "The error analysis is missing."
        return [missing(run, run.errors_file, what, evaluates(run))]
    lines = [
        (kind, meaning, [cost["cost"][kind] for cost in costs])
        for kind, meaning in say.meanings("mistakes").items()
        # With one class there is no wrong class.
        if errors["classes"].number() != 1 or kind not in ("classification", "both")
    ]
    lines += [(label, text, [cost[key] for cost in costs]) for key, (label, text) in _SUMS.items()]
    rows = [(label, meaning, *map(points, values)) for label, meaning, values in lines]
    rows = [row for row in rows if {*row[2:]} != {DASH}]
    tasks = [task for task in MANY if errors["tasks"][task]["cost"].items()]
    return [
        *table("costs", rows, *(f"{MANY[task]}, points" for task in tasks)),
        figure(run, "plots/errors.png", _plots_how(run)),
    ]


def _situations(run: Run) -> list[Block]:
    blocks: list[Block] = []
    for key, title in say.meanings("situations").items():
        rows = [
            (row["label"].shown(), *say.counts(row, "people", "found"), share(row["recall"]))
            for row in run.errors["recall"][key].entries()
        ]
        blocks += table("recall", rows, title=title)
    if not blocks:
        what = "Recall by situation is missing."
        blocks = [missing(run, run.errors_file, what, evaluates(run))]
    names = ("plots/recall_by.png", "plots/size_histogram.png")
    return [*blocks, *(figure(run, name, _plots_how(run)) for name in names)]


def _galleries(run: Run) -> list[Block]:
    folder = f"inference/{run.scored.dataset}/gallery"
    gallery = run.facts(f"{folder}/gallery.json")
    if not gallery:
        what = "There is no gallery."
        return [missing(run, f"{folder}/gallery.json", what, evaluates(run))]
    blocks: list[Block] = []
    for key, (title, meaning) in say.meanings("galleries").items():
        entries = gallery[key].entries()
        if key == "poor_masks" and not entries and not run.masks:
            continue
        blocks.append(Paragraph(meaning if entries else "none on this split.", f"{title}:"))
        blocks += [_gallery_image(run, folder, entry) for entry in entries[:_MOST_IMAGES]]
        if len(entries) > _MOST_IMAGES:
            more = several(len(entries) - _MOST_IMAGES, "more image")
            blocks.append(Paragraph(f"{folder} holds {more} of {title.lower()}."))
    return blocks


def _gallery_image(run: Run, folder: str, entry: Facts) -> Block:
    file, image = entry["file"].text(), entry["image"].text()
    if not file:
        text = f"An entry of {folder}/gallery.json names no image. {evaluates(run)}"
        return Note("missing", text)
    caption = entry["caption"].text() or "Ground truth beside prediction."
    caption += f" Image: {image}." if image and image not in caption else ""
    return figure(run, f"{folder}/{file}", evaluates(run), caption=caption)


def video(run: Run) -> Section:
    """Show what the detector does with a clip."""
    blocks: list[Block] = [prose("video.intro")]
    if not run.clips:
        blocks.append(note("missing", "video.none", run=say.folder_word(run)))
        return Section("video", "The video", tuple(blocks))
    over_time = figure(run, "plots/people_over_time.png", f"To draw it: {say.plots(run)}")
    blocks += _clip_table(run) + _score(run) + _stills(run)
    return Section("video", "The video", (*blocks, Heading("Counts over time"), over_time))


def _clip_table(run: Run) -> list[Block]:
    rows = [
        (
            clip.path.stem,
            f"{whole(clip.header['width'])} × {whole(clip.header['height'])}",
            duration(clip.seconds),
            whole(len(clip.counts)),
            decimals(clip.header["confidence_threshold"]),
            plain(float(clip.counts.mean()), 3),
            whole(int(clip.counts.max())),
            whole(clip.people),
        )
        for clip in run.clips
    ]
    return table("clips", rows)


def _score(run: Run) -> list[Block]:
    score = run.results["video"]
    if score["recall"].number() is None or score["precision"].number() is None:
        return []
    rate = score["frames_per_second"]
    speed = f" Annotation ran at {points(rate)} frames per second."
    known = {key: share(score[key]) for key in ("recall", "precision")}
    text = prose("video.score", **known, speed=speed if rate.number() is not None else "")
    return [*(_track_score(score) if score["idf1"].number() is not None else []), text]


def _track_score(score: Facts) -> list[Block]:
    """Show how well people keep their numbers in the clip with known ground truth."""
    rows = [
        (name, (whole if key in ("switches", "fragments") else share)(score[key]), meaning)
        for key, (name, meaning) in say.meanings("tracks").items()
    ]
    found, there = say.counts(score, "unique", "unique_truth")
    rows.append(("different people", found, f"counted; the ground truth has {there}"))
    return table("tracks", rows)


def _stills(run: Run) -> list[Block]:
    blocks: list[Block] = []
    for still in run.facts(STILLS)["stills"].entries()[:6]:
        seconds, people = still["time"].number(), still["people"]
        when = "" if seconds is None else f" at {seconds:.1f} seconds"
        count = "" if people.count() is None else f": {whole(people)} found"
        caption = f"A frame of {still['clip'].text() or 'the clip'}{when}{count}."
        blocks.append(figure(run, f"plots/{still['file'].text()}", caption=caption))
    if any(isinstance(block, Figure) for block in blocks):
        return [Heading("Stills"), prose("video.stills"), *blocks]
    return [Heading("Stills"), note("missing", "video.no_stills", run=say.folder_word(run))]

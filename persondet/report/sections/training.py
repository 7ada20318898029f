"""Chapters "Augmentation" and "Training": the pipeline, the settings, the curves, the best step."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from persondet.report import sections as say
from persondet.report.document import Block, Bullets, Heading, Listing, Note, Section
from persondet.report.facts import Facts
from persondet.report.run import Run
from persondet.report.wording import DASH, duration, listed, plain, points, several, share, whole

PIPELINES = Path(__file__).resolve().parents[3] / "configs" / "augmentations"
_MOST_LINES = 80
_CURVES = ("loss", "loss_components", "accuracy", "average_precision", "learning_rate")


def augmentation(run: Run) -> Section:
    """Explain how training images are varied, and show the result."""
    seen = say.figure(run, "examples/augmentation.jpg", say.TRAINS)
    if run.config["INPUT"]["ALBUMENTATIONS"]["PIPELINE"].text() == "none":
        blocks: list[Block] = [say.prose("augmentation.none"), *_sizes(run)]
    else:
        pipeline = [Heading("The pipeline"), *_pipeline(run)]
        blocks = [say.prose("augmentation.intro"), *_sizes(run), *pipeline]
    blocks += [Heading("What training sees"), seen]
    return Section("augmentation", "Augmentation", tuple(blocks))


def _sizes(run: Run) -> list[Block]:
    given, items = run.config["INPUT"], []
    edges = [text for edge in given["MIN_SIZE_TRAIN"].entries() if (text := edge.shown())]
    if edges:
        most = given["MAX_SIZE_TRAIN"].shown()
        text = f"the shorter edge becomes {listed(edges, last='or')} pixels"
        items.append(("Size:", text + (f", the longer one at most {most}." if most else ".")))
    # Detectron2's own RANDOM_FLIP and CROP do nothing here: they are lines of the pipeline.
    visible = given["ALBUMENTATIONS"]["MIN_VISIBILITY"].number()
    small = given["ALBUMENTATIONS"]["MIN_BOX_SIZE"].number()
    if visible is not None and small is not None:
        text = (
            f"objects of which less than {share(visible)} remains in the image, and objects with a"
        )
        items.append(("Left out:", f"{text} box narrower than {plain(small)} pixels."))
    return [Bullets(tuple(items))] if items else []


def _pipeline(run: Run) -> list[Block]:
    name = run.config["INPUT"]["ALBUMENTATIONS"]["PIPELINE"].text()
    if not name:
        return [say.missing(run, "config.yaml", "The pipeline's name is not known.", say.TRAINS)]
    text, where = run.text("augmentation.yaml"), "this run used these steps (augmentation.yaml)"
    file = PIPELINES / f"{name}.yaml"
    if not text.strip() and name.isidentifier() and file.is_file():
        text = file.read_text(encoding="utf-8")
        where = f"these are its steps as configs/augmentations/{name}.yaml has them now"
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    if not lines:
        return [Note("missing", say.said("augmentation.missing", name=name, trains=say.TRAINS))]
    shown = (*lines[:_MOST_LINES], *(["…"] if len(lines) > _MOST_LINES else []))
    return [say.prose("augmentation.steps", name=name, where=where), Listing(shown)]


def training(run: Run) -> Section:
    """Explain what training is, and show how this one went."""
    blocks = (*_settings(run), *_curves(run), *_best(run), *_effort(run))
    return Section("training", "Training", (say.prose("training.intro"), say.ending(run), *blocks))


def _settings(run: Run) -> list[Block]:
    solver = run.config["SOLVER"]
    if not solver:
        return [say.missing(run, "config.yaml", "The settings are not known.", say.TRAINS)]
    batch, planned, images = run.batch_size, run.planned_steps, _training_images(run)
    rows = [
        ("Steps", whole(planned), "SOLVER.MAX_ITER"),
        ("Images per step (batch)", whole(batch or None), "SOLVER.IMS_PER_BATCH"),
    ]
    if images and batch and planned:
        rows.append(("Passes over the images (epochs)", plain(planned * batch / images, 3), ""))
    low = solver["AMP"]["ENABLED"].value is True
    precision = solver["AMP"]["DTYPE"].text() or "float16" if low else "float32"
    precision = "the device's best (auto)" if precision == "auto" else precision
    rows += [
        ("Optimizer", solver["OPTIMIZER"].text() or "SGD", "SOLVER.OPTIMIZER"),
        ("Learning rate", plain(solver["BASE_LR"].number()), "SOLVER.BASE_LR"),
        ("Its schedule", solver["LR_SCHEDULER_NAME"].text() or DASH, "SOLVER.LR_SCHEDULER_NAME"),
        ("Steps of warm-up", whole(solver["WARMUP_ITERS"].number()), "SOLVER.WARMUP_ITERS"),
        ("Weight decay", plain(solver["WEIGHT_DECAY"].number()), "SOLVER.WEIGHT_DECAY"),
        ("Number format", precision, "SOLVER.AMP"),
        ("Random seed", run.config["SEED"].shown() or DASH, "SEED"),
    ]
    settings = say.table("The settings of this training", ("setting", "value", "key"), rows, (1,))
    return [Heading("Settings"), settings, say.prose("training.settings")]


def _training_images(run: Run) -> float:
    names = run.config["DATASETS"]["TRAIN"].texts()
    told = [run.last_start["datasets"][name]["images"].number() for name in names]
    if told and None not in told:
        return sum(number or 0 for number in told)
    return run.facts("dataset.json")["statistics"]["splits"]["train"]["images"].number() or 0


def _curves(run: Run) -> list[Block]:
    if run.problem is not None:
        return [Heading("Curves"), Note("missing", say.said("training.no_log"))]
    how = "The training has not logged it, or nobody has drawn the plots yet: "
    how += f"python tools/plot_metrics.py {say.folder_word(run)}"
    blocks: list[Block] = [Heading("Curves"), say.prose("training.curves")]
    for name in _CURVES:
        blocks.append(say.figure(run, f"plots/{name}.png", how))
        if name == "loss_components":
            losses = say.points_of("training.losses").items
            known = tuple((f"{name}:", text) for name, text in losses if name in run.events)
            blocks += [Bullets(known)] if known else []
    return [*blocks, *_irregularities(run)]


def _irregularities(run: Run) -> list[Note]:
    """Return warnings on what is wrong with the log."""
    events, notes = run.events, []
    loss = events["total_loss"].values if "total_loss" in events else np.zeros(0)
    lost = int((~np.isfinite(loss)).sum())
    if lost:
        losses = several(len(loss), "logged loss", "logged losses")
        notes.append(say.warning("training.diverged", lost=whole(lost), losses=losses))
    if events.restarts:
        steps = listed([whole(step) for step in events.restarts])
        notes.append(say.warning("training.resumed", steps=steps))
    if events.unreadable_lines:
        lines = several(events.unreadable_lines, "line")
        notes.append(Note("warning", f"{lines} of metrics.json could not be read."))
    return notes


def _best(run: Run) -> list[Block]:
    heading, best = Heading("The best step"), run.facts("model_best.json")
    if not best:
        how = "A training writes it at each evaluation on the validation split."
        return [heading, say.missing(run, "model_best.json", "No best step is chosen yet.", how)]
    metric, step = best["metric"].text(), best["iteration"].number()
    after = "" if step is None else f" after {whole(step + 1)} steps"
    if not metric:
        return [heading, say.prose("training.last", after=after and f",{after}")]
    task = {"segm": "mask", "bbox": "box"}.get(metric.partition("/")[0], "")
    score, value = f"{task} {metric.rpartition('/')[2]}".strip(), points(best["score"].number())
    known = {"after": after, "score": score, "value": value, "metric": metric}
    return [heading, say.prose("training.best", **known)]


def _effort(run: Run) -> list[Block]:
    step, hardware = run.events.finite("time"), run.last_start["hardware"]
    rows = _times(run) + (_hardware(hardware) if hardware else [])
    blocks: list[Block] = [Heading("Time and hardware")]
    if rows:
        blocks.append(say.table("How long the training took, and on what", ("what", "value"), rows))
    if not hardware:
        blocks.append(say.missing(run, "provenance.json", "The hardware is not known.", say.TRAINS))
    if step is not None:
        how = f"To draw it: python tools/plot_metrics.py {say.folder_word(run)}"
        blocks.append(say.figure(run, "plots/speed.png", how))
    return blocks


def _times(run: Run) -> list[tuple[str, str]]:
    seconds, step = run.results["seconds"]["train"].number(), run.events.finite("time")
    rows = [] if seconds is None else [("Time for the training", duration(seconds))]
    if step is not None:
        middle = float(np.median(step.values))
        rows.append(("Time per step (median)", f"{plain(middle, 3)} seconds"))
        if run.batch_size and middle > 0:
            rows.append(("Images per second", plain(run.batch_size / middle, 3)))
    return rows


def _hardware(hardware: Facts) -> list[tuple[str, str]]:
    gpus = [
        f"{gpu['name'].text() or 'unknown'}, {_memory(gpu)}" for gpu in hardware["gpus"].entries()
    ]
    return [
        ("Processor", hardware["cpu"].text() or DASH),
        ("Processor cores", whole(hardware["cores"].number())),
        ("Memory", _memory(hardware)),
        ("Graphics processors", listed(gpus) or "none"),
    ]


def _memory(machine: Facts) -> str:
    memory = machine["memory_bytes"].number()
    return DASH if memory is None else f"{memory / 2**30:.0f} GiB"

"""Chapters "Transfer learning", "Augmentation" and "Training": how the model was made."""

from __future__ import annotations

import numpy as np

from persondet.report import sections as say
from persondet.report.document import Block, Bullets, Heading, Listing, Note, Paragraph, Section
from persondet.report.facts import (
    DASH,
    Facts,
    duration,
    listed,
    plain,
    points,
    several,
    share,
    whole,
)
from persondet.report.run import Run
from persondet.report.sections import TRAINS, figure, missing, note, prose, said, table

_STAGES = ("the stem", "res2", "res3", "res4", "res5")
_MOST_LINES = 80
_CURVES = ("loss", "loss_components", "accuracy", "average_precision", "learning_rate")


def transfer(run: Run) -> Section:
    """Explain where the model started from and which part of it learned."""
    blocks = (prose("transfer.intro"), *_model(run), *_loaded(run), *_frozen(run))
    return Section("transfer", "Transfer learning", blocks)


def _model(run: Run) -> list[Block]:
    model = run.config["MODEL"]
    if not model:
        return [missing(run, "config.yaml", "The kind of model is not known.", TRAINS)]
    depth = model["RESNETS"]["DEPTH"].count()
    backbone = f"a ResNet with {depth} layers" if depth else "a ResNet"
    if timm := model["TIMM"]["NAME"].text():
        backbone = f"{timm} of the library timm"
    kind = "Mask R-CNN" if run.masks else "Faster R-CNN"
    masks = " " + said("transfer.mask_head") if run.masks else ""
    return [
        Heading("The model"),
        prose("transfer.model", kind=kind, backbone=backbone, masks=masks),
    ]


def _loaded(run: Run) -> list[Block]:
    weights = run.config["MODEL"]["WEIGHTS"].text() or run.results["initial_weights"].text()
    blocks: list[Block] = [Heading("What was loaded")]
    if weights:
        blocks.append(Paragraph(f"The training started from {weights}."))
    elif run.config:
        text = "The training started from random weights: nothing was transferred."
        blocks.append(Paragraph(text))
    blocks += _pretraining(run)
    loaded = run.facts("weights.json")
    if not loaded:
        what = "The table of the weights that fitted is missing."
        absent = missing(run, "weights.json", what, TRAINS)
        return [*blocks, absent] if weights or not run.config else blocks
    fitted, left = loaded["loaded"].count(), loaded["not_loaded"].count()
    if fitted is not None and left is not None:
        fitting = several(fitted, "tensor")
        blocks.append(prose("transfer.loaded", fitted=fitting, left=whole(left)))
    rows = [
        (
            part["part"].text(),
            *say.counts(part, "loaded", "not_loaded"),
            "; ".join(part["why"].texts()),
        )
        for part in loaded["parts"].entries()
    ]
    parts = table("loaded", rows)
    blocks += [prose("transfer.tensors"), *parts] if parts else []
    theirs, ours = loaded["classes"]["checkpoint"].count(), loaded["classes"]["dataset"].count()
    if theirs is not None and ours is not None:
        classes = several(theirs, "class", "classes")
        blocks.append(prose("transfer.classes", theirs=classes, ours=whole(ours)))
    return blocks


def _pretraining(run: Run) -> list[Block]:
    """Tell of the training that made the start weights, where it lies in the run folder."""
    earlier = run.facts("pretrain/results.json")
    if not earlier:
        return []
    classes = listed(earlier["classes"].texts()) or "other objects"
    steps = earlier["steps"].number() or (earlier["iteration"].number() or 0) + 1
    text = said("transfer.pretraining", steps=whole(steps), classes=classes)
    score = earlier["test"]["bbox"]["AP"]
    if score.number() is not None:
        text += f" On its own test split it reached a box AP of {points(score)}."
    return [Paragraph(text)]


def _frozen(run: Run) -> list[Block]:
    freeze = run.config["MODEL"]["BACKBONE"]["FREEZE_AT"].count()
    freeze = run.results["freeze_at"].count() if freeze is None else freeze
    modules = run.config["MODEL"]["FREEZE"]["MODULES"].texts()
    blocks: list[Block] = [Heading("What is frozen"), prose("transfer.frozen")]
    if freeze is not None:
        frozen = listed(_STAGES[:freeze])
        text = f"Frozen in the backbone: {frozen}" if frozen else "The whole backbone learns"
        text += f" (MODEL.BACKBONE.FREEZE_AT {freeze})."
        blocks.append(Paragraph(text + (f" Also frozen: {listed(modules)}." if modules else "")))
    return blocks + _parameters(run)


def _parameters(run: Run) -> list[Block]:
    parts = run.facts("parameters.json")["parts"].entries()
    if not parts:
        what = "The table of parameters is missing."
        return [missing(run, "parameters.json", what, TRAINS)]
    blocks: list[Block] = []
    learning, frozen = (parts[-1][key].count() for key in ("trainable", "frozen"))  # of all
    if learning is not None and frozen is not None and learning + frozen:
        every, part = learning + frozen, share(frozen / (learning + frozen))
        text = f"{whole(learning)} of {whole(every)} weights learn; "
        text += f"{whole(frozen)} ({part}) are frozen."
        blocks.append(Paragraph(text))
    rows = [
        (
            part["module"].text(),
            *say.counts(part, "trainable", "frozen"),
            part["state"].text(),
            part["rate"].shown(),
        )
        for part in parts
    ]
    return [*blocks, *table("parameters", rows)]


def augmentation(run: Run) -> Section:
    """Explain how training images are varied, and show the result."""
    blocks: list[Block] = [prose("augmentation.none"), *_sizes(run)]
    name = run.config["INPUT"]["ALBUMENTATIONS"]["PIPELINE"].text()
    if name != "none":
        pipeline = [Heading("The pipeline"), *_pipeline(run, name)]
        blocks = [prose("augmentation.intro"), *_sizes(run), *pipeline]
    blocks += [Heading("What training sees"), figure(run, "examples/augmentation.jpg", TRAINS)]
    return Section("augmentation", "Augmentation", tuple(blocks))


def _sizes(run: Run) -> list[Block]:
    given, items = run.config["INPUT"], []
    edges = [text for edge in given["MIN_SIZE_TRAIN"].entries() if (text := edge.shown())]
    if edges:
        most = given["MAX_SIZE_TRAIN"].shown()
        text = f"the shorter edge becomes {listed(edges, last='or')} pixels"
        items.append(("Size:", text + (f", the longer one at most {most}." if most else ".")))
    # Detectron2's own RANDOM_FLIP and CROP do nothing here: they are lines of the pipeline.
    visible, small = (given["ALBUMENTATIONS"][key] for key in ("MIN_VISIBILITY", "MIN_BOX_SIZE"))
    if visible.number() is not None and small.number() is not None:
        text = f"objects of which less than {share(visible)} remains in the image, and objects "
        items.append(("Left out:", f"{text}with a box narrower than {plain(small)} pixels."))
    return [Bullets(tuple(items))] if items else []


def _pipeline(run: Run, name: str) -> list[Block]:
    if not name:
        return [missing(run, "config.yaml", "The pipeline's name is not known.", TRAINS)]
    steps = [line for line in run.text("augmentation.yaml").splitlines() if line.strip()]
    if not steps:
        return [note("missing", "augmentation.missing", name=name, trains=TRAINS)]
    shown = (*steps[:_MOST_LINES], *(["…"] if len(steps) > _MOST_LINES else []))
    return [prose("augmentation.steps", name=name), Listing(shown)]


def training(run: Run) -> Section:
    """Explain what training is, and show how this one went."""
    blocks = (*_settings(run), *_curves(run), *_best(run), *_effort(run))
    return Section("training", "Training", (prose("training.intro"), say.ending(run), *blocks))


def _settings(run: Run) -> list[Block]:
    solver = run.config["SOLVER"]
    if not solver:
        return [missing(run, "config.yaml", "The settings are not known.", TRAINS)]
    batch, planned, trained = run.batch_size, run.planned_steps, run.config["DATASETS"]["TRAIN"]
    recorded = [run.last_start["datasets"][name]["images"].count() for name in trained.texts()]
    images = sum(filter(None, recorded))
    epochs = plain(planned * batch / images, 3) if images and batch and planned else ""
    low = solver["AMP"]["ENABLED"].value is True
    precision = solver["AMP"]["DTYPE"].text() or "float16" if low else "float32"
    rows = [
        ("Steps", whole(planned), "SOLVER.MAX_ITER"),
        ("Images per step (batch)", whole(batch or None), "SOLVER.IMS_PER_BATCH"),
        *([("Passes over the images (epochs)", epochs, "")] if epochs else []),
        ("Optimizer", solver["OPTIMIZER"].text() or "SGD", "SOLVER.OPTIMIZER"),
        ("Learning rate", plain(solver["BASE_LR"]), "SOLVER.BASE_LR"),
        ("Its schedule", solver["LR_SCHEDULER_NAME"].text() or DASH, "SOLVER.LR_SCHEDULER_NAME"),
        ("Steps of warm-up", whole(solver["WARMUP_ITERS"]), "SOLVER.WARMUP_ITERS"),
        ("Weight decay", plain(solver["WEIGHT_DECAY"]), "SOLVER.WEIGHT_DECAY"),
        ("Number format", precision.replace("auto", "the device's best (auto)"), "SOLVER.AMP"),
        ("Random seed", run.config["SEED"].shown() or DASH, "SEED"),
    ]
    return [Heading("Settings"), *table("settings", rows), prose("training.settings")]


def _curves(run: Run) -> list[Block]:
    blocks: list[Block] = [Heading("Curves")]
    if run.problem is not None:
        return [*blocks, note("missing", "training.no_log")]
    blocks.append(prose("training.curves"))
    how = "The training has not logged it, or nobody has drawn the plots yet: "
    for name in _CURVES:
        blocks.append(figure(run, f"plots/{name}.png", how + say.plots(run)))
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
        notes.append(note("warning", "training.diverged", lost=whole(lost), losses=losses))
    if events.restarts:
        steps = listed([whole(step) for step in events.restarts])
        notes.append(note("warning", "training.resumed", steps=steps))
    if events.unreadable_lines:
        lines = several(events.unreadable_lines, "line")
        notes.append(Note("warning", f"{lines} of metrics.json could not be read."))
    return notes


def _best(run: Run) -> list[Block]:
    heading, best = Heading("The best step"), run.facts("model_best.json")
    if not best:
        how = "A training writes it at each evaluation on the validation split."
        return [heading, missing(run, "model_best.json", "No best step is chosen yet.", how)]
    metric, step = best["metric"].text(), best["iteration"].number()
    after = "" if step is None else f" after {whole(step + 1)} steps"
    if not metric:
        return [heading, prose("training.last", after=after and f",{after}")]
    task = {"segm": "mask", "bbox": "box"}.get(metric.partition("/")[0], "")
    score, value = f"{task} {metric.rpartition('/')[2]}".strip(), points(best["score"])
    known = {"after": after, "score": score, "value": value, "metric": metric}
    return [heading, prose("training.best", **known)]


def _effort(run: Run) -> list[Block]:
    step, hardware = run.events.finite("time"), run.last_start["hardware"]
    rows = _times(run) + (_hardware(hardware) if hardware else [])
    blocks: list[Block] = [Heading("Time and hardware")]
    blocks += table("effort", rows)
    if not hardware:
        blocks.append(missing(run, "provenance.json", "The hardware is not known.", TRAINS))
    if step is not None:
        blocks.append(figure(run, "plots/speed.png", f"To draw it: {say.plots(run)}"))
    return blocks


def _times(run: Run) -> list[tuple[str, str]]:
    seconds, step = run.results["seconds"]["train"], run.events.finite("time")
    rows = [("Time for the training", duration(seconds))]
    if step is not None:
        middle = float(np.median(step.values))
        rows.append(("Time per step (median)", f"{plain(middle, 3)} seconds"))
        if run.batch_size and middle > 0:
            rows.append(("Images per second", plain(run.batch_size / middle, 3)))
    return [row for row in rows if row[1] != DASH]


def _hardware(hardware: Facts) -> list[tuple[str, str]]:
    gpus = [
        f"{gpu['name'].text() or 'unknown'}, {_memory(gpu)}" for gpu in hardware["gpus"].entries()
    ]
    return [
        ("Processor", hardware["cpu"].text() or DASH),
        ("Processor cores", whole(hardware["cores"])),
        ("Memory", _memory(hardware)),
        ("Graphics processors", listed(gpus) or "none"),
    ]


def _memory(machine: Facts) -> str:
    memory = machine["memory_bytes"].number()
    return DASH if memory is None else f"{memory / 2**30:.0f} GiB"

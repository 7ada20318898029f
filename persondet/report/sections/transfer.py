"""Chapter "Transfer learning": what was loaded, what is frozen, the parameters."""

from __future__ import annotations

from persondet.report.document import Block, Heading, Note, Paragraph, Section
from persondet.report.run import Run
from persondet.report.sections import TRAINS, missing, prose, said, table
from persondet.report.wording import listed, points, several, share, whole

_STAGES = ("the stem", "res2", "res3", "res4", "res5")
_MOST = 60  # rows


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
    text = prose(
        "transfer.model",
        kind="Mask R-CNN" if run.masks else "Faster R-CNN",
        backbone=backbone,
        masks=" " + said("transfer.mask_head") if run.masks else "",
    )
    return [Heading("The model"), text]


def _loaded(run: Run) -> list[Block]:
    weights = run.config["MODEL"]["WEIGHTS"].text() or run.results["initial_weights"].text()
    blocks: list[Block] = [Heading("What was loaded")]
    if weights:
        blocks.append(Paragraph(f"The training started from {weights}."))
    elif run.config:
        blocks.append(
            Paragraph("The training started from random weights: nothing was transferred.")
        )
    blocks += _pretraining(run)
    loaded = run.facts("weights.json")
    if not loaded:
        untold = _untold(run, "weights", "The table of the weights that fitted is missing.")
        return [*blocks, untold] if weights or not run.config else blocks
    fitted, left = loaded["loaded"].count(), loaded["not_loaded"].count()
    if fitted is not None and left is not None:
        fitting = several(fitted, "tensor")
        blocks.append(prose("transfer.loaded", fitted=fitting, left=whole(left)))
    rows = [
        (
            part["part"].text(),
            whole(part["loaded"].number()),
            whole(part["not_loaded"].number()),
            "; ".join(part["why"].texts()),
        )
        for part in loaded["parts"].entries()[:_MOST]
    ]
    if rows:
        header = ("part", "loaded", "not loaded", "why")
        parts = table("What was loaded, by part of the model", header, rows, (1, 2))
        blocks += [prose("transfer.tensors"), parts]
    theirs, ours = (loaded["classes"][key].count() for key in ("checkpoint", "dataset"))
    if theirs is not None and ours is not None:
        classes = several(theirs, "class", "classes")
        blocks.append(prose("transfer.classes", theirs=classes, ours=whole(ours)))
    return blocks


def _untold(run: Run, name: str, what: str) -> Note:
    """Return the note for a missing table; earlier versions wrote it as text only."""
    if run.facts(f"{name}.json") or not (run.folder / f"{name}.txt").is_file():
        return missing(run, f"{name}.json", what, TRAINS)
    return Note("missing", said("transfer.untold", what=what, name=name))


def _pretraining(run: Run) -> list[Block]:
    """Tell of the training that made the start weights, where it lies in the run folder."""
    earlier = run.facts("pretrain/results.json")
    if not earlier:
        return []
    classes = listed(earlier["classes"].texts()) or "other objects"
    steps = earlier["steps"].number() or (earlier["iteration"].number() or 0) + 1
    text = said("transfer.pretraining", steps=whole(steps), classes=classes)
    score = earlier["test"]["bbox"]["AP"].number()
    known = (
        "" if score is None else f" On its own test split it reached a box AP of {points(score)}."
    )
    return [Paragraph(text + known)]


def _frozen(run: Run) -> list[Block]:
    freeze = run.config["MODEL"]["BACKBONE"]["FREEZE_AT"].count()
    freeze = run.results["freeze_at"].count() if freeze is None else freeze
    modules = run.config["MODEL"]["FREEZE"]["MODULES"].texts()
    blocks: list[Block] = [Heading("What is frozen"), prose("transfer.frozen")]
    if freeze is not None:
        frozen = listed(_STAGES[: min(freeze, len(_STAGES))])
        text = f"Frozen in the backbone: {frozen}" if frozen else "The whole backbone learns"
        text += f" (MODEL.BACKBONE.FREEZE_AT {freeze})."
        blocks.append(Paragraph(text + (f" Also frozen: {listed(modules)}." if modules else "")))
    return blocks + _parameters(run)


def _parameters(run: Run) -> list[Block]:
    parts = run.facts("parameters.json")["parts"].entries()[:_MOST]
    if not parts:
        return [_untold(run, "parameters", "The table of parameters is missing.")]
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
            whole(part["trainable"].number()),
            whole(part["frozen"].number()),
            part["state"].text(),
            part["rate"].shown(),
        )
        for part in parts
    ]
    header = ("module", "trainable", "frozen", "state", "rate")
    caption = "The parameters (weights) of each part of the model: learning, and frozen"
    return [*blocks, table(caption, header, rows, (1, 2, 4))]

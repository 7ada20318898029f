"""Section 3: transfer learning: what was loaded, what is frozen, the parameter table."""

from __future__ import annotations

from persondet.report.document import Block, Heading, Listing, Note, Paragraph, Section, Table
from persondet.report.run_state import TRAINS, RunState
from persondet.report.text_table import read_table
from persondet.report.wording import listed, points, share, whole

_STAGES = ("the stem", "res2", "res3", "res4", "res5")
_COLUMNS = {"": "state"}


def transfer(state: RunState) -> Section:
    """Explain where the model started from and which part of it learned."""
    return Section(
        "transfer",
        "Transfer learning",
        (
            Paragraph(
                "A neural network is a long chain of simple calculations with millions of "
                "adjustable numbers, its weights. Taught from nothing, it needs very many "
                "pictures. Transfer learning starts from weights that were taught on another, "
                "usually larger collection. Such a network already knows edges, textures and "
                "shapes; only what is particular to the new task has to be learned. That takes "
                "fewer pictures and less time.",
            ),
            *_model(state),
            *_loaded(state),
            *_frozen(state),
        ),
    )


def _model(state: RunState) -> list[Block]:
    model = state.config["MODEL"]
    if not model:
        how = "A training writes it at its start."
        return [state.run.missing("config.yaml", "The kind of model is not known.", how)]
    depth = model["RESNETS"]["DEPTH"].count()
    backbone = f"a ResNet with {depth} layers" if depth else "a ResNet"
    if timm := model["TIMM"]["NAME"].text():
        backbone = f"{timm} of the library timm"
    kind = "Mask R-CNN" if state.masks else "Faster R-CNN"
    last = (
        " For each find the mask head then says which pixels inside the box belong to the object."
        if state.masks
        else ""
    )
    return [
        Heading("The model"),
        Paragraph(
            f"The model is a {kind} (He et al., 2017; Ren et al., 2015), built with Detectron2. It "
            f"works in stages. The backbone, {backbone}, turns the picture into maps of "
            "features; the feature pyramid (FPN) offers them at several sizes, for near and far "
            "objects. The proposal network (RPN) marks places where something may be. The box "
            "head looks at each place, names its class, gives the score, and moves the box into "
            f"place.{last}",
        ),
    ]


def _loaded(state: RunState) -> list[Block]:
    weights = state.config["MODEL"]["WEIGHTS"].text() or state.results["initial_weights"].text()
    blocks: list[Block] = [Heading("What was loaded")]
    if weights:
        blocks.append(Paragraph(f"The training started from {weights}."))
    elif state.config:
        blocks.append(
            Paragraph("The training started from random weights: nothing was transferred.")
        )
    blocks += _pretraining(state)
    text = state.run.text("weights.txt")
    if not text.strip():
        if weights or not state.config:
            note = f"Which of its weights fitted is not known: weights.txt is missing. {TRAINS}"
            blocks.append(Note("missing", note))
        return blocks
    table = read_table(text)
    blocks += [Paragraph(line) for line in table.before[:8]]
    if table.rows:
        blocks += [
            Paragraph(
                "A tensor is one block of weights. Those that tell the classes apart start anew "
                "where the classes differ; everything else is kept.",
            ),
            Table(
                "What was loaded, by part of the model",
                table.header,
                table.rows[:60],
                tuple(n for n, name in enumerate(table.header) if name in ("loaded", "not loaded")),
            ),
        ]
    return blocks + [Paragraph(line) for line in table.after[:8]]


def _pretraining(state: RunState) -> list[Block]:
    """Tell of the training that made the start weights, where it lies in the run folder."""
    earlier = state.run.facts("pretrain/results.json")
    if not earlier:
        return []
    classes = listed(earlier["classes"].texts())
    steps = earlier["steps"].number() or (earlier["iteration"].number() or 0) + 1
    score = earlier["test"]["bbox"]["AP"].number()
    known = (
        "" if score is None else f" On its own test split it reached a box AP of {points(score)}."
    )
    return [
        Paragraph(
            f"That model was made in this run folder too (pretrain): {whole(steps)} steps on "
            f"pictures of {classes or 'other objects'}, without the objects that are asked for "
            f"here.{known}",
        )
    ]


def _frozen(state: RunState) -> list[Block]:
    freeze = state.config["MODEL"]["BACKBONE"]["FREEZE_AT"].count()
    freeze = state.results["freeze_at"].count() if freeze is None else freeze
    modules = state.config["MODEL"]["FREEZE"]["MODULES"].texts()
    blocks: list[Block] = [
        Heading("What is frozen"),
        Paragraph(
            "A frozen layer keeps the weights it came with. The first layers of a network see "
            "edges and colours, which are the same in every picture: there is little to gain from "
            "teaching them again, and with few pictures something to lose, since they would bend "
            "towards these few. Freezing also saves time and memory.",
        ),
    ]
    if freeze is not None:
        frozen = listed(_STAGES[: min(freeze, len(_STAGES))])
        blocks.append(
            Paragraph(
                (f"Frozen in the backbone: {frozen}" if frozen else "The whole backbone learns")
                + f" (MODEL.BACKBONE.FREEZE_AT {freeze})."
                + (f" Also frozen: {listed(modules)}." if modules else ""),
            )
        )
    text = state.run.text("parameters.txt")
    table = read_table(text.partition("\n\n")[0])
    if not table.rows:
        if text.strip():
            return [*blocks, Listing(table.before[:40])]
        note = f"The table of parameters is missing: parameters.txt is not there. {TRAINS}"
        return [*blocks, Note("missing", note)]
    header = tuple(_COLUMNS.get(name, name) for name in table.header)
    numeric = tuple(n for n, name in enumerate(header) if name in ("trainable", "frozen", "rate"))
    total = next((row for row in table.rows if row[0] == "all"), None)
    if total:
        blocks += _totals(dict(zip(header, total, strict=True)))
    caption = "The parameters (weights) of each part of the model: learning, and frozen"
    return [*blocks, Table(caption, header, table.rows[:60], numeric)]


def _totals(row: dict[str, str]) -> list[Block]:
    try:
        learning, frozen = (int(row[key].replace(",", "")) for key in ("trainable", "frozen"))
    except (KeyError, ValueError):
        return []
    every = learning + frozen
    part = share(frozen / every) if every else ""
    text = (
        f"{whole(learning)} of {whole(every)} weights learn; {whole(frozen)} ({part}) are frozen."
    )
    return [Paragraph(text)] if every else []

"""Section 4: augmentation: the pipeline, and a contact sheet of what it makes."""

from __future__ import annotations

from pathlib import Path

from persondet.report.document import Block, Bullets, Heading, Listing, Note, Paragraph, Section
from persondet.report.run_state import TRAINS, RunState
from persondet.report.wording import listed, plain, share

PIPELINES = Path(__file__).resolve().parents[3] / "configs" / "augmentations"
_MOST_LINES = 80


def augmentation(state: RunState) -> Section:
    """Explain how training pictures are varied, and show the result."""
    return Section(
        "augmentation",
        "Augmentation",
        (
            Paragraph(
                "Each time a training picture is used, it is changed a little at random: mirrored, "
                "brightened, moved, and the boxes and masks along with it. The model so never sees "
                "the same picture twice, and learns what an object looks like instead of learning "
                "the pictures by heart. Validation and test pictures are never changed.",
            ),
            *_sizes(state),
            *_pipeline(state),
            Heading("What training sees"),
            state.run.figure(
                "examples/augmentation.jpg",
                "Training pictures as the augmentation hands them to the model.",
                "The objects must still be recognisable, and the outlines must still lie on them: "
                "then the changes are neither too strong nor wrong.",
                how=TRAINS,
            ),
        ),
    )


def _sizes(state: RunState) -> list[Block]:
    given = state.config["INPUT"]
    if not given:
        return []
    items: list[tuple[str, str]] = []
    edges = [text for edge in given["MIN_SIZE_TRAIN"].entries() if (text := edge.shown())]
    if edges:
        most = given["MAX_SIZE_TRAIN"].shown()
        limit = f", and the longer one to at most {most}" if most else ""
        items.append(
            ("Size:", f"the shorter edge becomes {listed(edges, last='or')} pixels{limit}.")
        )
    # Detectron2's own RANDOM_FLIP and CROP do nothing here: they are lines of the pipeline.
    visible = given["ALBUMENTATIONS"]["MIN_VISIBILITY"].number()
    small = given["ALBUMENTATIONS"]["MIN_BOX_SIZE"].number()
    if visible is not None and small is not None:
        items.append(
            (
                "Left out:",
                f"an object of which less than {share(visible)} remains in the picture, or whose "
                f"box gets narrower than {plain(small)} pixels.",
            )
        )
    return [Bullets(tuple(items))] if items else []


def _pipeline(state: RunState) -> list[Block]:
    name = state.config["INPUT"]["ALBUMENTATIONS"]["PIPELINE"].text()
    heading = Heading("The pipeline")
    if not name:
        how = "A training writes it at its start."
        return [
            heading,
            state.run.missing("config.yaml", "The pipeline's name is not known.", how),
        ]
    if name == "none":
        text = "No further changes: INPUT.ALBUMENTATIONS.PIPELINE is none."
        return [heading, Paragraph(text)]
    lines, where = _lines(state, name)
    if not lines:
        text = (
            f"The steps of the pipeline {name} are not in the run folder, and no file of that name "
            "lies in configs/augmentations. A training writes augmentation.yaml at its start."
        )
        return [heading, Note("missing", text)]
    more = ["…"] if len(lines) > _MOST_LINES else []
    return [
        heading,
        Paragraph(
            f"The pipeline is called {name}; {where}. It is applied from top to bottom; p is the "
            "chance that a step is applied to a picture, the other numbers say how strong it may "
            "be. What follows a # is the reason for the step.",
        ),
        Listing((*lines[:_MOST_LINES], *more)),
    ]


def _lines(state: RunState, name: str) -> tuple[list[str], str]:
    """Return the pipeline's YAML and where it was found; nothing when it was not."""
    text = state.run.text("augmentation.yaml")
    where = "these are its steps as the run used them (augmentation.yaml)"
    if not text.strip() and name.isidentifier():
        file = PIPELINES / f"{name}.yaml"
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        where = f"these are its steps as configs/augmentations/{name}.yaml has them now"
    return [line.rstrip() for line in text.splitlines() if line.strip()], where

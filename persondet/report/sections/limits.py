"""Section 8: what the detector cannot be trusted with, as far as this run can tell."""

from __future__ import annotations

from persondet.report.document import Block, Bullets, Note, Paragraph, Section
from persondet.report.run_state import RunState
from persondet.report.wording import listed, several, share

_WEAK = 0.5  # a situation in which fewer objects are found is named
_FEW = 10  # objects; with fewer a recall says nothing


def limits(state: RunState) -> Section:
    """List the limits: those of this run by its numbers, and those of every such detector."""
    blocks: list[Block] = []
    if not state.complete:
        blocks.append(Note("warning", state.how_it_ended()))
    blocks += [
        Paragraph("What follows from the numbers of this run:"),
        Bullets(tuple(_of_this_run(state))),
        Paragraph("What holds for every detector made this way:"),
        Bullets(
            (
                (
                    "Other footage.",
                    "The pictures of the score come from the same source as the training pictures. Another "
                    "camera, height, season or light can cost much of the score. Mark a hundred "
                    "pictures of your own footage and evaluate on them before you rely on it.",
                ),
                (
                    "What is not marked is not learned.",
                    "The model knows the classes of its dataset as they were marked there. Other "
                    "objects are ignored or, where they look alike, mistaken.",
                ),
                (
                    "Scores are no probabilities.",
                    "A score of 0.8 does not mean 80 of 100. It only orders the finds.",
                ),
                (
                    "No memory.",
                    "Frames are looked at one by one: the numbers of finds in a clip are not a "
                    "number of different people.",
                ),
                (
                    "No identity.",
                    "The detector says that and where somebody is, never who. Whether and how "
                    "people may be filmed is a question of law that no score answers.",
                ),
            )
        ),
    ]
    return Section("limits", "Limits", tuple(blocks))


def _of_this_run(state: RunState) -> list[tuple[str, str]]:
    items: list[tuple[str, str]] = []
    if state.is_demo:
        items.append(
            (
                "Drawn pictures.",
                "This is the demo. Its people are drawn, and a model that learned from them knows "
                "drawn people and nothing else. What it proves is that every part works.",
            )
        )
    images = state.scored.scores["images"].count()
    if images is None:
        items.append(("No score.", "Without a score nothing can be promised."))
    elif images < 200:
        items.append(
            (
                "A small test.",
                f"The score rests on {several(images, 'picture')}; see its 95 % intervals.",
            )
        )
    items.append(
        (
            "One training.",
            "Another seed gives a slightly different model. Differences of a point or two between "
            "two runs may be chance.",
        )
    )
    if state.caution:
        items.append(("No fair test.", state.caution[0].text))
    if state.leaked is None:
        text = f"Nobody has compared the {state.scored.kind} pictures with those that were learned."
        items.append(("Known pictures.", text))
    elif state.leaked[0]:
        text = (
            f"{share(state.leaked[1])} of the {state.scored.kind} pictures lie in an earlier split."
        )
        items.append(("Known pictures.", text))
    weak = _weak_situations(state)
    if weak:
        items.append(("Often missed:", f"{listed(weak)}."))
    if not state.masks:
        items.append(("Boxes only.", "This model draws no masks."))
    return items


def _weak_situations(state: RunState) -> list[str]:
    errors = state.analysis(f"inference/{state.scored.dataset}/errors.json")
    weak = []
    for _, rows in errors["recall"].items():
        for row in rows.entries():
            recall, people = row["recall"].number(), row["people"].number()
            if recall is not None and people is not None and recall < _WEAK and people >= _FEW:
                weak.append(f"{row['label'].shown()} ({share(recall)} of {people:.0f} found)")
    return weak

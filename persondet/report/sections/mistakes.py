"""The part of section 6 that looks at mistakes: their kinds, recall by situation, galleries."""

from __future__ import annotations

from persondet.report.document import Block, Heading, Note, Paragraph, Table
from persondet.report.facts import Facts
from persondet.report.run_state import RunState
from persondet.report.wording import points, several, share, whole

_KINDS = {
    "classification": "the right place, the wrong class",
    "localisation": "the right class, but the box or mask fits badly",
    "both": "the wrong class, and a bad fit",
    "duplicate": "a second find for an object that is found already",
    "background": "a find where there is nothing",
    "missed": "an object without any find",
}
_SITUATIONS = {
    "size": "By size",
    "crowding": "By crowding",
    "border": "By closeness to the border",
}
_GALLERIES = {
    "misses": ("Misses", "misses"),
    "false_alarms": ("False alarms", "false alarms"),
    "poor_masks": ("Poor masks", "poor masks"),
}
_MEANING = {
    "misses": "objects that the model did not find.",
    "false_alarms": "finds where there is nothing.",
    "poor_masks": "objects that were found, with a mask that fits them badly.",
}
_SHOWN = 4
_MOST_ROWS = 20


def mistakes(state: RunState) -> list[Block]:
    """Return the blocks on what kind of mistakes the model makes, where, and how they look."""
    name = f"inference/{state.scored.dataset}/errors.json"
    how = f"{state.evaluates} && python tools/plot_metrics.py {state.run.word}"
    return [
        *_kinds(state, name, how),
        *_situations(state, name, how),
        *_galleries(state),
    ]


def _kinds(state: RunState, name: str, how: str) -> list[Block]:
    errors = state.analysis(name)
    blocks: list[Block] = [
        Heading("Which mistakes cost how much"),
        Paragraph(
            "Not every mistake costs the same. Each kind is corrected in turn, as if by an "
            "all-knowing helper, and AP50 is calculated anew: what it gains is what this kind "
            "costs (TIDE, Bolya et al., 2020). The costs do not add up to what is lacking to 100, "
            "because one mistake hides another.",
        ),
    ]
    tasks = [
        (task, label)
        for task, label in (("bbox", "boxes"), ("segm", "masks"))
        if errors["tasks"][task]["cost"].items()
    ]
    if not tasks:
        return [*blocks, state.missing_analysis(name, "The error analysis is missing.")]
    rows = []
    kinds = dict(_KINDS)
    if errors["classes"].number() == 1:  # there is no wrong class
        del kinds["classification"], kinds["both"]
    for kind, meaning in kinds.items():
        values = [errors["tasks"][task]["cost"][kind].number() for task, _ in tasks]
        if any(value is not None for value in values):
            rows.append((kind, meaning, *map(points, values)))
    for key, label, meaning in (
        ("cost_false_positives", "all false alarms", "every find that is no hit"),
        ("cost_false_negatives", "all misses", "every object that is not found"),
    ):
        values = [errors["tasks"][task][key].number() for task, _ in tasks]
        if any(value is not None for value in values):
            rows.append((label, meaning, *map(points, values)))
    header = ("kind", "what it is", *(f"{label}, points" for _, label in tasks))
    numeric = tuple(range(2, len(header)))
    return [
        *blocks,
        Table("What each kind of mistake costs, in points of AP50", header, tuple(rows), numeric),
        state.run.figure(
            "plots/errors.png",
            "What each kind of mistake costs, in points of AP50.",
            "The costs count the finds of all scores; the numbers in brackets are those that reach "
            "the threshold. The longest bar is where work pays first: for misses more and harder training "
            "pictures, for background finds pictures without objects, for bad fits better marked "
            "outlines or larger pictures.",
            how=how,
        ),
    ]


def _situations(state: RunState, name: str, how: str) -> list[Block]:
    errors = state.analysis(name)
    blocks: list[Block] = [
        Heading("Where objects are missed"),
        Paragraph(
            "Recall, the share of objects that are found, depends on the situation. Compare these "
            "rows with your own pictures: if most of your objects are small, the row of the small "
            "ones is your recall.",
        ),
    ]
    for key, title in _SITUATIONS.items():
        rows = [
            (
                row["label"].shown(),
                whole(row["people"].number()),
                whole(row["found"].number()),
                share(row["recall"].number()),
            )
            for row in errors["recall"][key].entries()[:_MOST_ROWS]
        ]
        if rows:
            header = ("objects", "there are", "found", "recall")
            blocks.append(Table(f"Recall: {title.lower()}", header, tuple(rows), (1, 2, 3)))
    if len(blocks) == 2:
        blocks.append(state.missing_analysis(name, "Recall by situation is missing."))
    blocks += [
        state.run.figure(
            "plots/recall_by.png",
            "Recall by size, crowding and closeness to the border.",
            "Short bars are the situations in which the detector cannot be trusted. A bar that "
            "stands for few objects can be short, or long, by chance.",
            how=how,
        ),
        state.run.figure(
            "plots/size_histogram.png",
            "The sizes of all objects and of those that were found.",
            "Where the two shapes part, objects of that size are missed.",
            how=how,
        ),
    ]
    return blocks


def _galleries(state: RunState) -> list[Block]:
    folder = f"inference/{state.scored.dataset}/gallery"
    gallery = state.analysis(f"{folder}/gallery.json")
    blocks: list[Block] = [
        Heading("The worst pictures"),
        Paragraph(
            f"Numbers do not show why. These are the {state.scored.kind} pictures with the gravest "
            "mistakes, the ground truth beside what the model says. Nothing here is typical: it is the worst.",
        ),
    ]
    if not gallery:
        name = f"{folder}/gallery.json"
        return [*blocks, state.missing_analysis(name, "There is no gallery.")]
    for key, (title, plural) in _GALLERIES.items():
        entries = gallery[key].entries()
        if key == "poor_masks" and not entries and not state.masks:
            continue
        blocks.append(Paragraph(_MEANING[key] if entries else "none on this split.", f"{title}:"))
        blocks += [_picture(state, folder, entry) for entry in entries[:_SHOWN]]
        if len(entries) > _SHOWN:
            more = several(len(entries) - _SHOWN, "more picture")
            verb = "lies" if len(entries) == _SHOWN + 1 else "lie"
            blocks.append(Paragraph(f"{more} of {plural} {verb} in {folder}."))
    return blocks


def _picture(state: RunState, folder: str, entry: Facts) -> Block:
    file = entry["file"].text()
    if not file:
        return Note(
            "missing", f"An entry of {folder}/gallery.json names no picture. {state.evaluates}"
        )
    caption = entry["caption"].text() or "Ground truth beside prediction."
    image = entry["image"].text()
    caption += f" Picture: {image}." if image and image not in caption else ""
    return state.run.figure(f"{folder}/{file}", caption, how=state.evaluates)

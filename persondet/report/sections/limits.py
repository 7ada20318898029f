"""Chapter "Limits": what the detector cannot be trusted with, as far as this run can tell."""

from __future__ import annotations

from persondet.report.document import Block, Bullets, Paragraph, Section
from persondet.report.run import Run
from persondet.report.sections import caution, ending, points_of, said
from persondet.report.wording import listed, several, share

_WEAK = 0.5  # recall below this is named as a weakness
_FEW = 10  # objects; with fewer a recall says nothing


def limits(run: Run) -> Section:
    """List the limits: those of this run by its numbers, and those of every such detector."""
    blocks: list[Block] = [
        Paragraph("The numbers of this run show these limits:"),
        Bullets(tuple(_of_this_run(run))),
        Paragraph("Every detector made this way has these limits:"),
        points_of("limits.general"),
    ]
    return Section("limits", "Limits", tuple(blocks if run.complete else [ending(run), *blocks]))


def _of_this_run(run: Run) -> list[tuple[str, str]]:
    items = [("Drawn images.", said("limits.demo"))] if _is_demo(run) else []
    images = run.scored.scores["images"].count()
    if images is None:
        items.append(("No score.", "Without a score nothing can be promised."))
    elif images < 200:
        text = f"The score rests on {several(images, 'image')}; see its 95 % intervals."
        items.append(("A small test.", text))
    items.append(("One training.", said("limits.one_training")))
    items += [("No fair test.", note.text) for note in caution(run)]
    if run.leaked is None:
        text = f"Nobody has compared the {run.scored.kind} images with the training images."
        items.append(("Known images.", text))
    elif run.leaked[0]:
        text = f"{share(run.leaked[1])} of the {run.scored.kind} images lie in an earlier split."
        items.append(("Known images.", text))
    weak = _weak_situations(run)
    items += [("Often missed:", f"{listed(weak)}.")] if weak else []
    return items + ([] if run.masks else [("Boxes only.", "This model draws no masks.")])


def _is_demo(run: Run) -> bool:
    """Return whether this is the run of the demo, with drawn people."""
    return run.results["seconds"]["sample"].number() is not None


def _weak_situations(run: Run) -> list[str]:
    errors = run.facts(f"inference/{run.scored.dataset}/errors.json")
    weak = []
    for _, rows in errors["recall"].items():
        for row in rows.entries():
            recall, people = row["recall"].number(), row["people"].number()
            if recall is not None and people is not None and recall < _WEAK and people >= _FEW:
                weak.append(f"{row['label'].shown()} ({share(recall)} of {people:.0f} found)")
    return weak

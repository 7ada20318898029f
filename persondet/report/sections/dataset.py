"""Section 2: the dataset: splits, statistics, examples, findings, leaks."""

from __future__ import annotations

from persondet.report.document import Block, Heading, Note, Paragraph, Section, Table
from persondet.report.facts import Facts
from persondet.report.run_state import TRAINS, RunState
from persondet.report.wording import DASH, plain, several, share, whole

_TRAINING = {"mended": "mended in memory", "refused": "refused", "kept": "taken as it is"}
_MASKS = {
    "polygon": "outlines (polygons)",
    "rle": "pixel runs (RLE)",
    "empty": "box only",
    "other": "faulty",
}
_MOST = 30
_NOT_COMPARED = (
    "Whether pictures of one split lie in another is not compared. python tools/prepare_dataset.py "
    "check on the dataset's folder does it."
)
_CHECK = "python tools/prepare_dataset.py check on the dataset's folder tells it too."


def dataset(state: RunState) -> Section:
    """Describe what the detector learned from and was tested on."""
    report = state.dataset_report
    blocks: list[Block] = [
        Paragraph(
            "A detector learns from examples: pictures in which people have marked by hand where "
            "each object is (the ground truth). The pictures are divided into three splits that "
            "never mix. From the training split the model learns. The validation split is looked "
            "at during the training, to choose the best model and its threshold. The test split "
            "is used once, at the end, for the score: only pictures that played no part in any "
            "choice can say how the model does on pictures it has never seen.",
        )
    ]
    if report:
        blocks += _splits(report["statistics"]) + _objects(report["statistics"])
    else:
        blocks += _without_report(state)
    if not state.evaluation_only:
        blocks += [Heading("Examples"), _examples(state)]
    if report:
        blocks += _findings(report) + _leaks(report)
    return Section("dataset", "The dataset", tuple(blocks))


def _examples(state: RunState) -> Block:
    return state.run.figure(
        "examples/ground_truth.jpg",
        "Pictures of the training split with their ground truth.",
        "Each colour is one object. Look whether the outlines follow the objects, and whether "
        "any object lacks one: the model learns whatever is marked, mistakes included.",
        how=TRAINS,
    )


def _without_report(state: RunState) -> list[Block]:
    note = state.run.missing(
        "dataset.json", "The report on the dataset is missing.", f"{TRAINS} {_CHECK}"
    )
    rows = [
        (name, whole(facts["images"].number()), whole(facts["annotations"].number()))
        for name, facts in state.last_start["datasets"].items()[:_MOST]
    ]
    if not rows:
        return [note]
    header = ("split", "pictures", "objects")
    return [note, Table("The splits, by provenance.json", header, tuple(rows), (1, 2))]


def _splits(statistics: Facts) -> list[Block]:
    rows = [
        (
            split,
            whole(part["images"].number()),
            whole(part["annotations"].number()),
            plain(part["per_image"]["mean"].number(), 3),
            whole(part["per_image"]["max"].number()),
            whole(part["without_annotations"].number()),
        )
        for split, part in statistics["splits"].items()
    ]
    if not rows:
        return [Note("missing", "dataset.json has no splits. " + _CHECK)]
    header = ("split", "pictures", "objects", "per picture", "at most", "pictures without")
    return [
        Heading("Splits and classes"),
        Table("Pictures and objects of each split", header, tuple(rows), (1, 2, 3, 4, 5)),
        Paragraph(
            "Pictures without objects are worth having: they teach the model what not to report."
        ),
        *_classes(statistics, [row[0] for row in rows]),
    ]


def _classes(statistics: Facts, splits: list[str]) -> list[Block]:
    entries = [
        entry
        for entry in statistics["classes"].entries()
        if any(boxes.number() for _, boxes in entry["boxes"].items())
    ]
    rows = [
        (
            entry["name"].shown() or "(without a name)",
            *(whole(entry["boxes"][split].number()) for split in splits),
        )
        for entry in entries[:_MOST]
    ]
    if not rows:
        return []
    more = f" (the first {_MOST} of {len(entries)})" if len(entries) > _MOST else ""
    numeric = tuple(range(1, len(splits) + 1))
    return [Table(f"Objects of each class{more}", ("class", *splits), tuple(rows), numeric)]


def _objects(statistics: Facts) -> list[Block]:
    sizes = statistics["box_sizes"]
    levels = [level.number() for level in sizes["quantile_levels"].entries()]
    header = ("", *(_level(level) for level in levels))
    rows = []
    for key, name, factor in (
        ("side", "side (root of the area), pixels", 1),
        ("height", "height, pixels", 1),
        ("relative_height", "height, % of the picture", 100),
        ("aspect", "width / height", 1),
    ):
        values = [value.number() for value in sizes[key].entries()]
        if values and len(values) == len(levels):
            rows.append((name, *(plain(v * factor if v is not None else None, 3) for v in values)))
    blocks: list[Block] = [Heading("How large the objects are")]
    if rows:
        parts = [(sizes[key].number(), key) for key in ("small", "medium", "large")]
        spoken = ", ".join(f"{share(value)} {key}" for value, key in parts if value is not None)
        blocks += [
            Paragraph(
                "Size decides how hard an object is to find. The field counts an object as small "
                "under 32 × 32 pixels, as large from 96 × 96 pixels, and as medium between"
                + (f". By their boxes, {spoken} here." if spoken else "."),
            ),
            Table(
                "Sizes of the boxes: of 100 boxes, so many are smaller than the number",
                header,
                tuple(rows),
                tuple(range(1, len(header))),
            ),
        ]
    masks = [
        f"{whole(count.number())} {_MASKS.get(kind, kind)}"
        for kind, count in statistics["masks"].items()
        if count.number()
    ]
    if masks:
        blocks.append(Paragraph(f"{', '.join(masks)}.", "How the objects are marked:"))
    pictures = [
        f"{whole(s['width'].number())} × {whole(s['height'].number())} pixels in "
        f"{several(s['images'].number() or 0, 'picture')}"
        for s in statistics["image_sizes"].entries()[:5]
    ]
    total = statistics["image_sizes_total"].count() or 0
    if pictures:
        more = f", and {total - 5} more sizes" if total > 5 else ""
        blocks.append(Paragraph(f"{', '.join(pictures)}{more}.", "Picture sizes:"))
    return blocks if len(blocks) > 1 else []


def _level(level: float | None) -> str:
    names = {0.0: "smallest", 0.5: "middle", 1.0: "largest"}
    return names.get(level, f"{100 * level:.0f} %") if level is not None else ""


def _findings(report: Facts) -> list[Block]:
    found = report["findings"].entries()
    rows = [
        (
            finding["severity"].text(),
            finding["meaning"].text() or finding["code"].text(),
            whole(finding["count"].number()),
            _TRAINING.get(finding["training"].text(), finding["training"].text()),
        )
        for finding in found[:_MOST]
    ]
    intro = Paragraph(
        "Before a training every file of the dataset is checked. Small faults are mended in "
        "memory, the files stay as they are; faults that cannot be mended stop the training."
    )
    if not rows:
        return [
            Heading("Findings"),
            intro,
            Paragraph("The check found nothing wrong with this dataset."),
        ]
    header = ("severity", "what was found", "times", "what training did")
    more = f" (the first {_MOST} of {len(found)})" if len(found) > _MOST else ""
    table = Table(f"What the check found{more}", header, tuple(rows), (2,))
    return [Heading("Findings"), intro, table]


def _leaks(report: Facts) -> list[Block]:
    intro = Paragraph(
        "A leak is a picture that lies, as a copy, a version or a neighbouring frame of a clip, "
        "in two splits. The model has then seen the exam before the exam: its score looks better "
        "than it is. A high share of leaked test pictures makes the score worth little."
    )
    compared = report["decoded"].value is True
    rows = [
        (
            split,
            whole(leak["images"].number()),
            whole(leak["leaked"].number()) if compared else DASH,
            share(leak["share"].number()) if compared else DASH,
            whole(leak["clip_mates"].number()),
        )
        for split, leak in report["leaks"].items()
    ]
    if not rows:
        note = Note("missing", "dataset.json has no figures on leaks. " + _CHECK)
        return [Heading("Leaks"), intro, note]
    header = ("split", "pictures", "known from an earlier split", "share", "others of one clip")
    table = Table("Leaks between the splits", header, tuple(rows), (1, 2, 3, 4))
    blocks: list[Block] = [Heading("Leaks"), intro, table]
    if not compared:
        blocks.append(Note("missing", _NOT_COMPARED))
    return blocks

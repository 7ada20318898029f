"""Chapter "The dataset": splits, statistics, examples, findings, leaks."""

from __future__ import annotations

from persondet.report.document import Block, Heading, Note, Paragraph, Section
from persondet.report.facts import Facts
from persondet.report.run import Run
from persondet.report.sections import TRAINS, figure, meanings, missing, prose, said, table
from persondet.report.wording import DASH, plain, several, share, whole

_SIZES = (
    ("side", "side (root of the area), pixels", 1),
    ("height", "height, pixels", 1),
    ("relative_height", "height, % of the image", 100),
    ("aspect", "width / height", 1),
)
_MOST = 30
_CHECK = "python tools/prepare_dataset.py check on the dataset's folder tells it too."


def dataset(run: Run) -> Section:
    """Describe what the detector learned from and was tested on."""
    report = run.dataset_report
    statistics = report["statistics"]
    blocks: list[Block] = [prose("dataset.intro")]
    blocks += _splits(statistics) + _objects(statistics) if report else _without_report(run)
    if not run.evaluation_only:
        blocks += [Heading("Examples"), figure(run, "examples/ground_truth.jpg", TRAINS)]
    if report:
        blocks += _findings(report) + _leaks(report)
    return Section("dataset", "The dataset", tuple(blocks))


def _without_report(run: Run) -> list[Block]:
    what = "The report on the dataset is missing."
    note = missing(run, "dataset.json", what, f"{TRAINS} {_CHECK}")
    rows = [
        (name, whole(facts["images"].number()), whole(facts["annotations"].number()))
        for name, facts in run.last_start["datasets"].items()[:_MOST]
    ]
    header = ("split", "images", "objects")
    return [note, *([table("The splits, by provenance.json", header, rows, 1)] if rows else [])]


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
        return [Note("missing", f"dataset.json has no splits. {_CHECK}")]
    header = ("split", "images", "objects", "per image", "at most", "images without")
    return [
        Heading("Splits and classes"),
        table("Images and objects of each split", header, rows, 1),
        prose("dataset.empty_images"),
        *_classes(statistics, [row[0] for row in rows]),
    ]


def _classes(statistics: Facts, splits: list[str]) -> list[Block]:
    rows = [
        (
            entry["name"].shown() or "(without a name)",
            *(whole(entry["boxes"][split].number()) for split in splits),
        )
        for entry in statistics["classes"].entries()
        if any(boxes.number() for _, boxes in entry["boxes"].items())
    ]
    more = f" (the first {_MOST} of {len(rows)})" if len(rows) > _MOST else ""
    return (
        [table(f"Objects of each class{more}", ("class", *splits), rows[:_MOST], 1)] if rows else []
    )


def _objects(statistics: Facts) -> list[Block]:
    sizes = statistics["box_sizes"]
    blocks: list[Block] = []
    levels = [level.number() for level in sizes["quantile_levels"].entries()]
    rows = []
    for key, name, factor in _SIZES:
        values = [value.number() for value in sizes[key].entries()]
        if values and len(values) == len(levels):
            rows.append((name, *(plain(None if v is None else v * factor, 3) for v in values)))
    if rows:
        parts = [(sizes[key].number(), key) for key in ("small", "medium", "large")]
        spoken = ", ".join(f"{share(value)} {key}" for value, key in parts if value is not None)
        caption = "Sizes of the boxes: this share of all boxes is smaller than the number"
        blocks += [
            Paragraph(
                said("dataset.sizes") + (f" By their boxes, {spoken} here." if spoken else "")
            ),
            table(caption, ("", *map(_level, levels)), rows, 1),
        ]
    masks = [
        f"{whole(count.number())} {meanings('masks').get(kind, kind)}"
        for kind, count in statistics["masks"].items()
        if count.number()
    ]
    images = [
        f"{whole(s['width'].number())} × {whole(s['height'].number())} pixels in "
        f"{several(s['images'].number() or 0, 'image')}"
        for s in statistics["image_sizes"].entries()[:5]
    ]
    total = statistics["image_sizes_total"].count() or 0
    images += [f"{total - 5} more sizes"] if images and total > 5 else []
    for lead, words in (("How the objects are marked:", masks), ("Image sizes:", images)):
        blocks += [Paragraph(f"{', '.join(words)}.", lead)] if words else []
    return [Heading("How large the objects are"), *blocks] if blocks else []


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
            meanings("training").get(finding["training"].text(), finding["training"].text()),
        )
        for finding in found[:_MOST]
    ]
    header = ("severity", "what was found", "times", "what training does")
    more = f" (the first {_MOST} of {len(found)})" if len(found) > _MOST else ""
    result: Block = prose("dataset.clean")
    if rows:
        result = table(f"What the check found{more}", header, rows, (2,))
    return [Heading("Findings"), prose("dataset.findings"), result]


def _leaks(report: Facts) -> list[Block]:
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
    blocks: list[Block] = [Heading("Leaks"), prose("dataset.leaks")]
    if not rows:
        return [*blocks, Note("missing", f"dataset.json has no figures on leaks. {_CHECK}")]
    header = ("split", "images", "known from an earlier split", "share", "others of one clip")
    blocks.append(table("Leaks between the splits", header, rows, 1))
    return blocks if compared else [*blocks, Note("missing", said("dataset.not_compared"))]

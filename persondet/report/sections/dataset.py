"""Chapter "The dataset": splits, statistics, examples, findings, leaks."""

from __future__ import annotations

from persondet.report.document import Block, Heading, Note, Paragraph, Section
from persondet.report.facts import DASH, Facts, plain, several, share, whole
from persondet.report.run import Run
from persondet.report.sections import TRAINS, counts, figure, meanings, missing, note, prose, table

_SIZES = (
    ("side", "side (root of the area), pixels", 1),
    ("height", "height, pixels", 1),
    ("relative_height", "height, % of the image", 100),
    ("aspect", "width / height", 1),
)
_LEVELS = {0.0: "smallest", 0.5: "middle", 1.0: "largest"}
_CHECK = "python tools/prepare_dataset.py check on the dataset's folder tells it too."


def dataset(run: Run) -> Section:
    """Describe what the detector learned from and was tested on."""
    report = run.dataset_report
    statistics = report["statistics"]
    blocks: list[Block] = [prose("dataset.intro")]
    blocks += _splits(statistics) + _objects(statistics) if report else []
    if not run.evaluation_only:
        blocks += [Heading("Examples"), figure(run, "examples/ground_truth.jpg", TRAINS)]
    if report:
        blocks += _findings(report) + _leaks(report)
    else:
        what = "The report on the dataset is missing."
        blocks.append(missing(run, "dataset.json", what, f"{TRAINS} {_CHECK}"))
    return Section("dataset", "The dataset", tuple(blocks))


def _splits(statistics: Facts) -> list[Block]:
    rows = [
        (
            split,
            *counts(part, "images", "annotations"),
            plain(part["per_image"]["mean"], 3),
            whole(part["per_image"]["max"]),
            whole(part["without_annotations"]),
        )
        for split, part in statistics["splits"].items()
    ]
    if not rows:
        return [Note("missing", f"dataset.json has no splits. {_CHECK}")]
    splits = [row[0] for row in rows]
    classes = [
        (entry["name"].shown() or "(without a name)", *counts(entry["boxes"], *splits))
        for entry in statistics["classes"].entries()
        if any(boxes.number() for _, boxes in entry["boxes"].items())
    ]
    return [
        Heading("Splits and classes"),
        *table("splits", rows),
        prose("dataset.empty_images"),
        *table("classes", classes, *splits),
    ]


def _objects(statistics: Facts) -> list[Block]:
    masks = [
        f"{whole(count)} {meanings('masks').get(kind, kind)}"
        for kind, count in statistics["masks"].items()
        if count.number()
    ]
    images = [
        f"{whole(s['width'])} × {whole(s['height'])} pixels in "
        f"{several(s['images'].number() or 0, 'image')}"
        for s in statistics["image_sizes"].entries()[:5]
    ]
    total = statistics["image_sizes_total"].count() or 0
    images += [f"{total - 5} more sizes"] if images and total > 5 else []
    blocks = _box_sizes(statistics["box_sizes"])
    for lead, words in (("How the objects are marked:", masks), ("Image sizes:", images)):
        blocks += [Paragraph(f"{', '.join(words)}.", lead)] if words else []
    return [Heading("How large the objects are"), *blocks] if blocks else []


def _box_sizes(sizes: Facts) -> list[Block]:
    levels = sizes["quantile_levels"].array()
    rows = [
        (name, *(plain(None if value != value else factor * value, 3) for value in values))
        for key, name, factor in _SIZES
        if len(values := sizes[key].array()) == len(levels) > 0
    ]
    if not rows:
        return []
    parts = [(sizes[key], key) for key in ("small", "medium", "large")]
    spoken = ", ".join(
        f"{share(value)} {key}" for value, key in parts if value.number() is not None
    )
    names = [_LEVELS.get(level, f"{100 * level:.0f} %") for level in levels]
    return [
        Paragraph(
            prose("dataset.sizes").text + (f" By their boxes, {spoken} here." if spoken else "")
        ),
        *table("box_sizes", rows, *names),
    ]


def _findings(report: Facts) -> list[Block]:
    rows = [
        (
            finding["severity"].text(),
            finding["meaning"].text() or finding["code"].text(),
            whole(finding["count"]),
            meanings("training").get(finding["training"].text(), finding["training"].text()),
        )
        for finding in report["findings"].entries()
    ]
    found = table("findings", rows) or [prose("dataset.clean")]
    return [Heading("Findings"), prose("dataset.findings"), *found]


def _leaks(report: Facts) -> list[Block]:
    compared = report["decoded"].value is True
    rows = [
        (
            split,
            whole(leak["images"]),
            whole(leak["leaked"]) if compared else DASH,
            share(leak["share"]) if compared else DASH,
            whole(leak["clip_mates"]),
        )
        for split, leak in report["leaks"].items()
    ]
    blocks = table("leaks", rows)
    if not blocks:
        blocks = [Note("missing", f"dataset.json has no figures on leaks. {_CHECK}")]
    elif not compared:
        blocks.append(note("missing", "dataset.not_compared"))
    return [Heading("Leaks"), prose("dataset.leaks"), *blocks]

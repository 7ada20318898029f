"""What `prepare_dataset` prints: the report of `check`, and what `clean` and `split` did.

Lines are at most 100 columns wide."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from persondet.data.check import LARGE, SMALL
from persondet.data.findings import CHANGES, CODES, remedy
from persondet.text import columns, count_of, listed, padded, printable

WIDTH = 100
_CLASSES = 15
_SIZES = 5
_FOLDER, _NAME, _FILE, _ANNOTATION = 32, 36, 86, 16  # columns
_EXAMPLES = 3
_TRAINING = {
    "mended": "mended in memory",
    "refused": "refused",
    "kept": "takes it as it is",
    "boxes": "learns boxes only, with MODEL.MASK_ON False",
}
_QUANTILE_NAMES = {0.0: "smallest", 0.5: "median", 1.0: "largest"}
_PER_IMAGE = ((0, 0), (1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, None))
_MASKS = {
    "polygon": "polygons",
    "rle": "RLE",
    "empty": "without a mask (box only)",
    "other": "that are no mask",
}


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the text of a report: contents, leaks, findings, and the next step.

    Names of files and classes come from strangers: what would move the cursor or hide text is
    written as escapes, and long names are cut in the middle.

    Args:
        report: as `persondet.data.check.check_export` returns it; and `folder`, the
            folder's name, for the first line and the command to run next.
    """
    statistics = report["statistics"]
    sections = [
        _splits(report),
        _classes(statistics),
        _per_image(statistics),
        _box_sizes(statistics["box_sizes"]),
        _masks(statistics["masks"]),
        _image_sizes(statistics),
        _leaks(report),
        [""],
        _findings(report),
        [""],
        _next(report),
    ]
    return [line.rstrip() for section in sections for line in section]


def _splits(report: Mapping[str, Any]) -> Iterator[str]:
    splits = report["statistics"]["splits"]
    images = sum(part["images"] for part in splits.values())
    objects = sum(part["annotations"] for part in splits.values())
    folder = printable(report["folder"], WIDTH - 40)
    yield f"{folder}: {count_of(images, 'image')}, {count_of(objects, 'object')}"
    rows = [["split", "folder", "images", "without objects", "objects", "per image", "at most"]]
    for split, part in splits.items():
        counts = [str(part[key]) for key in ("images", "without_annotations", "annotations")]
        per_image = [f"{part['per_image']['mean']:.1f}", str(part["per_image"]["max"])]
        rows.append([split, printable(report["splits"][split], _FOLDER), *counts, *per_image])
    yield from _table(rows, left=2)
    for split, part in splits.items():
        if 0 < part["sources"] < part["images"]:
            count = count_of(part["sources"], "source")
            images = f"the {part['images']} {split} images"
            yield f"  versions: {images} come from {count}, by their names"


def _classes(statistics: Mapping[str, Any]) -> Iterator[str]:
    classes, splits = statistics["classes"], list(statistics["splits"])
    rows = [["class", *splits]]
    for entry in classes[:_CLASSES]:
        counts = [str(entry["boxes"][split]) for split in splits]
        rows.append([printable(entry["name"], _NAME), *counts])
    yield from _table(rows)
    rest = classes[_CLASSES:]
    if rest:
        unused = sum(not any(entry["boxes"].values()) for entry in rest)
        note = f", {unused} of them without an object" if unused else ""
        yield f"    and {len(rest)} more{note}"
    if unknown := statistics["unknown_class"]:
        yield f"    and {count_of(unknown, 'object')} of no class that is listed"


def _per_image(statistics: Mapping[str, Any]) -> Iterator[str]:
    pairs = [
        pair for part in statistics["splits"].values() for pair in part["per_image"]["histogram"]
    ]
    shown = []
    for low, high in _PER_IMAGE:
        images = sum(n for count, n in pairs if low <= count and (high is None or count <= high))
        name = f"{low}" if low == high else f"{low} or more" if high is None else f"{low} to {high}"
        if images:
            shown.append(f"{name} in {images}")
    if shown:
        yield from _wrapped("  objects per image: " + ", ".join(shown), 4)


def _box_sizes(sizes: Mapping[str, Any]) -> Iterator[str]:
    if not sizes["boxes"]:
        yield "  box sizes: there is no valid box"
        return
    yield from _wrapped(
        f"  box sizes: {_percent(sizes['small'])} small (under {SMALL:.0f} x {SMALL:.0f} px), "
        f"{_percent(sizes['medium'])} medium, "
        f"{_percent(sizes['large'])} large (from {LARGE:.0f} x {LARGE:.0f} px)",
        4,
    )
    names = [_QUANTILE_NAMES.get(q, f"{q * 100:.0f} %") for q in sizes["quantile_levels"]]
    rows = [["", *names]]
    for key, name, scale, digits in (
        ("side", "√area, px", 1, 0),
        ("height", "height, px", 1, 0),
        ("relative_side", "√area, % of image", 100, 1),
        ("relative_height", "height, % of image", 100, 1),
        ("aspect", "width / height", 1, 2),
    ):
        if sizes[key] is not None:
            rows.append([name, *(f"{value * scale:.{digits}f}" for value in sizes[key])])
    yield from _table(rows)


def _masks(masks: Mapping[str, int]) -> Iterator[str]:
    total = sum(masks.values())
    shown = [
        f"{masks[kind]} {name} ({_percent(masks[kind] / total)})"
        for kind, name in _MASKS.items()
        if masks[kind]
    ]
    yield from _wrapped("  masks: " + (", ".join(shown) or "none"), 4)


def _image_sizes(statistics: Mapping[str, Any]) -> Iterator[str]:
    sizes = statistics["image_sizes"]
    shown = [f"{s['images']} of {s['width']} x {s['height']} px" for s in sizes[:_SIZES]]
    others = statistics["image_sizes_total"] - len(sizes[:_SIZES])
    if others:
        shown.append(f"{others} more sizes" if others > 1 else "1 more size")
    if statistics["image_sizes_unknown"]:
        shown.append(f"{statistics['image_sizes_unknown']} whose json has no size")
    yield from _wrapped("  image sizes: " + (", ".join(shown) or "none"), 4)


def _leaks(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the leaks of test and valid, where the export has a split to leak from."""
    learning = {"test": ["train", "valid"], "valid": ["train"]}
    compared = {
        split: report["leaks"][split]
        for split, others in learning.items()
        if split in report["leaks"] and set(others) & set(report["splits"])
    }
    for split, share in compared.items():
        learns = " or ".join(learning[split])
        further = ""
        for key, one, many, what, sure in (
            ("leaked", "has", "have", f"a version in {learns}", "will"),
            ("clip_mates", "is a frame", "are frames", f"of a clip that is in {learns} too", "may"),
        ):
            if count := share[key]:
                images = count_of(share["images"], f"{split} image")
                part = f"{further}{count} of {images} ({_percent(count / share['images'])})"
                does = f"{part} {one if count == 1 else many} {what}"
                yield from _wrapped(f"  leaks: {does}: the score {sure} look better than it is", 4)
                further = "a further "
    if compared and not any(s["leaked"] or s["clip_mates"] for s in compared.values()):
        names = " and ".join(count_of(s["images"], f"{name} image") for name, s in compared.items())
        yield f"  leaks: none among {names}"


def _findings(report: Mapping[str, Any]) -> Iterator[str]:
    errors, warnings = report["errors"], report["warnings"]
    if not report["findings"]:
        yield "no errors, no warnings"
        return
    yield f"{count_of(errors, 'error')}, {count_of(warnings, 'warning')}"
    for finding in sorted(report["findings"], key=lambda finding: finding["severity"]):
        splits = ", ".join(f"{split} {count}" for split, count in finding["splits"].items())
        count = f"{finding['count']}: {splits}" if len(finding["splits"]) > 1 else finding["count"]
        head = f"{finding['severity'].upper()} {finding['code']} ({count}): {finding['meaning']}"
        yield from _wrapped(head, 6)
        training = _TRAINING[finding["training"]]
        yield from _wrapped(f"      clean: {finding['clean']} · training: {training}", 8)
        for example in finding["examples"][:_EXAMPLES]:
            yield from _example(example)


def _example(example: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of an example; a file name stays whole, so that it can be copied."""
    line = f"      {example['split']:5}"
    number = example["annotation"]
    text = "" if number is None else json.dumps(number, ensure_ascii=False)
    parts = (
        printable(example["file"], _FILE),
        text and f"annotation {printable(text, _ANNOTATION)}",
        printable(example["detail"], _FILE),
    )
    for part in filter(None, parts):
        if columns(line) + 2 + columns(part) > WIDTH:
            yield line
            line = " " * 11
        line += f"  {part}"
    yield line


def _next(report: Mapping[str, Any]) -> Iterator[str]:
    codes = [finding["code"] for finding in report["findings"]]
    command, *flags = (remedy(codes) or "nothing").split()
    if command == "export":
        reason = next(f for f in report["findings"] if remedy([f["code"]]) == "export")
        yield f"next: mend the json, or export the dataset again: {reason['meaning']}"
    elif command != "nothing":
        paths = _from_to(report["folder"], command)
        yield " ".join(["next: python tools/prepare_dataset.py", command, paths, *flags])
    elif codes:
        yield "Nothing has to be mended; the warnings are for you to judge."
    else:
        yield "Nothing to mend."


def _from_to(folder: str, what: str) -> str:
    """Return the arguments of a command that reads `folder` and writes another beside it."""
    if not folder.isprintable():
        return "DIR --output DIR2"
    base = folder.rstrip("/")
    output = f"{base}-{what}" if base.strip("./") else what
    return f"{shlex.quote(folder)} --output {shlex.quote(output)}"


def _table(rows: Sequence[Sequence[str]], *, left: int = 1) -> Iterator[str]:
    """Yield rows with their columns aligned: the first `left` ones to the left, numbers right."""
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            padded(cell, width, right=index >= left)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "    " + "  ".join(cells)


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)


def _percent(share: float) -> str:
    """Return a share in percent; 0 % and 100 % stand for none and all alone."""
    percent = share * 100
    if 0 < percent < 1 or 99 < percent < 100:
        return f"{min(max(percent, 0.1), 99.9):.1f} %"
    return f"{percent:.0f} %"


_SHOWN = 5  # dropped images that are named


def cleaning_lines(record: Mapping[str, Any]) -> list[str]:
    """Return the text that `clean` prints.

    Args:
        record: what stands in `cleaning.json`, see `persondet.data.clean.clean_dataset`.
    """
    lines = []
    for split, counts in record["splits"].items():
        lines.append(
            f"{split}: {counts['images']} of {counts['images_before']} images, "
            f"{counts['annotations']} of {counts['annotations_before']} annotations"
        )
    masks = {"polygon": "polygons", "bitmask": "RLE among them", "": "none, boxes only"}
    for split in record["left_out"]:
        then = {"valid": "; TRAINING THEN HAS NO VALIDATION", "train": "; next: split"}.get(
            split, ""
        )
        lines.append(f"{split.upper()} IS LEFT OUT: none of its images is left{then}")
    lines.append(f"classes: {listed(record['classes'])}; masks: {masks[record['masks']]}")
    changes = record["changes"]
    lines.append("changed:" if changes else "nothing had to be changed")
    width = max(map(len, changes), default=0)
    for name, count in changes.items():
        words = CODES[name].mend if name in CODES else CHANGES[name]
        lines.append(f"  {padded(name, width)}  {count:>7}  {words}")
    dropped = [
        f"  dropped: {split}/{printable(name, 60)} ({code})"
        for split, names in record["dropped_images"].items()
        for name, code in names.items()
    ]
    lines += dropped[:_SHOWN]
    if len(dropped) > _SHOWN:
        lines.append(f"  and {len(dropped) - _SHOWN} more images: see cleaning.json")
    if changes.get("mask-from-box"):
        lines.append(
            "A mask that is a filled box teaches boxes: the model's masks of such objects will be "
            "boxes too."
        )
    return lines


def split_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return the summary of `split_export` as lines of text."""
    lines = ["  split   images  without objects  objects  objects per image"]
    for split, figures in summary["splits"].items():
        lines.append(
            f"  {split:<6}{figures['images']:>8}{figures['without_people']:>17}"
            f"{figures['people']:>9}{figures['people_per_image']:>19.2f}"
        )
    groups = summary["groups"]
    if groups["of_several"]:
        lines.append(
            f"{count_of(groups['of_several'], 'group')} of versions or near copies "
            f"{'stays' if groups['of_several'] == 1 else 'stay'} together, "
            f"the largest has {groups['largest']} images."
        )
    renamed = summary["renamed"]
    if renamed:
        lines.append(
            f"{count_of(len(renamed), 'file')} got another name, as it was taken: e.g. "
            f"{renamed[0]['from']!r} is {renamed[0]['to']!r}."
        )
    return lines + [str(note) for note in summary["notes"]]

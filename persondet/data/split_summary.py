"""What is said about a division: its figures, and a sentence for whatever could not be helped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from persondet.data.coco_json import CocoDict
from persondet.data.merging import Merged

SPLITS = ("train", "valid", "test")
_NAMED = 3  # groups that get a sentence of their own


def figures_of(coco: CocoDict) -> dict[str, Any]:
    """Return `images`, `people`, `people_per_image` and `without_people` of one split."""
    images, annotations = coco["images"], coco["annotations"]
    ids = {image.get("id") for image in images if isinstance(image, dict) and _is_id(image, "id")}
    used = Counter(
        a["image_id"] for a in annotations if isinstance(a, dict) and _is_id(a, "image_id")
    )
    return {
        "images": len(images),
        "people": len(annotations),
        "people_per_image": round(len(annotations) / max(len(images), 1), 3),
        "without_people": sum(number not in used for number in ids),
    }


def renamed_files(merged: Merged) -> list[dict[str, Any]]:
    """Return `source` (its index), `from` and `to` of each file that merging renamed, each once."""
    changes: dict[tuple[int, str], str] = {}
    for image, (source, name) in zip(merged.coco["images"], merged.origins, strict=True):
        if isinstance(name, str) and image["file_name"] != name:
            changes[source, name] = image["file_name"]
    return [
        {"source": source, "from": name, "to": new}
        for (source, name), new in sorted(changes.items())
    ]


def notes_of(
    groups: Sequence[tuple[int, str]],
    dealt: Sequence[int],
    shares: Sequence[float],
    *,
    left: int,
    orphans: int,
) -> list[str]:
    """Return a sentence for each way in which the division is not what was asked for.

    Args:
        groups: for each group its number of images and the name of the first.
        dealt: for each group the index of its split.
        shares: of train, valid and test.
        left: image records that stay in train because they have no file.
        orphans: annotations that stay in train because they have no image.
    """
    return [
        *_too_few(len(groups), dealt, shares),
        *_too_large(groups, dealt, shares),
        *_off_target(groups, dealt, shares),
        *_left(left, orphans),
    ]


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
            f"{_count(groups['of_several'], 'group')} of versions or near copies "
            f"{'stays' if groups['of_several'] == 1 else 'stay'} together, "
            f"the largest has {groups['largest']} images."
        )
    renamed = summary["renamed"]
    if renamed:
        lines.append(
            f"{_count(len(renamed), 'file')} got another name, as it was taken: e.g. "
            f"{renamed[0]['from']!r} is {renamed[0]['to']!r}."
        )
    return lines + [str(note) for note in summary["notes"]]


def _is_id(record: Mapping[str, Any], key: str) -> bool:
    return type(record.get(key)) is int


def _too_few(groups: int, dealt: Sequence[int], shares: Sequence[float]) -> Iterator[str]:
    wanted = [split for split, share in enumerate(shares) if share > 0]
    empty = [SPLITS[split] for split in wanted if split not in set(dealt)]
    if empty:
        yield (
            f"{' and '.join(empty)} would be empty and {'is' if len(empty) == 1 else 'are'} not "
            f"written: {_count(groups, 'group')} of images for {len(wanted)} splits."
        )


def _too_large(
    groups: Sequence[tuple[int, str]], dealt: Sequence[int], shares: Sequence[float]
) -> Iterator[str]:
    total = sum(images for images, _ in groups)
    large = [
        (images, name, split)
        for (images, name), split in zip(groups, dealt, strict=True)
        if images > 1 and images > shares[split] * total + 1
    ]
    large.sort(key=lambda entry: (-entry[0], entry[1]))
    for images, name, split in large[:_NAMED]:
        yield (
            f"A group of {images} images (the first is {name!r}) is larger than the share of "
            f"{SPLITS[split]}, {shares[split] * total:.0f}, and was not cut."
        )
    if len(large) > _NAMED:
        yield f"{len(large) - _NAMED} more groups are larger than their share, and were not cut."


def _off_target(
    groups: Sequence[tuple[int, str]], dealt: Sequence[int], shares: Sequence[float]
) -> Iterator[str]:
    total = sum(images for images, _ in groups)
    got = Counter[int]()
    for (images, _), split in zip(groups, dealt, strict=True):
        got[split] += images
    for split, share in enumerate(shares):
        if got[split] and abs(got[split] - share * total) > max(2, 0.1 * share * total):
            yield (
                f"{SPLITS[split]} has {_count(got[split], 'image')} instead of {share * total:.0f}: "
                "groups stay together."
            )


def _left(left: int, orphans: int) -> Iterator[str]:
    if left:
        yield (
            f"{_count(left, 'image record')} without a readable name, id or file "
            f"{'stays' if left == 1 else 'stay'} in train as {'it is' if left == 1 else 'they are'}; "
            "clean drops them."
        )
    if orphans:
        yield (
            f"{_count(orphans, 'annotation')} without an image "
            f"{'stays' if orphans == 1 else 'stay'} in train; clean drops them."
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

"""Dividing an export into train, valid and test, so that nothing of one is known from another.

What is said about a division: its figures, and a sentence for whatever could not be helped.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persondet.data.cleaned_copy import refuse_nesting
from persondet.data.coco_json import CocoDict, write_coco
from persondet.data.grouping import Group, Item, deal_groups, group_items
from persondet.data.inspect.images import ImageFacts
from persondet.data.merging import Merged, image_id, merge_coco
from persondet.data.roboflow import ANNOTATION_FILE, copy_readmes, file_names, read_export
from persondet.environment import Progress
from persondet.errors import DatasetError
from persondet.files import atomic_folder, link_or_copy, path_inside, refuse_existing, write_json

FRACTIONS = (0.7, 0.2, 0.1)
SPLITTING = "splitting.json"
__all__ = ["Division", "check_fractions", "split_coco", "split_export", "split_lines"]


@dataclass(frozen=True)
class Division:
    """A divided dataset.

    Attributes:
        splits: `train` and, where they have images, `valid` and `test` to their COCO dicts.
        origins: split to, for each of its image records, (which source, `file_name` there).
        summary: plain lists and dicts: `fractions`, `seed`, `group_clips`, `splits` (split to
            `images`, `people`, `people_per_image`, `without_people`), `groups` (`count`, `of_several`,
            `largest`), `renamed`, `notes` (sentences).
    """

    splits: dict[str, CocoDict]
    origins: dict[str, list[tuple[int, Any]]]
    summary: dict[str, Any]


def split_coco(
    coco: CocoDict | Sequence[CocoDict],
    *,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    group_clips: bool = False,
    facts: Sequence[Mapping[str, ImageFacts]] = (),
    folders: Sequence[Path] = (),
) -> Division:
    """Divide a COCO dict into train, valid and test.

    Images of one file, of one source (name before `.rf.`), of the same bytes or nearly the same
    image stay together, with `group_clips` also frames of one clip. A group that is larger than
    its share is told in the notes and never cut. The order of the records has no influence on
    where an image goes. Faults stay: a record without file, and an annotation without image, go to
    train as they are.

    Args:
        coco: one dict, or several that are merged first (see `persondet.data.merging`). Not
            changed.
        fractions: the shares of train, valid and test by images; train above 0, sum 1.
        seed: another seed, another division.
        group_clips: keep a clip's frames together, as far as names tell (see `clip_name`).
        facts, folders: for each dict, what is known of its files by `file_name`, and where they
            are, to look at alike ones again; () for names alone.

    Raises: DatasetError: when the fractions are none, an image id stands for two images, or a
        name leads out of the folder.

    Example:
        >>> coco = read_coco("datasets/person/train/_annotations.coco.json")
        >>> division = split_coco(coco, fractions=(0.5, 0.3, 0.2), seed=0)
        >>> sum(len(split["images"]) for split in division.splits.values())
        6
    """
    shares = check_fractions(fractions)
    cocos = [coco] if isinstance(coco, Mapping) else list(coco)
    facts = facts or [{}] * len(cocos)
    merged = merge_coco(cocos)
    known = [facts[source].get(_text(name)) for source, name in merged.origins]
    paths = [folders[source] / _text(name) if folders else None for source, name in merged.origins]
    _refuse_outside(merged, known)
    usable = [
        image_id(image) is not None and _text(name) != "" and (not fact or _is_there(fact))
        for image, (_, name), fact in zip(merged.coco["images"], merged.origins, known, strict=True)
    ]
    order = [index for index, use in enumerate(usable) if use]
    order.sort(key=lambda i: (merged.origins[i], image_id(merged.coco["images"][i])))
    people: Counter[Any] = Counter(_image_of(a) for a in merged.coco["annotations"])
    per_image = [people[image_id(merged.coco["images"][index])] for index in order]
    members = group_items(
        [
            Item(*merged.origins[i], image_id(merged.coco["images"][i]), known[i], paths[i])
            for i in order
        ],
        clips=group_clips,
    )
    groups = [
        Group(len(group), sum(per_image[i] for i in group), sum(not per_image[i] for i in group))
        for group in members
    ]
    dealt = deal_groups(groups, shares, seed)
    where = ["train"] * len(usable)
    for group, target in zip(members, dealt, strict=True):
        for index in group:
            where[order[index]] = SPLITS[target]
    splits, origins = _cut(merged, where)
    summary = {
        "version": 1,
        "fractions": [float(value) for value in fractions],
        "seed": seed,
        "group_clips": group_clips,
        "splits": {name: figures_of(part) for name, part in splits.items()},
        "groups": {
            "count": len(groups),
            "of_several": sum(group.images > 1 for group in groups),
            "largest": max((group.images for group in groups), default=0),
        },
        "renamed": renamed_files(merged),
        "notes": notes_of(
            [
                (group.images, merged.origins[order[m[0]]][1])
                for group, m in zip(groups, members, strict=True)
            ],
            dealt,
            shares,
            left=usable.count(False),
            orphans=len(merged.coco["annotations"])
            - sum(people[n] for n in {image_id(image) for image in merged.coco["images"]} - {None}),
        ),
    }
    return Division(splits, origins, summary)


def split_export(
    root: str | Path,
    output: str | Path,
    *,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    group_clips: bool = False,
    overwrite: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write an export divided anew: hard links, copies where the file system refuses them.

    Splits that the export has are merged first. The same export and seed give the same bytes.

    Args:
        root: the export, see `persondet.data.roboflow.find_export`.
        output: the folder to write, beside `root`; it appears when it is complete.
        fractions, seed, group_clips: see `split_coco`.
        overwrite: replace `output` if it is there.
        workers: processes that load images; 0: one per core.
        progress: called with the number of images done and of all.

    Returns: the summary (see `Division`), as it is written to `splitting.json`.

    Raises:
        DatasetError: as `read_export` and `split_coco`, or when a file cannot be written.
        OutputExistsError: when `output` is there already and `overwrite` is False.
    """
    from persondet.data.check.images import decode_splits

    root, output = Path(root), Path(output)
    check_fractions(fractions)
    refuse_existing(output, overwrite=overwrite)
    refuse_nesting(root, output)
    export = read_export(root)
    if not any(coco["images"] for coco in export.splits.values()):
        raise DatasetError(f"{root}: no split names an image; export the dataset again.")
    folders = list(export.folders)
    names = {split: file_names(coco) for split, coco in export.splits.items()}
    facts = decode_splits(export.folders, names, workers=workers, progress=progress)
    try:
        division = split_coco(
            list(export.splits.values()),
            fractions=fractions,
            seed=seed,
            group_clips=group_clips,
            facts=list(facts.values()),
            folders=list(export.folders.values()),
        )
    except DatasetError as error:
        raise DatasetError(f"{root}: {error}") from None
    summary = division.summary
    for entry in summary["renamed"]:
        entry["from"] = f"{folders[entry.pop('source')]}/{entry['from']}"
    if len(folders) > 1:
        merged = ", ".join(folders[:-1]) + f" and {folders[-1]}"
        summary["notes"].insert(0, f"{merged} of the export were merged and divided anew.")
    sources = list(export.folders.values())
    with atomic_folder(output, overwrite=overwrite) as draft:
        for split, coco in division.splits.items():
            _write(draft / split, coco, division.origins[split], sources)
        copy_readmes(export.root, draft)
        write_json(draft / SPLITTING, summary)
    return summary


def check_fractions(fractions: Sequence[float]) -> tuple[float, float, float]:
    """Return the shares of train, valid and test, their sum exactly 1 up to rounding.

    Raises: DatasetError: with the form that is expected.
    """
    values = [float(value) for value in fractions]
    usable = len(values) == 3 and all(math.isfinite(v) and v >= 0 for v in values)
    if not usable or values[0] == 0 or abs(sum(values) - 1) > 1e-6:
        raise DatasetError(
            f"--fractions {' '.join(f'{value:g}' for value in values)}: expected three shares, of "
            "train, valid and test, that add up to 1, train above 0, e.g. --fractions 0.7 0.2 0.1."
        )
    train, valid, test = (value / sum(values) for value in values)
    return train, valid, test


def _text(name: Any) -> str:
    return name if isinstance(name, str) else ""


def _image_of(annotation: Any) -> Any:
    value = annotation.get("image_id") if isinstance(annotation, dict) else None
    return value if type(value) is int else None


def _is_there(fact: ImageFacts) -> bool:
    return fact.problem != "file-missing"


def _refuse_outside(merged: Merged, known: Sequence[ImageFacts | None]) -> None:
    outside = [
        name
        for (_, name), fact in zip(merged.origins, known, strict=True)
        if fact is not None and fact.problem == "file-name-outside"
    ]
    if outside:
        raise DatasetError(
            f"the file name {outside[0]!r} leads out of its folder, as {len(outside)} in all do; "
            "run check to see them and clean to drop them, then split."
        )


def _cut(
    merged: Merged, where: Sequence[str]
) -> tuple[dict[str, CocoDict], dict[str, list[tuple[int, Any]]]]:
    parts: dict[str, tuple[list[Any], list[Any]]] = {split: ([], []) for split in SPLITS}
    origins: dict[str, list[tuple[int, Any]]] = {split: [] for split in SPLITS}
    split_of: dict[int, str] = {}
    for image, origin, split in zip(merged.coco["images"], merged.origins, where, strict=True):
        parts[split][0].append(image)
        origins[split].append(origin)
        number = image_id(image)
        if number is not None:
            split_of[number] = split
    for annotation in merged.coco["annotations"]:
        parts[split_of.get(_image_of(annotation), "train")][1].append(annotation)
    splits = {
        split: {**merged.coco, "images": images, "annotations": annotations}
        for split, (images, annotations) in parts.items()
        if images or split == "train"
    }
    return splits, {split: origins[split] for split in splits}


def _write(
    target: Path, coco: CocoDict, origins: Sequence[tuple[int, Any]], sources: Sequence[Path]
) -> None:
    """Write the json of one split, and its images where they are there."""
    target.mkdir()
    try:
        for image, (source, name) in zip(coco["images"], origins, strict=True):
            if not _text(name) or not isinstance(image["file_name"], str):
                continue
            file = path_inside(sources[source], name).resolve()
            link = path_inside(target, image["file_name"])
            # Missing, also for a name that no disk can hold; or listed twice.
            if not _is_file(file) or os.path.lexists(link):
                continue
            link_or_copy(file, link)
        write_coco(target / ANNOTATION_FILE, coco)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DatasetError(
            f"{target.parent.parent}: an image cannot be written there ({reason}); "
            "choose another --output."
        ) from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name is too long for a file
        return False


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

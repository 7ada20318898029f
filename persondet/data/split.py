"""Split an export into train, valid and test, so that no split holds versions of another's images.

An export with several splits is merged first. This file stands above `persondet.data.check`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from persondet.data.check.images import decode_splits
from persondet.data.cleaned_copy import refuse_nesting, write_split
from persondet.data.coco_json import CocoDict
from persondet.data.grouping import Group, GroupedImage, deal_groups, group_items
from persondet.data.inspect.images import ImageFacts
from persondet.data.roboflow import copy_readmes, file_names, read_export
from persondet.environment import Progress
from persondet.errors import DatasetError
from persondet.files import atomic_folder, refuse_existing, write_json

FRACTIONS = (0.7, 0.2, 0.1)
SPLITTING = "splitting.json"
SPLITS = ("train", "valid", "test")
_NAMED = 3  # groups that get a sentence of their own
__all__ = ["Division", "check_fractions", "split_coco", "split_export"]


@dataclass(frozen=True)
class Division:
    """A dataset after the split.

    Attributes:
        splits: `train` and, where they have images, `valid` and `test` to their COCO dicts.
        origins: split to, for each of its image records, (which source, `file_name` there).
        summary: plain lists and dicts: `fractions`, `seed`, `group_clips`, `splits` (split to
            `images`, `people`, `people_per_image`, `without_people`), `groups` (`count`,
            `of_several`, `largest`), `renamed`, `notes` (sentences).
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
) -> Division:
    """Split a COCO dict into train, valid and test.

    Images of one file, of one source (name before `.rf.`), of the same bytes or nearly the same
    image stay together, with `group_clips` also frames of one clip. A group that is larger than
    its share is told in the notes and never cut. The order of the records has no influence on
    where an image goes. Faults stay: a record without file, and an annotation without image, go to
    train as they are.

    Args:
        coco: one dict, or several that are merged first (see `merge_coco`). Not
            changed.
        fractions: the shares of train, valid and test by images; train above 0, sum 1.
        seed: another seed, another division.
        group_clips: keep a clip's frames together, as far as names tell (see `clip_name`).
        facts: for each dict the facts about its files, by `file_name`; () to go by names alone.

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
    _refuse_outside(merged, known)
    usable = [
        _whole(image) is not None
        and _text(name) != ""
        and (not fact or fact.problem != "file-missing")
        for image, (_, name), fact in zip(merged.coco["images"], merged.origins, known, strict=True)
    ]
    order = [index for index, use in enumerate(usable) if use]
    order.sort(key=lambda i: (merged.origins[i], _whole(merged.coco["images"][i])))
    objects: Counter[Any] = Counter(_whole(a, "image_id") for a in merged.coco["annotations"])
    per_image = [objects[_whole(merged.coco["images"][index])] for index in order]
    members = group_items(
        [
            GroupedImage(*merged.origins[i], _whole(merged.coco["images"][i]), known[i])
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
            - sum(objects[n] for n in {_whole(image) for image in merged.coco["images"]} - {None}),
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
    """Write a new split of an export: hard links, or copies where the file system refuses links.

    First merges the splits that the export has. The same export and seed give the same bytes.

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
            origins = [(sources[source], name) for source, name in division.origins[split]]
            write_split(draft / split, coco, origins, missing=True)
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
    split_of: dict[int | None, str] = {}
    for image, origin, split in zip(merged.coco["images"], merged.origins, where, strict=True):
        parts[split][0].append(image)
        origins[split].append(origin)
        number = _whole(image)
        if number is not None:
            split_of[number] = split
    for annotation in merged.coco["annotations"]:
        parts[split_of.get(_whole(annotation, "image_id"), "train")][1].append(annotation)
    splits = {
        split: {**merged.coco, "images": images, "annotations": annotations}
        for split, (images, annotations) in parts.items()
        if images or split == "train"
    }
    return splits, {split: origins[split] for split in splits}


@dataclass(frozen=True)
class Merged:
    """One COCO dict, and the sources of its images.

    Attributes:
        coco: the dict; the records of `images` and `annotations` stand in the order of the sources.
        origins: for each record of `images`, which source it is from and its `file_name` there.
    """

    coco: CocoDict
    origins: list[tuple[int, Any]]


def merge_coco(cocos: Sequence[CocoDict]) -> Merged:
    """Merge COCO dicts into one; a single one is returned as it is.

    Image and annotation ids of later dicts are moved behind those of earlier ones, where any
    collide. Categories are one when id and name agree, or the name does; a file name that an
    earlier dict has gets a number (`a_2.jpg`). Faults inside one dict stay what they are. Other
    keys (`info`, `licenses`, …) are those of the first dict that has them.

    Args:
        cocos: at least one; not changed.

    Raises: DatasetError: when an id stands for two images of one dict, so that nobody knows whose
        the annotations are.
    """
    for coco in cocos:
        _refuse_ambiguous(coco)
    if len(cocos) == 1:
        return Merged(cocos[0], [(0, _get(image, "file_name")) for image in cocos[0]["images"]])
    merged: CocoDict = {}
    for coco in reversed(cocos):
        merged = {**{key: value for key, value in merged.items() if key not in coco}, **coco}
    merged = {**{key: merged[key] for key in cocos[0]}, **merged}
    images: list[Any] = []
    annotations: list[Any] = []
    categories: list[Any] = []
    origins: list[tuple[int, Any]] = []
    taken: set[str] = set()
    image_shifts = _shifts([list(_image_ids(coco)) for coco in cocos])
    annotation_shifts = _shifts([list(_ids(coco["annotations"], "id")) for coco in cocos])
    for source, coco in enumerate(cocos):
        classes = _add_categories(categories, coco["categories"])
        names = _free_names(coco, taken)
        taken |= set(names.values())
        by, by_annotation = image_shifts[source], annotation_shifts[source]
        for image in coco["images"]:
            name = _get(image, "file_name")
            origins.append((source, name))
            images.append(_changed(image, {"id": (by, {}), "file_name": (0, names)}))
        changes = {"id": (by_annotation, {}), "image_id": (by, {}), "category_id": (0, classes)}
        annotations += [_changed(annotation, changes) for annotation in coco["annotations"]]
    merged |= {"images": images, "annotations": annotations, "categories": categories}
    return Merged(merged, origins)


def _get(record: Any, key: str) -> Any:
    return record.get(key) if isinstance(record, dict) else None


def _whole(record: Any, key: str = "id") -> int | None:
    """Return the whole number under a key of a record, or None."""
    value = _get(record, key)
    return value if type(value) is int else None


def _ids(records: Sequence[Any], key: str) -> Iterator[int]:
    return (value for record in records if type(value := _get(record, key)) is int)


def _image_ids(coco: CocoDict) -> Iterator[int]:
    yield from _ids(coco["images"], "id")
    yield from _ids(coco["annotations"], "image_id")


def _refuse_ambiguous(coco: CocoDict) -> None:
    names: dict[int, Any] = {}
    for image in coco["images"]:
        number = _whole(image)
        if number is not None and names.setdefault(number, image.get("file_name")) != image.get(
            "file_name"
        ):
            raise DatasetError(
                f"the image id {number} stands for {names[number]!r} and for "
                f"{image.get('file_name')!r}, so that nobody knows whose the annotations are; "
                "run clean first, which drops both."
            )


def _shifts(ids: Sequence[Sequence[int]]) -> list[int]:
    """Return what to add to the ids of each source so that no two sources share one."""
    counts = Counter(number for source in ids for number in set(source))
    if not counts or max(counts.values()) == 1:
        return [0] * len(ids)
    shifts, end = [], None
    for source in ids:
        shift = 0 if end is None or not source else max(0, end - min(source) + 1)
        shifts.append(shift)
        if source:
            end = max(max(source) + shift, end if end is not None else max(source))
    return shifts


def _add_categories(known: list[Any], categories: Sequence[Any]) -> dict[Any, Any]:
    """Add new categories to `known`; return old ids to new ones."""
    ids = {category_id: _get(c, "name") for c in known for category_id in _ids([c], "id")}
    named = Counter(_get(c, "name") for c in known if isinstance(_get(c, "name"), str))
    changes: dict[Any, Any] = {}
    for category in categories:
        number, name = _get(category, "id"), _get(category, "name")
        if type(number) is not int or not isinstance(name, str):
            if category not in known:
                known.append(category)
        elif ids.get(number) == name:
            continue
        elif named[name] == 1 and name in ids.values():
            changes[number] = next(i for i, other in ids.items() if other == name)
        else:
            new = number if number not in ids else max(ids) + 1
            changes[number] = new
            ids[new] = name
            known.append({**category, "id": new})
    return changes


def _free_names(coco: CocoDict, taken: set[str]) -> dict[Any, Any]:
    """Return the file names of a source to names that no earlier source has."""
    names = dict.fromkeys(
        name for image in coco["images"] if isinstance(name := _get(image, "file_name"), str)
    )
    free: dict[Any, Any] = {}
    used = taken | set(names)
    for name in names:
        new, number = name, 2
        while new in taken or (new != name and new in used):
            path = PurePosixPath(name)
            new = name.removesuffix(path.name) + f"{path.stem}_{number}{path.suffix}"
            number += 1
        free[name] = new
        used.add(new)
    return free


def _changed(record: Any, changes: dict[str, tuple[int, dict[Any, Any]]]) -> Any:
    """Return a record with shifted numbers, and with the values that a table replaces."""
    if not isinstance(record, dict):
        return record
    result = dict(record)
    for key, (shift, table) in changes.items():
        value = record.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool):
            if shift and isinstance(value, int):
                value += shift
            if key in record:
                result[key] = table.get(value, value)
    return result


def figures_of(coco: CocoDict) -> dict[str, Any]:
    """Return `images`, `people`, `people_per_image` and `without_people` of one split."""
    images, annotations = coco["images"], coco["annotations"]
    used = set(_ids(annotations, "image_id"))
    return {
        "images": len(images),
        "people": len(annotations),
        "people_per_image": round(len(annotations) / max(len(images), 1), 3),
        "without_people": sum(number not in used for number in set(_ids(images, "id"))),
    }


def renamed_files(merged: Merged) -> list[dict[str, Any]]:
    """Return `source` (its index), `from` and `to` of each file that merging renamed."""
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
    """Return a sentence for each way in which the split differs from the request.

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
                f"{SPLITS[split]} has {_count(got[split], 'image')} instead of "
                f"{share * total:.0f}: groups stay together."
            )


def _left(left: int, orphans: int) -> Iterator[str]:
    if left:
        yield (
            f"{_count(left, 'image record')} without a readable name, id or file "
            f"{'stays' if left == 1 else 'stay'} in train as "
            f"{'it is' if left == 1 else 'they are'}; clean drops them."
        )
    if orphans:
        yield (
            f"{_count(orphans, 'annotation')} without an image "
            f"{'stays' if orphans == 1 else 'stay'} in train; clean drops them."
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

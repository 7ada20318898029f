"""Split an export into train, valid and test, so that no split holds versions of another's images.

An export with several splits is merged first. Images that belong together form a group, and whole
groups are dealt out. This file stands above `persondet.data.check`."""

from __future__ import annotations

import math
import posixpath
import random
from collections import ChainMap, Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from persondet.data.check import look_at_images
from persondet.data.clean import write_split
from persondet.data.coco_json import CocoDict, with_numbers
from persondet.data.findings import CODES
from persondet.data.inspect.images import ImageFacts
from persondet.data.leaks.find import clip_name, source_name
from persondet.data.leaks.verification import near_identical_pairs
from persondet.data.roboflow import copy_readmes, read_export
from persondet.environment import Progress
from persondet.errors import DatasetError
from persondet.files import atomic_folder, refuse_existing, refuse_nesting, write_json
from persondet.text import count_of

FRACTIONS = (0.7, 0.2, 0.1)
SPLITTING = "splitting.json"
SPLITS = ("train", "valid", "test")
_UNKNOWN = ImageFacts()
__all__ = ["Division", "check_fractions", "split_coco", "split_export"]

Origin = tuple[int, Any]  # which source an image is from, and its `file_name` there


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
    origins: dict[str, list[Origin]]
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
    given = [coco] if isinstance(coco, Mapping) else list(coco)
    cocos = [with_numbers(one)[0] for one in given]
    merged, origins = merge_coco(cocos)
    known = [
        facts[source].get(_text(name), _UNKNOWN) if facts else _UNKNOWN for source, name in origins
    ]
    _refuse_outside(origins, known)
    ids = [_whole(image) for image in merged["images"]]
    order = [
        index
        for index, (_, name) in enumerate(origins)
        if ids[index] is not None and _text(name) and known[index].problem != "file-missing"
    ]
    order.sort(key=lambda index: (origins[index], ids[index]))
    members = group_images(
        [group_keys(origins[index], ids[index], known[index], group_clips) for index in order],
        [known[index] for index in order],
    )
    objects = Counter(_whole(annotation, "image_id") for annotation in merged["annotations"])
    groups = []
    for group in members:
        counts = [objects[ids[order[index]]] for index in group]
        groups.append((len(group), sum(counts), counts.count(0)))
    dealt = deal_groups(groups, shares, seed)
    where = ["train"] * len(ids)
    for group, target in zip(members, dealt, strict=True):
        for index in group:
            where[order[index]] = SPLITS[target]
    splits, split_origins = _cut(merged, origins, where)
    orphans = objects.keys() - (set(ids) - {None})
    left = (
        (len(ids) - len(order), "image record", "a readable name, id or file"),
        (sum(objects[number] for number in orphans), "annotation", "an image"),
    )
    notes = [
        *_notes([(len(g), origins[order[g[0]]][1]) for g in members], dealt, shares),
        *(
            f"Left in train: {count_of(count, what)} without {lack}; clean drops them."
            for count, what, lack in left
            if count
        ),
    ]
    summary = {
        "version": 1,
        "fractions": [float(value) for value in fractions],
        "seed": seed,
        "group_clips": group_clips,
        "splits": {name: _figures(part) for name, part in splits.items()},
        "groups": {
            "count": len(groups),
            "of_several": sum(len(group) > 1 for group in members),
            "largest": max(map(len, members), default=0),
        },
        "renamed": _renamed(merged, origins),
        "notes": notes,
    }
    return Division(splits, split_origins, summary)


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
    facts = look_at_images(export, workers=workers, progress=progress)
    if {fact.problem for found in facts.values() for fact in found.values()} == {"file-missing"}:
        code = CODES["images-missing"]
        raise DatasetError(f"{root}: {code.meaning}; {code.mend.removeprefix('refused: ')}.")
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
    names, sources = list(export.folders), list(export.folders.values())
    summary = division.summary
    for entry in summary["renamed"]:
        entry["from"] = f"{names[entry.pop('source')]}/{entry['from']}"
    if len(names) > 1:
        merged = ", ".join(names[:-1]) + f" and {names[-1]}"
        summary["notes"].insert(0, f"{merged} of the export were merged and divided anew.")
    with atomic_folder(output, overwrite=overwrite) as draft:
        for split, coco in division.splits.items():
            origins = [(sources[source], name) for source, name in division.origins[split]]
            write_split(draft / split, coco, origins)
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


def _refuse_outside(origins: Sequence[Origin], known: Sequence[ImageFacts]) -> None:
    outside = [
        name
        for (_, name), fact in zip(origins, known, strict=True)
        if fact.problem == "file-name-outside"
    ]
    if outside:
        raise DatasetError(
            f"the file name {outside[0]!r} leads out of its folder, as {len(outside)} in all do; "
            "run check to see them and clean to drop them, then split."
        )


def _cut(
    merged: CocoDict, origins: Sequence[Origin], where: Sequence[str]
) -> tuple[dict[str, CocoDict], dict[str, list[Origin]]]:
    splits: dict[str, CocoDict] = {
        split: {**merged, "images": [], "annotations": []}
        for split in SPLITS
        if split == "train" or split in where
    }
    origins_of: dict[str, list[Origin]] = {split: [] for split in splits}
    split_of: dict[int | None, str] = {}
    for image, origin, split in zip(merged["images"], origins, where, strict=True):
        splits[split]["images"].append(image)
        origins_of[split].append(origin)
        split_of[_whole(image)] = split
    split_of[None] = "train"
    for annotation in merged["annotations"]:
        split = split_of.get(_whole(annotation, "image_id"), "train")
        splits[split]["annotations"].append(annotation)
    return splits, origins_of


# Groups


def group_images(
    keys: Sequence[Sequence[Hashable]], facts: Sequence[ImageFacts]
) -> list[list[int]]:
    """Group the images that share a key, or are nearly identical.

    Args:
        keys: of each image, in an order that does not depend on the json's.
        facts: about the file of each.

    Returns:
        list of lists of indices, each sorted, in the order of their first.
    """
    first: dict[Hashable, int] = {}
    pairs = [(first.setdefault(key, i), i) for i, own in enumerate(keys) for key in own]
    known = [index for index, fact in enumerate(facts) if fact.hashes is not None]
    if known:
        hashes = [hashes for fact in facts if (hashes := fact.hashes) is not None]
        thumbnails = [small for fact in facts if (small := fact.thumbnail) is not None]
        near, _ = near_identical_pairs(np.stack(hashes), np.stack(thumbnails))
        pairs += [(known[one], known[other]) for one, other in near.tolist()]
    group_of = [[index] for index in range(len(keys))]
    for one, other in pairs:
        less, more = sorted((group_of[one], group_of[other]), key=len)
        if less is not more:
            more += less
            for index in less:
                group_of[index] = more
    return sorted(sorted(group) for i, group in enumerate(group_of) if i == group[0])


def group_keys(origin: Origin, number: int | None, fact: ImageFacts, clips: bool) -> list[Hashable]:
    """Return the keys that an image shares with others of its group."""
    source, name = origin
    return [
        ("file", source, posixpath.normpath(name)),
        ("id", number),
        *([("source", found)] if (found := source_name(name)) else []),
        *([("clip", found)] if clips and (found := clip_name(name)) else []),
        *([("bytes", fact.digest)] if fact.digest else []),
    ]


def deal_groups(
    groups: Sequence[tuple[int, int, int]], fractions: Sequence[float], seed: int
) -> list[int]:
    """Assign each group to a split.

    The shares of the images come first: a group goes where it fits, large ones before small ones,
    and where none has room, to the split that lacks most. Of the splits with room, the one gets it
    that lacks most of what the group has, in proportion to its share: images, objects, and images
    without objects. A split with a share above 0 gets a group as long as there are enough, the
    one with the largest share first.

    Args:
        groups: the images, objects and images without objects of each, in an order that does not
            depend on chance: the seed decides from there.
        fractions: the share of each split, at least 0, sum 1.
        seed: another seed, another result.

    Returns:
        list of indices into `fractions`, one for each group.
    """
    sizes, shares = np.array(groups, np.float64).reshape(-1, 3), np.asarray(fractions)
    total = sizes.sum(axis=0)
    lack = shares[:, None] * total
    wanted = sorted(np.flatnonzero(shares).tolist(), key=lambda split: -fractions[split])
    empty = wanted[: max(len(groups), 1)]
    splits = empty.copy()
    order = list(range(len(groups)))
    random.Random(seed).shuffle(order)  # chance decides between groups of about the same contents
    order.sort(key=lambda index: (-groups[index][0], -groups[index][1].bit_length()))
    dealt = [0] * len(groups)
    for done, index in enumerate(order):
        group = sizes[index]
        choices = empty if len(order) - done <= len(empty) else splits
        room = [split for split in choices if group[0] <= lack[split, 0] + 0.5]
        weights = (group > 0) / np.maximum(total, 1)
        need = ((lack - group / 2) * weights).sum(axis=1) / np.maximum(shares, 1e-12)
        if room:
            target = max(room, key=need.__getitem__)
        else:
            target = max(choices, key=lambda split: lack[split, 0])
        dealt[index] = target
        lack[target] -= group
        empty = [split for split in empty if split != target]
    return dealt


# Merging


def merge_coco(cocos: Sequence[CocoDict]) -> tuple[CocoDict, list[Origin]]:
    """Merge COCO dicts into one; a single one is returned as it is.

    Image and annotation ids of later dicts are moved behind those of earlier ones, where any
    collide. Categories are one when id and name agree, or the name does; a file name that an
    earlier dict has gets a number (`a_2.jpg`). Faults inside one dict stay what they are. Other
    keys (`info`, `licenses`, …) are those of the first dict that has them.

    Args:
        cocos: at least one; not changed.

    Returns:
        The dict, with the records in the order of the sources, and for each record of `images`
        the source that it is from and its `file_name` there.

    Raises: DatasetError: when an id stands for two images of one dict, so that nobody knows whose
        the annotations are.
    """
    for coco in cocos:
        _refuse_ambiguous(coco)
    origins = [
        (source, _get(image, "file_name"))
        for source, coco in enumerate(cocos)
        for image in coco["images"]
    ]
    if len(cocos) == 1:
        return cocos[0], origins
    merged = {**ChainMap(*cocos), "images": [], "annotations": [], "categories": []}
    taken: set[str] = set()
    image_shifts = _shifts(
        [[*_ids(coco["images"]), *_ids(coco["annotations"], "image_id")] for coco in cocos]
    )
    annotation_shifts = _shifts([_ids(coco["annotations"]) for coco in cocos])
    for source, coco in enumerate(cocos):
        category_id = _table(_add_categories(merged["categories"], coco["categories"]))
        names = _free_names(coco, taken)
        taken |= set(names.values())
        image_id, own_id = _shift(image_shifts[source]), _shift(annotation_shifts[source])
        merged["images"] += [
            _changed(image, id=image_id, file_name=_table(names)) for image in coco["images"]
        ]
        merged["annotations"] += [
            _changed(annotation, id=own_id, image_id=image_id, category_id=category_id)
            for annotation in coco["annotations"]
        ]
    return merged, origins


def _get(record: Any, key: str) -> Any:
    return record.get(key) if isinstance(record, dict) else None


def _whole(record: Any, key: str = "id") -> int | None:
    """Return the whole number under a key of a record, or None."""
    value = _get(record, key)
    return value if type(value) is int else None


def _ids(records: Sequence[Any], key: str = "id") -> list[int]:
    return [value for record in records if (value := _whole(record, key)) is not None]


def _refuse_ambiguous(coco: CocoDict) -> None:
    names: dict[int, Any] = {}
    for image in coco["images"]:
        number, name = _whole(image), _get(image, "file_name")
        if number is not None and names.setdefault(number, name) != name:
            raise DatasetError(
                f"the image id {number} stands for {names[number]!r} and for {name!r}, so that "
                "nobody knows whose the annotations are; run clean first, which drops both."
            )


def _shifts(ids: Sequence[Sequence[int]]) -> list[int]:
    """Return what to add to the ids of each source so that no two sources share one."""
    every = set().union(*ids)
    if len(every) == sum(len(set(source)) for source in ids):
        return [0] * len(ids)
    shifts, end = [], min(every) - 1
    for source in ids:
        shifts.append(max(0, end - min(source, default=end) + 1))
        end = max(end, max(source, default=end) + shifts[-1])
    return shifts


def _shift(by: int) -> Callable[[Any], Any]:
    return lambda value: value + by if type(value) is int else value


def _table(table: Mapping[Any, Any]) -> Callable[[Any], Any]:
    return lambda value: table.get(value, value) if type(value) in (int, str) else value


def _changed(record: Any, **changes: Callable[[Any], Any]) -> Any:
    """Return a copy of a record with the values under some keys changed."""
    if not isinstance(record, dict):
        return record
    return record | {key: change(record[key]) for key, change in changes.items() if key in record}


def _add_categories(known: list[Any], categories: Sequence[Any]) -> dict[int, int]:
    """Add new categories to `known`; return old ids to new ones."""
    ids = {number: _get(c, "name") for c in known if (number := _whole(c)) is not None}
    names = list(map(_text, ids.values()))
    once = {name: number for number, name in zip(ids, names, strict=True) if names.count(name) == 1}
    changes: dict[int, int] = {}
    for category in categories:
        number, name = _whole(category), _get(category, "name")
        if number is None or not isinstance(name, str):
            if category not in known:
                known.append(category)
        elif name in once and ids.get(number) != name:
            changes[number] = once[name]
        elif ids.get(number) != name:
            new = number if number not in ids else max(ids) + 1
            changes[number] = new
            ids[new] = name
            known.append({**category, "id": new})
    return changes


def _free_names(coco: CocoDict, taken: set[str]) -> dict[str, str]:
    """Return the file names of a source to names that no earlier source has."""
    names = dict.fromkeys(_text(_get(image, "file_name")) for image in coco["images"])
    free: dict[str, str] = {}
    used = taken | set(names)
    for name in names:
        new, number, path = name, 2, PurePosixPath(name)
        while new in taken or (new != name and new in used):
            new = name.removesuffix(path.name) + f"{path.stem}_{number}{path.suffix}"
            number += 1
        free[name] = new
        used.add(new)
    return free


# The summary


def _figures(coco: CocoDict) -> dict[str, Any]:
    """Return `images`, `people`, `people_per_image` and `without_people` of one split."""
    images, people = len(coco["images"]), len(coco["annotations"])
    empty = set(_ids(coco["images"])) - set(_ids(coco["annotations"], "image_id"))
    return {
        "images": images,
        "people": people,
        "people_per_image": round(people / max(images, 1), 3),
        "without_people": len(empty),
    }


def _renamed(merged: CocoDict, origins: Sequence[Origin]) -> list[dict[str, Any]]:
    """Return `source` (its index), `from` and `to` of each file that merging renamed."""
    changes = {
        (source, name, image["file_name"])
        for image, (source, name) in zip(merged["images"], origins, strict=True)
        if isinstance(name, str) and image["file_name"] != name
    }
    return [{"source": source, "from": old, "to": new} for source, old, new in sorted(changes)]


def _notes(
    groups: Sequence[tuple[int, str]], dealt: Sequence[int], shares: Sequence[float]
) -> Iterator[str]:
    """Yield a sentence for each way in which the split differs from the request.

    Args:
        groups: for each group its number of images and the name of the first.
        dealt: for each group the index of its split.
        shares: of train, valid and test.
    """
    wanted = [share * sum(images for images, _ in groups) for share in shares]
    empty = [SPLITS[split] for split, share in enumerate(shares) if share and split not in dealt]
    if empty:
        yield (
            f"{' and '.join(empty)} would be empty, so no folder is made: "
            f"{count_of(len(groups), 'group')} of images for {np.count_nonzero(shares)} splits."
        )
    large = [
        (images, name)
        for (images, name), split in zip(groups, dealt, strict=True)
        if images > 1 and images > wanted[split] + 1
    ]
    if large:
        images, name = max(large)
        yield (
            f"{count_of(len(large), 'group')} larger than the share of a split, and not cut; the "
            f"largest has {images} images (the first is {name!r})."
        )
    for split, target in enumerate(wanted):
        got = sum(images for (images, _), s in zip(groups, dealt, strict=True) if s == split)
        if got and abs(got - target) > max(2, 0.1 * target):
            yield (
                f"{SPLITS[split]} has {count_of(got, 'image')} instead of {target:.0f}: "
                "groups stay together."
            )

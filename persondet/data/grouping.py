"""Which images must stay in one split."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from persondet.data.leaks.close_look import CloseLook
from persondet.data.leaks.near_identical import near_identical_pairs
from persondet.data.leaks.sources import clip_name, source_name
from persondet.data.validation.image_facts import ImageFacts


@dataclass(frozen=True)
class Item:
    """An image: the json it is from, its name and id there, and what is known of its file.

    Without its `path` the file is not looked at again, see `find_leaks`.
    """

    source: int
    file_name: str
    image_id: int | None
    facts: ImageFacts | None = None
    path: Path | None = None


def group_items(items: Sequence[Item], *, clips: bool = False) -> list[list[int]]:
    """Return the groups of images that are one file, one source or nearly one picture.

    Args:
        items: in an order that does not depend on the json's.
        clips: frames of one clip are a group, too.

    Returns:
        list of lists of indices, each sorted, in the order of their first.
    """
    labels = list(range(len(items)))

    def find(label: int) -> int:
        while labels[label] != label:
            labels[label] = labels[labels[label]]
            label = labels[label]
        return label

    def join(one: int, other: int) -> None:
        low, high = sorted((find(one), find(other)))
        labels[high] = low

    first: dict[Hashable, int] = {}
    for index, item in enumerate(items):
        for key in _keys(item, clips):
            join(first.setdefault(key, index), index)
    known = [
        (index, item.facts.hashes, item.facts.thumbnail)
        for index, item in enumerate(items)
        if item.facts and item.facts.hashes is not None and item.facts.thumbnail is not None
    ]
    if known:
        pairs = near_identical_pairs(
            np.stack([hashes for _, hashes, _ in known]),
            thumbnails=np.stack([thumbnail for _, _, thumbnail in known]),
            look=CloseLook([items[index].path for index, _, _ in known]),
        )
        for one, other in pairs.tolist():
            join(known[one][0], known[other][0])
    members: dict[int, list[int]] = defaultdict(list)
    for index in range(len(items)):
        members[find(index)].append(index)
    return list(members.values())


def _keys(item: Item, clips: bool) -> list[tuple[Hashable, ...]]:
    """What an image shares with those of its group."""
    keys: list[tuple[Hashable, ...]] = [("file", item.source, posixpath.normpath(item.file_name))]
    if item.image_id is not None:
        keys.append(("id", item.image_id))
    if source := source_name(item.file_name):
        keys.append(("source", source))
    if clips and (clip := clip_name(item.file_name)):
        keys.append(("clip", clip))
    if item.facts and item.facts.digest:
        keys.append(("bytes", item.facts.digest))
    return keys

"""Group the images that must stay in one split, and deal the groups out to the splits."""

from __future__ import annotations

import posixpath
import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from persondet.data.inspect.images import ImageFacts
from persondet.data.leaks.find import clip_name, source_name
from persondet.data.leaks.same_image import near_identical_pairs


@dataclass(frozen=True)
class GroupedImage:
    """An image: its json, its name and id there, and the facts about its file."""

    source: int
    file_name: str
    image_id: int | None
    facts: ImageFacts | None = None


def group_items(items: Sequence[GroupedImage], *, clips: bool = False) -> list[list[int]]:
    """Group the images that share a file or a source, or are nearly identical.

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
        pairs, _ = near_identical_pairs(
            np.stack([hashes for _, hashes, _ in known]),
            np.stack([thumbnail for _, _, thumbnail in known]),
        )
        for one, other in pairs.tolist():
            join(known[one][0], known[other][0])
    members: dict[int, list[int]] = defaultdict(list)
    for index in range(len(items)):
        members[find(index)].append(index)
    return list(members.values())


def _keys(item: GroupedImage, clips: bool) -> list[tuple[Hashable, ...]]:
    """Return the keys that an image shares with others of its group."""
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


_STEPS, _STEPS_PER_GROUP = 20_000, 200


@dataclass(frozen=True)
class Group:
    """Images that stay together: how many, with how many objects, and how many show none."""

    images: int
    objects: int = 0
    empty: int = 0


def deal_groups(groups: Sequence[Group], fractions: Sequence[float], seed: int) -> list[int]:
    """Assign each group to a split.

    First come the shares of the images, then objects per image and the share of images without
    objects: groups are dealt out, large ones first, to the split that lacks most; then random moves
    and exchanges are kept when they are an improvement. A split with a share above 0 gets a group
    as long as there are enough, the one with the largest share first.

    Args:
        groups: in an order that does not depend on chance: the seed decides from there.
        fractions: the share of each split, at least 0, sum 1.
        seed: another seed, another result.

    Returns:
        list of indices into `fractions`, one for each group.
    """
    return _Dealing(groups, fractions, random.Random(seed)).result()


class _Dealing:
    """Deals groups out: the split of each group, and the sums of each split."""

    def __init__(
        self, groups: Sequence[Group], fractions: Sequence[float], chance: random.Random
    ) -> None:
        self.groups, self.chance = groups, chance
        self.images = sum(group.images for group in groups)
        objects = sum(group.objects for group in groups)
        empty = sum(group.empty for group in groups)
        self.object_rate = objects / max(self.images, 1)
        self.empty_rate = empty / max(self.images, 1)
        self.targets = [fraction * self.images for fraction in fractions]
        wanted = [split for split, fraction in enumerate(fractions) if fraction > 0]
        wanted.sort(key=lambda split: -fractions[split])
        self.open = wanted[: max(len(groups), 1)]
        self.sums = [Group(0) for _ in fractions]
        self.members: list[list[int]] = [[] for _ in fractions]
        self.where = [-1] * len(groups)
        self.place = [0] * len(groups)  # in `members`

    def result(self) -> list[int]:
        self._deal()
        if len(self.open) > 1:
            self._fill_empty_splits()
            for _ in range(min(_STEPS, _STEPS_PER_GROUP * len(self.groups))):
                self._try_something()
        return self.where

    def _deal(self) -> None:
        order = list(range(len(self.groups)))
        self.chance.shuffle(order)
        order.sort(key=lambda index: -self.groups[index].images)  # stable: chance decides ties
        for index in order:
            size = self.groups[index].images
            lacking = {s: self.targets[s] - self.sums[s].images for s in self.open}
            fitting = [split for split in self.open if size <= lacking[split] + 0.5]
            if fitting:
                self._put(index, max(fitting, key=lambda s: lacking[s] / self.targets[s]))
            else:
                self._put(index, max(self.open, key=lambda s: lacking[s]))

    def _fill_empty_splits(self) -> None:
        for split in self.open:
            if not self.members[split]:
                able = [s for s in self.open if len(self.members[s]) > 1]
                smallest = min(
                    (index for s in able for index in self.members[s]),
                    key=lambda index: (self.groups[index].images, index),
                )
                self._put(smallest, split)

    def _try_something(self) -> None:
        """Move a random group, or swap two, if the result is better."""
        one = self.chance.randrange(len(self.groups))
        source, target = self.where[one], self.chance.choice(self.open)
        if source == target:
            return
        other = None
        if self.chance.random() < 0.7:
            other = self.chance.choice(self.members[target])
        elif len(self.members[source]) < 2:
            return
        before = self._cost(source, target)
        self._put(one, target)
        if other is not None:
            self._put(other, source)
        images, objects = self._cost(source, target)
        better = images < before[0] - 1e-9 or (
            images < before[0] + 1e-9 and objects < before[1] - 1e-12
        )
        if not better:
            self._put(one, source)
            if other is not None:
                self._put(other, target)

    def _cost(self, *splits: int) -> tuple[float, float]:
        """Return the distance of splits from their shares and from the average image."""
        images = objects = 0.0
        for split in splits:
            sums = self.sums[split]
            images += (sums.images - self.targets[split]) ** 2
            count = max(sums.images, 1)
            if self.object_rate:
                objects += count * (sums.objects / count / self.object_rate - 1) ** 2
            objects += count * (sums.empty / count - self.empty_rate) ** 2
        return images, objects

    def _put(self, index: int, split: int) -> None:
        old = self.where[index]
        if old >= 0:
            last = self.members[old].pop()  # takes the place of the one that goes
            if last != index:
                self.members[old][self.place[index]] = last
                self.place[last] = self.place[index]
            self.sums[old] = _sum(self.sums[old], self.groups[index], -1)
        self.place[index] = len(self.members[split])
        self.members[split].append(index)
        self.sums[split] = _sum(self.sums[split], self.groups[index], 1)
        self.where[index] = split


def _sum(one: Group, other: Group, sign: int) -> Group:
    return Group(
        one.images + sign * other.images,
        one.objects + sign * other.objects,
        one.empty + sign * other.empty,
    )

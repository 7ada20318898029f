"""What a search for pairs still wants to know: who is not connected yet, who has no partner."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

MAX_GROUPS = 32
_SHORT = 8


class Chains:
    """Pictures without groups: wanted is whatever connects two that are not connected yet.

    Attributes:
        labels: the chain of each picture, int64, (N,): an index below N that its members share.
        version: grows whenever labels change.
        parts: the kinds of lookup, here one.
        slots: how many runs of the table a key has that are looked up separately, here one.
    """

    parts = (0,)
    slots = 1

    def __init__(self, count: int) -> None:
        """Start with nothing connected."""
        self.labels = np.arange(count, dtype=np.int64)
        self.version = 0
        self._pairs: list[Indices] = []

    def wants(self, one: Indices, other: Indices) -> npt.NDArray[np.bool_]:
        """Return which pairs would connect something."""
        return np.asarray(self.labels[one] != self.labels[other])

    def ranges(
        self,
        keys: npt.NDArray[np.uint16],
        part: int,
        table: Indices,
        edges: Indices,
    ) -> tuple[Indices, Indices, Indices]:
        """Return who looks up, where candidates start in the table, and how many there are.

        Args:
            keys: what each picture looks up, (N,).
            part: not used.
            table: `key << 32 | label` of all pictures, sorted.
            edges: where each slot (`key * slots + part`) starts in the table, and its end.
        """
        start, stop = edges[keys], edges[keys.astype(np.int64) + 1]
        queries = np.flatnonzero(stop > start)
        start, stop = start[queries], stop[queries]
        # In a long run, leave out those of the own chain: they stand together.
        long = np.flatnonzero(stop - start > _SHORT)
        own = keys[queries[long]].astype(np.int64) << 32 | self.labels[queries[long]]
        low, high = np.searchsorted(table, own), np.searchsorted(table, own, side="right")
        before, after = low - start[long], stop[long] - high
        number = stop - start
        number[long] = before
        return (
            np.concatenate([queries, queries[long]]),
            np.concatenate([start, high]),
            np.concatenate([number, after]),
        )

    def add(self, one: Indices, other: Indices) -> None:
        """Note pairs that are near."""
        ends = np.sort(np.stack([self.labels[one], self.labels[other]], axis=1), axis=1)
        _, first = np.unique(ends[:, 0] * len(self.labels) + ends[:, 1], return_index=True)
        root: dict[int, int] = {}

        def find(label: int) -> int:
            while (above := root.get(label, label)) != label:
                root[label] = root.get(above, above)
                label = above
            return label

        used = []
        for index in first.tolist():
            low, high = sorted((find(int(ends[index, 0])), find(int(ends[index, 1]))))
            if low != high:
                root[high] = low
                used.append(index)
        if used:
            new = np.arange(len(self.labels), dtype=np.int64)
            for label in root:
                new[label] = find(label)
            self.labels = new[self.labels]
            self.version += 1
            self._pairs.append(np.stack([one[used], other[used]], axis=1))

    def pairs(self) -> Indices:
        """Return the pairs that connected something, (M, 2)."""
        return _ordered(self._pairs)


class Partners:
    """Pictures in groups: wanted is a partner in each other group, for whoever has one there.

    Attributes:
        labels: the group of each picture, int64, (N,), from 0.
        version: stays 0, as labels do not change.
        parts: the groups in which candidates are looked up, one after the other.
        slots: how many runs of the table a key has, one for each group.
    """

    version = 0

    def __init__(self, groups: npt.NDArray[np.int64]) -> None:
        """Start with no partner.

        Raises: ValueError: when there are more than 32 groups.
        """
        names, labels = np.unique(groups, return_inverse=True)
        if len(names) > MAX_GROUPS:
            raise ValueError(f"at most {MAX_GROUPS} groups are possible, not {len(names)}")
        self.labels = labels.reshape(-1).astype(np.int64)
        self.parts = tuple(range(len(names))) if len(names) > 1 else ()
        self.slots = len(names)
        # Bit g: has a partner in group g. The own group needs none.
        self._found = np.int64(1) << self.labels
        self._pairs: list[Indices] = []

    def wants(self, one: Indices, other: Indices) -> npt.NDArray[np.bool_]:
        """Return in which pairs the first still has no partner in the other's group."""
        return np.asarray(self._found[one] >> self.labels[other] & 1 == 0)

    def ranges(
        self,
        keys: npt.NDArray[np.uint16],
        part: int,
        table: Indices,
        edges: Indices,
    ) -> tuple[Indices, Indices, Indices]:
        """Return who looks up, where candidates start in the table, and how many there are.

        Args:
            keys: what each picture looks up, (N,).
            part: the group of the candidates.
            table: `key << 32 | label` of all pictures, sorted.
            edges: where each slot (`key * slots + part`) starts in the table, and its end.
        """
        queries = np.flatnonzero(self._found >> part & 1 == 0)
        slot = keys[queries].astype(np.int64) * self.slots + part
        start = edges[slot]
        return queries, start, edges[slot + 1] - start

    def add(self, one: Indices, other: Indices) -> None:
        """Note pairs that are near."""
        group = self.labels[other]
        _, first = np.unique(one * MAX_GROUPS + group, return_index=True)
        one, other = one[first], other[first]
        np.bitwise_or.at(self._found, one, np.int64(1) << self.labels[other])
        np.bitwise_or.at(self._found, other, np.int64(1) << self.labels[one])
        self._pairs.append(np.stack([one, other], axis=1))

    def pairs(self) -> Indices:
        """Return a pair for each partner found, (M, 2)."""
        return _ordered(self._pairs)


def _ordered(pairs: list[Indices]) -> Indices:
    """All pairs, the smaller index first, sorted, none twice."""
    if not pairs:
        return np.zeros((0, 2), np.int64)
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)

"""Finding nearly identical pictures among many, in near-linear time.

Two hashes within a Hamming distance of 7 differ by at most one bit in at least one of their four
bands of 16 bits (otherwise they would differ by 4 x 2 bits). So the pictures are sorted into a
table by each band in turn, and each picture looks up its own band and the 16 values that differ
from it by one bit, in each of the 8 ways in which it can be turned and mirrored.

What makes a crowd of alike pictures expensive is avoided by asking less: a picture that has its
partner looks no further. Each lookup starts with one candidate and is repeated with more only as
long as somebody still misses something.

Source: Norouzi, Punjani, Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR 2012.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from persondet.data.leaks.partners import Chains, Partners
from persondet.data.leaks.perceptual_hash import turned
from persondet.data.leaks.same_picture import distinctive_cells, same_picture

logger = logging.getLogger(__name__)

Indices = npt.NDArray[np.int64]

MAX_DISTANCE = 7
_BANDS, _BAND_BITS = 4, 16
_PROBES = [0, *(1 << bit for bit in range(_BAND_BITS))]
_LIMITS = (1, 32, 1024, 1 << 62)
"""How many candidates a lookup takes, round after round; beyond the budget, the first round only."""
_CHUNK = 1 << 19  # candidates that are looked at together: bounds the memory
_BUDGET = 100_000_000  # candidates in all, beside 2,000 for each picture
_CLOSEST = 64  # candidates of one lookup that are compared by their thumbnails
_MIN_CORRELATION, _MIN_CORRELATION_TO_LOOK = 0.85, 0.7
MAX_LOOKS = 8
_ROTATIONS = (5, 6)  # the orientations that are not their own inverse
Look = Callable[[int, int, int], bool | None]
_BITS_SET = np.array([value.bit_count() for value in range(1 << _BAND_BITS)], np.uint8)


def near_identical_pairs(
    hashes: npt.NDArray[np.uint64],
    *,
    thumbnails: npt.NDArray[np.uint8] | None = None,
    groups: npt.NDArray[np.int64] | None = None,
    look: Look | None = None,
) -> Indices:
    """Return pairs of pictures that are nearly identical: enough to connect or to convict each.

    Near to each other are two pictures whose hashes differ by at most `MAX_DISTANCE` bits, when one
    is turned or mirrored suitably, and whose thumbnails show the same picture (see
    `persondet.data.leaks.same_picture`). Without thumbnails the hashes decide alone. With `look`, the
    thumbnails also choose candidates, generously, and `look` decides. It is asked about the most
    alike first; a picture whose first `MAX_LOOKS` candidates were other pictures is given up, so that
    there are at most N times as many questions, beside those answered with yes.

    Not all pairs are returned, which would be too many for many copies of one picture:

    - without `groups`, a spanning forest: whoever is connected by near pairs is connected by the
      returned ones, at most N - 1;
    - with `groups`, pairs of different groups only: a picture that is near to one of another group
      stands in at least one pair with that group, at most N times the number of groups.

    Up to the budget named in this file the search is exact. Beyond it (a hundred thousand pictures
    without any detail, say) a warning is logged, and the rest of the crowd is searched in part. Of
    more than 64 candidates in one lookup the 64 most alike are compared.

    Args:
        hashes: uint64, (N, 8), as `picture_signature` makes them.
        thumbnails: uint8, (N, 32, 32), or None.
        groups: whole numbers, (N,), at most 32 different ones, or None.
        look: called with (one, other, orientation), says whether picture `one`, turned, is the same
            picture as `other`; None when it cannot tell, which counts as no. Needs `thumbnails`.

    Returns:
        int64, (M, 2), pairs of indices, the smaller first, sorted, none twice.

    Raises: ValueError: when the shapes do not fit, or there are more than 32 groups.
    """
    count = len(hashes)
    if hashes.shape != (count, 8) or (thumbnails is not None and len(thumbnails) != count):
        raise ValueError(f"hashes (N, 8) and N thumbnails are expected, not {hashes.shape}")
    hashes = np.ascontiguousarray(hashes, np.uint64)
    known: Chains | Partners = Chains(count) if groups is None else Partners(groups)
    if count > 1:
        _Search(hashes, thumbnails, known, look).run()
    return known.pairs()


class _Search:
    """One search: the tables, and what is known so far."""

    def __init__(
        self,
        hashes: npt.NDArray[np.uint64],
        thumbnails: npt.NDArray[np.uint8] | None,
        known: Chains | Partners,
        look: Look | None,
    ) -> None:
        self.hashes = np.ascontiguousarray(hashes.T)  # 8, N
        self.bands = self.hashes.view(np.uint16).reshape(8, -1, _BANDS)
        self.thumbnails, self.known, self.look = thumbnails, known, look
        self.refused = np.zeros(len(hashes), np.int64)  # how often `look` said no
        self.left = _BUDGET + 2000 * len(hashes)
        if thumbnails is not None:
            self.cells = distinctive_cells(thumbnails)
            self.small = thumbnails.reshape(-1, 16, 2, 16, 2).mean(axis=(2, 4)).astype(np.uint8)

    def run(self) -> None:
        """Look up every picture in every table."""
        for band in range(_BANDS):
            table = _Table(self.bands[0, :, band], self.known)
            for probe in _PROBES:
                for orientation in range(8):
                    keys = self.bands[orientation, :, band] ^ np.uint16(probe)
                    self._look_up(table, keys, band, orientation)
        if self.left < 0:
            logger.warning(
                "The pictures are too many and too alike to compare all of them; "
                "some that are nearly identical may not have been found."
            )

    def _look_up(
        self, table: _Table, keys: npt.NDArray[np.uint16], band: int, orientation: int
    ) -> None:
        for part in self.known.parts:
            waiting: npt.NDArray[np.bool_] | None = None  # all
            for limit in _LIMITS if self.left > 0 else _LIMITS[:1]:
                queries, first, number = table.ranges(keys, part)
                if waiting is not None:
                    still = waiting[queries]
                    queries, first, number = queries[still], first[still], number[still]
                waiting = np.zeros(len(keys), bool)
                waiting[queries[number > limit]] = True
                for chunk, start, take in _chunks(queries, first, np.minimum(number, limit)):
                    self._compare(*_expand(chunk, start, take, table.order), band, orientation)
                    self.left -= int(take.sum())
                    if self.left < 0 and limit != _LIMITS[0]:
                        break
                if self.left < 0 or not waiting.any():
                    break

    def _compare(self, one: Indices, other: Indices, band: int, orientation: int) -> None:
        """Tell `known` which of the candidates (one[k], turned; other[k]) are near."""
        wanted = self.known.wants(one, other)
        one, other = one[wanted], other[wanted]
        differ = _BITS_SET[(self.hashes[orientation][one] ^ self.hashes[0][other]).view(np.uint16)]
        # The four bytes of a word, summed up in its highest.
        near = np.flatnonzero(differ.view(np.uint32) * np.uint32(0x01010101) >> 24 <= MAX_DISTANCE)
        # Those with an earlier band alike have been compared by the table of that band.
        near = near[(differ.reshape(-1, _BANDS)[near, :band] > 1).all(axis=1)]
        one, other = one[near], other[near]
        if self.thumbnails is not None and len(one):
            kept = self._alike(one, other, orientation)
            one, other = one[kept], other[kept]
            same = self._same(one, other, orientation)
            if self.look is not None:
                # What convinces in small needs no second look.
                self.known.add(one[same], other[same])
                one, other = one[~same], other[~same]
                self._look_closely(self.look, one, other, orientation)
                return
            one, other = one[same], other[same]
        if len(one):
            self.known.add(one, other)

    def _same(self, one: Indices, other: Indices, orientation: int) -> npt.NDArray[np.bool_]:
        assert self.thumbnails is not None
        return same_picture(
            turned(self.thumbnails[one], orientation),
            self.thumbnails[other],
            np.minimum(self.cells[one], self.cells[other]),
        )

    def _look_closely(self, look: Look, one: Indices, other: Indices, orientation: int) -> None:
        """Ask `look` about candidates, the best of each picture first, and add what it confirms."""
        asked: set[tuple[int, int]] = set()
        while len(one):
            wanted = self.known.wants(one, other) & (self.refused[one] < MAX_LOOKS)
            one, other = one[wanted], other[wanted]
            _, now = np.unique(one, return_index=True)
            confirmed = []
            for index in now.tolist():
                a, b = int(one[index]), int(other[index])
                if (b, a) in asked and orientation not in _ROTATIONS:
                    continue  # the same question from the other side
                asked.add((a, b))
                answer = look(a, b, orientation)
                if answer:
                    confirmed.append(index)
                else:
                    self.refused[a] += 1
            if confirmed:
                self.known.add(one[confirmed], other[confirmed])
            one, other = np.delete(one, now), np.delete(other, now)

    def _alike(self, one: Indices, other: Indices, orientation: int) -> Indices:
        """The candidates worth a comparison: correlated ones, of each picture's only the best.

        Returns indices: the best of each picture first, then the second, and so on.
        """
        alike = np.minimum(self.cells[one], self.cells[other]) > 0
        least = _MIN_CORRELATION if self.look is None else _MIN_CORRELATION_TO_LOOK
        index = np.flatnonzero(alike)
        score = np.empty(len(index), np.float32)
        for start in range(0, len(index), 1 << 14):
            some = index[start : start + (1 << 14)]
            score[start : start + len(some)] = _correlation(
                turned(self.small[one[some]], orientation), self.small[other[some]]
            )
        index, score = index[score > least], score[score > least]
        best = np.lexsort((-score, one[index]))
        ranked = one[index][best]
        rank = np.arange(len(ranked)) - np.searchsorted(ranked, ranked)
        by_rank = np.argsort(rank, kind="stable")
        return np.asarray(index[best][by_rank][rank[by_rank] < _CLOSEST])


class _Table:
    """The pictures sorted by one band of their hash, and within one value by their part."""

    def __init__(self, keys: npt.NDArray[np.uint16], known: Chains | Partners) -> None:
        self.keys, self.known, self.version = keys, known, -1

    def ranges(self, keys: npt.NDArray[np.uint16], part: int) -> tuple[Indices, Indices, Indices]:
        """Who looks up, where in `order` the candidates start, and how many there are.

        A picture may stand twice among those who look up.
        """
        if self.version != self.known.version:
            self.version = self.known.version
            label = self.known.labels
            self.order = np.lexsort((label, self.keys))
            self.sorted = (self.keys.astype(np.int64) << 32 | label)[self.order]
            slots = self.known.slots
            slot = np.arange((slots << _BAND_BITS) + 1, dtype=np.int64)
            self.edges = np.searchsorted(self.sorted, slot // slots << 32 | slot % slots)
        return self.known.ranges(keys, part, self.sorted, self.edges)


def _chunks(
    queries: Indices, first: Indices, number: Indices
) -> Iterator[tuple[Indices, Indices, Indices]]:
    """Cut lookups so that each piece has at most about `_CHUNK` candidates."""
    used = number > 0
    queries, first, number = queries[used], first[used], number[used]
    while number.size and number.max() > _CHUNK:
        long = number > _CHUNK
        queries = np.concatenate([queries, queries[long]])
        first = np.concatenate([first, first[long] + _CHUNK])
        number = np.concatenate([np.minimum(number, _CHUNK), number[long] - _CHUNK])
    piece = np.cumsum(number) // _CHUNK
    cuts = np.searchsorted(piece, np.arange(piece[-1] + 2) if len(piece) else np.arange(1))
    for start, stop in pairwise(cuts.tolist()):
        if stop > start:
            yield queries[start:stop], first[start:stop], number[start:stop]


def _expand(
    queries: Indices, first: Indices, number: Indices, order: Indices
) -> tuple[Indices, Indices]:
    """The pairs (who looks up, candidate) of lookups."""
    ends = np.cumsum(number)
    position = np.arange(ends[-1]) + np.repeat(first - (ends - number), number)
    return np.repeat(queries, number), order[position]


def _correlation(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The correlation coefficient of the pixels of each pair, float32, (P,)."""
    x = a.reshape(len(a), -1).astype(np.float32)
    y = b.reshape(len(b), -1).astype(np.float32)
    x -= x.mean(axis=1, keepdims=True)
    y -= y.mean(axis=1, keepdims=True)
    product = np.einsum("pk,pk->p", x, y)
    size = np.einsum("pk,pk->p", x, x) * np.einsum("pk,pk->p", y, y)
    return np.asarray(product / np.sqrt(np.maximum(size, 1e-6)))

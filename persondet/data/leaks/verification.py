"""Which images of many show nearly the same: every hash is compared with every other.

Two images are candidates when their hashes differ by at most `MAX_DISTANCE` of 64 bits, one of them
turned or mirrored suitably. A hash alone cannot tell: two streets below the same sky share it. So
`same_image` looks closer at the candidates of each image, the most alike first.

What would make a crowd of look-alikes (a fixed camera) expensive is not asked: an image that has
its partner looks no further, and one whose best `MAX_REFUSALS` candidates were others gives up.
"""

from __future__ import annotations

import logging

import cv2
import numpy as np
import numpy.typing as npt

from persondet.data.leaks.hashing import Bytes, turned

logger = logging.getLogger(__name__)

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

MAX_DISTANCE, MIN_CORRELATION, MAX_REFUSALS = 10, 0.7, 4
BUDGET = 40_000_000_000
"""Comparisons of hashes: some five minutes, but no time, so that the same export gives the same.
A candidate costs as much as `_CANDIDATE` of them, a closer look as much as `_LOOK`."""
_CANDIDATE, _LOOK = 200, 100_000
_BLOCK = 1 << 18  # hashes that are compared together: what the processor's cache holds
_TILE = 8  # pixels of the thumbnail
_NOISE, _STRONG = 0.7, 0.6  # grey levels: no detail below, no more weight above
MIN_TILES, ENOUGH_TILES, MIN_AGREEMENT, MAX_SPOT = 3.0, 36.0, 0.5, 0.8
_SMOOTHING = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1], float)  # weights of neighbouring grey levels


def near_identical_pairs(
    hashes: npt.NDArray[np.uint64],
    thumbnails: Bytes,
    *,
    groups: npt.NDArray[np.int64] | None = None,
    budget: int = BUDGET,
) -> tuple[Indices, int]:
    """Return pairs of images that are nearly identical: enough to connect or to convict each.

    Not all pairs are returned, which would be too many for many copies of one image:

    - without `groups`, a spanning forest: near pairs connect what the returned ones connect;
    - with `groups`, pairs of different groups only: an image that is near to one of another group
      stands in at least one pair with that group.

    Args:
        hashes: uint64, (N, 8), see `persondet.data.leaks.hashing.image_signature`.
        thumbnails: uint8, (N, 64, 64).
        groups: whole numbers from 0, (N,), or None.
        budget: how many comparisons of hashes to spend. Beyond it a warning is logged.

    Returns:
        pairs: int64, (M, 2), pairs of indices, the smaller first, sorted, none twice.
        skipped: the number of images that the budget left without a full comparison.

    Raises: ValueError: when the shapes do not fit.
    """
    if hashes.shape != (len(thumbnails), 8):
        raise ValueError(f"hashes (N, 8) and N thumbnails are expected, not {hashes.shape}")
    # Of an image without contrast nothing can be said.
    known = np.flatnonzero(thumbnails.std(axis=(1, 2)) > _NOISE)
    if groups is not None:
        known = known[np.argsort(groups[known], kind="stable")]
    search = _Search(hashes[known], thumbnails[known], None if groups is None else groups[known])
    skipped = search.run(budget)
    if skipped:
        logger.warning(
            "The images are too many and too alike to compare all of them; some that are nearly "
            "identical to one of %d images may not have been found.",
            skipped,
        )
    pairs = np.sort(known[np.array(search.pairs, np.int64).reshape(-1, 2)], axis=1)
    return np.unique(pairs, axis=0), skipped


class _Search:
    """One search over images in the order of their groups; `pairs` collects what it finds."""

    def __init__(
        self,
        hashes: npt.NDArray[np.uint64],
        thumbnails: Bytes,
        groups: npt.NDArray[np.int64] | None,
    ) -> None:
        self.pairs: list[tuple[int, int]] = []
        self._hashes, self._thumbnails, self._groups = hashes, thumbnails, groups
        small = thumbnails.reshape(-1, 16, 4, 16, 4).mean(axis=(2, 4), dtype=np.float32)
        small -= small.mean(axis=(1, 2), keepdims=True)
        norms = np.linalg.norm(small, axis=(1, 2), keepdims=True)
        self._small = small / np.maximum(norms, 1e-6)
        count = len(hashes)
        order = np.arange(count) if groups is None else groups
        # Where the images begin that each is compared with: behind its own group.
        self._first = np.searchsorted(order, order, side="right")
        # Without groups: the chain of each image. With them: who has a partner in which group.
        self._chains = np.arange(count)
        self._has = np.zeros((count, 0 if groups is None else 1 + int(order.max(initial=0))), bool)

    def run(self, budget: int) -> int:
        """Compare until all are compared, or `budget` is spent; return how many images are left."""
        count = len(self._hashes)
        rows = max(1, _BLOCK // max(count, 1))
        for start in range(0, count, rows):
            if budget < 0:
                return count - start
            first, stop = int(self._first[start]), min(start + rows, count)
            one, other, way = self._candidates(slice(start, stop), first)
            budget -= 8 * (stop - start) * (count - first) + _CANDIDATE * len(one)
            for index in np.unique(one).tolist():
                mine = slice(*np.searchsorted(one, (index, index + 1)))
                budget -= _LOOK * self._look_at(index, other[mine], way[mine])
        return 0

    def _candidates(self, rows: slice, first: int) -> tuple[Indices, Indices, Indices]:
        """Whose hashes are near: who, whom, and how the first must be turned."""
        found = []
        for way in range(8):
            differ = self._hashes[rows, way, None] ^ self._hashes[None, first:, 0]
            one, other = np.nonzero(np.bitwise_count(differ) <= MAX_DISTANCE)
            found.append((one + rows.start, other + first, np.full(len(one), way)))
        one, other, ways = (np.concatenate(parts) for parts in zip(*found, strict=True))
        wanted = (other >= self._first[one]) & self._wants(one, other)
        order = np.flatnonzero(wanted)[np.argsort(one[wanted], kind="stable")]
        return one[order], other[order], ways[order]

    def _look_at(self, one: int, others: Indices, ways: Indices) -> int:
        """Look closer at the candidates of an image, the most alike first; return how many."""
        wanted = self._wants(one, others)
        others, ways = others[wanted], ways[wanted]
        alike = np.empty(len(others), np.float32)
        for way in np.unique(ways).tolist():
            here = ways == way
            mine = np.ascontiguousarray(turned(self._small[one], way)).ravel()
            alike[here] = self._small[others[here]].reshape(-1, 256) @ mine
        looks = refusals = 0
        for index in np.argsort(-alike, kind="stable").tolist():
            if refusals == MAX_REFUSALS or alike[index] < MIN_CORRELATION:
                break
            other = int(others[index])
            if not self._wants(one, other):
                continue
            mine = np.ascontiguousarray(turned(self._thumbnails[one], int(ways[index])))
            looks += 1
            if same_image(mine, self._thumbnails[other]):
                self._add(one, other)
            else:
                refusals += 1
        return looks

    def _wants(self, one: int | Indices, other: int | Indices) -> npt.NDArray[np.bool_]:
        """Whether pairs would connect something, or give someone a partner."""
        if self._groups is None:
            return np.asarray(self._chains[one] != self._chains[other])
        has = self._has[one, self._groups[other]] & self._has[other, self._groups[one]]
        return np.asarray(~has)

    def _add(self, one: int, other: int) -> None:
        self.pairs.append((one, other))
        if self._groups is None:
            self._chains[self._chains == self._chains[other]] = self._chains[one]
        else:
            self._has[one, self._groups[other]] = self._has[other, self._groups[one]] = True


def same_image(first: Bytes, second: Bytes) -> bool:
    """Return whether two thumbnails, uint8, (64, 64), turned alike, show the same image.

    Brightness, contrast, gamma, size and compression may differ. A curve of the grey values that
    turns one into the other is fitted; then three things must hold:

    1. No spot differs by more than `MAX_SPOT` standard deviations, beyond what shifting an edge by
       half a pixel explains: the same street with other people in it is another image.
    2. At least `MIN_TILES` of 64 tiles have detail.
    3. The detail of these tiles correlates, the more fully the fewer they are: noise of a camera or
       a pattern is in no other image.

    Measured on sets that played no part in choosing the limits, each of 1,000 independent images
    and 140 copies in 14 ways: scenes (3 sets) recall 1.00, octagons on noise (5) 0.95 to 0.97,
    flat drawings of two or three shapes (5) 0.99 to 1.00. No false alarm on scenes and octagons;
    two on the flat drawings, which leave little to compare.
    """
    # A clipped copy is a function of its original, but not the other way round.
    return _explains(first, second) or _explains(second, first)


def _explains(source: Bytes, target: Bytes) -> bool:
    guess, wanted = _toned(source, target), target.astype(np.float32)
    edges = np.minimum(_range(guess), _range(wanted))
    excess = np.maximum(np.abs(guess - wanted) - edges / 2, 0)
    spot = float(cv2.blur(excess, (3, 3)).max()) - 1.5  # which compression may change anywhere
    if spot > MAX_SPOT * max(float(wanted.std()), 1.0):
        return False
    one, other = _detail(guess), _detail(wanted)
    mine, yours = _tiles(one * one), _tiles(other * other)
    weight = np.clip(np.sqrt(np.maximum(mine, yours)) - _NOISE, 0, _STRONG)
    total = max(float(weight.sum()), 1e-6)
    tiles = total**2 / max(float((weight**2).sum()), 1e-6)  # strong ones count as one, weak as less
    alike = float((weight * _tiles(one * other) / np.sqrt(mine * yours + 1e-3)).sum()) / total
    return tiles > MIN_TILES and alike > 1 - (1 - MIN_AGREEMENT) * min(1, tiles / ENOUGH_TILES)


def _detail(plane: Floats) -> Floats:
    """What a blur takes away; nothing of a gradient, which continues beyond the border."""
    wide = np.pad(plane, _TILE, mode="reflect", reflect_type="odd")
    return plane - cv2.GaussianBlur(wide, (0, 0), 2.5)[_TILE:-_TILE, _TILE:-_TILE]


def _toned(source: Bytes, target: Bytes) -> Floats:
    """`source` through the curve of grey values that comes nearest to `target`."""
    flat = source.ravel()
    count = np.convolve(np.bincount(flat, minlength=256), _SMOOTHING, "same")
    total = np.convolve(np.bincount(flat, target.ravel(), 256), _SMOOTHING, "same")
    return np.asarray((total / np.maximum(count, 1))[source], np.float32)


def _range(plane: Floats) -> Floats:
    """Largest minus smallest value of the 3 x 3 pixels around each."""
    around = np.ones((3, 3), np.uint8)
    return np.asarray(cv2.dilate(plane, around) - cv2.erode(plane, around), np.float32)


def _tiles(plane: Floats) -> Floats:
    """The mean of each tile, (8, 8)."""
    count = len(plane) // _TILE
    return np.asarray(cv2.resize(plane, (count, count), interpolation=cv2.INTER_AREA), np.float32)

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.data.leaks import near_identical
from persondet.data.leaks.near_identical import near_identical_pairs
from persondet.data.leaks.perceptual_hash import picture_signature, turned
from tests.data.leaks.scenes import COPIES, grey, scene


def signatures(pictures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    hashes, thumbnails = zip(*(picture_signature(grey(p)) for p in pictures), strict=True)
    return np.stack(hashes), np.stack(thumbnails)


def alone(values: list[int], seed: int = 0) -> np.ndarray:
    """(N, 8) hashes of which only the first is chosen, the others are far from everything."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, (len(values), 8), dtype=np.uint64)
    hashes[:, 0] = np.array(values, np.uint64)
    return hashes


def all_near(hashes: np.ndarray) -> set[tuple[int, int]]:
    """Every near pair, by comparing each with each."""
    near = set()
    for one in range(len(hashes)):
        for other in range(len(hashes)):
            if one != other:
                distance = min((int(h) ^ int(hashes[other, 0])).bit_count() for h in hashes[one])
                if distance <= 7:
                    near.add((min(one, other), max(one, other)))
    return near


def chains(count: int, pairs: set[tuple[int, int]]) -> set[frozenset[int]]:
    chain = [{index} for index in range(count)]
    for one, other in pairs:
        if chain[one] is not chain[other]:
            chain[one] |= chain[other]
            for index in chain[other]:
                chain[index] = chain[one]
    return {frozenset(members) for members in chain}


flips = st.lists(st.integers(0, 63), max_size=12)


@st.composite
def clustered(draw: st.DrawFn) -> np.ndarray:
    """Up to 30 hashes around up to 3 centres, in random orientations."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    centres = rng.integers(0, 2**64, (3, 8), dtype=np.uint64)
    hashes = []
    for bits in draw(st.lists(flips, min_size=1, max_size=30)):
        row = np.roll(centres[rng.integers(3)], rng.integers(8) * rng.integers(2))
        for bit in bits:
            row = row ^ (np.uint64(1) << np.uint64(bit))
        hashes.append(row)
    return np.stack(hashes)


@settings(max_examples=15)
@given(clustered())
def test_the_pairs_connect_what_comparing_each_with_each_connects(hashes: np.ndarray):
    near = all_near(hashes)
    pairs = near_identical_pairs(hashes)
    found = {tuple(pair) for pair in pairs.tolist()}
    assert found <= near
    assert chains(len(hashes), found) == chains(len(hashes), near)
    assert len(pairs) == len(hashes) - len(chains(len(hashes), near))  # a spanning forest
    assert (pairs[:, 0] < pairs[:, 1]).all()


@settings(max_examples=15)
@given(clustered(), st.integers(1, 4), st.randoms(use_true_random=False))
def test_with_groups_whoever_has_a_partner_gets_one(hashes: np.ndarray, count: int, chance):
    groups = np.array([chance.randrange(count) * 7 - 3 for _ in hashes])
    near = {(a, b) for a, b in all_near(hashes) if groups[a] != groups[b]}
    found = {tuple(pair) for pair in near_identical_pairs(hashes, groups=groups).tolist()}
    assert found <= near

    def partners(pairs: set[tuple[int, int]]) -> set[tuple[int, int]]:
        return {(a, groups[b]) for a, b in pairs} | {(b, groups[a]) for a, b in pairs}

    assert partners(found) == partners(near)
    assert len(found) <= len(hashes) * (count - 1)


def test_the_leak_between_groups_survives_copies_within_one():
    copies = alone([1 << 40, 1 << 40, 1 << 40, 5])
    pairs = near_identical_pairs(copies, groups=np.array([0, 0, 1, 1]))
    assert {tuple(p) for p in pairs.tolist()} >= {(0, 2), (1, 2)}


@pytest.mark.parametrize("grouped", [False, True])
def test_a_crowd_that_shares_a_band_hides_no_pair(grouped: bool):
    """300 hashes with one band in common, far from each other but for ten pairs."""
    rng = np.random.default_rng(9)
    far = [int(value) << 16 for value in rng.integers(0, 2**48, 290)]
    near = [value ^ 0x0003_0003_0003_0000 for value in far[50:60]]
    groups = np.repeat([0, 1], [290, 10]) if grouped else None
    pairs = near_identical_pairs(alone(far + near), groups=groups)
    assert pairs.tolist() == [[50 + k, 290 + k] for k in range(10)]


@pytest.mark.parametrize("distance", [0, 7, 8])
def test_near_ends_at_seven_bits(distance: int):
    # Spread over the bands as unkindly as possible: 2, 2, 2 and 1 of 7.
    value = sum(1 << (16 * (bit % 4) + bit) for bit in range(distance))
    assert len(near_identical_pairs(alone([0, value]))) == (distance <= 7)


@pytest.mark.parametrize("groups", [None, 3])
def test_many_copies_do_not_make_many_pairs(groups: int | None):
    count = 20_000
    hashes = np.repeat(alone([12345]), count, axis=0)
    labels = None if groups is None else np.arange(count) % groups
    pairs = near_identical_pairs(hashes, groups=labels)
    assert count - 1 <= len(pairs) <= count * (1 if groups is None else groups - 1)
    assert len(np.unique(pairs)) == count


def test_a_crowd_beyond_the_budget_is_said(monkeypatch, caplog):
    monkeypatch.setattr(near_identical, "_BUDGET", -2000 * 400)
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (400, 8), dtype=np.uint64) & np.uint64(0xFFFF_FFFF_FFFF_0000)
    with caplog.at_level(logging.WARNING):
        near_identical_pairs(hashes)
    assert "too alike" in caplog.text


@pytest.mark.parametrize("copy", COPIES)
def test_planted_copies_are_found(copy: str):
    rng = np.random.default_rng(7)
    originals = [scene(rng) for _ in range(20)]
    hashes, thumbnails = signatures(originals + [COPIES[copy](picture) for picture in originals])
    groups = np.repeat([0, 1], 20)
    pairs = near_identical_pairs(hashes, thumbnails=thumbnails, groups=groups)
    assert all(other == one + 20 for one, other in pairs.tolist())
    assert len(pairs) >= 19


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_independent_pictures_raise_no_alarm(count: int):
    rng = np.random.default_rng(11)
    hashes, thumbnails = signatures([scene(rng) for _ in range(count)])
    assert len(near_identical_pairs(hashes, thumbnails=thumbnails)) == 0


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_pictures_of_little_detail_raise_no_alarm(count: int):
    """Bright spots on noise, and gradients: their hashes alone would be near."""
    rng = np.random.default_rng(12)
    pictures = []
    for number in range(count):
        pixels = rng.integers(60, 90, (64, 96, 3), dtype=np.uint8)
        if number % 2:
            down, right = np.mgrid[:64, :96]
            slope = rng.uniform(-1, 1, 2)
            pixels = (120 + slope[0] * down + slope[1] * right)[..., None] + pixels / 10
        else:
            for _ in range(rng.integers(1, 4)):
                x, y = rng.integers(10, 80), rng.integers(10, 50)
                pixels[y - 8 : y + 8, x - 4 : x + 4] = rng.integers(170, 255)
        pictures.append(np.asarray(pixels, np.uint8))
    hashes, thumbnails = signatures(pictures)
    assert len(near_identical_pairs(hashes)) > count / 10
    assert len(near_identical_pairs(hashes, thumbnails=thumbnails)) == 0


def test_plain_pictures_are_never_near():
    hashes, thumbnails = signatures([np.full((20, 20, 3), 90, np.uint8)] * 3)
    assert len(near_identical_pairs(hashes, thumbnails=thumbnails)) == 0


@pytest.mark.parametrize("count", [0, 1])
def test_few_pictures(count: int):
    hashes = np.zeros((count, 8), np.uint64)
    thumbnails = np.zeros((count, 32, 32), np.uint8)
    for groups in (None, np.zeros(count, int)):
        pairs = near_identical_pairs(hashes, thumbnails=thumbnails, groups=groups)
        assert pairs.shape == (0, 2)


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="8"):
        near_identical_pairs(np.zeros((3, 7), np.uint64))
    with pytest.raises(ValueError, match="thumbnails"):
        near_identical_pairs(
            np.zeros((3, 8), np.uint64), thumbnails=np.zeros((2, 32, 32), np.uint8)
        )
    with pytest.raises(ValueError, match="groups"):
        near_identical_pairs(np.zeros((33, 8), np.uint64), groups=np.arange(33))


def looks(answers: dict[tuple[int, int], bool | None], asked: list[tuple[int, int, int]]):
    def look(one: int, other: int, orientation: int) -> bool | None:
        asked.append((one, other, orientation))
        return answers.get((min(one, other), max(one, other)), False)

    return look


def nobody_is_convinced(first: np.ndarray, *_: np.ndarray) -> np.ndarray:
    """Instead of `same_picture`: the thumbnails never suffice."""
    return np.zeros(len(first), bool)


def test_a_look_decides_where_the_thumbnails_do_not(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(13)
    first, second, third = (scene(rng) for _ in range(3))
    copies = [COPIES["recompressed"](picture) for picture in (first, second, third)]
    hashes, thumbnails = signatures([first, second, third, *copies])
    asked: list[tuple[int, int, int]] = []
    look = looks({(0, 3): True, (1, 4): None}, asked)
    pairs = near_identical_pairs(hashes, thumbnails=thumbnails, look=look)
    assert pairs.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert asked == []
    monkeypatch.setattr(near_identical, "same_picture", nobody_is_convinced)
    for groups in (None, np.repeat([0, 1], 3)):
        pairs = near_identical_pairs(hashes, thumbnails=thumbnails, groups=groups, look=look)
        assert pairs.tolist() == [[0, 3]]
    assert {orientation for _, _, orientation in asked} == {0}


@pytest.mark.parametrize("orientation", range(8))
def test_a_look_is_told_how_the_first_is_turned(orientation: int):
    picture = grey(scene(np.random.default_rng(14)))
    pictures = [picture, np.ascontiguousarray(turned(picture, orientation))]
    hashes, thumbnails = zip(*map(picture_signature, pictures), strict=True)

    def look(one: int, other: int, way: int) -> bool:
        return bool(turned(pictures[one], way).shape == pictures[other].shape) and bool(
            (turned(pictures[one], way) == pictures[other]).all()
        )

    pairs = near_identical_pairs(np.stack(hashes), thumbnails=np.stack(thumbnails), look=look)
    assert pairs.tolist() == [[0, 1]]


def test_looks_are_few_in_a_crowd_of_lookalikes(monkeypatch: pytest.MonkeyPatch):
    """60 pictures whose thumbnails agree: a partner is asked for first among the most alike."""
    rng = np.random.default_rng(15)
    base = scene(rng)
    pictures = [np.clip(base + rng.normal(0, 9, base.shape), 0, 255) for _ in range(60)]
    hashes, thumbnails = signatures([p.astype(np.uint8) for p in pictures])
    monkeypatch.setattr(near_identical, "same_picture", nobody_is_convinced)
    asked: list[tuple[int, int, int]] = []
    pairs = near_identical_pairs(hashes, thumbnails=thumbnails, look=looks({}, asked))
    assert len(pairs) == 0
    assert 60 < len(asked) <= 60 * near_identical.MAX_LOOKS
    asked.clear()
    everyone = {(a, b): True for b in range(60) for a in range(b)}
    pairs = near_identical_pairs(hashes, thumbnails=thumbnails, look=looks(everyone, asked))
    assert len(pairs) == 59
    assert len(asked) < 600
    asked.clear()
    crowd = {(17, 50): True}
    thumbnails[50], hashes[50] = thumbnails[17], hashes[17]
    pairs = near_identical_pairs(
        hashes, thumbnails=thumbnails, groups=np.repeat([0, 1], 30), look=looks(crowd, asked)
    )
    assert pairs.tolist() == [[17, 50]]

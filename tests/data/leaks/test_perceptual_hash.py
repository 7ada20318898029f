from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from persondet.data.leaks.perceptual_hash import picture_signature, thumbnail_hashes, turned


def bits(one: np.uint64, other: np.uint64) -> int:
    return (int(one) ^ int(other)).bit_count()


def smooth(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 256, (16, 16)), np.ones((8, 8))).astype(np.uint8)


@pytest.mark.parametrize("orientation", range(8))
def test_turning_the_picture_turns_the_hashes(orientation: int):
    picture = smooth(3)
    hashes, thumbnail = picture_signature(picture)
    again, turned_thumbnail = picture_signature(np.ascontiguousarray(turned(picture, orientation)))
    assert bits(again[0], hashes[orientation]) <= 1
    np.testing.assert_array_equal(turned_thumbnail, turned(thumbnail, orientation))
    assert sorted(map(int, again)) == sorted(map(int, hashes)) or bits(again[0], hashes[0]) > 0


def test_the_eight_ways_of_turning_are_eight():
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4)
    ways = {(turned(picture, way).shape, turned(picture, way).tobytes()) for way in range(8)}
    assert len(ways) == 8
    assert turned(picture, 0) is picture
    np.testing.assert_array_equal(turned(picture, 4), picture.T)
    np.testing.assert_array_equal(turned(picture, 1), np.fliplr(picture))
    np.testing.assert_array_equal(turned(picture, 2), np.flipud(picture))


@given(arrays(np.uint8, (32, 32)))
def test_brightness_does_not_matter_to_the_hash(thumbnail: np.ndarray):
    darker = (thumbnail // 2).astype(np.uint8)
    np.testing.assert_array_equal(
        thumbnail_hashes(darker), thumbnail_hashes((darker + 100).astype(np.uint8))
    )


def test_a_bit_is_the_sign_of_a_frequency():
    """By the textbook's sum instead of matrices: every frequency's sign is in the hash once."""
    thumbnail = picture_signature(smooth(5))[1].astype(float)
    position = (np.arange(32) + 0.5) * np.pi / 32
    positive = 0
    for v in range(8):
        for u in range(8):
            wave = np.outer(np.cos(v * position), np.cos(u * position))
            scale = (1 if u else 0.5**0.5) * (1 if v else 0.5**0.5) / 16
            coefficient = (wave * thumbnail).sum() * scale
            spread = np.sqrt(((thumbnail - thumbnail.mean()) ** 2).sum())
            if (u or v) and coefficient > 0.06 * spread:
                positive += 1
    count = int(thumbnail_hashes(thumbnail.astype(np.uint8))[0]).bit_count()
    assert positive <= count <= positive + 20


def test_a_plain_picture_has_no_bit_set():
    hashes, thumbnail = picture_signature(np.full((50, 70), 200, np.uint8))
    assert not hashes.any()
    assert (thumbnail == 200).all()


def test_types_and_shapes():
    for shape in ((1, 1), (5, 400), (640, 640)):
        hashes, thumbnail = picture_signature(np.zeros(shape, np.uint8))
        assert hashes.dtype == np.uint64 and hashes.shape == (8,)
        assert thumbnail.dtype == np.uint8 and thumbnail.shape == (32, 32)


@pytest.mark.parametrize("shape", [(0, 5), (4, 4, 3), (4,)])
def test_what_is_no_grey_picture(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="grey"):
        picture_signature(np.zeros(shape, np.uint8))


@given(st.integers(0, 2**32 - 1), st.integers(0, 7))
def test_hashes_of_turned_thumbnails_are_the_same_set(seed: int, orientation: int):
    thumbnail = np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)
    hashes = thumbnail_hashes(thumbnail)
    again = thumbnail_hashes(np.ascontiguousarray(turned(thumbnail, orientation)))
    distance = [min(bits(one, other) for other in hashes) for one in again]
    assert max(distance) <= 1  # rounding, at most

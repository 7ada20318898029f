from __future__ import annotations

import numpy as np
import pytest

from persondet.data.leaks.hashing import image_signature, turned, without_bars


def smooth(seed):
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 256, (16, 16)), np.ones((8, 8))).astype(np.uint8)


@pytest.mark.parametrize("way", range(8))
def test_turning_the_image_turns_the_hashes(way):
    hashes, thumbnail = image_signature(smooth(3))
    again, turned_thumbnail = image_signature(np.ascontiguousarray(turned(smooth(3), way)))
    assert np.bitwise_count(again[0] ^ hashes[way]) <= 1
    np.testing.assert_array_equal(turned_thumbnail, turned(thumbnail, way))
    small = expected = np.arange(12).reshape(3, 4)
    for bit, flip in ((4, np.transpose), (1, np.fliplr), (2, np.flipud)):
        expected = flip(expected) if way & bit else expected
    np.testing.assert_array_equal(turned(small, way), expected)


@pytest.mark.parametrize("shape", [(1, 1), (5, 400), (640, 640)])
def test_a_plain_image_has_no_bit_set(shape):
    hashes, thumbnail = image_signature(np.full(shape, 200, np.uint8))
    assert not hashes.any() and hashes.dtype == np.uint64 and hashes.shape == (8,)
    assert (thumbnail == 200).all() and thumbnail.shape == (64, 64)
    with pytest.raises(ValueError, match="grey"):
        image_signature(np.zeros((*shape, 3), np.uint8))


def test_brightness_does_not_matter_to_the_hash():
    darker = smooth(4) // 2
    brighter = (darker + 100).astype(np.uint8)
    np.testing.assert_array_equal(image_signature(darker)[0], image_signature(brighter)[0])


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("bars", [(30, 30, 0, 0), (0, 40, 0, 0), (0, 0, 20, 20), (9, 9, 5, 5)])
def test_bars_are_cut_off(level, bars):
    image = np.kron(smooth(6)[::4, ::4], np.ones((3, 4), np.uint8))
    top, bottom, left, right = bars
    barred = np.pad(image, ((top, bottom), (left, right)), constant_values=level)
    cut = without_bars(barred)
    # The row next to a bar may be a blend of both: it goes, too.
    assert all(0 <= full - part <= 2 for full, part in zip(image.shape, cut.shape, strict=True))
    assert int(np.bitwise_count(image_signature(barred)[0] ^ image_signature(image)[0]).max()) < 8


def test_plain_sky_and_plain_images_are_no_bars():
    sky = np.full((80, 100), 250, np.uint8)
    assert without_bars(sky).shape == sky.shape
    sky[40:, 20:40] = 30
    assert without_bars(sky).shape == sky.shape

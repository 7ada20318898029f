from __future__ import annotations

import cv2
import numpy as np
import pytest

from persondet.data.leaks.perceptual_hash import picture_signature
from persondet.data.leaks.same_picture import distinctive_cells, same_picture
from tests.data.leaks.scenes import COPIES, grey, jpeg, scene


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    return picture_signature(grey(pixels) if pixels.ndim == 3 else pixels)[1]


def same(one: np.ndarray, other: np.ndarray) -> bool:
    pair = np.stack([thumbnail(one), thumbnail(other)])
    return bool(same_picture(pair[:1], pair[1:], distinctive_cells(pair).min(keepdims=True))[0])


UPRIGHT = sorted(COPIES.keys() - {"mirrored", "upside down", "turned", "turned back", "everything"})


@pytest.mark.parametrize("copy", UPRIGHT)
def test_a_copy_is_the_same_picture(copy: str):
    rng = np.random.default_rng(1)
    pictures = [scene(rng, (320, 240)) for _ in range(8)]
    found = [same(picture, COPIES[copy](picture)) for picture in pictures]
    back = [same(COPIES[copy](picture), picture) for picture in pictures]
    assert found == back
    assert sum(found) >= 7


def test_the_same_street_with_another_person_is_another_picture():
    street = scene(np.random.default_rng(2), (320, 240))
    here, there = street.copy(), street.copy()
    cv2.ellipse(here, (80, 120), (6, 9), 0, 0, 360, (250, 250, 250), -1)
    cv2.ellipse(there, (230, 120), (6, 9), 0, 0, 360, (250, 250, 250), -1)
    assert same(here, jpeg(here, 40))
    assert not same(here, there)
    assert np.corrcoef(thumbnail(here).ravel(), thumbnail(there).ravel())[0, 1] > 0.96


def test_plain_pictures_gradients_and_horizons_are_the_same_as_nothing():
    plain = np.full((120, 160), 90, np.uint8)
    down, right = np.mgrid[:120, :160]
    gradient = (right + down / 2).astype(np.uint8)
    horizon = np.where(down < 50, 200, 60).astype(np.uint8)
    for pixels in (plain, gradient, horizon):
        assert distinctive_cells(thumbnail(pixels)[None])[0] < 1
        assert not same(pixels, pixels)


def test_cells_count_where_there_is_something():
    assert distinctive_cells(np.zeros((0, 32, 32), np.uint8)).shape == (0,)
    noise = np.random.default_rng(0).integers(0, 256, (1, 32, 32), dtype=np.uint8)
    assert distinctive_cells(noise)[0] > 50
    spot = np.zeros((1, 32, 32), np.uint8)
    spot[0, 13:15, 13:15] = 255
    assert distinctive_cells(spot)[0] == pytest.approx(1)
    # Turning and brightness change nothing, doubling the contrast little.
    np.testing.assert_allclose(distinctive_cells(noise.swapaxes(1, 2)), distinctive_cells(noise))
    np.testing.assert_allclose(
        distinctive_cells(noise // 4 + 100), distinctive_cells(noise // 4), rtol=1e-4
    )


def test_no_pairs():
    none = np.zeros((0, 32, 32), np.uint8)
    assert same_picture(none, none, np.zeros(0, np.float32)).shape == (0,)

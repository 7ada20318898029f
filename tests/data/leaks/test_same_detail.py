from __future__ import annotations

import cv2
import numpy as np
import pytest

from persondet.data.leaks.same_detail import align, large_grey, same_detail
from tests.data.leaks.scenes import COPIES, grey, jpeg, light, octagons, plain_shapes, scene

UPRIGHT = sorted(COPIES.keys() - {"mirrored", "upside down", "turned", "turned back", "everything"})


def same(one: np.ndarray, other: np.ndarray) -> bool | None:
    return same_detail(large_grey(grey(one)), large_grey(grey(other)))


@pytest.mark.parametrize("make", [scene, octagons])
def test_a_copy_is_the_same_picture(make):
    rng = np.random.default_rng(1)
    pictures = [make(rng) for _ in range(3)]
    for name in UPRIGHT:
        found = [same(picture, COPIES[name](picture)) for picture in pictures]
        back = [same(COPIES[name](picture), picture) for picture in pictures]
        assert found == back == [True] * 3, name


@pytest.mark.parametrize("crop", [(2, 0, 0, 3), (3, 3, 4, 4), (0, 2, 3, 0)])
def test_a_copy_cropped_by_two_percent_is_aligned(crop: tuple[int, int, int, int]):
    picture = scene(np.random.default_rng(5), (200, 150))
    top, bottom, left, right = crop
    cropped = jpeg(picture[top : 150 - bottom, left : 200 - right], 90)
    assert same(picture, cropped) and same(cropped, picture)


def test_alignment_undoes_a_known_change():
    picture = large_grey(grey(scene(np.random.default_rng(6), (320, 240))))
    moved = np.roll(picture, (3, -2), axis=(0, 1))
    aligned = align(picture, moved)
    assert aligned is not None
    inner = np.s_[8:-8, 8:-8]
    before = np.abs(picture[inner].astype(int) - moved[inner]).mean()
    assert np.abs(aligned[inner].astype(int) - moved[inner]).mean() < before / 5
    assert align(picture, np.roll(picture, 20, axis=1)) is None


def test_the_same_street_with_another_person_is_another_picture():
    street = scene(np.random.default_rng(2), (320, 240))
    here, there = street.copy(), street.copy()
    cv2.ellipse(here, (80, 120), (5, 11), 0, 0, 360, (250, 250, 250), -1)
    cv2.ellipse(there, (230, 120), (5, 11), 0, 0, 360, (250, 250, 250), -1)
    assert same(here, jpeg(here, 40))
    assert same(here, there) is False
    assert same(light(here, 0.7, 10), there) is False


def test_the_same_people_on_other_noise_are_another_picture():
    rng = np.random.default_rng(3)
    people = octagons(rng)
    here, there = (
        np.where(people > 120, people, rng.integers(60, 90, people.shape, dtype=np.uint8))
        for _ in range(2)
    )
    assert same(here, jpeg(here, 40))
    assert same(here, there) is False


@pytest.mark.parametrize("make", [octagons, plain_shapes])
def test_independent_pictures_of_few_shapes_are_not_the_same(make):
    rng = np.random.default_rng(4)
    pictures = [large_grey(grey(make(rng))) for _ in range(12)]
    for number, one in enumerate(pictures):
        assert not any(same_detail(one, other) for other in pictures[:number])


def test_plain_pictures_and_gradients_say_nothing():
    plain = np.full((120, 160, 3), 90, np.uint8)
    gradient = np.repeat(np.add.outer(np.arange(120), np.arange(160))[..., None] // 2, 3, 2)
    for pixels in (plain, gradient.astype(np.uint8)):
        assert same(pixels, pixels) is None


@pytest.mark.parametrize("shape", [(1, 1), (5, 400), (640, 480)])
def test_any_shape_becomes_a_square(shape: tuple[int, int]):
    large = large_grey(np.full(shape, 7, np.uint8))
    assert large.shape == (160, 160) and large.dtype == np.uint8 and (large == 7).all()

"""Texts on plates: readable, and no pixel outside of the plate."""

from __future__ import annotations

import numpy as np
import pytest

from persondet.visualization.labels import draw_plate, plate_size, text_coverage


@pytest.mark.parametrize("corner", [(-20, -5), (90, 55), (30, 20), (500, 500)])
def test_a_plate_changes_its_own_pixels_only(corner):
    image = np.full((64, 96, 3), 77, dtype=np.uint8)
    width, height = plate_size("person 97%", 12)
    draw_plate(image, "person 97%", corner, 12, (0, 159, 230))
    changed = np.zeros((64, 96), dtype=bool)
    x, y = corner
    changed[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)] = True
    assert (image[~changed] == 77).all()
    if (x, y) == (30, 20):
        inside = image[changed].reshape(-1, 3)
        share = (inside == (0, 159, 230)).all(axis=1).mean()
        assert 0.5 < share < 0.95  # the plate, and dark letters on it
        assert inside.min(axis=0)[2] < 60


def test_texts_of_one_size_have_one_height_and_grow_with_it():
    assert text_coverage("ace", 14).shape[0] == text_coverage("Ågy|", 14).shape[0]
    assert text_coverage("person", 28).shape[1] == pytest.approx(
        2 * text_coverage("person", 14).shape[1], abs=4
    )
    assert text_coverage("Hg", 14).max() > 200


def test_a_translucent_plate_lets_the_image_through_and_its_letters_do_not():
    image = np.random.default_rng(0).integers(0, 200, (40, 120, 3), dtype=np.uint8)
    before = image.astype(float)
    draw_plate(image, "10 people", (10, 10), 14, (32, 32, 32), alpha=0.75)
    width, height = plate_size("10 people", 14)
    plate = (slice(10, 10 + height), slice(10, 10 + width))
    expected = before[plate] * 0.25 + 32 * 0.75
    ground = (np.abs(image[plate] - expected) <= 0.51).all(axis=2)
    assert 0.5 < ground.mean() < 0.95
    assert (image[plate][~ground].max(axis=1) == 255).any()  # the letters, all white

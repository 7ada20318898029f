"""Texts on plates: readable, and no pixel outside of the plate."""

import numpy as np
import pytest

from persondet.visualization.labels import draw_plate, plate_size


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

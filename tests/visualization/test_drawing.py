"""Strokes on arrays: what is painted, and what stays as it was."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persondet.visualization.drawing import (
    draw_box,
    draw_mask,
    draw_region,
)
from persondet.visualization.labels import draw_label, plate_size

ORANGE = (0, 128, 255)


def canvas(height=40, width=60, value=100):
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_a_mask_tints_its_pixels_and_no_other():
    image, mask = canvas(), np.zeros((40, 60), dtype=bool)
    mask[10:20, 30:50] = True
    draw_mask(image, mask, ORANGE, alpha=0.5, outline=0)
    assert (image[mask] == np.round([50, 114, 177.5])).all()
    assert (image[~mask] == 100).all()


@given(
    st.tuples(st.floats(-15, 70), st.floats(-15, 50), st.floats(-15, 70), st.floats(-15, 50)),
    st.floats(0.5, 9),
)
def test_each_pixel_takes_as_much_of_the_colour_as_the_line_covers_of_it(box, width):
    x0, x1 = sorted(box[::2])
    y0, y1 = sorted(box[1::2])
    image = canvas(value=0)
    draw_box(image, (x0, y0, x1, y1), (200, 200, 200), width=width)
    # The same line, counted on a grid of 16 x 16 points in each pixel.
    fine = (np.arange(16) + 0.5) / 16
    x = (np.arange(60)[:, None] + fine).reshape(1, -1)
    y = (np.arange(40)[:, None] + fine).reshape(-1, 1)
    x1, y1 = max(x1, x0 + width), max(y1, y0 + width)
    on = (x > x0) & (x < x1) & (y > y0) & (y < y1)
    on &= ~((x > x0 + width) & (x < x1 - width) & (y > y0 + width) & (y < y1 - width))
    share = on.reshape(40, 16, 60, 16).mean(axis=(1, 3))
    assert np.abs(image[:, :, 0] - 200 * share).max() <= 200 * 2.5 / 16 + 1
    assert (image[share == 0] <= 200 * 2 / 16).all()


def test_a_region_is_drawn_as_the_mask_that_it_stands_for():
    rng = np.random.default_rng(1)
    whole = np.zeros((40, 60), bool)
    whole[8:30, 12:44] = cv2.blur(rng.random((22, 32)), (5, 5)) > 0.5
    expected, image = canvas(), canvas()
    draw_mask(expected, whole, ORANGE, alpha=0.4, outline=2)
    draw_region(image, whole[5:33, 10:50], (10, 5), ORANGE, alpha=0.4, outline=2, smooth=False)
    assert np.array_equal(image, expected)


@pytest.mark.parametrize("alpha", [0.0, 0.42, 1.0])
def test_a_tint_is_a_mix_within_one_level(alpha):
    image = np.random.default_rng(2).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    before = image.astype(float)
    draw_region(image, np.ones((40, 60), bool), (0, 0), ORANGE, alpha=alpha, outline=0)
    assert np.abs(image - (before * (1 - alpha) + alpha * np.array(ORANGE))).max() <= 1.01


@pytest.mark.parametrize("position", [(0, 0), (1000, 1000), (-20, -20), (30, 20)])
def test_a_label_stays_inside_the_image(position):
    image = canvas(60, 120)
    draw_label(image, "person", position, ORANGE)
    rows, columns = np.nonzero((image != 100).any(axis=2))
    width, height = plate_size("person", 13)
    assert columns.max() - columns.min() + 1 == width
    assert rows.max() - rows.min() + 1 == height

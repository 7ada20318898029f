"""Strokes on arrays: what is painted, and what stays as it was."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persondet.visualization.drawing import draw_box, draw_region
from persondet.visualization.labels import draw_label, plate_size

ORANGE = (0, 128, 255)


@given(
    st.tuples(st.floats(-15, 70), st.floats(-15, 50), st.floats(-15, 70), st.floats(-15, 50)),
    st.floats(0.5, 9),
)
def test_each_pixel_takes_as_much_of_the_colour_as_the_line_covers_of_it(box, width):
    x0, x1 = sorted(box[::2])
    y0, y1 = sorted(box[1::2])
    image = np.zeros((40, 60, 3), np.uint8)
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


@pytest.mark.parametrize("alpha", [0.0, 0.42, 1.0])
def test_a_tint_is_a_mix_within_one_level_and_touches_the_mask_alone(alpha):
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    mask, before = rng.random((40, 60)) < 0.3, image.astype(float)
    draw_region(image, mask, (0, 0), ORANGE, alpha=alpha, outline=0)
    mixed = before * (1 - alpha) + alpha * np.array(ORANGE)
    assert np.abs(image - mixed)[mask].max() <= 1.01
    assert (image == before)[~mask].all()


@pytest.mark.parametrize("position", [(0, 0), (1000, 1000)])
def test_a_label_stays_inside_the_image(position):
    image = np.full((40, 60, 3), 100, np.uint8)
    draw_label(image, "me", position, ORANGE)
    changed = (image != 100).any(axis=2)
    assert cv2.boundingRect(changed.astype(np.uint8))[2:] == plate_size("me", 13)
    assert 0.4 < (image == ORANGE).all(axis=2)[changed].mean() < 0.95  # a plate with letters on it
    assert image[changed].min(axis=0)[2] < 60

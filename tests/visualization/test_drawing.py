"""Strokes on arrays: what is painted, and what stays as it was."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persondet.visualization.drawing import (
    PALETTE,
    draw_box,
    draw_label,
    draw_mask,
    draw_region,
    label_size,
)

ORANGE = (0, 128, 255)


def canvas(height=40, width=60, value=100):
    return np.full((height, width, 3), value, dtype=np.uint8)


# RGB of linear light as it looks to somebody without one kind of cones: Machado, Oliveira and
# Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", TVCG 2009,
# severity 1.0.
SEEN_BY = {
    "everybody else": np.eye(3),
    "protanopes": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopes": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}


def least_difference(colors, matrix):
    """Return the smallest distance of two colours (BGR, 0..255) in CIE Lab, after `matrix`."""
    srgb = np.array(colors, np.float64)[:, ::-1] / 255
    light = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    light = (light @ matrix.T).clip(0, 1)
    seen = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    lab = cv2.cvtColor(seen[None].astype(np.float32), cv2.COLOR_RGB2Lab)[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    return apart[np.triu_indices(len(colors), 1)].min()


@pytest.mark.parametrize("who", SEEN_BY)
def test_colour_blind_people_can_tell_the_colours_apart(who):
    # 2.3 is what an eye can just see of patches side by side.
    assert least_difference(PALETTE, SEEN_BY[who]) > 6 * 2.3


def test_a_mask_tints_its_pixels_and_no_other():
    image, mask = canvas(), np.zeros((40, 60), dtype=bool)
    mask[10:20, 30:50] = True
    draw_mask(image, mask, ORANGE, alpha=0.5, outline=0)
    assert (image[mask] == np.round([50, 114, 177.5])).all()
    assert (image[~mask] == 100).all()


def test_the_outline_of_a_mask_is_opaque_and_runs_along_holes_too():
    image, mask = canvas(), np.zeros((40, 60), dtype=np.uint8)
    mask[5:35, 10:50] = 1
    mask[15:25, 25:35] = 0
    draw_mask(image, mask, ORANGE, alpha=0.1, outline=1)
    assert (image[5, 10:50] == ORANGE).all()
    assert (image[20, 24] == ORANGE).all()
    assert (image[20, 30] == 100).all()


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


def test_a_box_that_moves_by_part_of_a_pixel_moves_by_that_part():
    sums = []
    for x in np.linspace(10, 12, 9):
        image = canvas(value=0)
        draw_box(image, (x, 5, x + 20, 25), (160, 160, 160), width=2)
        columns = np.arange(60)
        line = image[15, :20, 0].astype(float)  # the left edge alone
        sums.append((line * (columns[:20] + 0.5)).sum() / line.sum())
        assert line.sum() == pytest.approx(2 * 160, abs=2)
    assert np.allclose(np.diff(sums), 0.25, atol=0.02)


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


@pytest.mark.parametrize("box", [(-50, -50, 500, 500), (70, 50, 90, 60), (5, 5, 5, 5)])
def test_a_box_outside_or_without_area_does_no_harm(box):
    draw_box(canvas(), box, ORANGE)


@pytest.mark.parametrize("position", [(0, 0), (1000, 1000), (-20, -20), (30, 20)])
def test_a_label_stays_inside_the_image(position):
    image = canvas(60, 120)
    draw_label(image, "person", position, ORANGE)
    rows, columns = np.nonzero((image != 100).any(axis=2))
    width, height = label_size("person")
    assert columns.max() - columns.min() + 1 == width
    assert rows.max() - rows.min() + 1 == height

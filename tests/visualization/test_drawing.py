"""Strokes on arrays: what is painted, and what stays as it was."""

from __future__ import annotations

import numpy as np
import pytest

from persondet.visualization.drawing import (
    PALETTE,
    contrasting,
    draw_box,
    draw_label,
    draw_mask,
    label_size,
    line_width,
    palette_color,
)

ORANGE = (0, 128, 255)


def canvas(height=40, width=60, value=100):
    return np.full((height, width, 3), value, dtype=np.uint8)


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


def test_an_empty_mask_changes_nothing_and_a_wrong_size_is_refused():
    image = canvas()
    draw_mask(image, np.zeros((40, 60), dtype=bool), ORANGE)
    assert (image == 100).all()
    with pytest.raises(ValueError, match="the mask is"):
        draw_mask(image, np.ones((60, 40), dtype=bool), ORANGE)


def test_the_frame_of_a_box_runs_through_its_first_and_last_pixel():
    image = canvas()
    draw_box(image, (10.0, 5.0, 20.0, 15.0), ORANGE)
    rows, columns = np.nonzero((image == ORANGE).all(axis=2))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (10, 5, 19, 14)
    assert (image[6:14, 11:19] == 100).all()


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


def test_a_label_larger_than_the_image_is_cut():
    image = canvas(6, 10)
    draw_label(image, "a very long label", (0, 0), ORANGE)
    assert (image != 100).any()


def test_letters_contrast_with_their_plate():
    assert contrasting((0, 0, 0)) == (255, 255, 255)
    assert contrasting((255, 255, 255)) == (0, 0, 0)
    assert contrasting((0, 255, 255)) == (0, 0, 0)  # yellow
    assert contrasting((200, 0, 0)) == (255, 255, 255)  # blue


def test_colours_repeat_after_the_palette_and_lines_grow_with_the_image():
    assert len(set(PALETTE)) == len(PALETTE)
    assert palette_color(len(PALETTE) + 1) == PALETTE[1]
    assert [line_width(canvas(h, h)) for h in (10, 400, 1200)] == [1, 1, 3]

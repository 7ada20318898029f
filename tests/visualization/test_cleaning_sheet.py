"""Annotations of any content are drawn, and what leaves the image is seen."""

import math

import numpy as np
import pytest

from persondet.visualization.sheets import MARGIN_OF_CLEANING_SHEET as MARGIN
from persondet.visualization.sheets import draw_annotations

IMAGE = np.zeros((60, 100, 3), np.uint8)


def test_a_box_that_leaves_the_image_is_seen_on_the_margin():
    margin = round(MARGIN * 100)
    bare = draw_annotations(IMAGE, [])
    assert bare.shape == (60 + 2 * margin, 100 + 2 * margin, 3)
    drawn = draw_annotations(IMAGE, [{"bbox": [-5, 10, 20, 20]}])
    changed = (drawn != bare).any(axis=2)
    assert changed[:, :margin].any()
    assert not changed[:, margin + 20 :].any()


@pytest.mark.parametrize(
    "annotation",
    [
        {},
        {"bbox": None, "segmentation": "x"},
        {"bbox": [math.nan] * 4, "segmentation": [[]]},
        {"bbox": [1, 2], "segmentation": [[1, 2, 3], None, 7]},
        {"bbox": ["a"] * 4, "segmentation": {"size": [60, 100]}},
        {"segmentation": {"size": [60, 100], "counts": [3, -1]}},
        {"segmentation": {"size": [9, 9], "counts": "!"}},
    ],
)
def test_what_cannot_be_drawn_is_left_out(annotation):
    assert np.array_equal(draw_annotations(IMAGE, [annotation]), draw_annotations(IMAGE, []))


def test_an_object_keeps_its_colour_when_one_before_it_is_dropped():
    first, second = {"bbox": [5, 5, 20, 20]}, {"bbox": [50, 5, 20, 20]}
    both = draw_annotations(IMAGE, [first, second])
    alone = draw_annotations(IMAGE, [second], [1])
    assert np.array_equal(both[:, 60:], alone[:, 60:])
    assert not np.array_equal(both[:, 60:], draw_annotations(IMAGE, [second])[:, 60:])

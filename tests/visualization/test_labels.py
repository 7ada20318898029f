"""Labels: inside the picture, apart from each other, readable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persondet.visualization.labels import (
    MOST_OVERLAP,
    draw_plate,
    place_labels,
    plate_size,
    text_coverage,
)

PICTURE = (320, 180)
POINTS = st.tuples(st.floats(-20, 340), st.floats(-20, 200))
BOXES = st.lists(
    st.tuples(POINTS, POINTS).map(
        lambda p: [min(p[0][0], p[1][0]), min(p[0][1], p[1][1]), *np.maximum(*p)]
    ),
    max_size=15,
)


@given(BOXES, st.integers(10, 60), st.integers(8, 20))
def test_labels_lie_inside_the_picture_and_hardly_on_each_other(boxes, width, height):
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    taken = (0, 0, 80, 16)
    covered = np.zeros(PICTURE[::-1], dtype=int)
    covered[taken[1] : taken[3], taken[0] : taken[2]] = 1
    for placement in place_labels(boxes, [(width, height)] * len(boxes), PICTURE, [taken]):
        x, y = placement.corner
        assert 0 <= x <= PICTURE[0] - width
        assert 0 <= y <= PICTURE[1] - height
        place = covered[y : y + height, x : x + width]
        assert place.sum() < MOST_OVERLAP * width * height or not place.any()
        place += 1


def test_a_lonely_label_sits_on_its_box_and_the_first_choose_first():
    box = np.array([[100.0, 100.0, 140.0, 150.0]])
    (placement,) = place_labels(box, [(50, 12)], PICTURE)
    assert placement.corner == (100, 88)
    same = place_labels(np.repeat(box, 3, axis=0), [(50, 12)] * 3, PICTURE)
    assert same[0].corner == (100, 88)
    assert len({placement.corner for placement in same}) == 3


def test_a_label_without_a_place_is_left_out():
    boxes = np.repeat([[5.0, 5.0, 20.0, 15.0]], 60, axis=0)
    placements = place_labels(boxes, [(50, 12)] * 60, (60, 30))
    assert next(placement.number for placement in placements) == 0
    assert len(placements) < 5


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

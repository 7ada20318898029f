"""Labels: what they say, how they look, and where they go."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.visualization.labels import (
    SCORE_SLACK,
    LabelLayout,
    ShownScores,
    draw_plate,
    plate_size,
)


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
        share = (image[changed] == (0, 159, 230)).all(axis=1).mean()
        assert 0.5 < share < 0.95  # the plate, and dark letters on it
        assert image[changed].min() < 60


IMAGE = (320, 180)
LONG, SHORT = (60, 14), (20, 14)
POINTS = st.tuples(st.floats(-20, 340), st.floats(-20, 200))
BOXES = st.lists(
    st.tuples(POINTS, POINTS).map(lambda p: [*np.minimum(*p), *np.maximum(*p)]), max_size=12
)


def place(layout, boxes, *, keys=None, sizes=(LONG, SHORT), taken=()):
    """Return {key: (version, corner)} of one frame's labels."""
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    keys = range(len(boxes)) if keys is None else keys
    found = layout.place(list(keys), boxes, [sizes] * len(boxes), IMAGE, taken)
    return {list(keys)[number]: (version, corner) for number, version, corner in found}


@settings(max_examples=25)
@given(st.lists(BOXES, min_size=1, max_size=5), st.integers(10, 90), st.integers(8, 30))
def test_labels_lie_inside_the_image_and_share_no_pixel_in_any_frame(frames, width, height):
    layout, taken = LabelLayout(), (0, 0, 80, 16)
    sizes = ((width, height), (width // 2, height))
    for boxes in frames:
        covered = np.zeros(IMAGE[::-1], dtype=int)
        covered[taken[1] : taken[3], taken[0] : taken[2]] = 1
        for version, (x, y) in place(layout, boxes, sizes=sizes, taken=[taken]).values():
            wide, high = sizes[version]
            assert 0 <= x <= IMAGE[0] - wide
            assert 0 <= y <= IMAGE[1] - high
            covered[y : y + high, x : x + wide] += 1
        assert covered.max() == 1


def test_a_lonely_label_sits_on_its_box_and_the_first_choose_first():
    box = [100.0, 100.0, 140.0, 150.0]
    assert place(LabelLayout(), [box]) == {0: (0, (100, 86))}
    same = place(LabelLayout(), [box] * 3)
    assert same[0] == (0, (100, 86))
    assert len({corner for _, corner in same.values()}) == 3


def test_a_box_that_trembles_does_not_shake_its_label_and_one_that_walks_takes_it_along():
    layout, rng = LabelLayout(), np.random.default_rng(0)
    box = np.array([100.0, 80.0, 140.0, 160.0])
    corners = {place(layout, [box + rng.uniform(-0.6, 0.6, 4)])[0][1] for _ in range(50)}
    assert len(corners) == 1
    for step in range(60):
        now = box + [2 * step, 0, 2 * step, 0]
        (_, (x, y)) = place(layout, [now])[0]
        assert abs(x - min(now[0], IMAGE[0] - LONG[0])) <= 2
        assert abs(y - 66) <= 2


def test_two_who_pass_each_other_move_a_label_once_and_it_comes_back_once():
    layout, choices = LabelLayout(), []
    for step in range(120):
        still = [150.0, 80.0, 180.0, 160.0]
        walker = [20.0 + 2 * step, 80.0, 50.0 + 2 * step, 160.0]
        found = place(layout, [still, walker], keys="ab")
        assert set(found) == {"a", "b"}
        assert found["a"] == (0, (150, 66))  # it was there first
        (_, (x, y)) = found["b"]
        choices.append((round((x - walker[0]) / 10), round((y - walker[1]) / 10)))
    assert choices[0] == choices[-1]
    hops = sum(before != after for before, after in pairwise(choices))
    assert hops <= 6


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_a_shown_score_is_never_far_from_the_real_one(scores):
    shown = ShownScores()
    for score in scores:
        assert abs(shown.update(["a"], [score])[0] - score) <= SCORE_SLACK


def test_a_shown_score_does_not_tremble_and_belongs_to_its_person():
    shown, rng = ShownScores(), np.random.default_rng(0)
    near = [0.9 + rng.uniform(-0.01, 0.01) for _ in range(50)]
    seen = {tuple(shown.update("ab", [score, 0.5])) for score in near}
    assert len(seen) == 1
    assert shown.update("ba", [0.5, 0.7]) == [0.5, 0.7]
    # Forgotten with the person.
    shown.update("b", [0.5])
    assert shown.update("a", [0.71]) == [0.71]

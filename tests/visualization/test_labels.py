"""Labels: what they say, how they look, and where they go."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.visualization.labels import LabelLayout, ShownScores

IMAGE = (320, 180)
LONG, SHORT = (60, 14), (20, 14)
POINTS = st.tuples(st.floats(-20, 340), st.floats(-20, 200))
BOXES = st.lists(
    st.tuples(POINTS, POINTS).map(lambda p: [*np.minimum(*p), *np.maximum(*p)]), max_size=12
)


def place(layout, boxes, *, keys=range(12), sizes=(LONG, SHORT), taken=()):
    """Return {key: (version, corner)} of one frame's labels."""
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    found = layout.place(keys[: len(boxes)], boxes, [sizes] * len(boxes), IMAGE, taken)
    return {keys[number]: (version, corner) for number, version, corner in found}


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


def test_two_who_pass_each_other_move_a_label_once_and_it_comes_back_once():
    layout, choices = LabelLayout(), []
    for step in range(120):
        still = [150.0, 80.0, 180.0, 160.0]
        walker = [20.0 + 2 * step, 80.0, 50.0 + 2 * step, 160.0]
        found = place(layout, [still, walker], keys="ab")
        assert set(found) == {"a", "b"}
        assert found["a"] == (0, (150, 66))  # it was there first
        (_, corner) = found["b"]
        # Where it sits on the walker, in steps of ten pixels.
        choices.append(tuple(np.subtract(corner, walker[:2]).round(-1)))
    assert choices[0] == choices[-1]
    assert sum(before != after for before, after in pairwise(choices)) <= 6


def test_a_shown_score_does_not_tremble_and_belongs_to_its_person():
    shown = ShownScores()
    assert [shown.update("ab", [score, 0.5]) for score in (0.9, 0.91, 0.89)] == [[0.9, 0.5]] * 3
    assert shown.update("ba", [0.5, 0.7]) == [0.5, 0.7]
    assert shown.update("b", [0.7]) == [0.7]
    assert shown.update("a", [0.51]) == [0.51]  # forgotten with the person

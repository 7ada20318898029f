"""Places of labels: inside, apart, off people's heads, and still from frame to frame."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.visualization.labels import HEAD, REMEMBERED, SETTLED, LabelLayout

PICTURE = (320, 180)
LONG, SHORT = (60, 14), (20, 14)
POINTS = st.tuples(st.floats(-20, 340), st.floats(-20, 200))
BOXES = st.lists(
    st.tuples(POINTS, POINTS).map(
        lambda p: [min(p[0][0], p[1][0]), min(p[0][1], p[1][1]), *np.maximum(*p)]
    ),
    max_size=12,
)


def place(layout, boxes, *, keys=None, sizes=(LONG, SHORT), picture=PICTURE, taken=()):
    """Return {key: (version, corner)} of one frame's labels."""
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    keys = range(len(boxes)) if keys is None else keys
    found = layout.place(list(keys), boxes, [sizes] * len(boxes), picture, taken)
    return {list(keys)[one.number]: (one.version, one.corner) for one in found}


@settings(max_examples=40)
@given(st.lists(BOXES, min_size=1, max_size=5), st.integers(10, 90), st.integers(8, 30))
def test_labels_lie_inside_the_image_and_share_no_pixel_in_any_frame(frames, width, height):
    layout, taken = LabelLayout(), (0, 0, 80, 16)
    sizes = ((width, height), (width // 2, height))
    for boxes in frames:
        covered = np.zeros(PICTURE[::-1], dtype=int)
        covered[taken[1] : taken[3], taken[0] : taken[2]] = 1
        for version, (x, y) in place(layout, boxes, sizes=sizes, taken=[taken]).values():
            wide, high = sizes[version]
            assert 0 <= x <= PICTURE[0] - wide
            assert 0 <= y <= PICTURE[1] - high
            covered[y : y + high, x : x + wide] += 1
        assert covered.max() == 1


def test_a_lonely_label_sits_on_its_box_and_the_first_choose_first():
    box = [100.0, 100.0, 140.0, 150.0]
    assert place(LabelLayout(), [box]) == {0: (0, (100, 86))}
    same = place(LabelLayout(), [box] * 3)
    assert same[0] == (0, (100, 86))
    assert len({corner for _, corner in same.values()}) == 3


def test_a_label_that_finds_no_room_is_short_and_then_left_out():
    boxes = np.repeat([[30.0, 16.0, 40.0, 40.0]], 60, axis=0)
    found = place(LabelLayout(), boxes, picture=(90, 40))
    assert found[0][0] == 0
    assert {version for version, _ in found.values()} == {0, 1}
    assert len(found) < 12
    assert place(LabelLayout(), boxes[:1], picture=(10, 10)) == {}


def test_labels_stay_off_the_heads_of_others_where_they_can():
    behind, before = [100.0, 60.0, 130.0, 160.0], [140.0, 76.0, 170.0, 176.0]
    # Above its box, on the left, the label of the nearer one would lie on the other's head.
    (_, (x, y)) = place(LabelLayout(), [before, [160.0, 60.0, 190.0, 160.0]])[0]
    head = (160, 60, 190, 60 + HEAD * 100)
    assert x >= head[2] or x + LONG[0] <= head[0] or y >= head[3] or y + LONG[1] <= head[1]
    # And of a box that reaches the upper border, at the top of which it would hide its own.
    (_, (x, y)) = place(LabelLayout(), [[100.0, 0.0, 140.0, 100.0]])[0]
    assert y >= HEAD * 100
    assert place(LabelLayout(), [behind])[0] == (0, (100, 46))


def test_a_box_that_trembles_does_not_shake_its_label_and_one_that_walks_takes_it_along():
    layout, rng = LabelLayout(), np.random.default_rng(0)
    box = np.array([100.0, 80.0, 140.0, 160.0])
    corners = {place(layout, [box + rng.uniform(-0.6, 0.6, 4)])[0][1] for _ in range(50)}
    assert len(corners) == 1
    for step in range(60):
        now = box + [2 * step, 0, 2 * step, 0]
        (_, (x, y)) = place(layout, [now])[0]
        assert abs(x - min(now[0], PICTURE[0] - LONG[0])) <= 2
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


def test_a_better_place_is_taken_when_it_has_been_free_for_a_while():
    layout, box = LabelLayout(), [100.0, 60.0, 140.0, 160.0]
    usual = place(layout, [box])[0]
    taken = [(100, 40, 110, 60)]
    aside = place(layout, [box], taken=taken)[0]
    assert aside != usual
    for _ in range(SETTLED - 1):
        assert place(layout, [box])[0] == aside
    assert place(layout, [box])[0] == usual
    assert place(layout, [box])[0] == usual


def test_a_place_that_is_free_now_and_then_is_not_jumped_at():
    layout, box = LabelLayout(), [100.0, 60.0, 140.0, 160.0]
    place(layout, [box])
    seen = set()
    for frame in range(60):
        taken = [(100, 40, 110, 60)] if frame % 5 == 0 else []
        seen.add(place(layout, [box], taken=taken)[0])
    assert len(seen) == 1  # where it went when the first was taken


def test_a_label_without_a_place_does_not_flicker():
    layout, box, wall = LabelLayout(), [100.0, 60.0, 140.0, 160.0], [(0, 0, *PICTURE)]
    assert place(layout, [box]) != {}
    seen = [bool(place(layout, [box], taken=wall if f % 3 == 0 else ())) for f in range(30)]
    assert not any(seen)
    again = [bool(place(layout, [box])) for _ in range(SETTLED)]
    assert again[-1]
    assert sum(before != after for before, after in pairwise(again)) <= 1


def test_a_person_who_is_missed_for_a_moment_finds_the_label_where_it_was():
    layout, box = LabelLayout(), [100.0, 60.0, 140.0, 160.0]
    place(layout, [box])
    aside = place(layout, [box], taken=[(100, 40, 110, 60)])[0]
    for _ in range(REMEMBERED - 1):
        place(layout, [])
    assert place(layout, [box])[0] == aside
    for _ in range(REMEMBERED + 1):
        place(layout, [])
    assert place(layout, [box])[0] == (0, (100, 46))


def test_the_memory_holds_those_of_the_last_moment_only():
    layout = LabelLayout()
    for frame in range(500):
        place(layout, [[100.0, 60.0, 140.0, 160.0]], keys=[frame])
    assert len(layout._labels) <= REMEMBERED + 1


@pytest.mark.parametrize("turn", [1, -1])
def test_the_order_of_the_input_moves_no_label_that_has_its_place(turn):
    layout = LabelLayout()
    boxes = {"a": [100.0, 80.0, 140.0, 160.0], "b": [120.0, 82.0, 150.0, 165.0]}
    first = place(layout, list(boxes.values()), keys=list(boxes))
    for _ in range(5):
        keys = list(boxes)[::turn]
        assert place(layout, [boxes[key] for key in keys], keys=keys) == first


def test_a_newcomer_looks_for_another_place_however_sure_the_model_is():
    layout, there = LabelLayout(), [100.0, 80.0, 140.0, 160.0]
    first = place(layout, [there], keys="a")["a"]
    found = place(layout, [[101.0, 81.0, 141.0, 161.0], there], keys="ba")
    assert found["a"] == first
    assert found["b"][1] != first[1]

"""Colours: stable for the same person, different for people side by side."""

from __future__ import annotations

import numpy as np

from persondet.visualization.colors import PATIENCE, ColorAssigner, box_iou
from persondet.visualization.drawing import PALETTE

LABELS = np.zeros(2, dtype=int)


def walkers(step):
    """Two people who walk towards each other, 3 pixels a frame."""
    left, right = 10 + 3 * step, 300 - 3 * step
    return np.array([[left, 50, left + 30, 120], [right, 20, right + 30, 90.0]])


def test_box_iou_known_answers():
    first = np.array([[0, 0, 10, 10], [5, 5, 5, 5.0]])
    second = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [5, 5, 5, 5.0]])
    assert np.allclose(box_iou(first, second), [[1, 1 / 3, 0, 0], [0, 0, 0, 0]])


def test_people_keep_their_colours_whatever_their_order():
    colors = ColorAssigner()
    first = colors.by_overlap(walkers(0), LABELS)
    assert len(set(first)) == 2
    for step in range(1, 30):
        now = colors.by_overlap(walkers(step)[::-1], LABELS)
        assert now[::-1] == first


def test_a_person_who_is_missed_for_a_while_keeps_the_colour():
    colors = ColorAssigner()
    first = colors.by_overlap(walkers(0), LABELS)
    for _ in range(PATIENCE):
        assert colors.by_overlap(walkers(0)[:1], LABELS[:1]) == first[:1]
    assert colors.by_overlap(walkers(0), LABELS) == first


def test_another_class_is_another_person():
    colors = ColorAssigner()
    box = walkers(0)[:1]
    (first,) = colors.by_overlap(box, np.array([0]))
    (second,) = colors.by_overlap(box, np.array([1]))
    assert first != second


def test_as_many_people_as_colours_are_all_different():
    boxes = np.array([[40 * n, 0, 40 * n + 30, 60] for n in range(len(PALETTE))], dtype=float)
    numbers = ColorAssigner().by_overlap(boxes, np.zeros(len(boxes), dtype=int))
    assert sorted(numbers) == list(range(len(PALETTE)))


def test_more_people_than_colours_share_with_those_far_away():
    boxes = np.array([[40 * n, 0, 40 * n + 30, 60] for n in range(len(PALETTE) + 2)], dtype=float)
    numbers = ColorAssigner().by_overlap(boxes, np.zeros(len(boxes), dtype=int))
    assert sorted(numbers[: len(PALETTE)]) == list(range(len(PALETTE)))
    # The eighth person stands farthest from the first, the ninth then from the second.
    assert numbers[len(PALETTE) :] == numbers[:2]


def test_tracks_keep_their_colour_for_good():
    colors = ColorAssigner()
    boxes = np.array([[40 * n, 0, 40 * n + 30, 60] for n in range(3)], dtype=float)
    first = dict(zip("abc", colors.by_track("abc", boxes), strict=True))
    assert len(set(first.values())) == 3
    for _ in range(100):
        colors.by_track("bx", boxes[:2])
    assert colors.by_track("cba", boxes) == [first[name] for name in "cba"]


def test_a_newcomer_does_not_get_the_colour_of_a_track_that_will_be_back():
    colors = ColorAssigner()
    boxes = np.array([[40 * n, 0, 40 * n + 30, 60] for n in range(3)], dtype=float)
    first = colors.by_track("ab", boxes[:2])
    (newcomer,) = colors.by_track("c", boxes[2:])
    assert newcomer not in first
    assert colors.by_track("abc", boxes) == [*first, newcomer]


def test_who_is_who_has_a_name_that_stays():
    colors = ColorAssigner()
    colors.by_overlap(walkers(0), LABELS)
    names = colors.keys
    assert len(set(names)) == 2
    colors.by_overlap(walkers(1)[::-1], LABELS)
    assert colors.keys == names[::-1]
    colors.by_overlap(np.array([[500.0, 0, 520, 60]]), LABELS[:1])
    assert colors.keys[0] not in names
    colors.by_track([7, 5], walkers(2))
    assert colors.keys == [7, 5]


def test_a_busy_street_fills_no_memory(monkeypatch):
    monkeypatch.setattr("persondet.visualization.colors.MOST_TRACKS", 50)
    colors = ColorAssigner()
    for frame in range(200):
        colors.by_track([frame, -1], walkers(0))
    assert len(colors._by_track) == 50
    assert -1 in colors._by_track


def test_colours_of_those_who_are_away_are_given_out_last_and_far_from_where_they_were():
    boxes = np.array([[40 * n, 0, 40 * n + 30, 60] for n in range(len(PALETTE))], dtype=float)
    colors = ColorAssigner()
    first = colors.by_track(range(len(PALETTE)), boxes)
    colors.by_track([0, 1, 2], boxes[:3])  # the others are hidden for a moment
    # Beside the fourth, who will be back: the colour of the one who is farthest away of the
    # hidden, and none that is in view.
    (newcomer,) = colors.by_track([0, 1, 2, 9], np.concatenate([boxes[:3], boxes[3:4] + 5]))[3:]
    assert newcomer == first[-1]


def test_with_everybody_in_view_those_who_are_away_count_as_neighbours():
    places = [*range(len(PALETTE)), 20]
    boxes = np.array([[40 * n, 0, 40 * n + 30, 60] for n in places], dtype=float)
    colors = ColorAssigner()
    first = colors.by_track(range(len(boxes)), boxes)
    assert first[-1] == first[0]  # the eighth, far to the right, shares with the leftmost
    colors.by_track(range(len(PALETTE)), boxes[:-1])
    # Beside the eighth, who is hidden: not the leftmost's colour again, but the next one's.
    beside = np.concatenate([boxes[:-1], boxes[-1:] + 10])
    assert colors.by_track([*range(len(PALETTE)), 99], beside)[-1] == first[1]


def test_by_overlap_those_who_are_away_count_as_neighbours_too():
    places = [*range(len(PALETTE)), 20]
    boxes = np.array([[40 * n, 0, 40 * n + 30, 60] for n in places], dtype=float)
    labels = np.zeros(len(boxes), dtype=int)
    colors = ColorAssigner()
    first = colors.by_overlap(boxes, labels)
    colors.by_overlap(boxes[:-1], labels[:-1])
    beside = np.concatenate([boxes[:-1], boxes[-1:] + 25])  # overlaps too little to be the same
    assert colors.by_overlap(beside, labels)[-1] == first[1]

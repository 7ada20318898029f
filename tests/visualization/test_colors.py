"""Colours: stable for the same person, different for people side by side."""

import numpy as np

from persondet.visualization.colors import ColorAssigner
from persondet.visualization.drawing import PALETTE

LABELS = np.zeros(2, dtype=int)


def walkers(step):
    """Two people who walk towards each other, 3 pixels a frame."""
    left, right = 10 + 3 * step, 300 - 3 * step
    return np.array([[left, 50, left + 30, 120], [right, 20, right + 30, 90.0]])


def test_people_keep_their_colours_whatever_their_order():
    colors = ColorAssigner()
    first = colors.by_overlap(walkers(0), LABELS)
    assert len(set(first)) == 2
    for step in range(1, 30):
        now = colors.by_overlap(walkers(step)[::-1], LABELS)
        assert now[::-1] == first


def test_as_many_people_as_colours_are_all_different():
    boxes = np.array([[40 * n, 0, 40 * n + 30, 60] for n in range(len(PALETTE))], dtype=float)
    numbers = ColorAssigner().by_overlap(boxes, np.zeros(len(boxes), dtype=int))
    assert sorted(numbers) == list(range(len(PALETTE)))


def test_tracks_keep_their_colour_for_good():
    colors = ColorAssigner()
    boxes = np.array([[40 * n, 0, 40 * n + 30, 60] for n in range(3)], dtype=float)
    first = dict(zip("abc", colors.by_track("abc", boxes), strict=True))
    assert len(set(first.values())) == 3
    for _ in range(100):
        colors.by_track("bx", boxes[:2])
    assert colors.by_track("cba", boxes) == [first[name] for name in "cba"]


def test_a_busy_street_fills_no_memory(monkeypatch):
    monkeypatch.setattr("persondet.visualization.colors.MOST_TRACKS", 50)
    colors = ColorAssigner()
    for frame in range(200):
        colors.by_track([frame, -1], walkers(0))
    assert len(colors._by_track) == 50
    assert -1 in colors._by_track

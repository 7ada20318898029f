"""Visits, how many people there are at once, and ways on the ground."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import Polygon, contains_xy

from persondet.analysis.movement import heat, walks
from persondet.analysis.tracks import Clock
from persondet.analysis.visits import at_least, inside, visits
from tests.analysis.walkers import at_rate, tracks

ZONE = np.array([[100.0, 100.0], [400.0, 100.0], [400.0, 300.0], [100.0, 300.0]])
VARIABLE = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.15, 100))


def through(t):
    return (50 + 100 * t, 200.0)  # inside from 0.5 to 3.5 seconds


@pytest.mark.parametrize("times", [*(at_rate(r, 6) for r in (2, 5, 25, 60)), VARIABLE])
def test_a_visit_takes_as_long_as_it_does_within_a_frame(times):
    found = visits(tracks([through], times).confirmed(), ZONE, 0.5)
    step = np.diff(times).max()
    assert found.dwell == pytest.approx([3.0], abs=step)
    assert found.enter == pytest.approx([0.5], abs=step)


@pytest.mark.parametrize(("lost", "expected"), [(0.45, 1), (0.7, 2)])
@pytest.mark.parametrize("outside", [False, True])
def test_a_short_loss_does_not_end_a_visit(lost, expected, outside):
    def way(t):
        away = 1.9 < t < 1.9 + lost
        return ((250.0, 40.0) if outside else None) if away else (250.0, 200.0)

    found = visits(tracks([way], at_rate(25, 5)).confirmed(), ZONE, 0.5)
    assert len(found.dwell) == expected
    assert found.leave[-1] == pytest.approx(5.0)


def test_people_at_once_and_for_how_long():
    ways = [through, lambda t: (250.0, 200.0), lambda t: (250.0, 50.0)]
    people = tracks(ways, at_rate(25, 6)).confirmed()
    occupied = visits(people, ZONE, 0.5).occupancy(people.clock)
    assert (occupied[0], occupied[25], occupied[-1]) == (1, 2, 1)
    assert at_least(occupied, people.clock) == pytest.approx([6, 6, 3], abs=0.05)


def test_a_hole_in_the_clip_belongs_to_no_frame():
    clock = Clock(np.array([0, 0.04, 0.08, 20.0, 20.04]), np.arange(5))
    assert clock.until == pytest.approx([0.04, 0.08, 0.58, 20.04, 20.08])
    assert clock.seconds == pytest.approx(0.66)


@pytest.mark.slow
@settings(max_examples=60, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=3, max_size=8),
    st.integers(0, 1000),
)
def test_who_is_inside_is_what_shapely_says(corners, seed):
    polygon = Polygon(corners)
    if polygon.is_valid:
        places = np.random.default_rng(seed).uniform(-2, 22, (50, 2)).astype(np.float32)
        said = contains_xy(polygon, places)
        assert inside(places, np.array(corners, np.float64)).tolist() == said.tolist()


def test_speed_and_way_by_the_homography_and_heat_in_seconds():
    matrix = np.diag([0.01, 0.01, 1.0])  # a hundred pixels are a metre
    rng = np.random.default_rng(0)

    def trembling(t):
        return tuple(np.array([50 + 90 * t, 200]) + rng.normal(0, 2, 2))

    people = tracks([trembling, lambda t: (300.0, 100.0)], at_rate(25, 6)).confirmed()
    found = walks(people, matrix)
    assert found.mean == pytest.approx([0.9, 0.0], abs=0.03)
    assert found.metres == pytest.approx([4.5, 0.0], abs=0.1)  # over five whole seconds
    assert found.top == pytest.approx([0.9, 0.0], abs=0.06)
    warm = heat(people, 640, 360, 10)
    assert warm.shape == (36, 64)
    assert warm.sum() == pytest.approx(12.0) and warm[10, 30] == pytest.approx(6.0)

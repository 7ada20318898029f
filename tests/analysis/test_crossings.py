"""Who crosses a line: known ways at every rate, and the same counts while the clip goes on."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.analysis.areas import Areas, Line, distance
from persondet.analysis.crossings import crossings, steps_across, stock_counts
from persondet.analysis.live import LiveAreas
from persondet.analysis.tracks import tracks_of
from tests.analysis.walkers import HEADER, HEIGHT, WIDTH, at_rate, frames_of, person, tracks

ACROSS = np.array([[100.0, 200.0], [500.0, 200.0]])  # `in` is downwards


def down(speed, begin=100.0, x=300.0):
    return lambda t: (x, begin + speed * t)


def there_and_back(deepest, turn=2.0):
    return lambda t: (300.0, deepest - 40 * abs(t - turn))


def swaying(t):
    return (300.0, 200 + 3 * math.sin(9 * t))


def gap(way, begin, end):
    return lambda t: None if begin < t < end else way(t)


def counts(way, times):
    return crossings(tracks([way], times).confirmed(), ACROSS)[0].counts


RATES = [at_rate(rate, 6) for rate in (2, 5, 12.5, 25, 60)]
RATES += [at_rate(25, 6)[::3], np.cumsum(np.random.default_rng(0).uniform(0.01, 0.15, 75))]


@pytest.mark.parametrize("times", RATES)
@pytest.mark.parametrize(
    ("way", "expected"),
    [
        (down(40), (1, 0)),
        (down(-40, 300), (0, 1)),
        (down(40, x=550), (0, 0)),  # past the end of the line
        (there_and_back(196), (0, 0)),  # turns back before the line
        (there_and_back(206), (0, 0)),  # turns back on it
        (swaying, (0, 0)),  # stands on it
        (gap(down(40), 1.6, 3.4), (1, 0)),  # hidden at the line
        (lambda t: (300.0, min(100 + 50 * t, 201 + 0.5 * t)), (0, 0)),  # comes and stays on it
        (lambda t: (300.0, 203 + 30 * max(0.0, t - 3)), (0, 0)),  # stood on it, and goes on
    ],
)
def test_known_ways_count_the_same_at_every_rate(way, expected, times):
    assert counts(way, times) == expected


def test_a_crossing_has_the_moment_at_which_the_feet_are_on_the_line():
    for times in RATES:
        found, left = crossings(tracks([down(40)], times).confirmed(), ACROSS)
        assert found.times == pytest.approx([2.5], abs=1e-3)
        assert times[found.frames[0] - 1] <= 2.5 <= times[found.frames[0]] + 1e-9
        assert found.tracks.tolist() == [1] and left[0] >= 5


def test_who_walks_out_of_view_just_behind_the_line_counts_and_who_stays_there_does_not():
    leaves, stays = down(40, 95), lambda t: (300.0, min(95 + 40 * t, 203.0))
    for way, expected in ((leaves, (1, 0)), (stays, (0, 0))):
        assert (
            counts(lambda t, way=way: way(t) if t < 2.75 or way is stays else None, at_rate(25, 6))
            == expected
        )
    walk = down(40, 100)
    assert counts(lambda t: None if t < 2.35 else walk(t), at_rate(25, 6)) == (1, 0)


def test_a_false_alarm_is_no_person_and_stock_counting_takes_it_for_one():
    rng = np.random.default_rng(1)
    frames = frames_of([down(40)], at_rate(25, 6))
    for number in range(30):  # two sightings each, on both sides of the line
        for k, y in ((4 * number, 190.0), (4 * number + 1, 290.0)):
            alarm = person(100 + number, float(rng.uniform(150, 450)), y)
            frames[k] = type(frames[k])(
                frames[k].index, frames[k].time, (*frames[k].people, alarm), 1
            )
    every = tracks_of(frames, HEADER, None, "walk.jsonl")
    assert len(every) == 31 and len(every.confirmed()) == 1
    assert crossings(every.confirmed(), ACROSS)[0].counts == (1, 0)
    assert sum(stock_counts(every, ACROSS)) > 20


@pytest.mark.parametrize("after", [0.04, 0.4])
def test_a_false_alarm_that_takes_over_a_track_that_ends_crosses_nothing(after):
    times = at_rate(25, 6)
    walk = down(40, 60)  # to 50 pixels before the line, and away over it as the tracker has it
    last = next(k for k, t in enumerate(times) if t > 2.2 + after)
    frames = frames_of([gap(walk, 2.2, 99)], times)
    alarm = person(1, 320.0, 225.0, 60.0)
    frames[last] = type(frames[last])(last, frames[last].time, (alarm,), 1)
    people = tracks_of(frames, HEADER, None, "walk.jsonl").confirmed()
    assert crossings(people, ACROSS)[0].counts == (0, 0)
    backwards = [
        type(f)(k, float(times[k]), frames[-1 - k].people, 1) for k, f in enumerate(frames)
    ]
    people = tracks_of(backwards, HEADER, None, "walk.jsonl").confirmed()
    assert crossings(people, ACROSS)[0].counts == (0, 0)


def test_legs_behind_a_wall_are_not_on_the_other_side():
    def hidden(n, t):
        x, cut = 150 + 50 * t, 50.0 if 1.5 < t < 3.5 else 0.0  # walks along, below the line
        one = person(n, x, 230.0)
        return type(one)((*one.box[:3], one.box[3] - cut), 0.9, "person", None, n)

    times = at_rate(25, 6)
    frames = [type(f)(f.index, f.time, (hidden(1, f.time),), 1) for f in frames_of([], times)]
    people = tracks_of(frames, HEADER, None, "walk.jsonl").confirmed()
    assert people.feet[:, 1].min() == 180
    assert people.walked[:, 1].min() == pytest.approx(230, abs=0.01)
    assert crossings(people, ACROSS)[0].counts == (0, 0)


BENT = np.array([[100.0, 200.0], [300.0, 240.0], [320.0, 120.0], [560.0, 180.0]])


@pytest.mark.slow
@settings(max_examples=60, derandomize=True)
@given(
    st.lists(st.tuples(*[st.integers(0, 12)] * 2), min_size=2, max_size=12),
    st.lists(st.tuples(*[st.integers(0, 12)] * 2), min_size=2, max_size=4, unique=True),
)
def test_a_closed_way_crosses_a_line_that_divides_the_frame_as_often_in_as_out(way, line):
    """Places on a coarse grid hit bends and ends of the line exactly; the ends lie far outside."""
    line = sorted(line)
    points = np.array([(-1000, line[0][1]), *line, (1000, line[-1][1])], np.float64)
    feet = np.array([*way, way[0]], np.float32)
    steps = steps_across(feet, np.zeros(len(feet), np.int32), points)
    assert steps.sum() == 0


def test_the_distance_is_that_to_the_nearest_point_of_the_line():
    places = np.random.default_rng(2).uniform(0, 600, (200, 2)).astype(np.float32)
    share = np.linspace(0, 1, 2001)[:, None]
    dense = np.concatenate([a + share * (b - a) for a, b in itertools.pairwise(BENT)])
    nearest = np.hypot(*np.moveaxis(places[:, None] - dense, -1, 0)).min(axis=1)
    assert distance(places, BENT) == pytest.approx(nearest, abs=0.1)


def wandering(seed, step, frames=240, people=6):
    """Frames of people who wander about, with missing boxes, trembling, and new numbers."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.3, 1.7, frames) * step)
    place, speed = rng.uniform([100, 100], [500, 300], (people, 2)), rng.normal(0, 60, (people, 2))
    found = []
    for k, time in enumerate(times):
        speed += rng.normal(0, 60 * np.sqrt(step), (people, 2)) - 0.3 * step * speed
        place = place + step * speed
        speed = np.where(
            (place < 60) & (speed < 0) | (place > [600, 350]) & (speed > 0), -speed, speed
        )
        shown = place + rng.normal(0, 1.5, (people, 2))
        numbers = [n + (100 * (k // 80) if n % 2 else 0) for n in range(1, people + 1)]
        seen = rng.random(people) > 0.2
        rows = zip(numbers, shown.tolist(), seen, strict=True)
        cut = 30.0 if k % 90 > 60 else 0.0
        found.append(
            (k, float(time), [person(n, x, y - cut, 80 - cut) for n, (x, y), s in rows if s])
        )
    return [type(frames_of([], [0.0])[0])(k, t, tuple(people), None) for k, t, people in found]


@pytest.mark.slow
@pytest.mark.parametrize("step", [1 / 60, 0.04, 0.1, 0.2, 0.5])
def test_the_counts_while_the_clip_goes_on_end_as_those_of_the_whole_clip(step):
    frames = wandering(3, step)
    whole = crossings(tracks_of(frames, HEADER, None, "x").confirmed(), BENT)[0]
    live = LiveAreas(Areas((Line("bent", BENT),)), WIDTH, HEIGHT)
    for frame in frames:
        live.update(frame.people, frame.time)
    live.update((), frames[-1].time + 10)
    assert tuple(live.counts[0]) == whole.counts
    assert sum(whole.counts) > 0
    assert len(live._times) == 1  # nothing is kept

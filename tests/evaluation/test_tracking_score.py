"""Scores of tracks: known answers, every assignment tried, and who does not count."""

import json
import math
from itertools import permutations
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.errors import MediaError
from persondet.inference.tracking_score import read_truth, score_tracks, tracked_frames

PLACES = {"a": (0, 0, 40, 80), "b": (100, 0, 140, 80), "c": (200, 0, 240, 80)}


def frame(**people):
    """Return a frame: place = number."""
    return [{"box": PLACES[place], "track_id": number} for place, number in people.items()]


def test_perfect_tracks():
    truth = [frame(a=1, b=2)] * 10
    score = score_tracks([frame(a=30, b=7)] * 10, truth)
    assert (score.mota, score.idf1, score.hota, score.deta, score.assa) == (1, 1, 1, 1, 1)
    assert (score.switches, score.fragments, score.misses, score.false_alarms) == (0, 0, 0, 0)
    assert (score.frames, score.people, score.tracks) == (10, 2, 2)


def test_two_who_swap_their_numbers_half_way():
    truth = [frame(a=1, b=2)] * 20
    score = score_tracks([frame(a=1, b=2)] * 10 + [frame(a=2, b=1)] * 10, truth)
    assert score.switches == 2
    assert score.mota == pytest.approx(1 - 2 / 40)
    assert score.idf1 == pytest.approx(0.5)
    # Of each sighting's number and person 30 sightings in all, 10 together: AssA is a third.
    assert score.assa == pytest.approx(1 / 3)
    assert score.hota == pytest.approx(math.sqrt(1 / 3))


def test_somebody_who_is_lost_and_found_and_a_false_alarm():
    truth = [frame(a=1, b=2)] * 10
    found = [frame(a=5, b=7)] * 4 + [frame(b=7)] * 2 + [frame(a=5, b=7, c=6)]
    score = score_tracks([*found, *[frame(a=5, b=7)] * 3], truth)
    assert (score.fragments, score.switches, score.misses, score.false_alarms) == (1, 0, 2, 1)
    assert score.mota == pytest.approx(1 - 3 / 20)
    assert score.idf1 == pytest.approx(2 * 18 / (20 + 19))
    assert (score.people, score.tracks) == (2, 3)


def test_who_hardly_shows_is_neither_missed_nor_a_false_alarm():
    hidden = frame(a=1)[0] | {"visible_share": 0.19}
    shows = frame(b=2)[0] | {"visible_share": 0.2}
    tiny = {"box": (200, 0, 210, 23.5), "track_id": 3}
    truth = [[hidden, shows, tiny]] * 4
    score = score_tracks([frame(b=8)] * 4, truth)
    assert (score.mota, score.people, score.misses) == (1, 1, 0)
    found = [*frame(a=7, b=8), {"box": (200, 0, 210, 24), "track_id": 9}]
    score = score_tracks([found] * 4, truth)
    assert (score.mota, score.idf1, score.false_alarms, score.tracks) == (1, 1, 0, 1)
    assert score_tracks([found] * 4, truth, min_visible=0.1, min_height=23).people == 3


def test_a_box_is_right_from_an_overlap_of_one_half_on():
    truth = [frame(a=1)]
    for width, hits in ((81, 0), (79, 1)):
        score = score_tracks([[{"box": (0, 0, width, 80), "track_id": 1}]], truth)
        assert score.misses == 1 - hits
        assert score.false_alarms == 1 - hits


choices = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 3), max_size=3).filter(
        lambda people: len(set(people.values())) == len(people)
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=80, deadline=None)
@given(choices, choices)
def test_idf1_is_that_of_the_best_of_all_assignments(found, people):
    length = min(len(found), len(people))
    found, people = found[:length], people[:length]
    score = score_tracks([frame(**f) for f in found], [frame(**p) for p in people])
    pairs = [
        (people[n][place], found[n][place])
        for n in range(length)
        for place in people[n].keys() & found[n].keys()
    ]
    together = max(
        sum(chosen[number - 1] == track for number, track in pairs)
        for chosen in permutations((1, 2, 3))
    )
    total = sum(map(len, found)) + sum(map(len, people))
    assert score.idf1 == pytest.approx(2 * together / total if total else score.idf1)
    assert score.misses == sum(map(len, people)) - len(pairs)
    assert score.false_alarms == sum(map(len, found)) - len(pairs)


def test_the_two_kinds_of_ground_truth_say_the_same(tmp_path):
    people = [
        {"track_id": 4, "box": [10.0, 20.0, 50.0, 90.0], "visible_share": 0.5, "mask": {}},
        {"track_id": 5, "box": [0.0, 0.0, 5.0, 9.0], "visible_share": 1.0},
    ]
    frames = [{"index": 0, "people": people}, {"index": 1, "people": []}]
    ours, mot = tmp_path / "truth.json", tmp_path / "gt.txt"
    ours.write_text(json.dumps({"version": 1, "frames": [*frames, {"index": 2, "people": people}]}))
    lines = [f"{n},4,11,21,40,70,1,1,0.5\n{n},5,1,1,5,9\n" for n in (1, 3)]
    mot.write_text("".join(lines))
    assert read_truth(ours) == read_truth(mot) | {1: []}
    assert read_truth(ours)[2][0] == {
        **{"track_id": 4, "box": (10.0, 20.0, 50.0, 90.0), "visible_share": 0.5}
    }


@pytest.mark.parametrize(
    "content",
    [
        "1,1,1,1,40,80,1,1,1\n1,1,200,1,40,80,1,1,1\n",
        '{"frames": [{"index": 0, "people": [{"box": [0, 0, 9, 9], "track_id": 1}, '
        '{"box": [5, 0, 9, 9], "track_id": 1}]}]}',
    ],
)
def test_a_number_twice_in_a_frame_is_refused(content, tmp_path):
    path = tmp_path / "gt.txt"
    path.write_text(content)
    with pytest.raises(MediaError, match=r"the number 1 is there twice in frame 0 \(from 0\)"):
        read_truth(path)


@pytest.mark.parametrize(
    "content",
    [
        "0,1,1,1,40,80,1,1,1\n",
        "1,1,1,1,-40,80,1,1,1\n",
        "inf,1,1,1,40,80,1,1,1\n",
        '{"frames": [{"index": 0, "people": []}, {"index": 0, "people": []}]}',
        "",
        "{}",
        "[]",
        '{"frames": 3}',
        '{"frames": [{"index": 0}]}',
        "1,2,3\n",
        "a,b,c,d,e,f\n",
        '{"frames": [{"index": 0, "people": [{"box": [0, 0, 1], "track_id": 1}]}]}',
        '{"frames": [{"index": 0, "people": [{"box": [0, 0, 1, NaN], "track_id": 1}]}]}',
        '{"frames": [{"index": 0, "people": [7]}]}',
    ],
)
def test_what_is_no_ground_truth_is_refused_in_one_sentence(content, tmp_path):
    path = tmp_path / "truth.json"
    path.write_text(content)
    with pytest.raises(MediaError, match="no ground truth of a clip; give the json"):
        read_truth(path)


def record(index, *ids):
    people = tuple(SimpleNamespace(box=(0.0, 0, 1, 1), track_id=number) for number in ids)
    return SimpleNamespace(index=index, people=people)


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([record(4, 1)], "frame 4 is not in the ground truth, which ends with 3"),
        ([record(0, None)], "without --no-tracking"),
        ([record(1, 1), record(1, 1)], "frame 1 comes after frame 1, so these are no records of"),
        ([record(2, 1), record(1, 1)], "frame 1 comes after frame 2"),
        ([record(2, 4, 7, 4)], "frame 2 has the track 4 twice"),
        ([], "no frame to score"),
    ],
)
def test_records_that_cannot_be_scored(frames, says):
    with pytest.raises(MediaError, match=says):
        tracked_frames(frames, {3: frame(a=1)}, "walk.jsonl")

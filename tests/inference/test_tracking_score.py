"""Scores of tracks: known answers, every assignment tried, and people who do not count."""

from __future__ import annotations

import json
import math
from itertools import permutations
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.errors import MediaError
from persondet.inference.tracking_score import (
    MotGroundTruth,
    read_ground_truth,
    score_tracks,
    tracked_frames,
)

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


def test_nothing_found_and_nobody_there():
    missed = score_tracks([[]] * 3, [frame(a=1)] * 3)
    assert (missed.mota, missed.idf1, missed.hota, missed.misses) == (0, 0, 0, 3)
    invented = score_tracks([frame(a=1)] * 3, [[]] * 3)
    assert (invented.idf1, invented.false_alarms, invented.people) == (0, 3, 0)


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
    assert read_ground_truth(ours) == read_ground_truth(mot) | {1: []}
    assert read_ground_truth(ours)[2][0] == {
        **{"track_id": 4, "box": (10.0, 20.0, 50.0, 90.0), "visible_share": 0.5}
    }


@pytest.mark.parametrize(
    ("content", "shares"),
    [
        # Not to count, another class than pedestrian, counts.
        (
            "1,1,1,1,40,80,0,1,1\n1,2,1,1,40,80,1,7,1\n1,3,101,1,40,80,1,1,1\n",
            [-1, -1, 1],
        ),
        ("1,1,1,1,40,80,1,1,-1\n", [1]),  # visibility unknown
        ("\ufeff1,1,1,1,40,80,1,1,1\n", [1]),  # a byte order mark
        ("1,1,1,1,40,80,1,1,1\n1,1,200,1,40,80,0,8,1\n", [1, -1]),  # the same number
    ],
)
def test_rows_of_mot_challenge_ground_truth(content, shares, tmp_path):
    (tmp_path / "gt.txt").write_text(content, encoding="utf-8")
    truth = read_ground_truth(tmp_path / "gt.txt")
    assert [person["visible_share"] for person in truth[0]] == shares
    for least in (0.0, 0.2):
        assert score_tracks([[]], [truth[0]], min_visible=least).misses == shares.count(1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("1,1,1,1,40,80,0.9,-1,-1,-1\n", "nobody in it is to be counted"),  # a tracker's result
        (
            "1,1,1,1,40,80,1,1,1\n1,1,200,1,40,80,1,1,1\n",
            r"the number 1 is there twice in frame 0 \(from 0\)",
        ),
        (
            '{"frames": [{"index": 0, "people": [{"box": [0, 0, 9, 9], "track_id": 1}, '
            '{"box": [5, 0, 9, 9], "track_id": 1}]}]}',
            "the number 1 is there twice",
        ),
        *(
            (content, "no ground truth of a clip; give the json")
            for content in (
                "0,1,1,1,40,80,1,1,1\n",
                "1,1,1,1,-40,80,1,1,1\n",
                "inf,1,1,1,40,80,1,1,1\n",
                '{"frames": [{"index": 0, "people": []}, {"index": 0, "people": []}]}',
                "",
                "{}",
                '{"frames": 3}',
                '{"frames": [{"index": 0}]}',
                "1,2,3\n",
                "a,b,c,d,e,f\n",
                '{"frames": [{"index": 0, "people": [{"box": [0, 0, 1], "track_id": 1}]}]}',
                '{"frames": [{"index": 0, "people": [{"box": [0, 0, 1, NaN], "track_id": 1}]}]}',
                '{"frames": [{"index": 0, "people": [7]}]}',
            )
        ),
        ("\udc89PNG", "it is no text"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_ground_truth_is_refused_in_one_sentence(content, says, tmp_path):
    path = tmp_path / "truth.json"
    if content is not None:
        path.write_text(content, errors="surrogateescape")
    with pytest.raises(MediaError, match=says) as caught:
        read_ground_truth(path)
    assert "\n" not in str(caught.value)


def record(index, *ids):
    people = tuple(SimpleNamespace(box=(0.0, 0, 1, 1), track_id=number) for number in ids)
    return SimpleNamespace(index=index, people=people)


def test_a_mot_truth_does_not_say_where_its_clip_ends(caplog):
    truth = MotGroundTruth({3: frame(a=1)})
    _, people = tracked_frames([record(3, 1), record(4, 1), record(5)], truth, "walk.jsonl")
    assert people == [frame(a=1), (), ()]
    assert "ends with frame 3, so frames 4 to 5 count as empty" in caplog.text
    with pytest.raises(MediaError, match="frame 4 is not in the ground truth"):
        tracked_frames([record(4, 1)], truth, "walk.jsonl")  # not one frame in common
    with pytest.raises(MediaError, match="frame 4 is not in the ground truth"):
        tracked_frames([record(3, 1), record(4, 1)], dict(truth), "walk.jsonl")


def test_frames_that_were_left_out_do_not_count():
    truth = {0: frame(a=1), 2: frame(b=1), 3: frame(c=1)}
    tracks, people = tracked_frames([record(1, 5), record(2, 5, 6)], truth, "walk.jsonl")
    assert [[row["track_id"] for row in rows] for rows in tracks] == [[5], [5, 6]]
    assert people == [(), frame(b=1)]


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

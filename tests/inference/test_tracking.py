"""People keep their numbers, and scores that say how well: known answers, an independent path."""

import itertools
import json
import math
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from persondet.errors import MediaError
from persondet.inference.tracking import (
    PersonTracker,
    appearance_distances,
    read_ground_truth,
    score_tracks,
    tracked_frames,
)
from persondet.modeling.appearance import FIELD

FPS, PEOPLE = 25.0, 11


def scene(frames=260):
    """Return per frame the people in view: dicts with `box` and `track_id`, nearer ones first."""
    rng = np.random.default_rng(1)
    height = np.sort(rng.uniform(80, 320, PEOPLE))[::-1]
    speed = rng.choice([-1, 1], PEOPLE) * height * rng.uniform(0.01, 0.03, PEOPLE)
    at_half_time = rng.uniform(300, 980, PEOPLE)
    result = []
    for k in range(frames):
        people = []
        for i in range(PEOPLE):
            x, w = at_half_time[i] + speed[i] * (k - frames / 2), 0.4 * height[i]
            feet = 330 + 1.1 * height[i]
            box = (x, feet - height[i], x + w, feet)
            hidden = any(b[0] <= x + w / 4 and x + 3 * w / 4 <= b[2] for b, _ in people)
            if 0 < x < 1280 - w and not hidden:
                people.append((box, i + 1))
        result.append([{"box": box, "track_id": number} for box, number in people])
    return result


def degraded(seed, stride=1):
    """Return the people whom a bad detector keeps (four of five), and their noisy boxes (N, 4)."""
    rng = np.random.default_rng(seed)
    kept, seen = [], []
    for frame in scene()[::stride]:
        people = [person for person in frame if rng.random() >= 0.2]
        boxes = np.array([person["box"] for person in people]).reshape(-1, 4)
        kept.append(people)
        seen.append(boxes + rng.normal(0.0, 2.0, boxes.shape))
    return kept, seen


def detections(boxes):
    found = Instances((720, 1280))
    found.pred_boxes = Boxes(torch.tensor(np.asarray(boxes).reshape(-1, 4), dtype=torch.float32))
    found.scores = torch.full((len(boxes),), 0.9)
    found.pred_classes = torch.zeros(len(boxes), dtype=torch.int64)
    return found


def tracked(tracker, frames, times=()):
    """Return what a tracker makes of the boxes of each frame, for `score_tracks`."""
    result = []
    for boxes, time in itertools.zip_longest(frames, times):
        found = detections(boxes)
        tracker.update(found, time)
        rows = zip(boxes.tolist(), found.ID, strict=True)
        result.append([{"box": box, "track_id": number} for box, number in rows])
    return result


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "stride"), [(0, 1), (2, 3)])
def test_people_keep_their_numbers_although_boxes_are_missing(seed, stride):
    people, boxes = degraded(seed, stride)
    tracker = PersonTracker(FPS / stride)
    score = score_tracks(tracked(tracker, boxes), people)
    assert score.people == PEOPLE
    assert score.idf1 >= 0.9
    assert score.hota >= 0.85
    assert score.switches <= 25  # joining boxes from frame to frame makes more than 120
    assert abs(tracker.unique - PEOPLE) <= 2
    if stride > 1:  # the tracker needs the true frame rate
        wrong = score_tracks(tracked(PersonTracker(4 * FPS), boxes), people)
        assert score.idf1 > wrong.idf1 + 0.1


@pytest.mark.parametrize("rate", [FPS, 2 * FPS])
def test_people_keep_their_numbers_at_a_variable_or_a_wrong_rate(rate):
    kept = [number for number in range(260) if number % 6 not in (1, 2)]
    people, boxes = degraded(0)
    tracker, times = PersonTracker(rate), [number / FPS for number in kept]
    found = tracked(tracker, [boxes[number] for number in kept], times)
    score = score_tracks(found, [people[number] for number in kept])
    assert score.idf1 >= 0.9  # a count of frames at twice the rate gives 0.85
    assert abs(tracker.unique - PEOPLE) <= 2


def test_at_two_frames_a_second_who_walks_past_somebody_smaller_keeps_the_number():
    """In half a second people walk farther than they are wide."""
    tracker, ids = PersonTracker(2), []
    for k in range(8):
        near, far = 100.0 + 50 * k, 520.0 - 50 * k
        found = detections([[near, 100, near + 48, 220], [far, 90, far + 40, 190]])
        tracker.update(found, k / 2)
        ids.append(found.ID)
    assert ids == [[1, 2]] * 8


def met(turn, looks, frames=60):
    """Return the numbers of two people who meet, (frames, 2), and pass each other or turn back.

    The boxes of both stories are the same. `looks`: of the first and of the second person, (2, D).
    """
    rng, tracker, ids = np.random.default_rng(0), PersonTracker(FPS), []
    for k in range(frames):
        way = 5.0 * (min(k, frames - k) if turn else k)
        found = detections([[x, 100, x + 60, 280] for x in (100 + way, 400 - way)])
        noisy = np.asarray(looks) + rng.normal(0, 0.1, np.shape(looks))
        order = rng.permutation(2)
        found = found[torch.from_numpy(order)]
        found.set(FIELD, torch.from_numpy(noisy[order].astype(np.float32)))
        tracker.update(found, k / FPS)
        ids.append(np.array(found.ID)[np.argsort(order)].tolist())
    return ids


@pytest.mark.parametrize("turn", [False, True])
def test_who_look_different_keep_their_numbers_whether_they_pass_or_turn_back(turn):
    first, second = np.eye(8)[:2]
    apart = met(turn, (first, second))
    assert apart == [apart[0]] * len(apart)
    # One look tells nothing: then the same boxes get the same numbers, and one story is wrong.
    alike = met(turn, (first, first))
    assert (alike[-1] == alike[0]) is not turn
    assert met(turn, (first, np.full(8, np.nan)))[-1] == alike[-1]


@pytest.mark.parametrize("known", [True, False])
def test_who_walks_in_front_of_somebody_keeps_a_number_of_their_own(known):
    """Established tracks choose first, and here is one whose person is hidden by a newcomer."""
    rng, tracker = np.random.default_rng(0), PersonTracker(FPS)
    for k in range(60):
        people = {1: [700.0, 100, 760, 280]}
        if k < 34:
            people[0] = [300.0, 100, 360, 280]
        if k >= 30:
            x = 200.0 + 16 * min(k - 30, 6)
            people[2] = [x, 90, x + 80, 330]
        found = detections(list(people.values()))
        if known:
            looks = np.eye(8)[list(people)] + rng.normal(0, 0.1, (len(people), 8))
            found.set(FIELD, torch.from_numpy(looks))
        tracker.update(found, k / FPS)
    assert dict(zip(people, found.ID, strict=True)) == {1: 1, 2: 3 if known else 2}


def test_appearances_are_compared_in_units_of_how_much_one_person_varies():
    rng = np.random.default_rng(0)
    first, second, spread = rng.normal(size=(5, 7)), rng.normal(size=(4, 7)), rng.uniform(1, 9, 7)
    found = appearance_distances(first, second, spread)
    assert np.allclose(found, cdist(first, second, "seuclidean", V=spread), rtol=1e-5)


def test_after_a_hole_of_twenty_seconds_there_are_other_people():
    tracker, ids = PersonTracker(FPS), []
    for time in (*np.arange(30) / FPS, *(20 + np.arange(30) / FPS)):
        found = detections([[10.0, 10, 50, 90]])
        tracker.update(found, time)
        ids += found.ID
    assert ids == [1] * 30 + [2] * 30
    assert tracker.unique == 2


@pytest.mark.parametrize("frames", [8, 40])
def test_the_average_rate_of_a_clip_with_a_hole_shortens_and_lengthens_nothing(frames):
    """Thirty frames a second and a hole of 20 seconds: the header says one or two a second."""
    seen, hidden = np.arange(frames) / 30, (frames + np.arange(45)) / 30
    later = seen + (frames + 45) / 30
    times = [*seen, *hidden, *later, *(seen + later[-1] + 20)]
    tracker, ids = PersonTracker(len(times) / times[-1]), []
    for time in times:
        found = detections([] if time in hidden else [[10.0, 10, 50, 90]])
        tracker.update(found, time)
        ids += found.ID
    known = frames > 30 * 0.4  # who was seen for longer than that is waited for
    numbers = (1, 1, 2) if known else (1, 2, 3)
    assert ids == [number for number in numbers for _ in range(frames)]


@pytest.mark.parametrize(
    ("rate", "gap", "expected"), [(FPS, 20, {1}), (FPS, 60, {1, 2}), (5, 6, {1}), (5, 20, {1, 2})]
)
def test_the_time_out_of_sight_counts_in_seconds(rate, gap, expected):
    tracker, ids = PersonTracker(rate), set()
    for k in range(120):
        found = detections([] if 30 <= k < 30 + gap else [[100 + k, 200, 160 + k, 380]])
        tracker.update(found)
        ids.update(found.ID)
    assert ids == expected


def test_a_false_alarm_that_flashes_up_is_not_counted_as_a_person():
    tracker, counts = PersonTracker(FPS), []
    for k in range(100):
        boxes = [[100 + k, 100, 150 + k, 250], [400, 100, 450, 250]]
        boxes += [[10.0 * k, 400, 10.0 * k + 30, 460]] if k % 30 == 20 else []
        found = detections(boxes)
        tracker.update(found)
        counts.append(tracker.unique)
    # From frame 20 on one more than two: three were in view at once.
    assert (counts[0], counts[19], counts[20], counts[-1]) == (2, 2, 3, 3)
    assert max(found.ID) <= 2


boxes_of_a_frame = st.lists(
    st.tuples(*[st.floats(-50, 1300, width=32)] * 2, *[st.floats(0, 300, width=32)] * 2), max_size=6
).map(lambda rows: np.array([[x, y, x + w, y + h] for x, y, w, h in rows]).reshape(-1, 4))


@settings(max_examples=25)
@given(st.lists(boxes_of_a_frame, max_size=8), st.sampled_from([0.5, 8.0, 25.0, 1000.0]))
def test_every_detection_has_its_number_and_they_count_from_one(frames, rate):
    tracker = PersonTracker(rate)
    rows = tracked(tracker, frames)
    ids = [[row["track_id"] for row in frame] for frame in rows]
    assert rows == tracked(PersonTracker(rate), frames)
    assert all(len(set(frame)) == len(frame) for frame in ids)
    appeared = list(dict.fromkeys(number for frame in ids for number in frame))
    assert appeared == list(range(1, len(appeared) + 1))
    assert max(map(len, ids), default=0) <= tracker.unique <= len(appeared)


def test_a_box_that_is_no_place_takes_nobodys_number():
    tracker, ids = PersonTracker(FPS), []
    for bad in (math.nan, math.inf, None, -math.inf):
        found = detections([[10.0, 10, 50, 90]] + ([] if bad is None else [[bad, 0, 5, 5]]))
        tracker.update(found)
        ids.append(found.ID)
    assert ids == [[1, 2], [1, 3], [1], [1, 4]]
    assert tracker.unique == 1
    found.scores[:] = math.nan
    tracker.update(found)
    assert found.ID == [5, 6]


PLACES = {"a": (0, 0, 40, 80), "b": (100, 0, 140, 80), "c": (200, 0, 240, 80)}


def frame(**people):
    return [{"box": PLACES[place], "track_id": number} for place, number in people.items()]


def test_two_who_swap_their_numbers_half_way():
    truth = [frame(a=1, b=2)] * 20
    perfect = score_tracks([frame(a=30, b=7)] * 20, truth)
    assert (perfect.mota, perfect.idf1, perfect.hota, perfect.deta, perfect.assa) == (1,) * 5
    score = score_tracks([frame(a=1, b=2)] * 10 + [frame(a=2, b=1)] * 10, truth)
    assert score.switches == 2
    assert score.mota == pytest.approx(1 - 2 / 40)
    assert score.idf1 == pytest.approx(0.5)
    # Of each sighting's number and person 30 sightings in all, 10 together: AssA is a third.
    assert score.assa == pytest.approx(1 / 3)
    assert score.hota == pytest.approx(math.sqrt(1 / 3))


def test_somebody_who_is_lost_and_found_and_a_false_alarm():
    found = [frame(a=5, b=7)] * 4 + [frame(b=7)] * 2 + [frame(a=5, b=7, c=6)]
    score = score_tracks([*found, *[frame(a=5, b=7)] * 3], [frame(a=1, b=2)] * 10)
    assert (score.fragments, score.switches, score.misses, score.false_alarms) == (1, 0, 2, 1)
    assert score.mota == pytest.approx(1 - 3 / 20)
    assert score.idf1 == pytest.approx(2 * 18 / (20 + 19))
    assert (score.people, score.tracks, score.frames) == (2, 3, 10)


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


@pytest.mark.parametrize(("width", "hits"), [(81, 0), (79, 1)])
def test_a_box_is_right_from_an_overlap_of_one_half_on(width, hits):
    score = score_tracks([[{"box": (0, 0, width, 80), "track_id": 1}]], [frame(a=1)])
    assert (score.hits, score.misses, score.false_alarms) == (hits, 1 - hits, 1 - hits)


choices = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 3), max_size=3).filter(
        lambda people: len(set(people.values())) == len(people)
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40)
@given(choices, choices)
def test_idf1_is_that_of_the_best_of_all_assignments(found, people):
    both = list(zip(found, people, strict=False))
    score = score_tracks([frame(**f) for f, _ in both], [frame(**p) for _, p in both])
    pairs = [(p[place], f[place]) for f, p in both for place in p.keys() & f.keys()]
    together = max(
        sum(chosen[number - 1] == track for number, track in pairs)
        for chosen in permutations((1, 2, 3))
    )
    tracks, truth = (sum(len(pair[k]) for pair in both) for k in (0, 1))
    if tracks + truth:
        assert score.idf1 == pytest.approx(2 * together / (tracks + truth))
    assert (score.misses, score.false_alarms) == (truth - len(pairs), tracks - len(pairs))


def test_the_two_kinds_of_ground_truth_say_the_same(tmp_path):
    people = [
        {"track_id": 4, "box": [10.0, 20.0, 50.0, 90.0], "visible_share": 0.5, "mask": {}},
        {"track_id": 5, "box": [0.0, 0.0, 5.0, 9.0]},
    ]
    frames = [{"index": n, "people": people if n != 1 else []} for n in range(3)]
    (tmp_path / "ours.json").write_text(json.dumps({"version": 1, "frames": frames}))
    rows = "".join(f"{n},4,11,21,40,70,1,1,0.5\n{n},5,1,1,5,9\n" for n in (1, 3))
    (tmp_path / "gt.txt").write_text("\ufeff" + rows, encoding="utf-8")
    ours, mot = (read_ground_truth(tmp_path / name) for name in ("ours.json", "gt.txt"))
    assert ours == mot | {1: []}
    assert ours[2][0] == {"track_id": 4, "box": (10.0, 20.0, 50.0, 90.0), "visible_share": 0.5}


@pytest.mark.parametrize(
    ("content", "shares"),
    [
        # Not to count, another class than pedestrian, counts.
        ("1,1,1,1,40,80,0,1,1\n1,2,1,1,40,80,1,7,1\n1,3,101,1,40,80,1,1,1\n", [-1, -1, 1]),
        ("1,1,1,1,40,80,1,1,1\n1,1,200,1,40,80,0,8,1\n", [1, -1]),  # the same number
    ],
)
def test_rows_of_mot_challenge_ground_truth(content, shares, tmp_path):
    (tmp_path / "gt.txt").write_text(content)
    truth = read_ground_truth(tmp_path / "gt.txt")
    assert [person["visible_share"] for person in truth[0]] == shares
    assert score_tracks([[]], [truth[0]], min_visible=0.0).misses == shares.count(1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("1,1,1,1,40,80,0.9,-1,-1,-1\n", "nobody in it is to be counted"),  # a tracker's result
        ("1,1,1,1,40,80,1,1,1\n1,1,200,1,40,80,1,1,1\n", "the number 1 is there twice in frame 0"),
        ("1,1,1,1,-40,80,1,1,1\n", "no ground truth of a clip"),
        ("1,2,3\n", "no ground truth of a clip"),
        ("{}", "no ground truth of a clip"),
        ('{"frames": [{"index": 0, "people": [{"box": [0, 0, 1, NaN], "track_id": 1}]}]}', "clip"),
        ("\udc89PNG", "no ground truth of a clip"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_ground_truth_is_refused_in_one_sentence(content, says, tmp_path):
    path = tmp_path / "truth.json"
    if content is not None:
        path.write_text(content, errors="surrogateescape")
    with pytest.raises(MediaError, match=rf"truth\.json.*{says}"):
        read_ground_truth(path)


def record(index, *ids):
    people = tuple(SimpleNamespace(box=(0.0, 0, 1, 1), track_id=number) for number in ids)
    return SimpleNamespace(index=index, people=people)


def test_frames_that_were_left_out_do_not_count_and_later_ones_count_as_empty(caplog):
    truth = {0: frame(a=1), 2: frame(b=1), 3: frame(c=1)}
    tracks, people = tracked_frames([record(1, 5), record(2, 5, 6)], truth, "walk.jsonl")
    assert [[row["track_id"] for row in rows] for rows in tracks] == [[5], [5, 6]]
    assert people == [(), frame(b=1)]
    assert caplog.text == ""
    _, people = tracked_frames([record(3, 1), record(4, 1), record(5)], truth, "walk.jsonl")
    assert people == [frame(c=1), (), ()]
    assert "ends with frame 3, so frames 4 to 5 count as empty" in caplog.text


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([record(4, 1)], "no frame of it is in the ground truth, which ends with frame 3"),
        ([record(0, None)], "without --no-tracking"),
        ([record(2, 4, 7, 4)], "frame 2 has people without a track_id, or two with the same"),
    ],
)
def test_records_that_cannot_be_scored(frames, says):
    with pytest.raises(MediaError, match=rf"walk\.jsonl: .*{says}"):
        tracked_frames(frames, {3: frame(a=1)}, "walk.jsonl")

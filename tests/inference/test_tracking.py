"""People keep their numbers: on the sample's clip, through occlusion, with missing frames."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.inference.tracking import PersonTracker
from persondet.inference.tracking_score import score_tracks
from tests.inference.city_walk import (
    FPS,
    GreedyTracker,
    degraded,
    detections,
    tracked,
)


def everybody(tracks, truth):
    """Score with everybody who is listed, however little of them shows."""
    return score_tracks(tracks, truth, min_visible=0.0, min_height=0.0)


@pytest.mark.parametrize(("seed", "stride"), [(0, 1), (1, 1), (2, 1), (5, 2), (5, 3)])
def test_people_of_the_sample_keep_their_numbers_although_boxes_are_missing(seed, stride):
    truth, boxes = degraded(seed, stride=stride)
    tracker = PersonTracker(FPS / stride)
    score = everybody(tracked(tracker, boxes), truth)
    greedy = everybody(tracked(GreedyTracker(), boxes), truth)
    assert (score.people, score.frames) == (11, -(-260 // stride))
    assert score.idf1 >= (0.85 if stride == 1 else 0.8)
    assert score.switches < greedy.switches / 5
    if stride == 1:
        assert score.hota >= 0.85
        assert score.fragments <= greedy.fragments
        assert abs(tracker.unique - 11) <= 1
    if stride == 3:  # the tracker needs the true frame rate
        wrong = everybody(tracked(PersonTracker(FPS), boxes), truth)
        assert score.idf1 > wrong.idf1 + 0.1


def walk(position, frames, *, speed, hidden=range(0)):
    """Return the boxes of somebody who walks: (4,) per frame, None while hidden."""
    x = position + speed * np.arange(frames)
    return [
        None if k in hidden else np.array([x[k], 200.0, x[k] + 60, 380.0]) for k in range(frames)
    ]


def numbers(tracker, walks):
    """Return the number that each walker has in each frame, None while hidden."""
    result = []
    for places in zip(*walks, strict=True):
        seen = [place for place in places if place is not None]
        found = detections(np.array(seen).reshape(-1, 4))
        tracker.update(found)
        ids = iter(found.ID)
        result.append([None if place is None else next(ids) for place in places])
    return result


def test_two_who_cross_keep_their_numbers_while_one_hides_the_other():
    # They walk 3 pixels a frame towards each other; the one behind is lost while they overlap.
    walks = [walk(100, 120, speed=3), walk(460, 120, speed=-3, hidden=range(52, 70))]
    ids = numbers(PersonTracker(FPS), walks)
    assert {first for first, _ in ids} == {1}
    assert {second for _, second in ids} == {2, None}


@pytest.mark.parametrize(
    ("rate", "gap", "expected"), [(FPS, 20, {1}), (FPS, 60, {1, 2}), (5, 6, {1}), (5, 20, {1, 2})]
)
def test_the_time_out_of_sight_counts_in_seconds(rate, gap, expected):
    walks = [walk(100, 120, speed=1, hidden=range(30, 30 + gap))]
    assert {i for (i,) in numbers(PersonTracker(rate), walks) if i is not None} == expected


def test_a_false_alarm_that_flashes_up_is_not_counted_as_a_person():
    tracker = PersonTracker(FPS)
    counts = []
    for k in range(100):
        boxes = [[100 + k, 100, 150 + k, 250], [400, 100, 450, 250]]
        boxes += [[10.0 * k, 400, 10.0 * k + 30, 460]] if k % 30 == 20 else []
        found = detections(np.array(boxes))
        tracker.update(found)
        counts.append(tracker.unique)
    assert counts[0] == counts[19] == 2
    # One more than two were in view at once: that many there must be.
    assert counts[20] == counts[-1] == 3
    assert max(found.ID) <= 2


boxes_of_a_frame = st.lists(
    st.tuples(*[st.floats(-50, 1300, width=32)] * 2, *[st.floats(0, 300, width=32)] * 2), max_size=8
).map(lambda rows: np.array([[x, y, x + w, y + h] for x, y, w, h in rows]).reshape(-1, 4))


@settings(max_examples=60, deadline=None)
@given(st.lists(boxes_of_a_frame, max_size=12), st.sampled_from([0.5, 8.0, 25.0, 1000.0]))
def test_every_detection_has_its_number_and_they_count_from_one(frames, rate):
    tracker, again = PersonTracker(rate), PersonTracker(rate)
    appeared, before, fullest = [], 0, 0
    for frame, rows in zip(tracked(tracker, frames), tracked(again, frames), strict=True):
        ids = [row["track_id"] for row in frame]
        assert ids == [row["track_id"] for row in rows]
        assert len(set(ids)) == len(ids)
        appeared += [number for number in ids if number not in appeared]
        fullest = max(fullest, len(ids))
    assert appeared == list(range(1, len(appeared) + 1))
    assert fullest <= tracker.unique <= len(appeared)
    assert before <= tracker.unique


def test_a_box_that_is_no_place_takes_nobodys_number():
    tracker = PersonTracker(FPS)
    ids = []
    for bad in (math.nan, math.inf, None, -math.inf):
        boxes = [[10.0, 10, 50, 90]] + ([] if bad is None else [[bad, 0, 5, 5]])
        found = detections(np.array(boxes))
        tracker.update(found)
        ids.append(found.ID)
    assert ids == [[1, 2], [1, 3], [1], [1, 4]]
    assert tracker.unique == 1
    found = detections(np.array([[10.0, 10, 50, 90]]))
    found.scores[:] = math.nan
    tracker.update(found)
    assert found.ID == [5]


def test_the_boxes_of_a_model_stay_as_they_are():
    boxes = torch.tensor([[10.0, 10, 50, 90], [100, 10, 150, 90]])
    found = detections(boxes.numpy())
    PersonTracker(FPS).update(found)
    assert torch.equal(found.pred_boxes.tensor, boxes)
    assert all(type(number) is int for number in found.ID)
    assert found[1].ID == [2] or found[torch.tensor([False, True])].ID == [2]


@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf])
def test_a_frame_rate_that_is_none_is_refused(rate):
    with pytest.raises(ValueError, match="positive frame rate"):
        PersonTracker(rate)

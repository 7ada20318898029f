"""The operating point: counts, curves, and the threshold with the best F1."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.evaluation.curves import (
    best_threshold,
    counts_at,
    recall_by,
    surroundings,
    threshold_curves,
)
from persondet.evaluation.ground_truth import GroundTruth
from persondet.evaluation.metrics import Detections
from tests.evaluation.coco_scenes import indexed
from tests.evaluation.scored_scenes import person, scene


def detections(rows, people):
    """Predictions of one class: score, and whether it is a hit."""
    return Detections(
        scores=np.array([score for score, _ in rows], np.float64),
        hit=np.array([hit for _, hit in rows], np.bool_),
        class_of=np.zeros(len(rows), np.int64),
        objects=np.array([people], np.int64),
    )


# Few levels: equal scores are the rule with half precision.
rows = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from([0.05, 0.1, 0.3, 0.301, 0.5, 0.9, 0.99609375, 1.0]),
            st.floats(1e-6, 1.0),
        ),
        st.booleans(),
    ),
    max_size=30,
)


def f1_by_hand(found, people, threshold):
    kept = [hit for score, hit in found if score >= threshold]
    precision = sum(kept) / len(kept) if kept else 0.0
    recall = sum(kept) / people
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@given(rows, st.integers(1, 40))
def test_the_threshold_is_the_argmax_of_f1_by_brute_force(found, more):
    people = more + sum(hit for _, hit in found)
    threshold = best_threshold(detections(found, people))
    every = [f1_by_hand(found, people, score) for score, _ in found]
    if threshold is None:
        assert not any(hit for _, hit in found)
        return
    assert 0 < threshold <= 1
    assert f1_by_hand(found, people, threshold) == pytest.approx(max(every), abs=1e-12)
    # Of equal ones the highest: nothing above it does as well.
    higher = [f1_by_hand(found, people, score) for score, _ in found if score >= threshold]
    kept = min(score for score, _ in found if score >= threshold)
    assert all(
        value < max(every) + 1e-12 and (score == kept or value < max(every) - 1e-12)
        for value, (score, _) in zip(
            higher, [row for row in found if row[0] >= threshold], strict=True
        )
    )


def test_hits_misses_and_false_alarms_by_hand():
    point = counts_at(detections([(0.9, True), (0.6, False), (0.6, True), (0.2, True)], 5), 0.6)
    assert (point["hits"], point["misses"], point["false_alarms"]) == (2, 3, 1)
    assert point["precision"] == pytest.approx(2 / 3)
    assert point["recall"] == pytest.approx(2 / 5)
    assert point["f1"] == pytest.approx(0.5)


@settings(max_examples=20)
@given(rows, st.integers(0, 5))
def test_curves_agree_with_their_counts(found, more):
    people = more + sum(hit for _, hit in found)
    given_ = detections(found, people)
    curves = threshold_curves(given_, given_, iou=0.5, threshold=0.4)
    assert len(curves["thresholds"]) == len(curves["f1"]) == 101
    for index in (0, 30, 50, 100):
        threshold = curves["thresholds"][index]
        assert curves["hits"][index] == sum(hit and score >= threshold for score, hit in found)
        assert curves["hits"][index] + curves["misses"][index] == people
    assert all(np.diff(curves["misses"]) >= 0)
    histogram = curves["score_histogram"]
    assert sum(histogram["true"]) + sum(histogram["false"]) == len(found)
    if people:
        mean = np.mean(curves["pr"]["precision@50"]) * 100
        assert mean == pytest.approx(given_.average_precision())


def two_classes(rng):
    """A frequent class that is found well, and a rare one that is not; some scores are equal."""
    scores = rng.uniform(0.3, 1, 1100).round(3)
    hit = rng.random(1100) < np.repeat([0.9, 0.2], [1000, 100])
    class_of = np.repeat([0, 1], [1000, 100])
    return Detections(scores, hit, class_of, np.array([1100, 60]))


@pytest.mark.parametrize("seed", range(5))
def test_with_several_classes_the_models_point_lies_on_the_pooled_curve(seed):
    """And not on the mean over the classes."""
    rng = np.random.default_rng(seed)
    several = two_classes(rng)
    best = best_threshold(several)
    assert best is not None
    for threshold in (best, 0.31, 0.62, 0.9, float(several.scores.max())):
        curves = threshold_curves(several, several, iou=0.5, threshold=threshold)
        point, pooled = curves["at_threshold"], curves["pooled"]
        recall, precision = pooled["recall"], pooled["precision"]
        assert len(recall) == len(precision) == 101
        assert recall == sorted(recall)
        on_curve = np.interp(point["recall"], recall, precision)
        assert on_curve == pytest.approx(point["precision"], abs=1e-12)
        # Each point is what some threshold gives.
        given = {
            (at["recall"], at["precision"])
            for at in (counts_at(several, score) for score in np.unique(several.scores))
        }
        assert set(zip(recall, precision, strict=True)) <= given
    point = counts_at(several, best)
    mean = threshold_curves(several, several, iou=0.5, threshold=best)["pr"]
    there = np.interp(point["recall"], mean["recall"], mean["precision@50"])
    assert abs(there - point["precision"]) > 0.05


def ground_truth(truth):
    return GroundTruth(indexed(scene(truth, [])[0]))


def test_each_person_is_measured_by_hand():
    truth = [
        [
            person((0, 10, 10, 40)),  # at the left edge
            person((50, 20, 20, 40)),  # shares half with the next
            person((60, 20, 20, 40)),
            person((100, 0, 90, 90), crowd=1),  # counts for nobody, and crowds nobody
            person((120, 57, 20, 40)),  # 3 pixels above the lower edge
        ]
    ]
    around = surroundings(ground_truth(truth))
    np.testing.assert_allclose(around.side, np.sqrt([400, 800, 800, 800]))
    np.testing.assert_allclose(around.crowding, [0, 1 / 3, 1 / 3, 0])
    np.testing.assert_allclose(around.border, [0, 20, 20, 3])
    np.testing.assert_allclose(around.short_side, [100] * 4)

    rows = recall_by(around, np.array([False, True, False, True]))
    assert [(row["people"], row["found"]) for row in rows["border"]] == [(1, 0), (1, 1), (2, 1)]
    crowding = [(row["people"], row["found"]) for row in rows["crowding"]]
    assert crowding == [(2, 1), (0, 0), (0, 0), (2, 1)]
    assert [row["people"] for row in rows["size"]] == [4, 0, 0]
    assert rows["size"][0]["recall"] == pytest.approx(0.5)
    assert math.isnan(rows["size"][2]["recall"])


def test_sizes_are_cocos_and_follow_the_mask_and_not_the_box():
    slim = person((0, 0, 60, 60)) | {"area": 31 * 31}
    wide = person((0, 0, 60, 60)) | {"area": 32 * 32}
    large = person((0, 0, 60, 60)) | {"area": 96 * 96}
    around = surroundings(ground_truth([[slim], [wide], [large]]))
    rows = recall_by(around, np.ones(3, np.bool_))
    assert [row["people"] for row in rows["size"]] == [1, 1, 1]

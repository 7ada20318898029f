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
    size_histogram,
    surroundings,
    threshold_curves,
)
from persondet.evaluation.matching import GroundTruth
from persondet.evaluation.metrics import Detections
from tests.evaluation.scenes import indexed, person, scene


def detections(rows, people):
    scores, hit = np.array(rows, np.float64).reshape(-1, 2).T
    classes = np.zeros(len(rows), np.int64)
    return Detections(scores, hit.astype(bool), classes, np.array([people]))


# Few levels: equal scores are the rule with half precision.
LEVELS = st.sampled_from([0.05, 0.1, 0.3, 0.301, 0.5, 0.9, 0.99609375, 1.0])
ROWS = st.lists(st.tuples(LEVELS | st.floats(1e-6, 1.0), st.booleans()), max_size=30)


def f1_by_hand(rows, people, threshold):
    kept = [hit for score, hit in rows if score >= threshold]
    return 2 * sum(kept) / (len(kept) + people)


@settings(max_examples=50)
@given(ROWS, st.integers(1, 40))
def test_the_threshold_is_the_argmax_of_f1_by_brute_force(rows, more):
    people = more + sum(hit for _, hit in rows)
    threshold = best_threshold(detections(rows, people))
    if threshold is None:
        assert not any(hit for _, hit in rows)
        return
    assert 0 < threshold <= 1
    best = max(f1_by_hand(rows, people, score) for score, _ in rows)
    assert f1_by_hand(rows, people, threshold) == pytest.approx(best, abs=1e-12)
    # Of equal ones the highest: nothing above the least score that it keeps does as well.
    least = min(score for score, _ in rows if score >= threshold)
    assert all(f1_by_hand(rows, people, score) < best for score, _ in rows if score > least)


@settings(max_examples=50)
@given(ROWS, st.integers(1, 40), st.floats(0.001, 0.3))
def test_with_a_tolerance_the_threshold_is_the_lowest_that_is_nearly_as_good(rows, more, tolerance):
    people = more + sum(hit for _, hit in rows)
    threshold = best_threshold(detections(rows, people), tolerance=tolerance)
    if threshold is None:
        assert not any(hit for _, hit in rows)
        return
    enough = max(f1_by_hand(rows, people, score) for score, _ in rows) - tolerance
    assert f1_by_hand(rows, people, threshold) >= enough - 1e-12
    lower = [score for score, _ in rows if score < threshold]
    assert all(f1_by_hand(rows, people, score) < enough + 1e-12 for score in lower)


def test_hits_misses_and_false_alarms_by_hand():
    four = detections([(0.9, True), (0.6, False), (0.6, True), (0.2, True)], 5)
    point = {"threshold": 0.6, "precision": 2 / 3, "recall": 2 / 5, "f1": 0.5}
    point |= {"hits": 2, "misses": 3, "false_alarms": 1}
    assert counts_at(four, 0.6) == pytest.approx(point)
    curves = threshold_curves(four, four, iou=0.5, threshold=0.6)
    assert curves["at_threshold"] == pytest.approx(point)
    assert [curves["hits"][index] for index in (0, 20, 21, 60, 90, 91)] == [3, 3, 2, 2, 1, 0]
    assert np.mean(curves["pr"]["precision@50"]) * 100 == pytest.approx(four.average_precision())
    histogram = curves["score_histogram"]
    parts = (histogram["true"], histogram["true"][10:], histogram["false"])
    assert [*map(sum, parts)] == [3, 2, 1]


def test_with_several_classes_the_models_point_lies_on_the_pooled_curve():
    """And not on the mean over a frequent class that is found well, and a rare one that is not."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.3, 1, 1100).round(3)  # some are equal
    classes = np.repeat([0, 1], [1000, 100])
    hit = rng.random(1100) < np.where(classes, 0.2, 0.9)
    several = Detections(scores, hit, classes, np.array([1100, 60]))
    best = best_threshold(several)
    possible = [counts_at(several, score) for score in np.unique(scores)]
    possible = {(at["recall"], at["precision"]) for at in possible}
    for threshold in (best, 0.31, 0.62, 0.9, 1.0):
        curves = threshold_curves(several, several, iou=0.5, threshold=threshold)
        recall, precision = (curves["pooled"][name] for name in ("recall", "precision"))
        assert len(recall) == 101 and recall == sorted(recall)
        points = set(zip(recall, precision, strict=True))
        assert points <= possible  # each point is what some threshold gives
        at = curves["at_threshold"]
        assert threshold == 1 or (at["recall"], at["precision"]) in points
    point = counts_at(several, best)
    there = np.interp(point["recall"], np.linspace(0, 1, 101), curves["pr"]["precision@50"])
    assert abs(there - point["precision"]) > 0.05


def around(truth):
    return surroundings(GroundTruth(indexed(scene(truth, [])[0])))


def test_each_person_is_measured_by_hand():
    people = [
        person((0, 10, 10, 40)),  # at the left edge
        person((50, 20, 20, 40)),  # shares half with the next
        person((60, 20, 20, 40)),
        person((100, 0, 90, 90), crowd=1),  # counts for nobody, and crowds nobody
        person((120, 57, 20, 40)),  # 3 pixels above the lower edge
    ]
    measured = around([people])
    np.testing.assert_allclose(measured.side, np.sqrt([400, 800, 800, 800]))
    np.testing.assert_allclose(measured.crowding, [0, 1 / 3, 1 / 3, 0])
    np.testing.assert_allclose(measured.border, [0, 20, 20, 3])
    np.testing.assert_allclose(measured.short_side, [100] * 4)

    rows = recall_by(measured, np.array([False, True, False, True]))
    counts = {name: [(r["people"], r["found"]) for r in kind] for name, kind in rows.items()}
    assert counts == {
        "border": [(1, 0), (1, 1), (2, 1)],
        "crowding": [(2, 1), (0, 0), (0, 0), (2, 1)],
        "size": [(4, 2), (0, 0), (0, 0)],
    }
    assert rows["size"][0]["recall"] == 0.5 and math.isnan(rows["size"][2]["recall"])

    # Sizes are COCO's, and follow the mask and not the box.
    masks = around([[person((0, 0, 60, 60), area=side**2)] for side in (31, 32, 96)])
    assert [row["people"] for row in recall_by(masks, np.ones(3, bool))["size"]] == [1, 1, 1]


@pytest.mark.parametrize(
    ("sides", "edges", "counts"),
    [([], 8, [0]), ([9, 16], 16, [0, 2]), ([5000.0, 7.9], 4096, [1, *[0] * 15, 1])],
)
def test_the_last_bin_of_sizes_holds_the_largest(sides, edges, counts):
    histogram = size_histogram(np.array(sides, np.float64), np.ones(len(sides), np.bool_))
    assert histogram["edges"][-1] == edges
    assert histogram["ground_truth"] == histogram["found"] == counts

"""Kinds of mistakes: each is found alone, and costs what it costs by hand."""

from __future__ import annotations

import pytest

from persondet.evaluation.errors import (
    KINDS,
    count_mistakes,
    error_costs,
    find_mistakes,
)
from tests.evaluation.coco_scenes import matches_of
from tests.evaluation.scored_scenes import Rectangle, found, person, scene

# Four people side by side, on each of whom something may go wrong.
PEOPLE: list[Rectangle] = [(10, 20, 20, 40), (60, 20, 20, 40), (110, 20, 20, 40), (160, 20, 20, 40)]
RIDERS: list[Rectangle] = [(10, 20, 20, 40), (60, 20, 20, 40)]
THREE_OF_FOUR = 7600 / 101  # precision 1 at the recalls 0, 0.01 … 0.75


def hits(count, scores=(0.8, 0.7, 0.6, 0.5)):
    return [found(box, score) for box, score in zip(PEOPLE[:count], scores, strict=False)]


def costs(predictions, task, classes, riders=None):
    """The costs on one image of PEOPLE; with two classes also one of RIDERS, found by `riders`."""
    truth, rows = [[person(box) for box in PEOPLE]], [predictions]
    if classes == 2:
        truth.append([person(box, 2) for box in RIDERS])
        rows.append([found(box, 0.9, 2) for box in RIDERS] if riders is None else riders)
    names = ("person", "rider")[:classes]
    return costs_of(matches_of(*scene(truth, rows, classes=names), task))


def costs_of(matches):
    return error_costs(matches), count_mistakes([find_mistakes(one) for one in matches.images])


def alone(kind, got, cost):
    """Assert that one mistake of `kind` was made, that costs `cost`, and no other."""
    error, counts = got
    assert counts == {name: int(name == kind) for name in KINDS}
    assert error.cost == pytest.approx({name: cost * (name == kind) for name in KINDS})
    assert cost > 5


tasks = pytest.mark.parametrize("task", ["bbox", "segm"])
classes = pytest.mark.parametrize("classes", [1, 2])


@tasks
@classes
def test_a_missed_person_alone(task, classes):
    got = costs(hits(3), task, classes)
    alone("missed", got, (100 - THREE_OF_FOUR) / classes)
    assert got[0].false_negatives == pytest.approx(got[0].cost["missed"])
    assert got[0].false_positives == pytest.approx(0)


@tasks
@classes
def test_a_badly_placed_prediction_alone(task, classes):
    beside = found((170, 20, 20, 40), 0.4)  # IoU 1/3 with the fourth
    got = costs([*hits(3), beside], task, classes)
    alone("localisation", got, (100 - THREE_OF_FOUR) / classes)
    assert got[0].false_positives == pytest.approx(0)  # it comes last: without it nothing is won
    assert got[0].false_negatives == pytest.approx((100 - THREE_OF_FOUR) / classes)


@tasks
@classes
def test_a_second_prediction_of_one_person_alone(task, classes):
    again = found((11, 20, 20, 40), 0.75)
    got = costs([*hits(4), again], task, classes)
    # Precision 1 up to the recall 0.25, then 4 of 5.
    alone("duplicate", got, (100 - (26 + 75 * 0.8) / 101 * 100) / classes)
    assert got[0].false_positives == pytest.approx(got[0].cost["duplicate"])
    assert got[0].false_negatives == pytest.approx(0)


@tasks
@classes
def test_a_prediction_of_nobody_alone(task, classes):
    nobody = found((10, 70, 20, 25), 0.95)
    got = costs([*hits(4), nobody], task, classes)
    alone("background", got, 20 / classes)  # 4 of 5, whatever the recall
    assert got[0].false_positives == pytest.approx(20 / classes)


@tasks
def test_the_wrong_class_alone(task):
    wrong = found(PEOPLE[3], 0.4, 2)
    got = costs([*hits(3), wrong], task, 2)
    # The rider that is none comes last of the riders, and costs them nothing.
    alone("classification", got, (100 - THREE_OF_FOUR) / 2)


@tasks
def test_wrong_class_and_wrong_place_alone(task):
    neither = found((170, 20, 20, 40), 0.95, 2)
    got = costs([*hits(4), neither], task, 2)
    alone("both", got, (100 - 200 / 3) / 2)  # 2 of 3 riders, whatever the recall
    assert got[0].false_positives == pytest.approx((100 - 200 / 3) / 2)


def test_a_poor_mask_in_a_good_box_is_a_mistake_of_the_mask_alone():
    poor = found(PEOPLE[3], 0.5, mask=(160, 20, 20, 15))
    box, mask = (costs([*hits(3), poor], task, 1) for task in ("bbox", "segm"))
    assert not any(box[1].values())
    alone("localisation", mask, 100 - THREE_OF_FOUR)


def test_of_several_that_mean_one_person_only_the_surest_is_mended():
    beside = [found((170, 20, 20, 40), 0.4), found((150, 20, 20, 40), 0.3)]
    error, counts = costs([*hits(3), *beside], "bbox", 1)
    assert counts["localisation"] == 2
    assert error.cost["localisation"] == pytest.approx(100 - THREE_OF_FOUR)
    # The second of them does not stand in for somebody else who was missed.
    error, _ = costs([*hits(2), *beside], "bbox", 1)
    assert error.cost["localisation"] == pytest.approx(THREE_OF_FOUR - 5100 / 101)


def test_in_a_crowd_nothing_is_a_mistake():
    truth = [[*(person(box) for box in PEOPLE), person((0, 65, 200, 35), crowd=1)]]
    inside = [found((30, 70, 20, 25), 0.99), found((90, 70, 20, 25), 0.98)]
    error, counts = costs_of(matches_of(*scene(truth, [[*hits(4), *inside]]), "bbox"))
    assert not any(counts.values())
    assert error.ap50 == pytest.approx(100)


def test_a_crowd_is_nobody_whom_a_prediction_could_mean():
    truth = [[*(person(box) for box in PEOPLE), person((0, 65, 200, 35), crowd=1)]]
    at_its_edge = found((35, 50, 20, 20), 0.99)  # a quarter of it lies in the crowd
    _, counts = costs_of(matches_of(*scene(truth, [[*hits(4), at_its_edge]]), "bbox"))
    assert counts == {name: int(name == "background") for name in KINDS}

"""Kinds of mistakes: each is found alone, and costs what it costs by hand."""

import pytest

from persondet.evaluation.errors import KINDS, error_costs
from tests.evaluation.scenes import found, matches_of, person, scene

# Four people side by side, on each of whom something may go wrong.
PEOPLE = [(10, 20, 20, 40), (60, 20, 20, 40), (110, 20, 20, 40), (160, 20, 20, 40)]
RIDERS = PEOPLE[:2]
CROWD = person((0, 65, 200, 35), crowd=1)
LAST = 100 - 7600 / 101  # AP50 that the fourth is worth: precision 1 at the recalls 0 … 0.75


def hits(count):
    return [found(box, 0.8 - number / 10) for number, box in enumerate(PEOPLE[:count])]


def costs(predictions, task="bbox", classes=1, *more):
    """The costs on one image of PEOPLE; with two classes also one of RIDERS, found."""
    truth, rows = [[*map(person, PEOPLE), *more]], [predictions]
    if classes == 2:
        truth.append([person(box, 2) for box in RIDERS])
        rows.append([found(box, 0.9, 2) for box in RIDERS])
    names = ("person", "rider")[:classes]
    return error_costs(matches_of(*scene(truth, rows, classes=names), task), 0.1)


# Kind, hits, the mistake beside them, its cost, that of all false positives and false negatives.
ONE_CLASS = [
    # Without the prediction that comes last nothing is won.
    ("missed", 3, [], LAST, 0, LAST),
    ("localisation", 3, [found((170, 20, 20, 40), 0.4)], LAST, 0, LAST),  # IoU 1/3 with the fourth
    # Precision 1 up to the recall 0.25, then 4 of 5.
    ("duplicate", 4, [found((11, 20, 20, 40), 0.75)], 100 - 8600 / 101, 100 - 8600 / 101, 0),
    ("background", 4, [found((10, 70, 20, 25), 0.95)], 20, 20, 0),  # 4 of 5, whatever the recall
]
TWO_CLASSES = [
    # The rider that is none comes last of the riders, and costs them nothing.
    ("classification", 3, [found(PEOPLE[3], 0.4, 2)], LAST, 0, LAST),
    # 2 of 3 riders, whatever the recall.
    ("both", 4, [found((170, 20, 20, 40), 0.95, 2)], 100 / 3, 100 / 3, 0),
]


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize(
    ("classes", "kind", "right", "wrong", "cost", "positives", "negatives"),
    [(n, *case) for n in (1, 2) for case in ONE_CLASS] + [(2, *case) for case in TWO_CLASSES],
)
def test_one_mistake_alone(task, classes, kind, right, wrong, cost, positives, negatives):
    got = costs([*hits(right), *wrong], task, classes)
    assert got["counts"] == got["counts_all"] == {name: int(name == kind) for name in KINDS}
    assert got["cost"] == pytest.approx({k: cost / classes * (k == kind) for k in KINDS})
    assert got["cost_false_positives"] == pytest.approx(positives / classes)
    assert got["cost_false_negatives"] == pytest.approx(negatives / classes)


def test_a_poor_mask_in_a_good_box_is_a_mistake_of_the_mask_alone():
    rows = [*hits(3), found(PEOPLE[3], 0.5, mask=(160, 20, 20, 15))]
    assert not any(costs(rows)["counts"].values())
    assert costs(rows, "segm")["cost"]["localisation"] == pytest.approx(LAST)


def test_of_several_that_mean_one_person_only_the_surest_is_mended():
    beside = [found((170, 20, 20, 40), 0.4), found((150, 20, 20, 40), 0.3)]
    got = costs([*hits(3), *beside])
    assert got["counts"]["localisation"] == 2
    assert got["cost"]["localisation"] == pytest.approx(LAST)
    # The second of them does not stand in for somebody else who was missed.
    assert costs([*hits(2), *beside])["cost"]["localisation"] == pytest.approx(2500 / 101)


def test_a_crowd_is_no_mistake_and_nobody_whom_a_prediction_could_mean():
    inside = [found((30, 70, 20, 25), 0.99), found((90, 70, 20, 25), 0.98)]
    got = costs([*hits(4), *inside], "bbox", 1, CROWD)
    assert not any(got["counts"].values()) and got["AP50"] == pytest.approx(100)
    at_its_edge = found((35, 50, 20, 20), 0.99)  # a quarter of it lies in the crowd
    got = costs([*hits(4), at_its_edge], "bbox", 1, CROWD)
    assert got["counts"] == {name: int(name == "background") for name in KINDS}

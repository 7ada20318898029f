"""Matching and average precision, against plain pycocotools."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.evaluation.matching import IGNORED, UNMATCHED
from persondet.evaluation.metrics import detections_of
from tests.evaluation.coco_scenes import matches_of, plain_precision
from tests.evaluation.scored_scenes import found, person, scene

WIDTH, HEIGHT = 40, 30

boxes = st.tuples(
    st.integers(0, WIDTH - 9), st.integers(0, HEIGHT - 9), st.integers(2, 9), st.integers(2, 9)
)
people = st.builds(
    lambda box, category, crowd: person(box, category, crowd=crowd),
    boxes,
    st.integers(1, 2),
    st.sampled_from([0, 0, 0, 1]),
)


@st.composite
def scenes(draw):
    """Images, some of them empty, with people, crowds, near hits and equal scores."""
    truth = draw(st.lists(st.lists(people, max_size=5), min_size=1, max_size=3))
    predictions = []
    for row in truth:
        here = []
        for x, y, w, h in [one["bbox"] for one in row] + draw(st.lists(boxes, max_size=3)):
            for _ in range(draw(st.integers(0, 2))):
                dx, dy = draw(st.integers(-2, 2)), draw(st.integers(-2, 2))
                box = (max(0, x + dx), max(0, y + dy), w, h)
                score = draw(st.sampled_from([0.2, 0.5, 0.5, 0.8, 0.9]))
                here.append(found(box, score, draw(st.integers(1, 2))))
        predictions.append(here)
    return scene(truth, predictions, classes=("person", "rider"), size=(WIDTH + 12, HEIGHT + 12))


@settings(max_examples=60)
@given(scenes(), st.sampled_from(["bbox", "segm"]))
def test_precision_equals_plain_pycocotools(case, task):
    coco, results = case
    if not results:
        return  # pycocotools cannot load nothing
    matches = matches_of(coco, results, task)
    expected = plain_precision(coco, results, task)[[0, 5]]
    known = expected[0, 0] > -1
    for strict, row in ((False, 0), (True, 1)):
        detections = detections_of(matches, strict=strict)
        if known.any():
            np.testing.assert_allclose(
                detections.precision(), expected[row][:, known].mean(axis=1), atol=1e-12
            )
        else:
            assert math.isnan(detections.average_precision())


def matched(truth, predictions, task="bbox"):
    coco, results = scene([truth], [predictions], classes=("person", "rider"))
    return matches_of(coco, results, task).of_image(0).partner.tolist()


def test_the_best_score_chooses_first_and_a_person_is_found_once():
    two = [person((0, 0, 20, 40)), person((50, 0, 20, 40))]
    rows = [found((0, 0, 20, 39), 0.6), found((0, 0, 20, 40), 0.9), found((50, 0, 20, 40), 0.1)]
    assert matched(two, rows) == [0, UNMATCHED, 1]


def test_of_two_equal_overlaps_it_takes_the_later_as_pycocotools_does():
    truth = [person((0, 0, 20, 20)), person((8, 0, 20, 20))]
    rows = [found((4, 0, 20, 20), 0.9), found((0, 0, 20, 20), 0.8)]
    assert matched(truth, rows) == [1, 0]
    precision = plain_precision(*scene([truth], [rows]), "bbox")[0, :, 0]
    assert (precision == 1).all()  # so both were found there, too


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_a_prediction_in_a_crowd_is_ignored_and_a_person_comes_before_the_crowd(task):
    truth = [person((0, 0, 100, 90), crowd=1), person((10, 10, 20, 40))]
    rows = [
        found((10, 10, 20, 40), 0.9),
        found((10, 10, 20, 40), 0.8),
        found((60, 10, 20, 40), 0.7),
        found((150, 10, 20, 40), 0.6),
    ]
    assert matched(truth, rows, task) == [1, IGNORED, IGNORED, UNMATCHED]


def test_a_mask_is_compared_with_the_mask_and_not_with_the_box():
    truth = [person((0, 0, 20, 40))]
    rows = [found((0, 0, 20, 40), 0.9, mask=(0, 0, 20, 15))]
    assert matched(truth, rows, "bbox") == [0]
    assert matched(truth, rows, "segm") == [UNMATCHED]


def test_the_view_of_an_image_has_every_overlap_whatever_the_class():
    truth = [person((0, 0, 20, 40)), person((10, 0, 20, 40), 2), person((0, 0, 50, 50), crowd=1)]
    rows = [found((0, 0, 20, 40), 0.5, 2), found((100, 0, 20, 40), 0.9), found((0, 0, 20, 30), 0.5)]
    coco, results = scene([[], truth], [[], rows], classes=("person", "rider"))
    image = matches_of(coco, results, "bbox").of_image(1)
    assert image.source.tolist() == [1, 0, 2]
    assert image.class_of.tolist() == [0, 1, 0]
    np.testing.assert_allclose(
        image.iou, [[0, 0, 0], [1, 1 / 3, 1], [0.75, 300 / 1100, 1]], atol=1e-12
    )
    assert image.reaching(0.6).source.tolist() == [1]

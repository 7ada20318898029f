"""Matching and average precision, against plain pycocotools."""

from __future__ import annotations

import contextlib
import copy
import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from persondet.evaluation.average_precision import (
    average_precision,
    count_detections,
    precision_at_recalls,
)
from persondet.evaluation.matching import IGNORED, UNMATCHED, gather, match, measure_overlaps
from tests.evaluation.scored_scenes import found, person, scene

WIDTH, HEIGHT = 40, 30


def plain_precision(coco: dict[str, Any], results: list[dict[str, Any]], task: str) -> np.ndarray:
    """pycocotools' precision at the IoUs 0.5 and 0.75: (2, 101, classes), -1: no ground truth."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(coco)
        truth.createIndex()
        plain = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), task)
        plain.evaluate()
        plain.accumulate()
    return np.asarray(plain.eval["precision"][[0, 5], :, :, 0, -1])


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
def scenes(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Pictures, some of them empty, with people, crowds, near hits and equal scores."""
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
def test_precision_equals_plain_pycocotools(
    case: tuple[dict[str, Any], list[dict[str, Any]]], task: str
) -> None:
    coco, results = case
    scored = gather(coco, results, masks=True)
    overlaps = measure_overlaps(scored, task)
    if not results:
        return  # pycocotools cannot load nothing
    expected = plain_precision(coco, results, task)
    known = expected[0, 0] > -1
    for row, iou in enumerate((0.5, 0.75)):
        partners = [match(one, iou) for one in overlaps]
        detections = count_detections(overlaps, partners, 2)
        got = precision_at_recalls(detections)
        if known.any():
            np.testing.assert_allclose(got, expected[row][:, known].mean(axis=1), atol=1e-12)
        else:
            assert math.isnan(average_precision(detections))


def matched(truth: list[Any], predictions: list[Any], task: str = "bbox") -> list[int]:
    coco, results = scene([truth], [predictions], classes=("person", "rider"))
    return match(measure_overlaps(gather(coco, results, masks=True), task)[0]).tolist()


def test_the_surest_chooses_first_and_a_person_is_found_once() -> None:
    two = [person((0, 0, 20, 40)), person((50, 0, 20, 40))]
    rows = [found((0, 0, 20, 39), 0.6), found((0, 0, 20, 40), 0.9), found((50, 0, 20, 40), 0.1)]
    assert matched(two, rows) == [0, UNMATCHED, 1]


def test_of_two_equal_overlaps_it_takes_the_later_as_pycocotools_does() -> None:
    truth = [person((0, 0, 20, 20)), person((8, 0, 20, 20))]
    rows = [found((4, 0, 20, 20), 0.9), found((0, 0, 20, 20), 0.8)]
    assert matched(truth, rows) == [1, 0]
    precision = plain_precision(*scene([truth], [rows]), "bbox")[0, :, 0]
    assert (precision == 1).all()  # so both were found there, too


def test_another_class_is_nobodys_partner() -> None:
    assert matched([person((0, 0, 20, 40))], [found((0, 0, 20, 40), 0.9, 2)]) == [UNMATCHED]


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_a_prediction_in_a_crowd_is_ignored_and_a_person_comes_before_the_crowd(task: str) -> None:
    truth = [person((0, 0, 100, 90), crowd=1), person((10, 10, 20, 40))]
    rows = [
        found((10, 10, 20, 40), 0.9),
        found((10, 10, 20, 40), 0.8),
        found((60, 10, 20, 40), 0.7),
        found((150, 10, 20, 40), 0.6),
    ]
    assert matched(truth, rows, task) == [1, IGNORED, IGNORED, UNMATCHED]


def test_a_mask_is_compared_with_the_mask_and_not_with_the_box() -> None:
    truth = [person((0, 0, 20, 40))]
    rows = [found((0, 0, 20, 40), 0.9, mask=(0, 0, 20, 15))]
    assert matched(truth, rows, "bbox") == [0]
    assert matched(truth, rows, "segm") == [UNMATCHED]


def test_what_is_of_no_known_picture_or_category_plays_no_part() -> None:
    coco, results = scene([[person((0, 0, 20, 40))]], [[found((0, 0, 20, 40), 0.9)]])
    strays = [{**results[0], "image_id": 99}, {**results[0], "category_id": 99}]
    scored = gather(coco, strays + results, masks=True)
    assert [len(row) for row in scored.found] == [1]
    assert scored.people == 1

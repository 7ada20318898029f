"""COCO's numbers equal plain pycocotools' on whatever a detector may say."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.coco_scenes import (
    our_metrics,
    perfect,
    plain_metrics,
    random_scene,
)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    images=st.integers(1, 5),
    classes=st.integers(1, 3),
    task=st.sampled_from(["bbox", "segm"]),
)
def test_random_detections_score_as_plain_pycocotools_says(seed, images, classes, task):
    """Crowds, empty images, ties, all sizes, several classes."""
    rng = np.random.default_rng(seed)
    coco, found = random_scene(rng, images=images, classes=classes, most=12)
    if found:
        expected = plain_metrics(coco, found, task)
        assert our_metrics(coco, found, task) == pytest.approx(expected, abs=1e-9, nan_ok=True)


@settings(max_examples=5)
@given(seed=st.integers(0, 2**32), task=st.sampled_from(["bbox", "segm"]))
def test_more_than_100_detections_keep_the_standard_numbers_and_get_one_more(seed, task):
    rng = np.random.default_rng(seed)
    coco, found = random_scene(rng, images=2, classes=1, most=260)
    if found:
        expected = plain_metrics(coco, found, task, limit=200)
        ours = our_metrics(coco, found, task, limit=200)
        assert ours == pytest.approx(expected, abs=1e-9, nan_ok=True)
        standard = plain_metrics(coco, found, task)
        assert ours.pop("AP@200") >= 0 or all(a["iscrowd"] for a in coco["annotations"])
        assert ours == pytest.approx(standard, abs=1e-9, nan_ok=True)


@given(seed=st.integers(0, 2**32), task=st.sampled_from(["bbox", "segm"]))
@settings(max_examples=20)
def test_ground_truth_as_prediction_gives_100(seed, task):
    coco, _ = random_scene(np.random.default_rng(seed), images=4, classes=2, most=0)
    for number, one in enumerate(coco["annotations"]):  # people apart: one is not another's too
        one["bbox"][:2] = [number % 3, number % 5]
    found = perfect(coco)
    distinct = {(r["image_id"], r["category_id"], *r["bbox"]) for r in found}
    if found and len(distinct) == len(found):
        for one in coco["annotations"]:
            x, y, w, h = one["bbox"]
            if not one["iscrowd"]:
                one["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        coco["annotations"] = [one for one in coco["annotations"] if not one["iscrowd"]]
        assert our_metrics(coco, found, task)["AP"] == pytest.approx(100)


def test_trap_10_an_annotation_with_the_id_0_counts():
    coco, _ = random_scene(np.random.default_rng(4), images=3, classes=1, most=0)
    coco["annotations"] = [one for one in coco["annotations"] if not one["iscrowd"]]
    for number, one in enumerate(coco["annotations"]):
        one["id"] = number
    assert coco["annotations"]
    assert our_metrics(coco, perfect(coco), "bbox")["AP"] == pytest.approx(100)


def test_no_prediction_is_0_and_no_annotation_is_nan():
    coco, _ = random_scene(np.random.default_rng(1), images=4, classes=1, most=0)
    assert any(not one["iscrowd"] for one in coco["annotations"])
    metrics = our_metrics(coco, [], "segm")
    assert metrics["AP"] == metrics["AR"] == metrics["AP50"] == 0
    coco["annotations"] = []
    assert all(math.isnan(value) for value in our_metrics(coco, [], "bbox").values())

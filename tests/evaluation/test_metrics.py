"""COCO's numbers equal plain pycocotools' on whatever a detector may say."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.evaluation.metrics import coco_metrics, detections_of
from tests.evaluation.scenes import (
    found,
    matches_of,
    person,
    plain_evaluation,
    plain_metrics,
    random_scene,
    scene,
)

PEOPLE = [[(0, 0, 20, 40), (50, 0, 20, 40)], [(9, 9, 90, 70)]]


def metrics_of(matches, coco, limit=100):
    return coco_metrics(matches, [c["name"] for c in coco["categories"]], limit=limit)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    images=st.integers(1, 4),
    classes=st.integers(1, 3),
    task=st.sampled_from(["bbox", "segm"]),
)
def test_random_detections_score_as_plain_pycocotools_says(seed, images, classes, task):
    rng = np.random.default_rng(seed)
    coco, results = random_scene(rng, images=images, classes=classes, most=12)
    if not results:
        return  # pycocotools cannot load nothing
    matches = matches_of(coco, results, task)
    expected = plain_metrics(coco, results, task)
    assert metrics_of(matches, coco) == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    # The curves at one IoU, too.
    precision = plain_evaluation(coco, results, task)[0][[0, 5], :, :, 0, 2]
    known = precision[0, 0] > -1
    for strict in (False, True):
        ours = detections_of(matches, strict=strict)
        if known.any():
            theirs = precision[int(strict)][:, known].mean(axis=1)
            np.testing.assert_allclose(ours.precision(), theirs, atol=1e-12)
        else:
            assert math.isnan(ours.average_precision())


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_more_than_100_detections_keep_the_standard_numbers_and_get_one_more(task):
    coco, results = random_scene(np.random.default_rng(38), images=3, classes=1, most=260)
    assert max(np.bincount([one["image_id"] for one in results])) > 100
    ours = metrics_of(matches_of(coco, results, task, limit=120), coco, limit=120)
    assert ours == pytest.approx(plain_metrics(coco, results, task, limit=120), abs=1e-9)
    assert ours["AP@120"] != ours["AP"]
    del ours["AP@120"]
    assert ours == pytest.approx(plain_metrics(coco, results, task), abs=1e-9)


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_trap_10_ground_truth_scores_100_and_an_annotation_with_the_id_0_counts(task):
    truth = [[person(box) for box in row] for row in PEOPLE]
    coco, results = scene(truth, [[found(box, 0.5) for box in row] for row in PEOPLE])
    for number, one in enumerate(coco["annotations"]):
        one["id"] = number
    metrics = metrics_of(matches_of(coco, results, task), coco)
    assert [metrics[name] for name in ("AP", "APs", "APm", "AR")] == pytest.approx([100] * 4)

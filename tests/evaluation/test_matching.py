"""Who takes which annotation, by hand; `test_metrics` compares with pycocotools at random."""

import numpy as np
import pytest

from persondet.errors import DatasetError
from persondet.evaluation.matching import IGNORED, UNMATCHED, GroundTruth
from tests.evaluation.scenes import found, indexed, matches_of, person, plain_metrics, scene


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
    # So both are found, there too.
    assert plain_metrics(*scene([truth], [rows]), "bbox")["AP50"] == pytest.approx(100)


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_a_prediction_in_a_crowd_is_ignored_and_a_person_comes_before_the_crowd(task):
    truth = [person((0, 0, 100, 90), crowd=1), person((10, 10, 20, 40))]
    boxes = [(10, 10, 20, 40), (10, 10, 20, 40), (60, 10, 20, 40), (150, 10, 20, 40)]
    rows = [found(box, 0.9 - number / 10) for number, box in enumerate(boxes)]
    assert matched(truth, rows, task) == [1, IGNORED, IGNORED, UNMATCHED]


def test_the_view_of_an_image_has_every_overlap_whatever_the_class(monkeypatch):
    monkeypatch.setattr("persondet.evaluation.matching._AT_ONCE", 1)  # a batch for each image
    truth = [person((0, 0, 20, 40)), person((10, 0, 20, 40), 2), person((0, 0, 50, 50), crowd=1)]
    rows = [found((0, 0, 20, 40), 0.5, 2), found((100, 0, 20, 40), 0.9), found((0, 0, 20, 30), 0.5)]
    before = [person((0, 0, 9, 9))], [found((0, 0, 9, 8), 0.9), found((0, 0, 9, 9), 0.8, 2)]
    coco, results = scene([before[0], truth], [before[1], rows], classes=("person", "rider"))
    image = matches_of(coco, results, "bbox").of_image(1)
    assert image.source.tolist() == [1, 0, 2]
    assert image.class_of.tolist() == [0, 1, 0]
    np.testing.assert_allclose(
        image.iou, [[0, 0, 0], [1, 1 / 3, 1], [0.75, 300 / 1100, 1]], atol=1e-12
    )
    assert image.reaching(0.6).source.tolist() == [1]


def test_annotations_with_and_without_masks_are_refused_together():
    bare = {**person((0, 0, 9, 9)), "segmentation": []}
    assert not GroundTruth(indexed(scene([[bare]], [])[0])).has_masks
    with pytest.raises(DatasetError, match="annotation 2 has no mask"):
        GroundTruth(indexed(scene([[person((0, 0, 9, 9)), bare]], [])[0]))

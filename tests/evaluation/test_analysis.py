"""The files that explain a score: what they hold, and that they come out right of little."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from persondet.evaluation.analysis import Analysis
from persondet.evaluation.ground_truth import GroundTruth
from persondet.evaluation.matching import match
from persondet.evaluation.predictions import Detection
from tests.evaluation.coco_scenes import indexed
from tests.evaluation.scored_scenes import Rectangle, found, person, scene

ONE: Rectangle = (10, 20, 20, 40)
TWO: Rectangle = (60, 20, 20, 40)
THREE: Rectangle = (120, 20, 40, 60)


def analysed(coco, results):
    """What an evaluator makes of a scene; its records are read one image at a time."""
    truth = GroundTruth(indexed(coco))
    by_image = {image["id"]: [] for image in coco["images"]}
    for one in results:
        by_image[one["image_id"]].append(Detection(**one))
    tasks = ("bbox", "segm") if truth.has_masks else ("bbox",)
    return Analysis(
        {task: match(truth, by_image.__getitem__, task, 100) for task in tasks},
        by_image.__getitem__,
    )


def written(folder, truth, predictions, *, threshold=0.5, classes=("person",), pictures=True):
    """Analyse a scene, and return its three files."""
    coco, results = scene(truth, predictions, classes=classes)
    files = {}
    for image in coco["images"] if pictures else ():
        files[image["id"]] = str(folder / f"{image['id']}.png")
        cv2.imwrite(files[image["id"]], np.full((100, 200, 3), 120, np.uint8))
    analysed(coco, results).write(folder / "out", "scored", files, threshold=threshold)

    def no_constant(name):
        raise AssertionError(f"{name} is not JSON")

    return {
        name: json.loads((folder / "out" / name).read_text(), parse_constant=no_constant)
        for name in ("curves.json", "errors.json", "gallery/gallery.json")
    }


@pytest.fixture
def truth():
    return [[person(ONE), person(TWO)], [person(THREE)], []]


def test_each_file_tells_of_both_tasks_and_its_schema(tmp_path, truth):
    rows = [[found(ONE, 0.9), found((150, 5, 20, 30), 0.8)], [found(THREE, 0.3)], []]
    files = written(tmp_path, truth, rows)
    assert all(file["schema"] == 1 for file in files.values())
    curves, errors = files["curves.json"], files["errors.json"]
    for task in ("bbox", "segm"):
        best = curves["tasks"][task]["best"]
        assert (best["hits"], best["misses"], best["false_alarms"]) == (2, 1, 1)
        at = curves["tasks"][task]["at_threshold"]
        assert (at["hits"], at["misses"], at["false_alarms"]) == (1, 2, 1)
        assert errors["tasks"][task]["counts"]["background"] == 1
        assert errors["tasks"][task]["counts"]["missed"] == 2
        assert errors["tasks"][task]["counts_all"]["missed"] == 1
    assert errors["task"] == "segm"
    assert [row["people"] for row in errors["recall"]["size"]] == [2, 1, 0]
    assert [row["found"] for row in errors["recall"]["size"]] == [1, 0, 0]
    assert sum(curves["sizes"]["ground_truth"]) == 3
    assert sum(curves["sizes"]["found"]) == 1


def test_the_threshold_changes_what_is_drawn_and_never_what_is_measured(tmp_path, truth):
    rows = [[found(ONE, 0.9), found((150, 5, 20, 30), 0.8)], [found(THREE, 0.3)], []]
    low, high = tmp_path / "low", tmp_path / "high"
    low.mkdir()
    high.mkdir()
    first = written(low, truth, rows, threshold=0.1)
    second = written(high, truth, rows, threshold=0.95)
    for task in ("bbox", "segm"):
        for key in ("AP50", "cost", "cost_false_positives", "counts_all"):
            assert (
                first["errors.json"]["tasks"][task][key]
                == second["errors.json"]["tasks"][task][key]
            )
        for key in ("best", "pr", "precision", "score_histogram"):
            assert (
                first["curves.json"]["tasks"][task][key]
                == second["curves.json"]["tasks"][task][key]
            )
    assert first["errors.json"]["recall"] != second["errors.json"]["recall"]


def test_the_worst_images_come_first_with_a_caption_in_words(tmp_path):
    truth = [
        [person(ONE), person(TWO)],
        [person(ONE), person(TWO), person(THREE)],
        [person(ONE)],
        [person(THREE)],
    ]
    rows = [
        [found(ONE, 0.9)],
        [found(ONE, 0.9)],
        [found(ONE, 0.9), found(ONE, 0.8), found((150, 5, 20, 30), 0.7)],
        [found(THREE, 0.9, mask=(120, 20, 40, 20))],
    ]
    gallery = written(tmp_path, truth, rows)["gallery/gallery.json"]
    misses = gallery["misses"]
    # Of equally many the larger; a mask that fits too badly finds nobody.
    assert [row["image"] for row in misses] == ["1.jpg", "3.jpg", "0.jpg"]
    assert misses[0]["caption"].startswith("2 of 3 people are not found")
    assert "28 to 49 pixels" in misses[0]["caption"]
    alarm = gallery["false_alarms"][0]
    assert alarm["image"] == "2.jpg"
    assert alarm["caption"].startswith("2 of 3 detections are false alarms")
    assert "1 on a person found already" in alarm["caption"]
    assert "1 where nobody is annotated" in alarm["caption"]
    assert "0.80" in alarm["caption"]
    (poor,) = gallery["poor_masks"]
    assert poor["image"] == "3.jpg"
    assert poor["iou"] == pytest.approx(1 / 3)
    for rows_of_kind in (misses, gallery["false_alarms"], gallery["poor_masks"]):
        for row in rows_of_kind:
            picture = cv2.imread(str(tmp_path / "out/gallery" / row["file"]))
            assert 100 < picture.shape[1] <= 1280


def test_without_ground_truth_everything_is_a_false_alarm(tmp_path):
    files = written(tmp_path, [[], []], [[found(ONE, 0.9)], []])
    errors = files["errors.json"]
    assert errors["tasks"]["bbox"]["AP50"] is None
    assert set(errors["tasks"]["bbox"]["cost"].values()) == {None}
    assert files["curves.json"]["tasks"]["bbox"]["best"] is None
    assert len(files["gallery/gallery.json"]["false_alarms"]) == 1

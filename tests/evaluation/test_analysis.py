"""The files that explain a score: what they hold, and that they come out right of little."""

import json

import cv2
import numpy as np
import pytest

from persondet.evaluation.analysis import Analysis
from tests.evaluation.scenes import found, matches_of, person, reader, scene

ONE, TWO, THREE = (10, 20, 20, 40), (60, 20, 20, 40), (120, 20, 40, 60)
NOBODY = found((150, 5, 20, 30), 0.8)
TRUTH = [[person(ONE), person(TWO)], [person(THREE)], []]
ROWS = [[found(ONE, 0.9), NOBODY], [found(THREE, 0.3)], []]


def written(folder, truth, predictions, *, threshold=0.5):
    coco, results = scene(truth, predictions)
    files = {image["id"]: str(folder / image["file_name"]) for image in coco["images"]}
    for file in files.values():
        cv2.imwrite(file, np.full((100, 200, 3), 120, np.uint8))
    matches = {task: matches_of(coco, results, task) for task in ("bbox", "segm")}
    Analysis(matches, reader(results)).write(folder / "out", "scored", files, threshold=threshold)
    names = ("curves.json", "errors.json", "gallery/gallery.json")
    read_files = [json.loads((folder / "out" / n).read_text(), parse_constant=int) for n in names]
    assert all(file["schema"] == 1 for file in read_files)
    return read_files


def test_each_file_tells_of_both_tasks_at_the_threshold(tmp_path):
    curves, errors, _ = written(tmp_path, TRUTH, ROWS)
    for task in ("bbox", "segm"):
        for name, expected in (("best", (2, 1, 1)), ("at_threshold", (1, 2, 1))):
            point = curves["tasks"][task][name]
            assert (point["hits"], point["misses"], point["false_alarms"]) == expected
        counts, everything = (errors["tasks"][task][name] for name in ("counts", "counts_all"))
        assert (counts["background"], counts["missed"], everything["missed"]) == (1, 2, 1)
    assert (errors["task"], errors["classes"], curves["images"]) == ("segm", 1, 3)
    rows = [(row["people"], row["found"]) for row in errors["recall"]["size"]]
    assert rows == [(2, 1), (1, 0), (0, 0)]
    assert (sum(curves["sizes"]["ground_truth"]), sum(curves["sizes"]["found"])) == (3, 1)

    # The threshold changes what is drawn and never what is measured.
    other_curves, other_errors, _ = written(tmp_path, TRUTH, ROWS, threshold=0.95)
    for before, after, keys in (
        (curves, other_curves, ("best", "pr", "precision", "score_histogram")),
        (errors, other_errors, ("AP50", "cost", "cost_false_positives", "counts_all")),
    ):
        assert all(before["tasks"]["segm"][key] == after["tasks"]["segm"][key] for key in keys)
    assert errors["recall"] != other_errors["recall"]


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
    gallery = written(tmp_path, truth, rows)[2]
    misses, alarms, poor = (gallery[name] for name in ("misses", "false_alarms", "poor_masks"))
    # Of equally many the larger; a mask that fits too badly finds nobody.
    assert [row["image"] for row in misses] == ["1.jpg", "3.jpg", "0.jpg"]
    assert [row["count"] for row in misses] == [2, 1, 1]
    for words in ("2 of 3 people", "28 to 49 pixels"):
        assert words in misses[0]["caption"]
    assert alarms[0]["image"] == "2.jpg"
    kinds = ("1 on a person found already", "1 where nobody is annotated")
    for words in ("2 of 3 detections", *kinds, "0.80"):
        assert words in alarms[0]["caption"]
    assert [(row["image"], row["iou"]) for row in poor] == [("3.jpg", pytest.approx(1 / 3))]
    for row in (*misses, *alarms, *poor):
        image = cv2.imread(str(tmp_path / "out/gallery" / row["file"]))
        assert 100 < image.shape[1] <= 1280


def test_without_ground_truth_everything_is_a_false_alarm(tmp_path):
    curves, errors, gallery = written(tmp_path, [[], []], [[found(ONE, 0.9)], []])
    made = errors["tasks"]["bbox"]
    assert {made["AP50"], made["cost_false_negatives"], *made["cost"].values()} == {None}
    assert curves["tasks"]["bbox"]["best"] is None and len(gallery["false_alarms"]) == 1


def test_the_model_carries_the_lowest_threshold_within_two_points_of_the_best_f1():
    """Of 62 people 60 are found; the F1 is 120/122, with two false alarms 120/124, then 120/126."""
    elsewhere = [found((150, 5, 20, 30), score) for score in (0.6, 0.5, 0.3, 0.3)]
    rows = [[found(ONE, 0.9), *([elsewhere[k]] if k < 4 else [])] for k in range(60)] + [[], []]
    coco, results = scene([[person(ONE)]] * 62, rows)
    analysis = Analysis({"bbox": matches_of(coco, results, "bbox")}, reader(results))
    assert analysis.operating_threshold() == 0.4

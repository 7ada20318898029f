"""Single images: strict reading, what goes where, COCO results that pycocotools loads."""

import errno
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, Instances
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from persondet.errors import MediaError, PartialMediaError
from persondet.inference.images import IMAGES, PREDICTIONS, RECORDS, find_images, predict_images
from persondet.visualization.hiding import HideOptions


class OnePerImage:
    """Detects a person in the left half of every image, and a box that is none."""

    model_file, confidence_threshold, batch_size = "some/model.pth", 0.25, 2

    def __init__(self):
        self.metadata = Metadata(name="stub", thing_classes=["bag", "person"])
        self.batches = []

    def predict_batch(self, images):
        self.batches.append([image.shape[:2] for image in images])
        return [self.detect(image) for image in images]

    def detect(self, image):
        height, width = image.shape[:2]
        boxes = [[1.25, 2.0, width / 2, height - 2.0], [float("inf"), 0, 1, 1]]
        found = Instances((height, width), pred_boxes=Boxes(torch.tensor(boxes)))
        found.scores = torch.tensor([0.75, 0.5])
        found.pred_classes = torch.tensor([1, 0])
        found.pred_masks = torch.zeros((2, height, width), dtype=torch.bool)
        found.pred_masks[0, 3 : height - 3, 2 : width // 2] = True
        return found


def write(path, size=(40, 30), value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((size[1], size[0], 3), value, np.uint8))
    return path


def names(found):
    return [name for _, name in found]


def annotate(tmp_path, predictor=None, output="out", **choices):
    images = find_images([tmp_path / "in"])
    predictor = predictor or OnePerImage()
    draw = lambda image, instances: image // 2  # noqa: E731
    return predict_images(images, tmp_path / output, predictor, draw, **choices)


def rows_of(folder):
    return [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        (["more/c*.png", "d.bmp"], ["c1.png", "c2.png", "d.bmp"]),
        (["**/*.jpg"], ["x.jpg", "a.jpg"]),
        (["[x]/*.jpg"], ["x.jpg"]),  # a folder that looks like a pattern
        (["m[no]re/c1.png"], ["c1.png"]),
        (["in", "in/a.jpg"], ["a.jpg", "deep/b.PNG"]),
        (["phone"], ["x.heic.jpg"]),  # which nothing here writes
    ],
)
def test_files_folders_and_globs_are_found(inputs, found, tmp_path, monkeypatch):
    for name in "in/a.jpg in/deep/b.PNG more/c1.png more/c2.png d.bmp [x]/x.jpg".split():
        write(tmp_path / name)
    (tmp_path / "in" / "notes.txt").touch()
    write(tmp_path / "phone/x.jpg").rename(tmp_path / "phone/x.heic")
    monkeypatch.chdir(tmp_path)
    assert names(find_images(inputs)) == found
    assert names(find_images([tmp_path / entry for entry in inputs])) == found


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([""], "no image"),
        (["a" * 5000], "cannot be searched"),
        (["none.jpg"], r"none\.jpg: there is no image"),
        (["x", "y"], r"would both be written as a\.jpg"),
    ],
)
def test_impossible_inputs_are_refused(inputs, says, tmp_path, monkeypatch):
    write(tmp_path / "x" / "a.jpg")
    write(tmp_path / "y" / "a.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MediaError, match=says):
        find_images(inputs)


def test_results_load_in_pycocotools_and_hold_the_very_masks(tmp_path):
    write(tmp_path / "in" / "a.jpg")
    write(tmp_path / "in" / "b" / "c.png", size=(60, 50))
    predictor, output = OnePerImage(), tmp_path / "out"
    # The dataset's category ids, where the model knows them.
    predictor.metadata.thing_dataset_id_to_contiguous_id = {7: 0, 3: 1}
    summary = annotate(tmp_path, predictor)
    assert (summary.images, summary.people, summary.skipped) == (2, 2, ())
    results = COCO(str(output / IMAGES)).loadRes(str(output / PREDICTIONS))
    assert [results.imgs[i]["file_name"] for i in (1, 2)] == ["a.jpg", "b/c.png"]
    assert results.cats[3]["name"] == "person"
    for annotation, row in zip(results.anns.values(), rows_of(output)[1:], strict=True):
        image = results.imgs[annotation["image_id"]]
        width, height = image["width"], image["height"]
        assert (annotation["category_id"], annotation["score"]) == (3, 0.75)
        assert annotation["bbox"] == [1.25, 2, width / 2 - 1.25, height - 4]
        mask = coco_mask.decode(annotation["segmentation"]).astype(bool)
        expected = np.zeros((height, width), bool)
        expected[3 : height - 3, 2 : width // 2] = True
        assert np.array_equal(mask, expected)
        (person,) = row["people"]
        assert person["box"] == [1.25, 2, width / 2, height - 2]
        assert person["mask"] == annotation["segmentation"]["counts"]
    drawn = cv2.imread(str(output / "b" / "c.png"))
    assert drawn.shape == (50, 60, 3)
    assert (drawn == 45).all()


def test_a_broken_image_is_skipped_and_named(tmp_path):
    write(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "b.jpg").write_bytes(b"<html>")
    (tmp_path / "in" / "c.png").write_bytes(write(tmp_path / "c.png").read_bytes()[:-30])
    told = []
    summary = annotate(tmp_path, progress=lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]
    (html, cut) = summary.skipped
    assert (summary.images, html[0].name, cut[0].name) == (1, "b.jpg", "c.png")
    assert "HTML page" in html[1]
    assert not (tmp_path / "out" / "b.jpg").exists()
    (tmp_path / "in" / "a.jpg").unlink()
    with pytest.raises(MediaError, match="none of the 2 images"):
        annotate(tmp_path, output="other")
    assert not (tmp_path / "other").exists()


def test_a_full_disk_leaves_a_partial_result(tmp_path, monkeypatch):
    for number in range(3):
        write(tmp_path / "in" / f"{number}.png")
    work = Path.write_bytes

    def full(path, data):
        if path.name.startswith(".1."):
            raise OSError(errno.ENOSPC, "No space left on device")
        return work(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(PartialMediaError, match=r"1\.png cannot be written"):
        annotate(tmp_path)
    assert "0.png" in os.listdir(tmp_path / "out")
    assert not (tmp_path / "out" / RECORDS).exists()
    kept = (tmp_path / "out" / "records.partial.jsonl").read_text().splitlines()
    assert json.loads(kept[1])["file_name"] == "0.png"


def test_images_of_one_size_share_a_forward_pass_and_keep_their_order(tmp_path, monkeypatch):
    sizes = [(20, 20), *[(40, 30), (50, 30)] * 9]
    for number, size in enumerate(sizes):
        write(tmp_path / "in" / f"{number:02}.png", size=size, value=10 * number)
    predictor, alone, output = OnePerImage(), OnePerImage(), tmp_path / "out"
    annotate(tmp_path, predictor)
    assert all(len(set(batch)) == 1 for batch in predictor.batches)
    # Batches of two pass the first image for a while, then it goes alone.
    assert predictor.batches.index([(20, 20)]) in (3, 4)
    assert [len(batch) for batch in predictor.batches].count(2) == 8
    header, *rows = rows_of(output)
    assert (header["schema"], header["version"]) == ("persondet-picture-records", 1)
    assert (header["classes"], header["confidence_threshold"]) == (["bag", "person"], 0.25)
    shapes = [(row["index"], row["width"], row["height"]) for row in rows]
    assert shapes == [(number, *size) for number, size in enumerate(sizes)]
    results = json.loads((output / PREDICTIONS).read_text())
    assert [result["image_id"] for result in results] == list(range(1, len(sizes) + 1))
    for number in range(len(sizes)):  # each image got its own drawing
        assert (cv2.imread(str(output / f"{number:02}.png")) == 10 * number // 2).all()
    monkeypatch.setattr("persondet.inference.images._MOST_BYTES", 30 * 40 * 3)
    annotate(tmp_path, alone, output="other")
    assert alone.batches[0] == [(20, 20)]  # nor do they wait in heaps


@pytest.mark.parametrize("keep", [False, True])
def test_people_are_hidden_before_anything_is_drawn_and_weak_ones_too(keep, tmp_path):
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "in" / "a.png"), pixels)
    predictor, drawn = OnePerImage(), []
    predictor.confidence_threshold = 0.8  # above the score of what it detects

    def draw(image, instances):
        drawn.append(len(instances))
        return image

    images = find_images([tmp_path / "in"])
    options = HideOptions("fill", masks=keep)
    for threshold in (0.8, 0.6):
        predictor.confidence_threshold = threshold
        predict_images(images, tmp_path / "out", predictor, draw, hiding=options, overwrite=True)
        image = cv2.imread(str(tmp_path / "out" / "a.png"))
        assert (image[3:37, 2:30] == 0).all() and (image[:, 36:] == pixels[:, 36:]).all()
    assert drawn == [0, 1]
    (person,) = rows_of(tmp_path / "out")[1]["people"]
    (result,) = json.loads((tmp_path / "out" / PREDICTIONS).read_text())
    assert (person["mask"] is not None) == ("segmentation" in result) == keep

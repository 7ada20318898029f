"""Single images: strict reading, what goes where, COCO results that pycocotools loads."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data.catalog import Metadata
from detectron2.data.detection_utils import read_image
from detectron2.structures import Boxes, Instances
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from persondet.errors import MediaError, OutputExistsError, PartialMediaError
from persondet.inference.images import (
    IMAGES,
    PREDICTIONS,
    RECORDS,
    check_image_output,
    find_images,
    load_image,
    predict_images,
)


class OnePerImage:
    """Detects a person in the left half of every image."""

    model_file, confidence_threshold, batch_size = "some/model.pth", 0.25, 2

    def __init__(self):
        self.metadata = Metadata(name="stub", thing_classes=["bag", "person"])
        self.batches = []

    def predict_batch(self, images):
        self.batches.append([image.shape[:2] for image in images])
        return [self.detect(image) for image in images]

    def detect(self, image):
        height, width = image.shape[:2]
        found = Instances((height, width))
        found.pred_boxes = Boxes(torch.tensor([[1.25, 2.0, width / 2, height - 2.0]]))
        found.scores = torch.tensor([0.75])
        found.pred_classes = torch.tensor([1])
        found.pred_masks = torch.zeros((1, height, width), dtype=torch.bool)
        found.pred_masks[0, 3 : height - 3, 2 : width // 2] = True
        return found


def darken(image, instances):
    return image // 2


def write(path, size=(40, 30), value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((size[1], size[0], 3), value, np.uint8))
    return path


def names(found):
    return [name for _, name in found]


def annotate(tmp_path, predictor=None, output="out", **choices):
    predictor = predictor or OnePerImage()
    images = find_images([tmp_path / "in"])
    return predict_images(images, tmp_path / output, predictor, darken, **choices)


def rows_of(folder):
    return [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        (["in"], ["a.jpg", "deep/b.PNG"]),
        (["more/c*.png", "d.bmp"], ["c1.png", "c2.png", "d.bmp"]),
        (["**/*.jpg"], ["x.jpg", "a.jpg"]),
        (["[x]/*.jpg"], ["x.jpg"]),  # a folder that looks like a pattern
        (["m[no]re/c1.png"], ["c1.png"]),
        (["in", "in/a.jpg"], ["a.jpg", "deep/b.PNG"]),
    ],
)
def test_files_folders_and_globs_are_found(inputs, found, tmp_path, monkeypatch):
    for name in "in/a.jpg in/deep/b.PNG more/c1.png more/c2.png d.bmp [x]/x.jpg".split():
        write(tmp_path / name)
    (tmp_path / "in" / "notes.txt").touch()
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


def test_results_of_an_earlier_run_are_no_input(tmp_path, monkeypatch):
    write(tmp_path / "in" / "a.jpg")
    write(tmp_path / "in" / "out" / "a.jpg")
    write(tmp_path / "in" / "out" / "deep" / "b.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    for entry in ("in", "link", tmp_path / "in", "in/*", "in/**/*.jpg", "."):
        found = find_images([entry], output="in/out")
        assert [path.resolve() for path, _ in found] == [tmp_path / "in" / "a.jpg"]
    # Who names the folder of the results, or one in it, means it.
    assert names(find_images(["in/out/deep"], output="in/out")) == ["b.jpg"]
    with pytest.raises(MediaError, match="is the source itself"):
        check_image_output(find_images(["in"], output="in"), "in", overwrite=True)


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_exif_orientation_is_respected_as_detectron2_does(orientation, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (24, 36, 3), dtype=np.uint8)
    image = Image.fromarray(cv2.resize(pixels, (36, 24)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.jpg"
    image.save(path, exif=exif)
    read = load_image(path)
    assert read.shape == ((24, 36, 3) if orientation < 5 else (36, 24, 3))
    assert np.array_equal(read, read_image(str(path), format="BGR"))
    assert read.flags.c_contiguous


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_image_is_refused(suffix, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(noise).save(path)
    assert load_image(path).shape == (64, 64, 3)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(MediaError, match="cut"):
        load_image(path)


def test_images_of_the_real_kind(real_data):
    folder = real_data / "bad-images"
    broken = {
        *("broken.png", "broken_data_stream.png", "truncated_end_chunk.png", "truncated_image.png"),
        *("truncated_jpeg.jpg", "ultrahdr.jpg"),
    }
    refused = {}
    for path, name in find_images([folder]):
        try:
            image = load_image(path)
        except MediaError as error:
            refused[name] = str(error)
        else:
            assert image.dtype == np.uint8
            assert image.shape[2] == 3
    assert not any("\n" in reason for reason in refused.values())
    assert set(refused) == broken


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
        assert annotation["category_id"] == 3
        assert annotation["bbox"] == [1.25, 2, width / 2 - 1.25, height - 4]
        mask = coco_mask.decode(annotation["segmentation"]).astype(bool)
        expected = np.zeros((height, width), bool)
        expected[3 : height - 3, 2 : width // 2] = True
        assert np.array_equal(mask, expected)
        assert row["people"] == [
            {
                "box": [1.25, 2, width / 2, height - 2],
                "score": 0.75,
                "class": "person",
                "mask": annotation["segmentation"]["counts"],
                "track_id": None,
            }
        ]
    drawn = cv2.imread(str(output / "b" / "c.png"))
    assert drawn.shape == (50, 60, 3)
    assert (drawn == 45).all()


def test_a_broken_image_is_skipped_and_named(tmp_path):
    write(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "b.jpg").write_bytes(b"<html>")
    told = []
    summary = annotate(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    ((path, reason),) = summary.skipped
    assert (summary.images, path.name, "HTML page" in reason) == (1, "b.jpg", True)
    assert not (tmp_path / "out" / "b.jpg").exists()
    (tmp_path / "in" / "a.jpg").unlink()
    with pytest.raises(MediaError, match="none of the 1 images"):
        annotate(tmp_path, output="other")
    assert not (tmp_path / "other").exists()


def test_used_folders_and_the_sources_own_folder_are_refused(tmp_path):
    source = write(tmp_path / "in" / "a.jpg")
    before = source.read_bytes()
    write(tmp_path / "out" / "other.jpg")
    for output, overwrite, error, says in (
        ("out", False, OutputExistsError, "--overwrite"),
        ("in", True, MediaError, "is the source itself"),
        ("in/a.jpg", False, MediaError, "is a file"),
    ):
        with pytest.raises(error, match=says):
            annotate(tmp_path, output=output, overwrite=overwrite)
    assert source.read_bytes() == before
    annotate(tmp_path, overwrite=True)
    expected = ["a.jpg", "images.json", "other.jpg", "predictions.json", "records.jsonl"]
    assert sorted(os.listdir(tmp_path / "out")) == expected


def test_a_disk_that_is_full_later_leaves_a_partial_result(tmp_path, monkeypatch):
    for number in range(3):
        write(tmp_path / "in" / f"{number}.png")
    really = Path.write_bytes

    def full(path, data):
        if path.name.startswith(f".{refused}."):
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    refused = "1"
    with pytest.raises(PartialMediaError, match=r"1\.png cannot be .* before stay \(1\)\."):
        annotate(tmp_path)
    assert sorted(os.listdir(tmp_path / "out")) == ["0.png", "records.partial.jsonl"]
    refused = "0"
    with pytest.raises(OutputExistsError, match=r"0\.png cannot be written"):
        annotate(tmp_path, output="other")


def test_images_of_one_size_share_a_forward_pass_and_keep_their_order(tmp_path):
    sizes = [(40, 30), (50, 30), (40, 30), (30, 40), (50, 30), (40, 30)]
    for number, size in enumerate(sizes):
        write(tmp_path / "in" / f"{number}.png", size=size, value=10 * number)
    told, predictor, output = [], OnePerImage(), tmp_path / "out"
    annotate(tmp_path, predictor, progress=lambda done, total: told.append((done, total)))
    assert all(len(set(batch)) == 1 for batch in predictor.batches)
    assert sorted(map(len, predictor.batches)) == [1, 1, 2, 2]
    assert told == [(done, 6) for done in range(1, 7)]
    header, *rows = rows_of(output)
    assert header == {
        "schema": "persondet-picture-records",
        "version": 1,
        "model": "some/model.pth",
        "classes": ["bag", "person"],
        "confidence_threshold": 0.25,
    }
    assert [row["index"] for row in rows] == list(range(6))
    assert [(row["width"], row["height"]) for row in rows] == sizes
    results = json.loads((output / PREDICTIONS).read_text())
    assert [result["image_id"] for result in results] == list(range(1, 7))
    for number in range(6):  # each image got its own drawing
        assert (cv2.imread(str(output / f"{number}.png")) == 10 * number // 2).all()


def test_a_run_that_is_cut_off_leaves_the_records_of_what_it_did(tmp_path):
    for number in range(6):
        write(tmp_path / "in" / f"{number}.png")

    class Tired(OnePerImage):
        def predict_batch(self, images):
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().predict_batch(images)

    with pytest.raises(KeyboardInterrupt):
        annotate(tmp_path, Tired())
    kept = (tmp_path / "out" / "records.partial.jsonl").read_text().splitlines()
    assert [json.loads(line)["file_name"] for line in kept[1:]] == [f"{n}.png" for n in range(4)]
    assert not (tmp_path / "out" / PREDICTIONS).exists()


def test_images_wait_for_their_like_but_not_for_long_and_not_in_heaps(tmp_path, monkeypatch):
    write(tmp_path / "in" / "00.png", size=(20, 20))
    for number in range(1, 20):
        write(tmp_path / "in" / f"{number:02}.png")
    predictor, alone = OnePerImage(), OnePerImage()
    annotate(tmp_path, predictor)
    # Four batches of two pass it, then it goes alone.
    assert predictor.batches[4] == [(20, 20)]
    assert {len(batch) for batch in predictor.batches[:4] + predictor.batches[5:-1]} == {2}
    assert [row["index"] for row in rows_of(tmp_path / "out")[1:]] == list(range(20))
    monkeypatch.setattr("persondet.inference.images._MOST_BYTES", 30 * 40 * 3)
    annotate(tmp_path, alone, output="other")
    assert alone.batches[:2] == [[(20, 20)], [(30, 40), (30, 40)]]

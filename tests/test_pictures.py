"""Single images: strict reading, what goes where, COCO results that pycocotools loads."""

from __future__ import annotations

import errno
import json
import os
import sys
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
    coco_results,
    find_images,
    load_image,
    predict_images,
)
from persondet.inference.records import PersonRecord, people_of, person_rows


class OnePerPicture:
    """Finds a person in the left half of every image."""

    model_file, confidence_threshold, batch_size = "some/model.pth", 0.25, 2

    def __init__(self):
        self.metadata = Metadata(name="stub", thing_classes=["bag", "person"])
        self.batches = []

    def predict_batch(self, images):
        self.batches.append([image.shape[:2] for image in images])
        return [self.find(image) for image in images]

    def find(self, image):
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


def test_files_folders_and_globs_are_found(tmp_path):
    for name in (
        "in/a.jpg",
        "in/deep/b.PNG",
        "in/notes.txt",
        "more/c1.png",
        "more/c2.png",
        "d.bmp",
    ):
        write(tmp_path / (name if name != "in/notes.txt" else "in/notes.png"))
    inputs = [tmp_path / "in", tmp_path / "more" / "c*.png", tmp_path / "d.bmp"]
    assert names(find_images(inputs)) == [
        *("a.jpg", "deep/b.PNG", "notes.png", "c1.png", "c2.png", "d.bmp")
    ]


def test_a_relative_glob_is_found(tmp_path, monkeypatch):
    write(tmp_path / "x" / "a.jpg")
    monkeypatch.chdir(tmp_path)
    assert names(find_images(["x/*.jpg"])) == ["a.jpg"]
    assert names(find_images(["**/*.jpg"])) == ["a.jpg"]


def test_a_folder_that_looks_like_a_pattern_is_meant_itself(tmp_path):
    write(tmp_path / "[x]" / "a.jpg")
    write(tmp_path / "x" / "b.jpg")
    assert names(find_images([tmp_path / "[x]" / "*.jpg"])) == ["a.jpg"]
    assert names(find_images([tmp_path / "[xy]" / "*.jpg"])) == ["b.jpg"]


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="this Python knows such patterns")
def test_what_is_no_pattern_is_refused(tmp_path):
    write(tmp_path / "a.jpg")
    with pytest.raises(MediaError, match=r"\*\*\.jpg: this is no pattern \(.*\); write e\.g\."):
        find_images([tmp_path / "**.jpg"])


def test_empty_and_endless_inputs_are_refused(tmp_path, monkeypatch):
    write(tmp_path / "a.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MediaError, match="an --input is empty"):
        find_images([""])
    with pytest.raises(MediaError, match=r"cannot be searched \(File name too long\)"):
        find_images(["a" * 5000])


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


def test_inputs_without_images_and_clashing_names_are_refused(tmp_path):
    write(tmp_path / "x" / "a.jpg")
    write(tmp_path / "y" / "a.jpg")
    with pytest.raises(MediaError, match="no image"):
        find_images([tmp_path / "none.jpg"])
    with pytest.raises(MediaError, match=r"would both be written as a\.jpg"):
        find_images([tmp_path / "x", tmp_path / "y"])
    assert names(find_images([tmp_path / "x", tmp_path / "x" / "a.jpg"])) == ["a.jpg"]


@pytest.mark.parametrize("orientation", range(1, 9))
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
    output = tmp_path / "out"
    summary = predict_images(find_images([tmp_path / "in"]), output, OnePerPicture(), darken)
    assert (summary.images, summary.people, summary.skipped) == (2, 2, ())
    results = COCO(str(output / IMAGES)).loadRes(str(output / PREDICTIONS))
    assert [results.imgs[i]["file_name"] for i in (1, 2)] == ["a.jpg", "b/c.png"]
    assert results.cats[2]["name"] == "person"
    for annotation in results.anns.values():
        image = results.imgs[annotation["image_id"]]
        width, height = image["width"], image["height"]
        assert annotation["category_id"] == 2
        assert annotation["bbox"] == [1.25, 2, width / 2 - 1.25, height - 4]
        mask = coco_mask.decode(annotation["segmentation"]).astype(bool)
        expected = np.zeros((height, width), bool)
        expected[3 : height - 3, 2 : width // 2] = True
        assert np.array_equal(mask, expected)
    drawn = cv2.imread(str(output / "b" / "c.png"))
    assert drawn.shape == (50, 60, 3)
    assert (drawn == 45).all()


def test_a_broken_image_is_skipped_and_named(tmp_path):
    write(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "b.jpg").write_bytes(b"<html>")
    pictures = find_images([tmp_path / "in"])
    summary = predict_images(pictures, tmp_path / "out", OnePerPicture(), darken)
    assert summary.images == 1
    ((path, reason),) = summary.skipped
    assert path.name == "b.jpg"
    assert "HTML page" in reason
    assert not (tmp_path / "out" / "b.jpg").exists()
    with pytest.raises(MediaError, match="none of the 1 images"):
        predict_images(pictures[1:], tmp_path / "other", OnePerPicture(), darken)
    assert not (tmp_path / "other").exists()


def test_used_folders_and_the_sources_own_folder_are_refused(tmp_path):
    source = write(tmp_path / "in" / "a.jpg")
    before = source.read_bytes()
    pictures = find_images([tmp_path / "in"])
    write(tmp_path / "out" / "other.jpg")
    with pytest.raises(OutputExistsError):
        predict_images(pictures, tmp_path / "out", OnePerPicture(), darken)
    with pytest.raises(MediaError, match="is the source itself"):
        predict_images(pictures, tmp_path / "in", OnePerPicture(), darken, overwrite=True)
    with pytest.raises(MediaError, match="is a file"):
        predict_images(pictures, source, OnePerPicture(), darken)
    assert source.read_bytes() == before
    predict_images(pictures, tmp_path / "out", OnePerPicture(), darken, overwrite=True)
    assert sorted(os.listdir(tmp_path / "out")) == sorted(
        ["a.jpg", "images.json", "other.jpg", "predictions.json", "records.jsonl"]
    )


def test_a_disk_that_is_full_later_leaves_a_partial_result(tmp_path, monkeypatch):
    for number in range(3):
        write(tmp_path / "in" / f"{number}.png")
    pictures, really = find_images([tmp_path / "in"]), Path.write_bytes
    refused = "1.png"

    def full(path, data):
        if path.name.startswith(f".{refused[0]}."):
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(PartialMediaError, match=r"1\.png cannot be .* before stay \(1\)\."):
        predict_images(pictures, tmp_path / "out", OnePerPicture(), darken)
    assert sorted(os.listdir(tmp_path / "out")) == ["0.png", "records.partial.jsonl"]
    refused = "0.png"
    with pytest.raises(OutputExistsError, match=r"0\.png cannot be written"):
        predict_images(pictures, tmp_path / "other", OnePerPicture(), darken)


def test_results_that_do_not_fit_after_the_images_are_a_partial_result(tmp_path, monkeypatch):
    write(tmp_path / "in" / "a.png")

    def full(path, *rest, **options):
        raise OutputExistsError(f"{path} cannot be written (full); choose another place.")

    monkeypatch.setattr("persondet.inference.images.write_json", full)
    with pytest.raises(PartialMediaError, match=r"predictions\.json cannot .* stay \(1\)\."):
        predict_images(find_images([tmp_path / "in"]), tmp_path / "out", OnePerPicture(), darken)
    assert (tmp_path / "out" / "records.partial.jsonl").exists()


def test_category_ids_are_the_datasets_where_the_model_knows_them(tmp_path):
    predictor = OnePerPicture()
    predictor.metadata.thing_dataset_id_to_contiguous_id = {7: 0, 3: 1}
    write(tmp_path / "in" / "a.jpg")
    predict_images(find_images([tmp_path / "in"]), tmp_path / "out", predictor, darken)
    (result,) = json.loads((tmp_path / "out" / PREDICTIONS).read_text())
    assert result["category_id"] == 3


def test_a_model_without_masks_and_boxes_that_are_no_numbers():
    found = Instances((30, 40))
    found.pred_boxes = Boxes(torch.tensor([[0.0, 0, 4, 5], [float("inf"), 0, 1, 1]]))
    found.scores = torch.tensor([0.5, 0.4])
    found.pred_classes = torch.tensor([0, 0])
    assert coco_results(found, 9, [1]) == [
        {"image_id": 9, "category_id": 1, "bbox": [0, 0, 4, 5], "score": 0.5}
    ]


def test_images_of_one_size_share_a_forward_pass_and_keep_their_order(tmp_path):
    sizes = [(40, 30), (50, 30), (40, 30), (30, 40), (50, 30), (40, 30)]
    for number, size in enumerate(sizes):
        write(tmp_path / "in" / f"{number}.png", size=size, value=10 * number)
    told, predictor = [], OnePerPicture()
    predict_images(
        find_images([tmp_path / "in"]),
        tmp_path / "out",
        predictor,
        darken,
        progress=lambda done, total: told.append((done, total)),
    )
    assert all(len(set(batch)) == 1 for batch in predictor.batches)
    assert sorted(map(len, predictor.batches)) == [1, 1, 2, 2]
    assert told == [(done, 6) for done in range(1, 7)]
    header, *rows = map(json.loads, (tmp_path / "out" / RECORDS).read_text().splitlines())
    assert header == {
        "schema": "persondet-picture-records",
        "version": 1,
        "model": "some/model.pth",
        "classes": ["bag", "person"],
        "confidence_threshold": 0.25,
    }
    assert [row["index"] for row in rows] == list(range(6))
    assert [(row["width"], row["height"]) for row in rows] == sizes
    results = json.loads((tmp_path / "out" / PREDICTIONS).read_text())
    assert [result["image_id"] for result in results] == list(range(1, 7))
    for number, (row, result) in enumerate(zip(rows, results, strict=True)):
        assert row["file_name"] == f"{number}.png"
        drawn = cv2.imread(str(tmp_path / "out" / row["file_name"]))
        assert (drawn == 10 * number // 2).all()  # each image got its own drawing
        (person,) = row["people"]
        assert person["mask"] == result["segmentation"]["counts"]
        assert person["box"] == [1.25, 2, row["width"] / 2, row["height"] - 2]


def test_people_in_the_records_are_those_of_clips(tmp_path):
    write(tmp_path / "in" / "a.png")
    predictor = OnePerPicture()
    predict_images(find_images([tmp_path / "in"]), tmp_path / "out", predictor, darken)
    row = json.loads((tmp_path / "out" / RECORDS).read_text().splitlines()[1])
    people = people_of(predictor.find(np.zeros((30, 40, 3), np.uint8)), ["bag", "person"])
    assert isinstance(people[0], PersonRecord)
    assert row["people"] == json.loads(json.dumps(person_rows(people)))


def test_a_run_that_is_cut_off_leaves_the_records_of_what_it_did(tmp_path):
    for number in range(6):
        write(tmp_path / "in" / f"{number}.png")

    class Tired(OnePerPicture):
        def predict_batch(self, images):
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().predict_batch(images)

    with pytest.raises(KeyboardInterrupt):
        predict_images(find_images([tmp_path / "in"]), tmp_path / "out", Tired(), darken)
    kept = (tmp_path / "out" / "records.partial.jsonl").read_text().splitlines()
    assert [json.loads(line)["file_name"] for line in kept[1:]] == [f"{n}.png" for n in range(4)]
    assert not (tmp_path / "out" / PREDICTIONS).exists()


def test_a_image_unlike_the_others_does_not_wait_for_the_end(tmp_path):
    write(tmp_path / "in" / "00.png", size=(20, 20))
    for number in range(1, 20):
        write(tmp_path / "in" / f"{number:02}.png")
    predictor = OnePerPicture()
    predict_images(find_images([tmp_path / "in"]), tmp_path / "out", predictor, darken)
    # Four batches of two pass it, then it goes alone.
    assert predictor.batches[4] == [(20, 20)]
    assert {len(batch) for batch in predictor.batches[:4] + predictor.batches[5:-1]} == {2}
    rows = (tmp_path / "out" / RECORDS).read_text().splitlines()[1:]
    assert [json.loads(row)["index"] for row in rows] == list(range(20))


def test_images_that_wait_for_their_like_are_no_heap(tmp_path, monkeypatch):
    sizes = [(40, 30), (42, 30), (40, 30), (42, 30)]
    for number, size in enumerate(sizes):
        write(tmp_path / "in" / f"{number}.png", size=size)
    pictures, alike, alone = find_images([tmp_path / "in"]), OnePerPicture(), OnePerPicture()
    predict_images(pictures, tmp_path / "out", alike, darken)
    assert alike.batches == [[(30, 40)] * 2, [(30, 42)] * 2]
    monkeypatch.setattr("persondet.inference.images._MOST_BYTES", 30 * 42 * 3)
    predict_images(pictures, tmp_path / "other", alone, darken)
    assert alone.batches == [[size[::-1]] for size in sizes]

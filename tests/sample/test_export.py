"""The exports: Roboflow's conventions, the same bytes for the same seed, nothing half written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from persondet.errors import OutputExistsError
from persondet.sample import export
from persondet.sample.export import make_sample, sample_is_current, write_export
from persondet.sample.objects import OBJECT_CLASSES
from persondet.sample.placement import plan_split

COUNTS = {"train": 6, "valid": 2, "test": 2}
SIZE = (320, 180)


def files_of(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def read(root: Path, split: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / split / "_annotations.coco.json").read_text())
    return content


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    write_export(folder, "people", COUNTS, size=SIZE, seed=3)
    return folder


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objects")
    write_export(folder, "street_objects", {"train": 4, "valid": 1, "test": 1}, size=SIZE, seed=3)
    return folder


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(tmp_path, people):
    write_export(tmp_path, "people", COUNTS, size=SIZE, seed=3, workers=2)
    assert files_of(tmp_path) == files_of(people)


def test_another_seed_gives_other_pictures(tmp_path, people):
    write_export(tmp_path, "people", {"valid": 2}, size=SIZE, seed=4)
    first = {p.read_bytes() for p in (people / "valid").glob("*.jpg")}
    assert first.isdisjoint(p.read_bytes() for p in (tmp_path / "valid").glob("*.jpg"))


def test_names_and_sizes_of_the_pictures_are_those_of_the_json(people):
    for split, count in COUNTS.items():
        content = read(people, split)
        assert [image["id"] for image in content["images"]] == list(range(count))
        names = {image["file_name"] for image in content["images"]}
        assert names == {path.name for path in (people / split).glob("*.jpg")}
        for image in content["images"]:
            assert re.fullmatch(r"street_\d{4}_jpg\.rf\.[0-9a-f]{32}\.jpg", image["file_name"])
            assert image["file_name"].startswith(image["extra"]["name"].replace(".", "_"))
            picture = cv2.imread(str(people / split / image["file_name"]))
            assert picture.shape == (SIZE[1], SIZE[0], 3) == (image["height"], image["width"], 3)


def test_a_json_has_the_fields_and_habits_of_a_roboflow_export(people):
    content = read(people, "train")
    assert list(content) == ["info", "licenses", "categories", "images", "annotations"]
    assert content["categories"] == [
        {"id": 0, "name": "people-walking", "supercategory": "none"},
        {"id": 1, "name": "person", "supercategory": "people-walking"},
    ]
    rows = content["annotations"]
    assert [row["id"] for row in rows] == list(range(len(rows)))
    assert len(rows) > 8
    for row in rows:
        assert (row["category_id"], row["iscrowd"]) == (1, 0)
        x, y, width, height = row["bbox"]
        assert row["area"] == pytest.approx(width * height, abs=1e-3)
        assert x >= 0 and y >= 0 and x + width <= SIZE[0] and y + height <= SIZE[1]
        points = np.concatenate([np.reshape(part, (-1, 2)) for part in row["segmentation"]])
        low, high = points.min(axis=0), points.max(axis=0)
        np.testing.assert_allclose([x, y, x + width, y + height], [*low, *high], atol=2e-3)
        for part in row["segmentation"]:
            assert len(part) >= 8
            assert part[:2] == part[-2:]  # closed, as Roboflow writes them
    assert (people / "README.roboflow.txt").is_file()


def test_no_picture_is_in_two_splits(people):
    names, contents = [], []
    for split in COUNTS:
        paths = list((people / split).glob("*.jpg"))
        names += [path.name.partition("_jpg.rf.")[0] for path in paths]
        contents += [path.read_bytes() for path in paths]
    assert len(set(names)) == len(names)
    assert len(set(contents)) == len(contents)


def test_annotated_people_do_not_share_pixels(people):
    content = read(people, "train")
    for image in content["images"]:
        rows = [row for row in content["annotations"] if row["image_id"] == image["id"]]
        masks = [
            coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(row["segmentation"], 180, 320)))
            for row in rows
        ]
        for k, mask in enumerate(masks):
            others = np.zeros_like(mask)
            for other in masks[:k] + masks[k + 1 :]:
                others |= other
            # Outlines are simplified by less than half a pixel: neighbours may touch.
            assert (mask & others).sum() <= 0.1 * mask.sum() + 4


def test_street_objects_have_five_classes_and_no_people(objects):
    content = read(objects, "train")
    assert [c["name"] for c in content["categories"]] == ["street-objects", *OBJECT_CLASSES]
    assert len(OBJECT_CLASSES) == 5
    assert "person" not in OBJECT_CLASSES
    assert {row["category_id"] for row in content["annotations"]} <= {1, 2, 3, 4, 5}
    assert len({row["category_id"] for row in content["annotations"]}) >= 3


def test_a_plan_meets_its_shares_exactly():
    plans = plan_split(7, "people", "test", 60)
    small = [flag for plan in plans for flag in plan.small]
    hidden = [flag for plan in plans for flag in plan.hidden]
    assert 0.16 <= np.mean(small) <= 0.20
    assert 0.31 <= np.mean(hidden) <= 0.36
    assert sum(not plan.small for plan in plans) == 4  # of 60 images without people
    assert {plan.time for plan in plans} == {"day", "overcast", "dusk", "night"}
    assert {plan.weather for plan in plans} == {"clear", "rain", "fog"}


def test_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="people, street_objects"):
        write_export(tmp_path, "cats", {"train": 1})


@pytest.fixture
def tiny() -> dict[str, Any]:
    counts = {"train": 1, "valid": 1, "test": 1}
    return {
        "people_counts": counts,
        "object_counts": counts,
        "size": (160, 90),
        "frames": 2,
        "clip_size": (160, 96),
    }


def test_a_sample_is_whole_recorded_and_not_overwritten_unasked(tmp_path, tiny):
    output = tmp_path / "sample"
    parts = []
    record = make_sample(output, 5, progress=lambda *step: parts.append(step), **tiny)
    assert json.loads((output / "sample.json").read_text()) == record
    assert record["seed"] == 5
    assert parts[-1] == ("city_walk", 2, 2)
    assert sample_is_current(output, 5)
    assert not sample_is_current(output, 6)
    before = files_of(output)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        make_sample(output, 6, **tiny)
    assert files_of(output) == before
    make_sample(output, 6, overwrite=True, **tiny)
    assert sample_is_current(output, 6)
    (output / "city_walk.mp4").unlink()
    assert not sample_is_current(output, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


def test_a_failure_leaves_nothing_under_the_name(tmp_path, tiny, monkeypatch):
    def broken(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(export, "write_clip", broken)
    with pytest.raises(OSError, match="disk full"):
        make_sample(tmp_path / "sample", 5, **tiny)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", '{"seed": 5}', "{"])
def test_a_damaged_record_means_the_sample_is_made_again(tmp_path, text):
    (tmp_path / "sample.json").write_text(text)
    assert not sample_is_current(tmp_path, 5)

"""The exports: Roboflow's conventions, the same bytes for the same seed, nothing half written."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from persondet.data.shapes import mask_to_polygons, polygon_box
from persondet.errors import OutputExistsError
from persondet.sample import export
from persondet.sample.export import (
    drawing_pool,
    make_sample,
    sample_is_current,
    write_export,
)
from tests.data.fetch.conftest import contents

COUNTS = {"train": 4, "valid": 1}
SIZE = (320, 180)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    shares = write_export(folder, COUNTS, size=SIZE, seed=3)
    assert (shares["train"]["images"], shares["train"]["empty_images"]) == (COUNTS["train"], 0)
    assert 0 < shares["train"]["occluded"] < 0.6
    return folder


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(tmp_path, people):
    with drawing_pool(2) as run:
        write_export(tmp_path / "same", COUNTS, size=SIZE, seed=3, run=run)
    assert contents(tmp_path / "same") == contents(people)
    write_export(tmp_path / "other", {"valid": 1}, size=SIZE, seed=4)
    assert not {*contents(people).values()} & {*contents(tmp_path / "other").values()}


def test_a_split_has_the_fields_and_habits_of_a_roboflow_export(people):
    assert len(set(contents(people).values())) == len(contents(people))  # no image is there twice
    train = json.loads((people / "train/_annotations.coco.json").read_text())
    assert [row["id"] for row in train["images"]] == list(range(COUNTS["train"]))
    names = {row["file_name"] for row in train["images"]}
    assert names == {path.name for path in (people / "train").glob("*.jpg")}
    for row in train["images"]:
        original = re.escape(row["extra"]["name"].replace(".", "_"))
        assert re.fullmatch(rf"{original}\.rf\.[0-9a-f]{{32}}\.jpg", row["file_name"])
        image = cv2.imread(str(people / "train" / row["file_name"]))
        assert image.shape == (SIZE[1], SIZE[0], 3) == (row["height"], row["width"], 3)
    assert list(train) == ["info", "licenses", "categories", "images", "annotations"]
    assert train["categories"] == [
        {"id": 0, "name": "people-walking", "supercategory": "none"},
        {"id": 1, "name": "person", "supercategory": "people-walking"},
    ]
    rows = train["annotations"]
    assert [row["id"] for row in rows] == list(range(len(rows))) and len(rows) > 5
    for row in rows:
        assert (row["category_id"], row["iscrowd"]) == (1, 0)
        x, y, width, height = row["bbox"]
        assert row["area"] == pytest.approx(width * height, abs=1e-3)
        assert x >= 0 and y >= 0 and x + width <= SIZE[0] and y + height <= SIZE[1]
        np.testing.assert_allclose(row["bbox"], polygon_box(row["segmentation"]), atol=2e-3)
        for part in row["segmentation"]:  # closed, as Roboflow writes them
            assert len(part) >= 8 and part[:2] == part[-2:]


@pytest.mark.slow
def test_a_sample_is_whole_recorded_and_replaced_only_as_a_whole(tmp_path, monkeypatch):
    output, steps = tmp_path / "sample", []
    tiny = {"size": (160, 90), "frames": 2, "clip_size": (160, 96)}
    tiny["counts"] = dict.fromkeys(("train", "valid", "test"), 1)
    record = make_sample(output, 5, progress=lambda *step: steps.append(step), **tiny)
    assert json.loads((output / "sample.json").read_text()) == record
    assert steps == [(done, 5) for done in range(1, 6)]  # 3 images, 2 frames
    assert sample_is_current(output, 5) and not sample_is_current(output, 6)

    def broken(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    before = contents(output)
    monkeypatch.setattr(export, "write_clip", broken)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        make_sample(output, 6, **tiny)
    with pytest.raises(OSError, match="disk full"):
        make_sample(output, 6, overwrite=True, **tiny)
    assert contents(output) == before
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]
    (output / "city_walk.mp4").unlink()
    assert not sample_is_current(output, 5)
    for damaged in ("", "[]", '{"seed": 5}', "{"):
        (output / "sample.json").write_text(damaged)
        assert not sample_is_current(output, 5)


def test_a_rectangle_becomes_itself_and_specks_vanish():
    mask = np.zeros((20, 30), bool)
    mask[4:14, 6:21] = mask[17, 2] = True
    (polygon,) = mask_to_polygons(mask, 100, 50)
    # Half a pixel of the enlarged mask is lost at each side.
    np.testing.assert_allclose(polygon_box([polygon]), [106, 54, 15, 10], atol=0.26)
    assert len(polygon) == 10


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_polygons_keep_blobs_and_their_holes(seed):
    noise = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal((80, 80)), (0, 0), 6)
    mask = np.pad(noise > 0.02, 12, constant_values=True)
    mask[40:60, 40:50] = False
    codes = coco_mask.frPyObjects(mask_to_polygons(mask), *mask.shape)
    again = coco_mask.decode(coco_mask.merge(codes)) > 0
    assert (again & mask).sum() > 0.94 * (again | mask).sum()

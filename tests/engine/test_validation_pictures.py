"""Validation images in TensorBoard: what they show, and that a training does not feel them."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from persondet.engine.events import TensorBoardWriter
from persondet.engine.validation import ImageSource, ValidationImagesHook
from persondet.visualization.sheets import RIGHT
from tests.engine.toy_training import ToyTrainer, rows, same, toy_cfg, toy_run


def prediction(image_id, score=0.9, box=(10, 8, 20, 30)):
    return {"image_id": image_id, "category_id": 1, "bbox": list(box), "score": score}


def record(folder, image_id, people=1):
    path = folder / f"{image_id}.png"
    cv2.imwrite(str(path), np.full((48, 64, 3), 90, np.uint8))
    box = {"bbox": [10, 8, 20, 30], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    return {"file_name": str(path), "image_id": image_id, "annotations": [box] * people}


def hook_on(folder, records, **choices):
    source = ImageSource(lambda: records, folder / "predictions.json", ("person",), (1,))
    hook = ValidationImagesHook(source, **{"period": 5, "threshold": 0.5, **choices})
    hook.trainer = SimpleNamespace(iter=4, max_iter=20, storage=None)
    return hook


def pictures(hook, storage):
    """Return tag → image (H, W, 3), RGB, that one evaluation puts into the storage."""
    hook.trainer.storage = storage
    hook.after_step()
    found = {name: image.transpose(1, 2, 0) for name, image, _ in storage._vis_data}
    storage.clear_images()
    return found


def coloured(picture, left):
    """Return how many pixels of one panel have the colour of what is annotated or found."""
    half = picture[:, : picture.shape[1] // 2] if left else picture[:, picture.shape[1] // 2 :]
    return int((np.abs(half.astype(int) - RIGHT[::-1]).max(axis=2) < 40).sum())


def test_a_image_shows_what_is_annotated_and_what_was_found(tmp_path):
    records = [record(tmp_path, i) for i in range(2)]
    found = [prediction(0), prediction(1, score=0.4)]
    (tmp_path / "predictions.json").write_text(json.dumps(found))
    with EventStorage() as storage:
        first, second = pictures(hook_on(tmp_path, records), storage).values()
    assert min(coloured(p, left=True) for p in (first, second)) > 100
    assert coloured(first, left=False) > 100
    assert coloured(second, left=False) == 0  # below the threshold


def test_the_same_images_come_each_time_and_those_with_people_are_preferred(tmp_path):
    records = [record(tmp_path, i, people=int(i % 2)) for i in range(12)]
    (tmp_path / "predictions.json").write_text("[]")
    hook = hook_on(tmp_path, records, count=3)
    with EventStorage() as storage:
        first, second = pictures(hook, storage), pictures(hook, storage)
    assert list(first) == list(second) == [f"val/pictures/{i}" for i in (1, 2, 3)]
    assert all(coloured(picture, left=True) > 100 for picture in first.values())
    assert {r["image_id"] for r in hook._records} == {1, 5, 9}


@pytest.mark.parametrize("damage", ["[{", '[{"image_id": 0}]', "no json", ""])
def test_what_is_damaged_or_missing_stops_no_training(tmp_path, caplog, damage):
    records = [record(tmp_path, 0)]
    hook = hook_on(tmp_path, records)
    with EventStorage() as storage:
        assert pictures(hook, storage) == {}  # there is no file of predictions
        (tmp_path / "predictions.json").write_text(damage)
        shown = pictures(hook, storage)
    assert shown == {} or damage == ""
    (tmp_path / "predictions.json").write_text("[]")
    Path(records[0]["file_name"]).unlink()
    with EventStorage() as storage:
        assert pictures(hook, storage) == {}
    assert "no validation images" in caplog.text


def test_images_are_in_the_event_file_as_jpeg_at_their_step(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 60, 80), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise.transpose(1, 2, 0), (0, 0), 6)
    with EventStorage(7) as storage:
        storage.put_image("val/pictures/1", smooth.transpose(2, 0, 1))
        storage.put_image("theirs", np.zeros((3, 4, 5), np.float32))
        storage.put_scalar("lr", 0.5)
        writer = TensorBoardWriter(str(tmp_path))
        writer.write()
        assert storage._vis_data == []
        # Nothing was closed: a killed run keeps it.
        events = EventAccumulator(str(tmp_path), {"images": 0}).Reload()
    (event,) = events.Images("val/pictures/1")
    assert (event.step, event.width, event.height) == (7, 80, 60)
    read = Image.open(io.BytesIO(event.encoded_image_string))
    assert read.format == "JPEG"
    assert np.abs(np.asarray(read).astype(int) - smooth).mean() < 6  # RGB, and upright
    assert len(events.Images("theirs")) == 1
    assert [scalar.value for scalar in events.Scalars("lr")] == [0.5]


class PredictingTrainer(ToyTrainer):
    """Writes predictions as the evaluator does, from its weights."""

    def _evaluate_validation(self):
        name = self.cfg.DATASETS.VAL[0]
        folder = Path(self.cfg.OUTPUT_DIR) / "inference" / name
        folder.mkdir(parents=True, exist_ok=True)
        found = [prediction(i, score=0.8) for i in range(3)]
        (folder / "coco_instances_results.json").write_text(json.dumps(found))
        return super()._evaluate_validation()


@pytest.fixture(scope="module")
def shown_run(tiny_export, tmp_path_factory):
    """A toy training with images: its folder."""
    folder = tmp_path_factory.mktemp("shown") / "run"
    trainer = PredictingTrainer(toy_cfg(tiny_export, folder))
    trainer.resume_or_load(resume=False)
    trainer.train()
    return folder


def test_tensorboard_has_every_scalar_and_the_images_of_each_evaluation(shown_run):
    events = EventAccumulator(str(shown_run), {"scalars": 0, "images": 0}).Reload()
    tags = events.Tags()
    known = [json.loads(line) for line in (shown_run / "metrics.json").read_text().splitlines()]
    names = {name for row in known for name in row} - {"iteration"}
    assert names == set(tags["scalars"])
    for name in names:
        written = [(row["iteration"], row[name]) for row in known if name in row]
        read = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in read] == [step for step, _ in written], name
        assert np.allclose([v for _, v in read], [v for _, v in written], rtol=1e-6), name
    assert tags["images"] == [f"val/pictures/{i}" for i in (1, 2, 3)]
    for tag in tags["images"]:
        assert [event.step for event in events.Images(tag)] == [5, 11, 17, 24]


def test_a_training_with_images_is_the_same_to_the_bit(shown_run, tiny_export, tmp_path):
    trainer = toy_run(tiny_export, tmp_path / "plain")
    trainer._hooks = [h for h in trainer._hooks if not isinstance(h, ValidationImagesHook)]
    trainer.train()
    assert all(map(same, rows(shown_run), rows(tmp_path / "plain")))
    assert len(rows(shown_run)) == len(rows(tmp_path / "plain"))

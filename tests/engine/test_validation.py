"""The validation split during training: loss, AP, images, and training never notices."""

import argparse
import io
import json
import logging
import random
import zlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.evaluation import inference_context
from detectron2.modeling import build_model
from detectron2.structures import BoxMode
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader

from persondet.data.loaders import build_test_loader, build_validation_loss_loader
from persondet.engine import Trainer, setup
from persondet.engine import trainer as trainer_file
from persondet.engine.console import TensorBoardWriter
from persondet.engine.validation import (
    ImageSource,
    ValidationImagesHook,
    ValidationLossHook,
    undisturbed,
    validation_scalars,
)
from persondet.visualization.sheets import RIGHT
from tests.engine.toy_training import ToyTrainer, rows, same, toy_cfg, toy_run

ROOT = Path(__file__).resolve().parents[2]


CONFIG = ROOT / "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"


class Toy(nn.Module):
    """A loss that depends on the image, its batch, a random draw and dropout."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.drop = nn.Dropout()
        self.linear = nn.Linear(2, 1)

    def forward(self, batch):
        if not self.training:
            return {}
        x = torch.stack([image["x"] for image in batch])
        if "accuracy" in batch[0]:
            get_event_storage().put_scalar("mask_rcnn/accuracy", batch[0]["accuracy"])
        return {"loss": (self.linear(self.drop(self.norm(x))) - torch.rand(())).pow(2).max()}


def images(count=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        {"image_id": number, "x": torch.randn(2, generator=generator)} for number in range(count)
    ]


def in_batches(items, size):
    return [items[i : i + size] for i in range(0, len(items), size)]


def test_the_number_depends_on_the_images_and_not_on_how_they_are_grouped_or_ordered():
    model = Toy()
    expected = validation_scalars(model, in_batches(images(), 1))
    assert validation_scalars(model, in_batches(images(), 4)) == expected
    assert validation_scalars(model, in_batches(images()[::-1], 2)) == expected
    assert validation_scalars(model, in_batches(images(5), 1)) != expected
    assert validation_scalars(model, in_batches(images(), 1), seed=1) != expected


@pytest.mark.parametrize("shares", [(3, 3), (5, 1), (6, 0), (2, 2, 2)])
def test_ranks_with_uneven_shares_get_the_number_of_one_rank(monkeypatch, shares):
    model, waiting = Toy(), images()
    expected = validation_scalars(model, in_batches(images(), 2))
    told = []
    monkeypatch.setattr(comm, "all_gather", lambda data: told.append(data) or [data])
    for share in shares:
        validation_scalars(model, in_batches(waiting[:share], 2))
        waiting = waiting[share:]
    monkeypatch.setattr(comm, "all_gather", lambda data: told)
    assert validation_scalars(model, []) == expected


def test_trap_2_validation_asks_for_no_gradient():
    asked = []
    model = Toy()
    model.linear.register_forward_hook(lambda *_: asked.append(torch.is_grad_enabled()))
    validation_scalars(model, in_batches(images(3), 2))
    assert asked == [False] * 3


def test_an_accuracy_is_the_mean_over_the_images_that_have_one():
    some = images(3)
    some[0]["accuracy"], some[2]["accuracy"] = 0.5, 1.0
    assert validation_scalars(Toy(), in_batches(some, 2))["mask_rcnn/accuracy"] == 0.75


def train(hooks, steps=4):
    torch.manual_seed(0)
    model = Toy()
    loader = DataLoader(images(2 * steps, seed=1), 2, shuffle=True, collate_fn=list)
    trainer = SimpleTrainer(model, loader, torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.register_hooks(hooks)
    trainer.train(0, steps)
    model.trainer = trainer  # type: ignore[assignment]
    return model


def test_trap_4_a_loss_that_is_not_finite_is_named_and_is_no_point_of_the_curve(caplog):
    bad = images()
    bad[1] |= {"x": torch.full((2,), torch.nan), "file_name": "b.jpg"}
    logging.getLogger("persondet").propagate = True
    model = train([ValidationLossHook({"v": lambda: in_batches(bad, 2)}, period=0)], steps=1)
    assert "val/total_loss" not in model.trainer.storage.latest()
    assert "b.jpg" in caplog.text


def states():
    return (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_trap_2_no_random_state_and_no_module_notices_that_somebody_looked():
    model = Toy().train()
    model.norm.eval()
    before = states()
    with undisturbed(model) as inner:
        assert inner is model
        with inference_context(inner):  # leaves every module in training mode
            random.random()
            np.random.rand()
            next(iter(DataLoader([1, 2], shuffle=True)))  # draws a seed for its workers
            torch.rand(3)
    assert states() == before
    assert model.training
    assert model.linear.training
    assert not model.norm.training


def test_trap_2_training_is_bit_identical_whatever_the_loader_draws():
    def shuffled():
        random.seed(1)
        np.random.seed(1)
        return iter(DataLoader(images(), 2, shuffle=True, collate_fn=list))

    watched = train([ValidationLossHook({"v": shuffled}, period=1)])
    plain = train([])
    for name, tensor in watched.state_dict().items():
        assert torch.equal(tensor, plain.state_dict()[name]), name


def arguments(root, output, *opts):
    keys = ["DATASETS.ROBOFLOW.ROOT", str(root), "OUTPUT_DIR", str(output), "MODEL.DEVICE", "cpu"]
    return argparse.Namespace(config_file=str(CONFIG), opts=[*keys, *opts])


def test_validation_on_a_real_model_equals_a_plain_loop_over_all_images(tmp_path, tiny_export):
    args = arguments(tiny_export, tmp_path / "run", "SOLVER.AMP.ENABLED", "False")
    args.opts += ["DATASETS.VAL", "('person_train',)"]  # its last image shows nobody
    cfg = setup(args)
    model = build_model(cfg).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scalars = validation_scalars(model, build_validation_loss_loader(cfg, "person_train"))
    again = validation_scalars(model, build_validation_loss_loader(cfg, "person_train"))
    assert scalars == again
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # this backbone learns its statistics
            module.eval()
    sums = {}
    count = 0
    for batch in build_validation_loss_loader(cfg, "person_train"):
        for image in batch:
            torch.manual_seed(zlib.crc32(f"0/{image['image_id']}".encode()))
            with torch.no_grad(), EventStorage():
                losses = {name: loss.item() for name, loss in model([image]).items()}
            for name, value in [*losses.items(), ("total_loss", sum(losses.values()))]:
                sums[name] = sums.get(name, 0.0) + value
            count += 1
    assert count == 6
    assert {"loss_mask", "loss_cls", "loss_rpn_cls", "total_loss"} <= set(sums)
    for name, value in sums.items():
        assert scalars[name] == pytest.approx(value / count, rel=1e-6)

    # Ranks share the images: each is one's, and whatever their number the first batches are those.
    cfg = cfg.clone()
    cfg.defrost()
    for ranks, batches, expected in ((1, 2, 4), (2, 0, 6), (4, 2, 4), (8, 0, 6)):
        cfg.TEST.VAL_LOSS.MAX_BATCHES = batches
        seen = [names(cfg, rank, ranks, build_validation_loss_loader) for rank in range(ranks)]
        flat = [name for share in seen for name in share]
        assert len(flat) == len(set(flat)) == expected
        assert max(map(len, seen)) - min(map(len, seen)) <= 1
        tested = [names(cfg, rank, ranks, build_test_loader) for rank in range(ranks)]
        assert len({name for share in tested for name in share}) == 6


def names(cfg, rank, ranks, build):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comm, "get_rank", lambda: rank)
        patch.setattr(comm, "get_world_size", lambda: ranks)
        return [image["file_name"] for batch in build(cfg, "person_train") for image in batch]


def test_trap_6_a_training_asks_for_validation_images_alone(tmp_path, tiny_export, monkeypatch):
    asked = []

    def evaluate(cfg, model, names, build, **_):
        asked.extend(names)
        return {"segm": {"AP": 1.0}, "bbox": {"AP": 1.0}}

    class Validated(ToyTrainer):
        _validation_loss_hook = Trainer._validation_loss_hook
        _evaluate_validation = Trainer._evaluate_validation

    monkeypatch.setattr(trainer_file, "evaluate", evaluate)
    monkeypatch.setattr(
        trainer_file, "build_validation_loss_loader", lambda cfg, name: asked.append(name) or []
    )
    cfg = toy_cfg(tiny_export, tmp_path / "run", "SOLVER.MAX_ITER", 6, "TEST.EVAL_PERIOD", 3)
    assert cfg.DATASETS.TEST == ("person_test",)
    Validated(cfg).train()
    assert asked == ["person_valid"] * 4  # loss and AP, twice


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

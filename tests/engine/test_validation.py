"""The validation split during training: loss, AP, images, and training never notices."""

import copy
import json
import logging
import random
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.evaluation import inference_context
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader

from persondet.data.loaders import build_validation_loss_loader
from persondet.engine import Trainer
from persondet.engine import trainer as trainer_file
from persondet.engine.validation import (
    ValidationImagesHook,
    ValidationLossHook,
    undisturbed,
    validation_scalars,
)
from persondet.visualization.sheets import RIGHT
from tests.engine.toy_training import ToyTrainer, rows, same, toy_cfg, toy_run

SHORT = ("SOLVER.MAX_ITER", 6, "SOLVER.STEPS", (5,), "TEST.EVAL_PERIOD", 3)


class Toy(nn.Module):
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


def test_trap_2_validation_asks_for_no_gradient():
    asked = []
    model = Toy()
    model.linear.register_forward_hook(lambda *_: asked.append(torch.is_grad_enabled()))
    some = images(3)  # an accuracy is the mean over the images that have one
    some[0]["accuracy"], some[2]["accuracy"] = 0.5, 1.0
    assert validation_scalars(model, in_batches(some, 2))["mask_rcnn/accuracy"] == 0.75
    assert asked == [False] * 3


def train(hooks, steps=4):
    torch.manual_seed(0)
    model = Toy()
    loader = DataLoader(images(2 * steps, seed=1), 2, shuffle=True, collate_fn=list)
    trainer = SimpleTrainer(model, loader, torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.register_hooks(hooks)
    trainer.train(0, steps)
    return model, trainer.storage


def test_trap_4_a_loss_that_is_not_finite_is_named_and_is_no_point_of_the_curve(caplog):
    bad = images()
    bad[1] |= {"x": torch.full((2,), torch.nan), "file_name": "b.jpg"}
    logging.getLogger("persondet").propagate = True
    _, storage = train([ValidationLossHook({"v": lambda: in_batches(bad, 2)}, period=0)], steps=1)
    assert "val/total_loss" not in storage.latest()
    assert "b.jpg" in caplog.text


def test_trap_2_no_random_state_and_no_module_notices_that_somebody_looked():
    model = Toy().train()
    model.norm.eval()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    with undisturbed(model), inference_context(model):  # leaves every module in training mode
        random.random(), np.random.rand(), torch.rand(3)
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected
    assert model.training and model.linear.training and not model.norm.training


def test_trap_2_training_is_bit_identical_whatever_the_loader_draws():
    def shuffled():
        random.seed(1), np.random.seed(1)
        return iter(DataLoader(images(), 2, shuffle=True, collate_fn=list))

    watched, storage = train([ValidationLossHook({"v": shuffled}, period=2)])
    plain, _ = train([])
    assert same(dict(watched.state_dict()), dict(plain.state_dict()))
    history = storage.history("val/total_loss").values()
    assert [iteration for _, iteration in history] == [1, 4]  # the last one once, after training


@pytest.fixture(scope="module")
def real_cfg(tmp_path_factory, tiny_export):
    """A config whose validation set is the training split: its last image shows nobody."""
    keys = ("SOLVER.AMP.ENABLED", False, "DATASETS.VAL", "('person_train',)")
    return toy_cfg(tiny_export, tmp_path_factory.mktemp("real"), *keys, "INPUT.MIN_SIZE_TEST", 32)


@pytest.mark.slow
def test_validation_on_a_real_model_equals_a_plain_loop_over_all_images(real_cfg):
    model = build_model(real_cfg).train()
    before = copy.deepcopy(model.state_dict())
    scalars = validation_scalars(model, build_validation_loss_loader(real_cfg, "person_train"))
    assert same(dict(before), dict(model.state_dict()))

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # this backbone learns its statistics
            module.eval()
    sums, dicts = Counter(), build_validation_loss_loader(real_cfg, "person_train")
    images_seen = [image for batch in dicts for image in batch]
    for image in images_seen:
        torch.manual_seed(zlib.crc32(f"0/{image['image_id']}".encode()))
        with torch.no_grad(), EventStorage():
            losses = {name: loss.item() for name, loss in model([image]).items()}
        sums.update(losses | {"total_loss": sum(losses.values())})
    assert len(images_seen) == 6
    assert {"loss_mask", "loss_cls", "loss_rpn_cls", "total_loss"} <= set(sums)
    assert {name: 6 * scalars[name] for name in sums} == pytest.approx(dict(sums), rel=1e-6)


def test_whatever_the_number_of_ranks_they_share_the_first_batches(real_cfg, monkeypatch):
    cfg = real_cfg.clone()
    cfg.defrost()
    cfg.TEST.VAL_LOSS.MAX_BATCHES, seen = 2, []
    monkeypatch.setattr(comm, "get_world_size", lambda: 4)
    for rank in range(4):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        loader = build_validation_loss_loader(cfg, "person_train")
        seen += [[image["file_name"] for batch in loader for image in batch]]
    assert [len(share) for share in seen] == [1] * 4
    assert len({name for (name,) in seen}) == 4


def test_trap_2_and_6_a_training_asks_for_validation_images_alone_and_scoring_disturbs_nothing(
    tmp_path, tiny_export, monkeypatch
):
    asked, ends = [], []
    for name in ("_validation_loss_hook", "_evaluate_validation"):
        monkeypatch.setattr(ToyTrainer, name, getattr(Trainer, name))
    monkeypatch.setattr(
        trainer_file, "build_validation_loss_loader", lambda cfg, name: asked.append(name) or []
    )
    for draws in (0, 3):

        def evaluate(cfg, model, names, *_, count=draws, **__):
            asked.extend(names)
            [(torch.rand(1), np.random.rand(), random.random()) for _ in range(count)]
            model.eval()
            return {"segm": {"AP": 1.0}, "bbox": {"AP": 1.0}}

        monkeypatch.setattr(trainer_file, "evaluate", evaluate)
        trainer = toy_run(tiny_export, tmp_path / f"run_{draws}", *SHORT)
        assert trainer.cfg.DATASETS.TEST == ("person_test",)
        trainer.train()
        assert trainer.model.training
        ends.append(trainer.model.linear.weight.detach().clone())
    assert asked == ["person_valid"] * 8  # loss and AP, twice
    assert torch.equal(*ends)


class Predicting(ToyTrainer):
    """Writes two predictions on each image, of which one is to be seen; shows images."""

    build_hooks = Trainer.build_hooks

    def _evaluate_validation(self):
        folder = Path(self.cfg.OUTPUT_DIR) / "inference/person_valid"
        folder.mkdir(parents=True, exist_ok=True)
        found = [
            {"image_id": i, "category_id": 1, "bbox": [x, 8, 20, 30], "score": score}
            for i in range(3)
            for x, score in ((10, 0.9), (60, 0.4))
        ]
        (folder / "coco_instances_results.json").write_text(json.dumps(found))
        return super()._evaluate_validation()


@pytest.fixture(scope="module")
def shown(tiny_export, tmp_path_factory):
    trainer = Predicting(toy_cfg(tiny_export, tmp_path_factory.mktemp("shown") / "run", *SHORT))
    trainer.train()
    return trainer


def test_tensorboard_has_every_scalar_and_the_images(shown, tiny_export, tmp_path):
    folder = Path(shown.cfg.OUTPUT_DIR)
    toy_run(tiny_export, tmp_path / "plain", *SHORT).train()  # the images disturb nothing
    assert same(rows(folder), rows(tmp_path / "plain"))
    events = EventAccumulator(str(folder), {"scalars": 0, "images": 0}).Reload()
    known = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    written = {
        (row["iteration"], name): row[name] for row in known for name in row if name != "iteration"
    }
    read = {(e.step, n): e.value for n in events.Tags()["scalars"] for e in events.Scalars(n)}
    assert read == pytest.approx(written, rel=1e-6)
    for number in (1, 2, 3):
        assert [event.step for event in events.Images(f"val/pictures/{number}")] == [2, 6]


def pictures(hook):
    """Return the images (H, W, 3), RGB, that one evaluation puts into the storage."""
    with EventStorage() as hook.trainer.storage:
        hook.at_period(3)
        return [image.transpose(1, 2, 0) for _, image, _ in hook.trainer.storage._vis_data]


def test_an_image_shows_what_is_annotated_and_what_was_found(shown, tmp_path, caplog):
    hook = next(hook for hook in shown._hooks if isinstance(hook, ValidationImagesHook))
    file = Path(shown.cfg.OUTPUT_DIR) / "inference/person_valid/coco_instances_results.json"
    found = pictures(hook)
    assert len(found) == 3
    file.write_text("[]")
    for image, empty in zip(found, pictures(hook), strict=True):
        half = image.shape[1] // 2
        coloured = np.abs(image.astype(int) - RIGHT[::-1]).max(axis=2) < 40
        assert coloured[:, :half].sum() > 100  # annotated
        changed = np.flatnonzero((image != empty).any(axis=(0, 2)))
        # Found, and not what lies below the threshold, in the right half of the image.
        assert half < changed.min() and changed.max() < half * 1.5
    for damage in ("[{", '[{"image_id": 0}]'):
        file.write_text(damage)
        assert pictures(hook) == []  # and no training ends for want of them
    assert "no validation images" in caplog.text

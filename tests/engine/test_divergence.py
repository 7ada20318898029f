"""A loss that is not finite: named with its images and rate, before the weights change."""

import sys
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from persondet.checkpoint.checkpointer import non_finite_tensors
from persondet.checkpoint.model_file import load_checkpoint
from persondet.engine.launch import launch
from persondet.engine.train_step import AutocastTrainer
from persondet.errors import TrainingError
from tests.engine.toy_training import ToyModel, toy_run

# A new process imports the cases by their name, from the path that it inherits.
sys.path.append(str(Path(__file__).parent))
import rank_cases


class TwoLosses(nn.Module):
    """`loss_mask` is the mean of the image times a weight, `loss_cls` is harmless."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, batch):
        pixels = torch.stack([item["image"] for item in batch])
        return {"loss_cls": self.weight.square().sum(), "loss_mask": (self.weight * pixels).mean()}


class Proposals(TwoLosses):
    """As Detectron2's region proposal network: it raises when its losses are in a local name."""

    def forward(self, batch):
        losses = super().forward(batch)
        if not all(torch.isfinite(loss) for loss in losses.values()):
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN.")
        return losses


def batch(value=1.0, count=2):
    return [
        {"file_name": f"train/{number}.jpg", "image": torch.full((3,), value)}
        for number in range(count)
    ]


def sentence(model, data, *, lr=0.25, **others):
    """Run the step on each batch of `data`; the last one must stop with one sentence."""
    slow = {"params": [nn.Parameter(torch.ones(1))], "lr": lr / 10}
    optimizer = torch.optim.SGD([{"params": model.parameters(), "lr": lr}, slow], lr=lr)
    trainer = AutocastTrainer(model, data, optimizer, **others)
    with EventStorage():
        for trainer.iter in range(len(data) - 1):
            trainer.run_step()
        trainer.iter = len(data) - 1
        with pytest.raises(TrainingError) as caught:
            trainer.run_step()
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        (TwoLosses, float("nan"), "nan"),
        (TwoLosses, float("inf"), "inf"),
        (Proposals, float("nan"), "nan"),
    ],
)
def test_the_loss_the_images_the_step_and_the_rate_are_named(kind, value, shown):
    model = kind()
    said = sentence(model, [batch(), batch(value)])
    assert f"at iteration 1: loss_mask is {shown}, at a learning rate of 0.25" in said
    assert "train/0.jpg, train/1.jpg" in said
    assert "loss_cls" not in said and "not finite before" not in said
    assert "SOLVER.BASE_LR" in said


def test_the_weights_are_those_of_the_step_before():
    model = TwoLosses()
    before = model.weight.detach().clone()
    sentence(model, [batch(float("nan"))])
    assert torch.equal(model.weight, before)


def test_a_step_that_float16_leaves_out_is_no_divergence():
    model = TwoLosses()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = AutocastTrainer(model, [batch()], optimizer, dtype=torch.float16)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=3e38)
    trainer.iter = 0
    with EventStorage():
        trainer.run_step()
    assert torch.equal(model.weight, torch.ones(1))
    assert trainer.scaler.get_scale() < 3e38


def bad_checkpoints(folder):
    files = folder.rglob("*.pth")
    return [f.name for f in files if any(non_finite_tensors(load_checkpoint(f)))]


def test_a_run_that_diverges_leaves_only_good_checkpoints(tiny_export, tmp_path, monkeypatch):
    """The loss is NaN at the step after a checkpoint; Detectron2 logs no traceback of it."""
    forward = ToyModel.forward
    calls = []

    def spoilt(self, batch):
        calls.append(len(calls))
        losses = forward(self, batch)
        return losses if calls[-1] < 8 else losses | {"loss_b": losses["loss_b"] * torch.nan}

    monkeypatch.setattr(ToyModel, "forward", spoilt)
    trainer = toy_run(tiny_export, tmp_path / "run")
    with pytest.raises(TrainingError, match="at iteration 8: loss_b is nan, at a learning rate"):
        trainer.train()
    assert sorted(path.name for path in (tmp_path / "run").glob("*.pth")) == [
        "model_0000003.pth",
        "model_0000007.pth",
        "model_best.pth",
    ]
    assert (tmp_path / "run/last_checkpoint").read_text() == "model_0000007.pth"
    assert not bad_checkpoints(tmp_path / "run")
    assert "Traceback" not in (tmp_path / "run/log.txt").read_text()


@pytest.mark.slow
def test_a_divergence_on_one_rank_ends_them_all(tmp_path):
    with pytest.raises(TrainingError, match=r"at iteration 2: loss_cls is nan.* on rank1\.jpg;"):
        launch(rank_cases.diverge, (str(tmp_path),), processes=2, device="cpu")
    saved = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert saved == ["model_0.pth", "model_1.pth"]
    assert not bad_checkpoints(tmp_path)

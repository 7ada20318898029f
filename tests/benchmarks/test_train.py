"""The training benchmark: both sides do the same work, and its numbers are what they say."""

from __future__ import annotations

import itertools

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from persondet.benchmarks import train
from persondet.benchmarks.train import benchmark_train, random_batch
from persondet.engine.trainer import Trainer

full_size = train._config


def small(dtype: str) -> CfgNode:
    cfg = full_size(dtype)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 64
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 32
    # All proposals are sampled, so that rounding cannot change the draw.
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 50
    return cfg


class Chain(nn.Module):
    """Keeps 4 x 4 of float32 twice (the square, the sine), and its own weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        scaled = batch * self.weight  # keeps the batch
        return {"loss": (scaled * scaled).sin().sum()}  # keeps scaled (twice), and its square


def test_saved_bytes_count_each_storage_once_and_no_parameter() -> None:
    trainer = train.AutocastTrainer(
        chain := Chain(),
        itertools.repeat(torch.ones(4, 4)),
        torch.optim.SGD(chain.parameters(), lr=0.1),
    )
    assert train._Side(trainer).bytes_saved() == 3 * 4 * 4 * 4


def test_the_batch_is_the_same_every_time_and_its_outlines_fill_their_boxes() -> None:
    first, second = random_batch(64, 2), random_batch(64, 2)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert one["image"].shape == (3, 64, 85)
        boxes = one["instances"].gt_boxes.tensor
        outlines = one["instances"].gt_masks.get_bounding_boxes().tensor
        assert torch.allclose(boxes, outlines, atol=0.2)


@pytest.mark.slow
def test_our_model_has_the_losses_and_gradients_of_detectron2s_in_float32() -> None:
    cfg = small("float32")
    batch = random_batch(128, 2)
    weights = train._random_weights(cfg, batch)
    found = []
    for model in (build_model(cfg), Trainer.build_model(cfg)):
        model.load_state_dict(weights)
        torch.manual_seed(0)
        with train.EventStorage():
            losses = model.train()(batch)
        sum(losses.values()).backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        found.append((losses, gradients))
    (their_losses, theirs), (our_losses, ours) = found
    assert ours.keys() == theirs.keys()
    for name, loss in their_losses.items():
        torch.testing.assert_close(our_losses[name], loss, rtol=1e-4, atol=1e-6)
    for name, gradient in theirs.items():
        worst = (ours[name] - gradient).abs().max()
        assert worst <= 2e-3 * gradient.abs().max() + 1e-7, name


@pytest.mark.slow
def test_the_benchmark_reports_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_config", small)
    told: list[tuple[int, int | None]] = []
    found = benchmark_train(
        pairs=1, size=128, batch_size=1, dtype="bfloat16", progress=lambda *step: told.append(step)
    )
    rows = found["rows"]
    assert rows["default"]["dtype"] == found["dtype"] == "bfloat16"
    assert rows["float32"]["dtype"] == "float32"
    for name in ("default", "float32"):
        assert rows[name]["ratio"] > 0
        losses = rows[name]["losses"]
        assert losses["ours"]["total_loss"] == pytest.approx(
            losses["stock"]["total_loss"], rel=0.05
        )
    saved = rows["saved"]
    assert saved["ratio"] == saved["ours"] / saved["stock"]
    assert told[-1][0] == told[-1][1]

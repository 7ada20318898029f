"""The training step in mixed precision, on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage
from torch import nn

from persondet.engine.train_step import AutocastTrainer


class Recorder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.seen: list[torch.dtype] = []

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.linear(batch)
        self.seen.append(out.dtype)
        return {"loss_a": out.float().pow(2).mean(), "loss_b": out.float().abs().mean()}


def steps(kind: type[SimpleTrainer], count: int = 3, **others: Any) -> Recorder:
    torch.manual_seed(0)
    model = Recorder()
    data = [torch.randn(4, 3) for _ in range(count)]
    trainer = kind(model, data, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), **others)
    with EventStorage():
        for trainer.iter in range(count):
            trainer.run_step()
    return model


def test_float32_equals_detectron2s_own_step_to_the_bit() -> None:
    ours, theirs = steps(AutocastTrainer), steps(SimpleTrainer)
    assert torch.equal(ours.linear.weight, theirs.linear.weight)
    assert set(ours.seen) == {torch.float32}


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights() -> None:
    model, exact = steps(AutocastTrainer, dtype=torch.bfloat16), steps(SimpleTrainer)
    assert set(model.seen) == {torch.bfloat16}
    assert model.linear.weight.dtype == torch.float32
    assert torch.allclose(model.linear.weight, exact.linear.weight, atol=2e-2)


def test_float16_scales_the_loss_and_leaves_out_a_step_that_overflows() -> None:
    torch.manual_seed(0)
    model = Recorder()
    data = [torch.randn(4, 3)] * 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = AutocastTrainer(model, data, optimizer, dtype=torch.float16)
    before = model.linear.weight.detach().clone()
    with EventStorage():
        trainer.iter = 0
        # Beyond float16's 65504: the gradients overflow.
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
        trainer.run_step()
        assert torch.equal(model.linear.weight, before)
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
        trainer.run_step()
    assert set(model.seen) == {torch.float16}
    assert not torch.equal(model.linear.weight, before)
    assert torch.isfinite(model.linear.weight).all()


def test_a_loss_that_is_not_finite_stops_before_the_weights_change() -> None:
    model = Recorder()
    before = model.linear.weight.clone()
    data = [torch.full((4, 3), torch.inf)]
    trainer = AutocastTrainer(model, data, torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.iter = 0
    with EventStorage(), pytest.raises(FloatingPointError):
        trainer.run_step()
    assert torch.equal(model.linear.weight, before)


def test_the_state_keeps_the_loss_scale_of_float16_alone() -> None:
    def state(dtype: torch.dtype) -> dict[str, Any]:
        model = Recorder()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return AutocastTrainer(model, [], optimizer, dtype=dtype).state_dict()

    assert "grad_scaler" in state(torch.float16)
    assert "grad_scaler" not in state(torch.bfloat16)

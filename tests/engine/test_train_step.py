"""The training step in mixed precision, on the CPU."""

import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils.events import EventStorage
from torch import nn

from persondet.config.defaults import get_cfg
from persondet.engine.train_step import AutocastTrainer, images_on_gpu


class Recorder(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.seen = []

    def forward(self, batch):
        out = self.linear(batch)
        self.seen.append(out.dtype)
        return {"loss_a": out.float().pow(2).mean(), "loss_b": out.float().abs().mean()}


def steps(kind, count=3, **others):
    torch.manual_seed(0)
    model = Recorder()
    data = [torch.randn(4, 3) for _ in range(count)]
    trainer = kind(model, data, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), **others)
    with EventStorage():
        for trainer.iter in range(count):
            trainer.run_step()
    return model


def test_float32_equals_detectron2s_own_step_to_the_bit():
    ours, theirs = steps(AutocastTrainer), steps(SimpleTrainer)
    assert torch.equal(ours.linear.weight, theirs.linear.weight)
    assert set(ours.seen) == {torch.float32}


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights():
    model, exact = steps(AutocastTrainer, dtype=torch.bfloat16), steps(SimpleTrainer)
    assert set(model.seen) == {torch.bfloat16}
    assert model.linear.weight.dtype == torch.float32
    assert torch.allclose(model.linear.weight, exact.linear.weight, atol=2e-2)


def test_float16_scales_the_loss_and_leaves_out_a_step_that_overflows():
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_resumed_step_continues_to_the_bit_with_its_loss_scale(dtype):
    def trainer(model, data):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return AutocastTrainer(model, data, optimizer, dtype=dtype)

    def run(part, start, end):
        with EventStorage(start):
            for part.iter in range(start, end):
                part.run_step()

    torch.manual_seed(0)
    data = [torch.randn(4, 3) for _ in range(4)]
    whole = Recorder()
    first = Recorder()
    first.load_state_dict(whole.state_dict())
    one = trainer(whole, data)
    if one.scaler.is_enabled():
        # Off the default, so that a scale that is not restored is seen.
        one.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**7)
    run(one, 0, 4)
    before = trainer(first, data[:2])
    if dtype == torch.float16:
        before.scaler.load_state_dict(one.scaler.state_dict())
    run(before, 0, 2)
    after = trainer(first, data[2:])
    after.load_state_dict(before.state_dict())
    assert after.scaler.get_scale() == before.scaler.get_scale()
    run(after, 2, 4)
    assert torch.equal(first.linear.weight, whole.linear.weight)


@pytest.mark.parametrize("fused", [False, True])
def test_clipping_sees_the_gradients_without_the_loss_scale(fused):
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "norm"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    moved = {}
    for dtype in (torch.float32, torch.float16):
        torch.manual_seed(0)
        model = Recorder()
        before = model.linear.weight.detach().clone()
        plain = torch.optim.SGD(model.parameters(), lr=1.0, fused=fused)
        optimizer = maybe_add_gradient_clipping(cfg, plain)
        trainer = AutocastTrainer(model, [torch.randn(4, 3)], optimizer, dtype=dtype)
        # Small enough that float16 holds the scaled gradients.
        trainer.scaler = torch.amp.GradScaler(
            "cpu", init_scale=2.0**8, enabled=dtype == torch.float16
        )
        with EventStorage():
            trainer.iter = 0
            trainer.run_step()
        moved[dtype] = model.linear.weight.detach() - before
    # Clipped to the same small norm; of the scaled gradients the step would be 256 times less.
    assert torch.allclose(moved[torch.float16], moved[torch.float32], atol=2e-4)
    assert 0.005 < moved[torch.float16].norm() <= 0.0101


@pytest.mark.gpu
def test_images_come_to_the_gpu_without_waiting():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    batch = [{"image": torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8), "height": 64}]
    moved = images_on_gpu(batch, torch.device("cuda"))
    assert moved[0]["image"].is_cuda
    assert moved[0]["height"] == 64
    assert torch.equal(moved[0]["image"].cpu(), batch[0]["image"])
    assert batch[0]["image"].device.type == "cpu"

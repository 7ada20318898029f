"""One training step in each precision, and the two ways in which it fails."""

import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils.events import EventStorage
from torch import nn

from persondet.checkpoint.checkpointer import non_finite_tensors
from persondet.checkpoint.model_file import load_checkpoint
from persondet.config import get_cfg
from persondet.engine.train_step import AutocastTrainer, images_on_gpu, memory_in_one_sentence
from persondet.errors import TrainingError
from tests.engine.toy_training import ToyModel, toy_run


class Recorder(nn.Module):
    """Two losses of a linear layer; keeps the types that it computed in."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 2)
        self.seen = set()

    def forward(self, batch):
        out = self.linear(batch)
        self.seen.add(out.dtype)
        return {"loss_a": out.float().pow(2).mean(), "loss_b": out.float().abs().mean()}


DATA = list(torch.randn(4, 4, 3, generator=torch.Generator().manual_seed(0)))


def build(kind=AutocastTrainer, model=None, data=DATA, scale=None, lr=0.1, **others):
    """Return a trainer; `scale` is the loss scale that float16 begins with."""
    model = model or Recorder()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    trainer = kind(model, data, optimizer, **others)
    if scale:
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return trainer


def run(trainer, start=0, end=4):
    with EventStorage(start):
        for trainer.iter in range(start, end):
            trainer.run_step()
    return trainer.model


def test_float32_equals_detectron2s_own_step_to_the_bit_and_bfloat16_nearly():
    theirs, ours = run(build(SimpleTrainer)), run(build())
    assert torch.equal(ours.linear.weight, theirs.linear.weight)
    half = run(build(dtype=torch.bfloat16))
    assert (ours.seen, half.seen) == ({torch.float32}, {torch.bfloat16})
    assert torch.allclose(half.linear.weight, theirs.linear.weight, atol=2e-2)


def test_float16_scales_the_loss_and_leaves_out_a_step_that_overflows():
    trainer = build(dtype=torch.float16, scale=2.0**24)  # beyond float16's 65504
    before = trainer.model.linear.weight.detach().clone()
    run(trainer, 0, 1)
    assert torch.equal(trainer.model.linear.weight, before)  # which is no divergence
    assert trainer.scaler.get_scale() < 2.0**24
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    after = run(trainer, 1, 2).linear.weight
    assert trainer.model.seen == {torch.float16}
    assert not torch.equal(after, before) and torch.isfinite(after).all()


def test_a_resumed_step_continues_to_the_bit_with_its_loss_scale():
    dtype, scale = torch.float16, 2.0**7  # not the default
    whole = run(build(dtype=dtype, scale=scale))
    before = build(data=DATA[:2], dtype=dtype, scale=scale)
    after = build(model=run(before, 0, 2), data=DATA[2:], dtype=dtype)
    after.load_state_dict(before.state_dict())
    assert after.scaler.get_scale() == before.scaler.get_scale()
    assert torch.equal(run(after, 2, 4).linear.weight, whole.linear.weight)


@pytest.mark.parametrize("fused", [False, True])
def test_clipping_sees_the_gradients_without_the_loss_scale(fused):
    cfg = get_cfg()
    clip = cfg.SOLVER.CLIP_GRADIENTS
    clip.ENABLED, clip.CLIP_TYPE, clip.CLIP_VALUE = True, "norm", 0.01
    moved = {}
    for dtype, scale in ((torch.float32, None), (torch.float16, 2.0**8)):
        trainer = build(dtype=dtype, scale=scale)  # float16 can hold gradients of this scale
        model = trainer.model
        before = model.linear.weight.detach().clone()
        plain = torch.optim.SGD(model.parameters(), lr=1.0, fused=fused)
        trainer.optimizer = maybe_add_gradient_clipping(cfg, plain)
        run(trainer, 0, 1)
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
    assert moved[0]["image"].is_cuda and moved[0]["height"] == 64
    assert torch.equal(moved[0]["image"].cpu(), batch[0]["image"])
    assert batch[0]["image"].device.type == "cpu"


class TwoLosses(nn.Module):
    """`loss_mask` is the mean of the image times a weight, `loss_cls` is harmless."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, batch):
        pixels = torch.stack([item["image"] for item in batch])
        if torch.isinf(pixels).any():  # as Detectron2's region proposal network does
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN.")
        return {"loss_cls": self.weight.square().sum(), "loss_mask": (self.weight * pixels).mean()}


@pytest.mark.parametrize(
    ("value", "shown"), [("nan", "loss_mask is nan"), ("inf", "the predicted boxes are NaN")]
)
def test_the_loss_the_images_the_step_and_the_rate_are_named(value, shown):
    batches = [
        [{"file_name": f"train/{i}.jpg", "image": torch.full((3,), pixel)} for i in range(2)]
        for pixel in (1.0, float(value))
    ]
    trainer = build(model=TwoLosses(), data=batches, lr=0.25)
    before = run(trainer, 0, 1).weight.detach().clone()
    with pytest.raises(TrainingError) as caught:
        run(trainer, 1, 2)
    said = str(caught.value)
    assert f"at iteration 1: {shown}, at a learning rate of 0.25" in said
    assert "train/0.jpg, train/1.jpg" in said and "SOLVER.BASE_LR" in said
    assert "loss_cls" not in said and "\n" not in said
    assert torch.equal(trainer.model.weight, before)


def test_a_run_that_diverges_leaves_only_good_checkpoints(tiny_export, tmp_path, monkeypatch):
    forward, factors = ToyModel.forward, iter([1.0] * 8 + [torch.nan])

    def spoilt(self, batch):
        losses = forward(self, batch)
        return losses | {"loss_b": losses["loss_b"] * next(factors)}

    monkeypatch.setattr(ToyModel, "forward", spoilt)
    with pytest.raises(TrainingError, match="at iteration 8: loss_b is nan, at a learning rate"):
        toy_run(tiny_export, tmp_path / "run").train()
    saved = sorted(path.name for path in (tmp_path / "run").glob("*.pth"))
    assert saved == ["model_0000003.pth", "model_0000007.pth", "model_best.pth"]
    assert (tmp_path / "run/last_checkpoint").read_text() == "model_0000007.pth"
    for name in saved:
        assert not any(non_finite_tensors(load_checkpoint(tmp_path / "run" / name)))
    assert "Traceback" not in (tmp_path / "run/log.txt").read_text()


def in_one_sentence(error, dtype="float32", *, training=True):
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.SOLVER.AMP.DTYPE = "cpu", dtype
    cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_WORKERS = 3, 5
    with pytest.raises(Exception) as caught, memory_in_one_sentence(cfg, training=training):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 …"), ""),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "machine's"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."), "/dev/shm"),
    ],
)
def test_full_memory_names_the_keys_with_their_values(error, told):
    ended = in_one_sentence(error)
    assert isinstance(ended, TrainingError) and "\n" not in str(ended)
    keys = ("IMS_PER_BATCH (3 now)", "MIN_SIZE_TRAIN ((800,) now)", "NUM_WORKERS (5 now)")
    for words in (*keys, "AMP.DTYPE bfloat16", told):
        assert words in str(ended)
    assert "SOLVER.AMP" not in str(in_one_sentence(error, "bfloat16"))
    scoring = str(in_one_sentence(error, training=False))
    assert "MIN_SIZE_TEST" in scoring and "SOLVER" not in scoring
    for other in (RuntimeError("shape mismatch"), ValueError("out of memory")):
        assert in_one_sentence(other) is other

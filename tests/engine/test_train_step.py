"""One training step in each precision, and the two ways in which it fails."""

import sys
from pathlib import Path

import pytest
import rank_cases
import torch
from detectron2.engine import SimpleTrainer
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils.events import EventStorage
from torch import nn

from persondet.checkpoint.checkpointer import non_finite_tensors
from persondet.checkpoint.model_file import load_checkpoint
from persondet.config import get_cfg
from persondet.engine.launch import launch
from persondet.engine.train_step import (
    AutocastTrainer,
    images_on_gpu,
    is_memory_shortage,
    memory_in_one_sentence,
)
from persondet.errors import DatasetError, TrainingError
from tests.engine.toy_training import ToyModel, toy_run


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


# A new process imports the cases by their name, from the path that it inherits.
sys.path.append(str(Path(__file__).parent))


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


def cfg(**keys):
    node = get_cfg()
    node.MODEL.DEVICE = "cpu"
    node.SOLVER.IMS_PER_BATCH = 3
    node.DATALOADER.NUM_WORKERS = 5
    node.SOLVER.AMP.DTYPE = "float32"
    for key, value in keys.items():
        node.merge_from_list([key, value])
    return node


def said(error, *, training=True, **keys):
    assert is_memory_shortage(error)
    with (
        pytest.raises(TrainingError) as caught,
        memory_in_one_sentence(cfg(**keys), training=training),
    ):
        raise error
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has …"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be …"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_a_full_gpu_names_the_keys_with_their_values(error):
    sentence = said(error, **{"SOLVER.AMP.DTYPE": "float32"})
    for words in (
        "SOLVER.IMS_PER_BATCH (3 now)",
        "INPUT.MIN_SIZE_TRAIN ((800,) now)",
        "INPUT.MAX_SIZE_TRAIN (1333 now)",
        "SOLVER.AMP.DTYPE bfloat16",
    ):
        assert words in sentence
    assert "NUM_WORKERS" not in sentence
    assert "SOLVER.AMP" not in said(error, **{"SOLVER.AMP.DTYPE": "bfloat16"})
    assert "SOLVER.AMP.ENABLED True" in said(error, **{"SOLVER.AMP.ENABLED": False})


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape mismatch"),
        ValueError("out of memory"),
        DatasetError("a.jpg: out of memory"),
        KeyError("x"),
    ],
)
def test_any_other_error_leaves_as_it_came(error):
    assert not is_memory_shortage(error)
    with pytest.raises(type(error)) as caught, memory_in_one_sentence(cfg(), training=True):
        raise error
    assert caught.value is error


def test_a_step_that_runs_out_of_memory_ends_the_training_with_the_sentence(
    tiny_export, tmp_path, monkeypatch
):
    """Also: Detectron2's loop logs no traceback of it."""

    def full(self, batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(ToyModel, "forward", full)
    trainer = toy_run(tiny_export, tmp_path / "run")
    with pytest.raises(TrainingError, match=r"out of memory; lower SOLVER.IMS_PER_BATCH \(2 now\)"):
        trainer.train()
    assert "Traceback" not in (tmp_path / "run/log.txt").read_text()

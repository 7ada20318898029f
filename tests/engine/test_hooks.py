"""The hooks, on a toy model that trains in milliseconds."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import HookBase, SimpleTrainer
from detectron2.utils.events import JSONWriter, get_event_storage
from torch import nn

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.engine.hooks import BestCheckpointHook, EventWriterHook
from persondet.engine.validation import ValidationLossHook, validation_scalars

Batch = list[dict[str, Any]]


class ToyDetector(nn.Module):
    """Losses that depend on the input, on batch norm and on a random draw, and write events."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.linear = nn.Linear(2, 1)

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert self.training
        x = torch.stack([item["x"] for item in batch])
        sampled = torch.rand(())
        storage = get_event_storage()
        storage.put_scalar("fast_rcnn/cls_accuracy", float(x.mean()))
        storage.put_scalar("rpn/num_pos_anchors", 5)
        return {
            "loss_a": self.linear(self.norm(x)).pow(2).mean(),
            "loss_b": (x.mean() - sampled).abs(),
        }


def batches(count: int = 3, size: int = 2, seed: int = 0) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    return [[{"x": torch.randn(2, generator=generator)} for _ in range(size)] for _ in range(count)]


def train(
    hooks: list[HookBase], steps: int = 6, start: int = 0, seed: int = 0
) -> tuple[SimpleTrainer, ToyDetector]:
    torch.manual_seed(seed)
    model = ToyDetector()
    trainer = SimpleTrainer(
        model, batches(steps, seed=1), torch.optim.SGD(model.parameters(), lr=0.1)
    )
    trainer.register_hooks(hooks)
    trainer.train(start, steps)
    return trainer, model


def test_trap_2_validation_equals_a_plain_loop_over_all_images() -> None:
    torch.manual_seed(3)
    model = ToyDetector()
    model.norm.running_mean.fill_(0.5)
    uneven = [*batches(2, size=3), *batches(1, size=1, seed=9)]
    images = [item for batch in uneven for item in batch]
    scalars = validation_scalars(model, uneven, seed=4)

    total = 0.0
    for number, image in enumerate(images):
        x = image["x"][None]
        with torch.no_grad():
            loss_a = model.linear(nn.functional.batch_norm(x, torch.full((2,), 0.5), torch.ones(2)))
        torch.manual_seed(zlib.crc32(f"4/{number}".encode()))
        loss_b = (x.mean() - torch.rand(())).abs()
        total += float(loss_a.pow(2).mean() + loss_b)
    assert scalars["total_loss"] == pytest.approx(total / 7, rel=1e-6)
    accuracy = sum(float(image["x"].mean()) for image in images) / 7
    assert scalars["fast_rcnn/cls_accuracy"] == pytest.approx(accuracy, rel=1e-6)
    assert "rpn/num_pos_anchors" not in scalars


def test_trap_2_validation_leaves_no_trace_and_repeats_itself() -> None:
    model = ToyDetector().train()
    model.norm.eval()  # a module that was in eval mode stays in it
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    first = validation_scalars(model, batches())
    second = validation_scalars(model, batches())
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert model.linear.training
    assert not model.norm.training


def test_trap_2_training_is_bit_identical_with_and_without_validation() -> None:
    def hook() -> ValidationLossHook:
        return ValidationLossHook({"valid": batches}, period=2)

    with_validation, watched = train([hook()])
    without, plain = train([])
    for name, tensor in watched.state_dict().items():
        assert torch.equal(tensor, plain.state_dict()[name])
    for name in ("fast_rcnn/cls_accuracy", "total_loss"):
        assert (
            with_validation.storage.history(name).values() == without.storage.history(name).values()
        )


def test_validation_scalars_are_twins_of_the_training_ones() -> None:
    trainer, _ = train([ValidationLossHook({"valid": batches}, period=2)], steps=6)
    history = trainer.storage.history("val/total_loss").values()
    assert [iteration for _, iteration in history] == [1, 3, 6]
    assert {"val/loss_a", "val/loss_b", "val/fast_rcnn/cls_accuracy"} <= set(
        trainer.storage.latest()
    )


def test_several_validation_sets_keep_their_names() -> None:
    trainer, _ = train([ValidationLossHook({"a": batches, "b": batches}, period=0)], steps=2)
    latest = trainer.storage.latest()
    assert latest["val/a/total_loss"][0] == latest["val/b/total_loss"][0]


def test_only_the_first_batches_are_looked_at_when_asked() -> None:
    class Explodes:
        def __iter__(self) -> Any:
            yield from batches(2)
            raise AssertionError("the third batch was asked for")

    train([ValidationLossHook({"valid": Explodes}, period=0, max_batches=2)], steps=1)


class Evaluation(HookBase):
    """Puts a score per evaluation into the storage, as Detectron2's EvalHook does."""

    def __init__(self, scores: dict[int, float], name: str = "segm/AP") -> None:
        self.scores, self.name = scores, name

    def after_step(self) -> None:
        if self.trainer.iter in self.scores:
            score = self.scores[self.trainer.iter]
            self.trainer.storage.put_scalar(self.name, score, smoothing_hint=False)


def test_trap_1_each_evaluation_gets_a_row_between_two_periods(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    hooks = [
        Evaluation({1: 10.0, 3: 30.0}),
        EventWriterHook(lambda: [JSONWriter(str(path))], 20, evaluation_period=2),
    ]
    train(hooks, steps=6)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    scores = {row["iteration"]: row["segm/AP"] for row in rows if "segm/AP" in row}
    assert scores[1] == 10.0
    assert scores[3] == 30.0


def best_of(
    folder: Path,
    scores: dict[int, float],
    start: int = 0,
    mode: str = "max",
    name: str = "segm/AP",
    build: Callable[..., BestCheckpointHook] = BestCheckpointHook,
) -> BestCheckpointHook:
    checkpointer = SafeDetectionCheckpointer(nn.Linear(1, 1), str(folder))
    hook = build(checkpointer, metric="segm/AP", mode=mode, period=1, datasets=("a", "b"))
    train([Evaluation(scores, name), hook], steps=max(scores) + 2, start=start)
    return hook


@pytest.mark.parametrize(
    ("scores", "mode", "best"),
    [
        ({0: 10.0, 1: 30.0, 2: 20.0}, "max", (30.0, 1)),
        ({0: 10.0, 1: 30.0, 2: 20.0}, "min", (10.0, 0)),
        ({0: 30.0, 1: 30.0}, "max", (30.0, 1)),  # of two equals the later one
        ({0: 10.0, 1: math.nan}, "max", (10.0, 0)),
    ],
)
def test_the_best_model_is_that_of_the_best_score(
    tmp_path: Path, scores: dict[int, float], mode: str, best: tuple[float, int]
) -> None:
    hook = best_of(tmp_path, scores, mode=mode)
    assert (hook.best_score, hook.best_iteration) == best
    record = json.loads((tmp_path / "model_best.json").read_text())
    assert (record["score"], record["iteration"]) == best
    assert (tmp_path / "model_best.pth").is_file()


def test_trap_3_a_resumed_run_does_not_replace_a_better_model(tmp_path: Path) -> None:
    best_of(tmp_path, {0: 40.0})
    saved = (tmp_path / "model_best.pth").read_bytes()
    hook = best_of(tmp_path, {2: 20.0}, start=2)
    assert hook.best_score == 40.0
    assert (tmp_path / "model_best.pth").read_bytes() == saved
    assert not (tmp_path / "last_checkpoint").exists()


def test_trap_3_the_checkpoint_knows_the_best_score_even_without_its_file(tmp_path: Path) -> None:
    state = best_of(tmp_path, {0: 40.0}).state_dict()

    def resumed(state: dict[str, Any]) -> Callable[..., BestCheckpointHook]:
        def build(*args: Any, **kwargs: Any) -> BestCheckpointHook:
            hook = BestCheckpointHook(*args, **kwargs)
            hook.load_state_dict(state)
            return hook

        return build

    for metric, best in (("segm/AP", 40.0), ("bbox/AP", 20.0)):  # another metric says nothing
        (tmp_path / "model_best.json").unlink(missing_ok=True)
        build = resumed(state | {"metric": metric})
        assert best_of(tmp_path, {2: 20.0}, start=2, build=build).best_score == best


def test_trap_5_with_two_evaluation_sets_the_first_one_decides(tmp_path: Path) -> None:
    assert best_of(tmp_path, {0: 12.5}, name="a/segm/AP").best_score == 12.5

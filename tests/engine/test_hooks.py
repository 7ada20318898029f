"""The hooks, on a toy model that trains in milliseconds."""

import json
import math
from typing import Any

import pytest
import torch
from detectron2.engine import HookBase, SimpleTrainer
from detectron2.utils.events import JSONWriter, get_event_storage
from torch import nn

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.engine.hooks import BestCheckpointHook, EventWriterHook
from persondet.engine.validation import ValidationLossHook

Batch = list[dict[str, Any]]


class ToyDetector(nn.Module):
    """Losses that depend on the input, on batch norm and on a random draw, and write events."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.linear = nn.Linear(2, 1)

    def forward(self, batch):
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


def batches(count=3, size=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [[{"x": torch.randn(2, generator=generator)} for _ in range(size)] for _ in range(count)]


def train(hooks, steps=6, start=0, seed=0):
    torch.manual_seed(seed)
    model = ToyDetector()
    trainer = SimpleTrainer(
        model, batches(steps, seed=1), torch.optim.SGD(model.parameters(), lr=0.1)
    )
    trainer.register_hooks(hooks)
    trainer.train(start, steps)
    return trainer, model


def test_validation_scalars_are_twins_of_the_training_ones():
    trainer, _ = train([ValidationLossHook({"valid": batches}, period=2)], steps=6)
    history = trainer.storage.history("val/total_loss").values()
    assert [iteration for _, iteration in history] == [1, 3, 6]
    assert {"val/loss_a", "val/loss_b", "val/fast_rcnn/cls_accuracy"} <= set(
        trainer.storage.latest()
    )


class Evaluation(HookBase):
    """Puts a score per evaluation into the storage, as Detectron2's EvalHook does."""

    def __init__(self, scores, name="segm/AP"):
        self.scores, self.name = scores, name

    def after_step(self):
        if self.trainer.iter in self.scores:
            score = self.scores[self.trainer.iter]
            self.trainer.storage.put_scalar(self.name, score, smoothing_hint=False)


def test_trap_1_each_evaluation_gets_a_row_between_two_periods(tmp_path):
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


def best_of(folder, scores, start=0, mode="max", name="segm/AP", build=BestCheckpointHook):
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
def test_the_best_model_is_that_of_the_best_score(tmp_path, scores, mode, best):
    hook = best_of(tmp_path, scores, mode=mode)
    assert (hook.best_score, hook.best_iteration) == best
    record = json.loads((tmp_path / "model_best.json").read_text())
    assert (record["score"], record["iteration"]) == best
    assert (tmp_path / "model_best.pth").is_file()


def test_trap_3_a_resumed_run_does_not_replace_a_better_model(tmp_path):
    best_of(tmp_path, {0: 40.0})
    saved = (tmp_path / "model_best.pth").read_bytes()
    hook = best_of(tmp_path, {2: 20.0}, start=2)
    assert hook.best_score == 40.0
    assert (tmp_path / "model_best.pth").read_bytes() == saved
    assert not (tmp_path / "last_checkpoint").exists()


def test_trap_3_the_checkpoint_knows_the_best_score_even_without_its_file(tmp_path):
    state = best_of(tmp_path, {0: 40.0}).state_dict()

    def resumed(state):
        def build(*args, **kwargs):
            hook = BestCheckpointHook(*args, **kwargs)
            hook.load_state_dict(state)
            return hook

        return build

    for metric, best in (("segm/AP", 40.0), ("bbox/AP", 20.0)):  # another metric says nothing
        (tmp_path / "model_best.json").unlink(missing_ok=True)
        build = resumed(state | {"metric": metric})
        assert best_of(tmp_path, {2: 20.0}, start=2, build=build).best_score == best


def test_trap_5_with_two_evaluation_sets_the_first_one_decides(tmp_path):
    assert best_of(tmp_path, {0: 12.5}, name="a/segm/AP").best_score == 12.5

"""The hooks, on toy models that train in milliseconds."""

import io
import json
import math
import re
import sys

import pytest
import torch
from detectron2.engine import HookBase, SimpleTrainer, TrainerBase
from detectron2.utils.events import JSONWriter, get_event_storage
from torch import nn

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.engine import hooks as module
from persondet.engine.console import start_logging
from persondet.engine.hooks import (
    BestCheckpointHook,
    EarlyStoppingHook,
    EventWriterHook,
    ProgressHook,
    StopTraining,
)
from persondet.engine.validation import ValidationLossHook
from tests.engine.test_console import Terminal


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


class Loop(TrainerBase):
    """A loop that does nothing but count its steps."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def run_step(self):
        self.steps.append(self.iter)


class Scores(HookBase):
    """Puts the score of each evaluation into the storage, as Detectron2's EvalHook does."""

    def __init__(self, scores, period, name):
        self.scores, self.period, self.name = scores, period, name

    def after_step(self):
        step = self.trainer.iter + 1
        if step % self.period == 0 and step // self.period <= len(self.scores):
            score = self.scores[step // self.period - 1]
            self.trainer.storage.put_scalar(self.name, score, smoothing_hint=False)


def train_with_patience(
    scores, *, period=2, steps=20, start=0, name="segm/AP", state=None, **settings
):
    loop = Loop()
    hook = EarlyStoppingHook("segm/AP", period=period, **settings)
    if state is not None:
        hook.load_state_dict(state)
    loop.register_hooks([Scores(scores, period, name), hook])
    try:
        loop.train(start, steps)
    except StopTraining:
        loop.stopped = True
        assert loop.iter == start + len(loop.steps)  # as at the end of a whole training
    return loop, hook


@pytest.mark.parametrize(
    ("scores", "settings", "steps"),
    [
        ([10, 11, 11, 11, 50], {"patience": 2}, 8),
        ([10, 11, 11, 12, 12, 12], {"patience": 2}, 12),  # patience is renewed
        ([10, 10.05, 10.09, 10.2, 50], {"patience": 2, "min_delta": 0.1}, 6),
        ([10, 10.1, 10.2, 10.3], {"patience": 1, "min_delta": 0.05}, 10),
        ([3, 2, 1, 1.5, 1.2], {"patience": 2, "mode": "min"}, 10),
        ([10, math.nan, math.nan, 50], {"patience": 2}, 6),
        ([math.nan, math.nan, 50], {"patience": 2}, 4),
        ([10, 9, 8, 7, 6, 5], {"patience": 0}, 20),
    ],
)
def test_it_stops_after_so_many_evaluations_without_improvement(scores, settings, steps):
    loop, _ = train_with_patience(scores, **settings)
    assert len(loop.steps) == steps


def test_patience_goes_on_over_a_resume():
    _, before = train_with_patience([10, 9], steps=4, patience=3)
    # The last evaluation of a training is nobody's concern: the loop ends anyway.
    assert before.evaluations_without_improvement == 0
    _, before = train_with_patience([10, 9], steps=5, patience=3)
    assert before.evaluations_without_improvement == 1
    loop, hook = train_with_patience(
        [0, 0, 9.5, 9.9, 9], start=4, state=before.state_dict(), patience=3
    )
    assert loop.steps == [4, 5, 6, 7]
    assert (hook.best_score, hook.best_iteration) == (10, 1)


def test_a_stopped_run_stays_stopped_until_it_gets_more_patience():
    _, stopped = train_with_patience([10, 9, 8], patience=2)
    loop, _ = train_with_patience([10, 9, 8], start=6, state=stopped.state_dict(), patience=2)
    assert loop.steps == []
    loop, _ = train_with_patience([10, 9, 8, 7], start=6, state=stopped.state_dict(), patience=3)
    assert loop.steps == [6, 7]


def test_every_rank_does_what_rank_0_decides(monkeypatch):
    # A rank without scores of its own, which hears those of rank 0.
    heard = iter([10.0, 9.0, 8.0, 7.0])
    monkeypatch.setattr(module.comm, "all_gather", lambda score: [next(heard), score])
    loop, hook = train_with_patience([], patience=2)
    assert len(loop.steps) == 6
    assert hook.best_score == 10.0


class TimedLoop(TrainerBase):
    """Each step takes half a second by the clock of the test, a tenth of it waiting for data."""

    def __init__(self, clock, seconds=None):
        super().__init__()
        self.clock, self.seconds = clock, seconds or {}

    def run_step(self):
        seconds = self.seconds.get(self.iter, 0.5)
        self.clock[0] += seconds
        put = self.storage.put_scalar
        put("time", seconds)
        put("data_time", 0.05)
        put("total_loss", 3.0)
        put("loss_cls", 1.25)
        put("val/total_loss", 9.0)
        put("lr", 0.0025, smoothing_hint=False)


class SlowEvaluation(HookBase):
    """Takes ten seconds every ten steps."""

    def __init__(self, clock):
        self.clock = clock

    def after_step(self):
        if (self.trainer.iter + 1) % 10 == 0:
            self.clock[0] += 10.0


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(module, "_memory", lambda: 3 * 2**29)
    return now


def rows(clock, stream, *, start=0, steps=40, seconds=None, verbosity=0, folder, **settings):
    """Train and return the rows of the log file."""
    stdout, sys.stdout = sys.stdout, stream
    try:
        start_logging(folder, verbosity=verbosity)
    finally:
        sys.stdout = stdout
    loop = TimedLoop(clock, seconds)
    hook = ProgressHook(5, batch_size=4, epoch_size=100, **settings)
    loop.register_hooks([SlowEvaluation(clock), hook])
    loop.train(start, steps)
    kept = (folder / "log.txt").read_text().splitlines()
    return [line.partition("INFO: ")[2] for line in kept if " step " in line], loop


def test_right_after_a_resume_the_time_left_is_that_of_the_steps_left(clock, tmp_path):
    found, _ = rows(clock, io.StringIO(), folder=tmp_path, start=30)
    assert found[0].startswith("step 35/40  epoch 1.4/1.6  ETA 0:00:02")


def test_a_pipe_gets_a_row_per_period_and_a_terminal_every_step_in_place(
    clock, tmp_path, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    pipe, terminal = io.StringIO(), Terminal()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    expected, _ = rows(clock, pipe, folder=tmp_path / "a")
    assert pipe.getvalue().splitlines() == expected
    rows(clock, terminal, folder=tmp_path / "b")
    lines = [line for line in terminal.screen() if line]
    assert len(lines) == 1  # left on the screen when the training is over
    assert lines[0].startswith("step 40/40")
    assert len(re.findall(r"step +\d+/40", terminal.getvalue())) >= 40

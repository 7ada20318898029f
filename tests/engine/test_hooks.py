"""The hooks, on a loop that does nothing but count its steps."""

import io
import json
import math
import re
import sys

import pytest
from detectron2.engine import HookBase, TrainerBase
from detectron2.utils.events import JSONWriter
from torch import nn

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.engine import hooks as module
from persondet.engine.console import current_console, start_logging
from persondet.engine.hooks import (
    BestCheckpointHook,
    EarlyStoppingHook,
    EventWriterHook,
    ProgressHook,
    StopTraining,
)
from tests.engine.test_console import Terminal


class Loop(TrainerBase):
    """Lists its steps and puts a few scalars; a step takes half a second of `clock`."""

    def __init__(self, clock=None):
        super().__init__()
        self.steps, self.clock = [], clock or [0.0]

    def run_step(self):
        self.steps.append(self.iter)
        self.clock[0] += 0.5
        for name, value in (("time", 0.5), ("data_time", 0.05), ("total_loss", 3.0)):
            self.storage.put_scalar(name, value)


class Evaluation(HookBase):
    """Puts the score of an iteration into the storage, as Detectron2's EvalHook does."""

    def __init__(self, scores, name="segm/AP"):
        self.scores, self.name = scores, name

    def after_step(self):
        if self.trainer.iter in self.scores:
            score = self.scores[self.trainer.iter]
            self.trainer.storage.put_scalar(self.name, score, smoothing_hint=False)


def train(hooks, steps, start=0, clock=None):
    loop = Loop(clock)
    loop.register_hooks(hooks)
    try:
        loop.train(start, steps)
    except StopTraining:
        assert loop.iter == start + len(loop.steps)  # as at the end of a whole training
    return loop


def test_trap_1_each_evaluation_gets_a_row_between_two_periods(tmp_path):
    path = tmp_path / "metrics.json"
    writers = EventWriterHook(lambda: [JSONWriter(str(path))], 20, evaluation_period=2)
    train([Evaluation({1: 10.0, 3: 30.0}), writers], steps=6)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    scores = {row["iteration"]: row["segm/AP"] for row in rows if "segm/AP" in row}
    assert (scores[1], scores[3]) == (10.0, 30.0)


def best_of(folder, scores, start=0, mode="max", name="segm/AP", state=None):
    checkpointer = SafeDetectionCheckpointer(nn.Linear(1, 1), str(folder))
    hook = BestCheckpointHook(
        checkpointer, metric="segm/AP", mode=mode, period=1, datasets=("a", "b")
    )
    hook.load_state_dict(state or hook.state_dict())
    train([Evaluation(scores, name), hook], steps=max(scores) + 2, start=start)
    return hook


@pytest.mark.parametrize(
    ("scores", "mode", "best"),
    [
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
    state = best_of(tmp_path, {0: 40.0}).state_dict()
    saved = (tmp_path / "model_best.pth").read_bytes()
    assert best_of(tmp_path, {2: 20.0}, start=2).best_score == 40.0
    assert (tmp_path / "model_best.pth").read_bytes() == saved
    # The checkpoint knows the score without that file; the score of another metric says nothing.
    for metric, best in (("segm/AP", 40.0), ("bbox/AP", 20.0)):
        (tmp_path / "model_best.json").unlink(missing_ok=True)
        told = state | {"metric": metric}
        assert best_of(tmp_path, {2: 20.0}, start=2, state=told).best_score == best


def test_trap_5_with_two_evaluation_sets_the_first_one_decides(tmp_path):
    assert best_of(tmp_path, {0: 12.5}, name="a/segm/AP").best_score == 12.5


def train_with_patience(scores, *, steps=20, start=0, state=None, **settings):
    hook = EarlyStoppingHook("segm/AP", period=2, **settings)
    hook.load_state_dict(state or hook.state_dict())
    at = {2 * number + 1: score for number, score in enumerate(scores)}
    return train([Evaluation(at), hook], steps, start), hook


@pytest.mark.parametrize(
    ("scores", "settings", "steps"),
    [
        ([10, 11, 11, 12, 12, 12], {"patience": 2}, 12),  # patience is renewed
        ([10, 10.05, 10.09, 10.2, 50], {"patience": 2, "min_delta": 0.1}, 6),
        ([3, 2, 1, 1.5, 1.2], {"patience": 2, "mode": "min"}, 10),
        ([10, math.nan, math.nan, 50], {"patience": 2}, 6),
        ([10, 9, 8, 7, 6, 5], {"patience": 0}, 20),
    ],
)
def test_it_stops_after_so_many_evaluations_without_improvement(scores, settings, steps):
    loop, _ = train_with_patience(scores, **settings)
    assert len(loop.steps) == steps


def test_patience_goes_on_over_a_resume_and_more_of_it_wakes_a_stopped_run():
    for steps, without in ((4, 0), (5, 1)):  # the last evaluation of a training does not count
        _, before = train_with_patience([10, 9], steps=steps, patience=3)
        assert before.evaluations_without_improvement == without
    state, scores = before.state_dict(), [0, 0, 9.5, 9.9, 9]
    loop, stopped = train_with_patience(scores, start=4, state=state, patience=3)
    assert loop.steps == [4, 5, 6, 7]
    assert (stopped.best_score, stopped.best_iteration) == (10, 1)
    for patience, steps in ((3, []), (4, [8, 9])):
        state = stopped.state_dict()
        loop, _ = train_with_patience(scores, start=8, state=state, patience=patience)
        assert loop.steps == steps


def test_every_rank_does_what_rank_0_decides(monkeypatch):
    # A rank without scores of its own, which hears those of rank 0.
    heard = iter([10.0, 9.0, 8.0, 7.0])
    monkeypatch.setattr(module.comm, "all_gather", lambda score: [next(heard), score])
    loop, hook = train_with_patience([], patience=2)
    assert len(loop.steps) == 6
    assert hook.best_score == 10.0


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_pipe_gets_a_row_per_period_and_a_terminal_one_line(tmp_path, monkeypatch, stream):
    clock = [100.0]
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    start_logging(tmp_path)
    hook = ProgressHook(5, batch_size=4, epoch_size=100, console=current_console())
    loop = train([hook], 40, start=10, clock=clock)
    row = "step 15/40  epoch 0.6/1.6  ETA 0:00:12  loss 3.000  8.0 images/s  data wait 10%"
    rows = re.findall("INFO: (step.*)", (tmp_path / "log.txt").read_text())
    assert len(rows) == 6 and rows[0].startswith(row)
    assert loop.storage.latest()["eta_seconds"] == (0.0, 39)
    if stream.isatty():
        lines = [line for line in stream.screen() if line]
        assert len(lines) == 1 and lines[0].startswith("step 40/40")  # left when all is over
        assert len(re.findall(r"step +\d+/40", stream.getvalue())) >= 30
    else:
        assert stream.getvalue().splitlines() == rows

"""The line that says how far the training is: known answers on a loop with given times."""

import io
import re
import sys

import pytest
from detectron2.engine import HookBase, TrainerBase

from persondet.engine import hooks as module
from persondet.engine.console import start_logging
from persondet.engine.hooks import ProgressHook
from tests.engine.test_console import Terminal
from tests.engine.test_console import loggers_as_before as loggers_as_before


class Loop(TrainerBase):
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


class Evaluation(HookBase):
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
    loop = Loop(clock, seconds)
    hook = ProgressHook(5, batch_size=4, epoch_size=100, **settings)
    loop.register_hooks([Evaluation(clock), hook])
    loop.train(start, steps)
    kept = (folder / "log.txt").read_text().splitlines()
    return [line.partition("INFO: ")[2] for line in kept if " step " in line], loop


def test_right_after_a_resume_the_time_left_is_that_of_the_steps_left(clock, tmp_path):
    found, _ = rows(clock, io.StringIO(), folder=tmp_path, start=30)
    assert found[0].startswith("step 35/40  epoch 1.4/1.6  ETA 0:00:02")


def test_a_slow_first_step_does_not_spoil_the_time_left(clock, tmp_path):
    found, _ = rows(clock, io.StringIO(), folder=tmp_path, seconds={0: 60.0})
    assert "ETA 0:00:18" in found[0]


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

"""Early stopping, on a toy loop with given scores."""

import math

import pytest
from detectron2.engine import HookBase, TrainerBase

from persondet.engine import hooks as module
from persondet.engine.hooks import EarlyStoppingHook, StopTraining


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


def train(scores, *, period=2, steps=20, start=0, name="segm/AP", state=None, **settings):
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
    loop, _ = train(scores, **settings)
    assert len(loop.steps) == steps


def test_with_two_validation_sets_the_first_one_decides():
    loop, hook = train([10, 20, 5, 5], name="a/segm/AP", patience=2, datasets=("a", "b"))
    assert len(loop.steps) == 8
    assert (hook.best_score, hook.best_iteration) == (20, 3)


def test_patience_goes_on_over_a_resume():
    _, before = train([10, 9], steps=4, patience=3)
    # The last evaluation of a training is nobody's concern: the loop ends anyway.
    assert before.evaluations_without_improvement == 0
    _, before = train([10, 9], steps=5, patience=3)
    assert before.evaluations_without_improvement == 1
    loop, hook = train([0, 0, 9.5, 9.9, 9], start=4, state=before.state_dict(), patience=3)
    assert loop.steps == [4, 5, 6, 7]
    assert (hook.best_score, hook.best_iteration) == (10, 1)


def test_a_stopped_run_stays_stopped_until_it_gets_more_patience():
    _, stopped = train([10, 9, 8], patience=2)
    loop, _ = train([10, 9, 8], start=6, state=stopped.state_dict(), patience=2)
    assert loop.steps == []
    loop, _ = train([10, 9, 8, 7], start=6, state=stopped.state_dict(), patience=3)
    assert loop.steps == [6, 7]


def test_every_rank_does_what_rank_0_decides(monkeypatch):
    # A rank without scores of its own, which hears those of rank 0.
    heard = iter([10.0, 9.0, 8.0, 7.0])
    monkeypatch.setattr(module.comm, "all_gather", lambda score: [next(heard), score])
    loop, hook = train([], patience=2)
    assert len(loop.steps) == 6
    assert hook.best_score == 10.0

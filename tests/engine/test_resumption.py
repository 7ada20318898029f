"""A run that was stopped and resumed is the run that was not."""

import os
import signal

import pytest
import torch
from detectron2.engine import HookBase

from persondet.checkpoint.model_file import load_checkpoint
from persondet.config import get_cfg
from persondet.engine.resumption import config_changes
from persondet.engine.run_folder import refuse_lost_checkpoints
from persondet.errors import CheckpointError, InterruptedRun
from tests.engine.toy_training import ToyTrainer, rows, same, toy_run


class Killed(BaseException):
    """Ends a training without a word, as SIGKILL would."""


class At(HookBase):
    """Does something before the step of this number (from 0)."""

    def __init__(self, iteration, action):
        self._iteration, self._action = iteration, action

    def before_step(self):
        if self.trainer.iter == self._iteration:
            self._action()


def _kill():
    raise Killed


def killed_run(export, output, *overrides, at, resume=False):
    trainer = toy_run(export, output, *overrides, resume=resume)
    trainer.register_hooks([At(at, _kill)])
    trainer.after_train = lambda: None  # a killed process closes nothing
    with pytest.raises(Killed):
        trainer.train()


@pytest.fixture(scope="module")
def in_one_go(tiny_export, tmp_path_factory):
    output = tmp_path_factory.mktemp("one") / "go"
    toy_run(tiny_export, output).train()
    return output


def assert_same_run(first, second):
    assert rows(first) == rows(second)
    for name in ("model_final.pth", "model_best.pth"):
        one, other = load_checkpoint(first / name), load_checkpoint(second / name)
        for part in ("model", "trainer", "iteration", "run_state"):
            assert same(one.get(part), other.get(part)), f"{name}: {part}"
    best = [(folder / "model_best.json").read_text() for folder in (first, second)]
    assert best[0] == best[1]


@pytest.mark.parametrize(
    "at", [5, *(pytest.param(at, marks=pytest.mark.slow) for at in (4, 10, 14, 18, 23))]
)
def test_a_killed_and_resumed_run_equals_one_in_one_go_to_the_bit(
    in_one_go, tiny_export, tmp_path, at
):
    output = tmp_path / "run"
    killed_run(tiny_export, output, at=at)
    torch.manual_seed(at)
    trainer = toy_run(tiny_export, output, resume=True)
    assert trainer.start_iter == at // 4 * 4
    trainer.train()
    assert_same_run(in_one_go, output)


def test_a_failing_last_evaluation_costs_no_training_and_is_made_up_for(
    in_one_go, tiny_export, tmp_path, monkeypatch
):
    output = tmp_path / "run"
    evaluate = ToyTrainer._evaluate_validation

    def fails(self):
        if self.iter == 24:
            raise ZeroDivisionError
        return evaluate(self)

    with monkeypatch.context() as patch:
        patch.setattr(ToyTrainer, "_evaluate_validation", fails)
        with pytest.raises(ZeroDivisionError):
            toy_run(tiny_export, output).train()
    resumed = toy_run(tiny_export, output, resume=True)
    assert resumed.start_iter == 24
    resumed.train()
    assert_same_run(in_one_go, output)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_saves_the_step_and_the_run_goes_on_from_there(
    in_one_go, tiny_export, tmp_path, number
):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    output = tmp_path / "run"
    trainer = toy_run(tiny_export, output)
    trainer.register_hooks([At(6, lambda: os.kill(os.getpid(), number))])
    try:
        with pytest.raises(InterruptedRun, match="after step 7 of 24.*model_0000006.pth") as caught:
            trainer.train()
    finally:
        assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert caught.value.exit_code == 130
    toy_run(tiny_export, output, resume=True).train()
    assert_same_run(in_one_go, output)


def test_trap_3_a_resume_goes_on_from_the_newest_and_not_from_the_best(tiny_export, tmp_path):
    killed_run(tiny_export, tmp_path / "run", at=22)
    assert load_checkpoint(tmp_path / "run" / "model_best.pth")["iteration"] == 17
    trainer = toy_run(tiny_export, tmp_path / "run", resume=True)
    assert trainer.start_iter == 20
    assert trainer.checkpointer.resumed_from == tmp_path / "run" / "model_0000019.pth"


def test_trap_16_a_truncated_newest_checkpoint_falls_back_to_the_one_before(
    in_one_go, tiny_export, tmp_path, caplog
):
    output = tmp_path / "run"
    killed_run(tiny_export, output, at=14)
    newest = output / "model_0000011.pth"
    newest.write_bytes(newest.read_bytes()[:-4000])
    with caplog.at_level("WARNING", "persondet"):
        trainer = toy_run(tiny_export, output, resume=True)
    assert trainer.start_iter == 8
    (warning,) = [r.getMessage() for r in caplog.records if "goes on from" in r.getMessage()]
    assert "model_0000011.pth" in warning
    assert "model_0000007.pth" in warning
    trainer.train()  # rows and best model of the time that is lost are written anew
    assert_same_run(in_one_go, output)


def test_other_data_is_refused_with_the_difference(tiny_export, export_writer, tmp_path):
    output = tmp_path / "run"
    killed_run(tiny_export, output, at=5)
    moved = tmp_path / "moved"
    export_writer(moved)
    assert toy_run(moved, output, resume=True).start_iter == 4
    other = tmp_path / "other"
    export_writer(other, {"train": 5, "valid": 3, "test": 3})
    with pytest.raises(CheckpointError) as caught:
        toy_run(other, output, resume=True)
    message = str(caught.value)
    assert "person_train had 6 images and" in message
    assert "and has 5 and" in message
    assert "missing: scene_5_train" in message
    assert "\n" not in message
    fewer = tmp_path / "fewer"
    export_writer(fewer, {"train": 6, "valid": 2, "test": 3})  # the same training images
    with pytest.raises(CheckpointError, match="person_valid had 3 images and .* and has 2 and"):
        toy_run(fewer, output, resume=True)


def test_a_rate_and_a_decay_that_are_changed_take_effect_on_a_resumed_run(tiny_export, tmp_path):
    killed_run(tiny_export, tmp_path / "run", at=5)
    lower = ("SOLVER.BASE_LR", 0.01, "SOLVER.WEIGHT_DECAY", 0.5)
    resumed = toy_run(tiny_export, tmp_path / "run", *lower, resume=True)
    new = toy_run(tiny_export, tmp_path / "new", *lower)
    for step in range(6):
        group = resumed.optimizer.param_groups[0]
        if step < 4:  # what the checkpoint has
            new.scheduler.step()
            continue
        expected = new.optimizer.param_groups[0]
        for key in ("lr", "weight_decay"):
            assert group[key] == expected[key], key
        for trainer in (resumed, new):
            trainer.scheduler.step()


def test_nothing_to_resume_starts_anew_and_says_so(tiny_export, tmp_path, caplog):
    with caplog.at_level("WARNING", "persondet"):
        trainer = toy_run(tiny_export, tmp_path / "run", resume=True)
    assert trainer.start_iter == 0
    assert "nothing to resume" in caplog.text
    (tmp_path / "run" / "model_best.pth").touch()
    with pytest.raises(CheckpointError, match="has a model_best.pth and no checkpoint"):
        refuse_lost_checkpoints(tmp_path / "run")


def changes(*opts, schedule="WarmupMultiStepLR"):
    before = get_cfg()
    before.SOLVER.LR_SCHEDULER_NAME = schedule
    now = before.clone()
    now.merge_from_list(list(opts))
    return list(config_changes(before.dump(), now.dump()))


@pytest.mark.parametrize("key", ["DATALOADER.NUM_WORKERS", "LOG_PERIOD", "TEST.EVAL_PERIOD"])
def test_what_the_steps_do_not_depend_on_is_no_change(key):
    assert changes(key, 7) == []


def test_what_the_steps_depend_on_is_named_with_both_values():
    assert changes("SEED", 7, "SOLVER.IMS_PER_BATCH", 4) == [
        "SEED: -1 → 7",
        "SOLVER.IMS_PER_BATCH: 16 → 4",
    ]


def test_a_longer_run_has_other_rates_along_a_cosine_alone():
    assert changes("SOLVER.MAX_ITER", 50000) == []
    assert changes("SOLVER.MAX_ITER", 50000, schedule="WarmupCosineLR") == [
        "SOLVER.MAX_ITER: 40000 → 50000"
    ]

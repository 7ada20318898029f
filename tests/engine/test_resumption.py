"""A run that was stopped and resumed is the run that was not; the toy trainer, and the command."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch
import train_net
from detectron2.engine import HookBase

from persondet.checkpoint.model_file import load_checkpoint
from persondet.config import get_cfg
from persondet.engine.resumption import (
    Interruption,
    config_changes,
    resume_command,
    saying_how_to_resume,
)
from persondet.engine.run_folder import refuse_lost_checkpoints
from persondet.errors import CheckpointError, InterruptedRun
from tests.conftest import write_export
from tests.engine.toy_training import CONFIG, ROOT, ToyTrainer, rows, same, toy_run


class At(HookBase):
    def __init__(self, iteration, action):
        self._iteration, self._action = iteration, action

    def before_step(self):
        if self.trainer.iter == self._iteration:
            self._action()


def killed_run(export, output, *, at):
    """Train until a step that ends the process without a word, as SIGKILL would."""

    def kill():
        raise GeneratorExit

    trainer = toy_run(export, output)
    trainer.register_hooks([At(at, kill)])
    trainer.after_train = lambda: None  # a killed process closes nothing
    with pytest.raises(GeneratorExit):
        trainer.train()


@pytest.fixture(scope="module")
def in_one_go(tiny_export, tmp_path_factory):
    output = tmp_path_factory.mktemp("one") / "go"
    toy_run(tiny_export, output).train()
    return output


@pytest.fixture(scope="module")
def stopped(tiny_export, tmp_path_factory):
    """A run that was killed before its sixth step; its newest checkpoint is of the fourth."""
    output = tmp_path_factory.mktemp("stopped") / "run"
    killed_run(tiny_export, output, at=5)
    return output


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) in (signal.default_int_handler, signal.SIG_IGN)


def assert_same_run(first, second, *names):
    assert rows(first) == rows(second)
    for name in names or ("model_final.pth", "model_best.pth"):
        one, other = load_checkpoint(first / name), load_checkpoint(second / name)
        for part in ("model", "trainer", "iteration", "run_state"):
            assert same(one.get(part), other.get(part)), f"{name}: {part}"
    best = [(folder / "model_best.json").read_text() for folder in (first, second)]
    assert best[0] == best[1]


@pytest.mark.parametrize(
    "at", [5, *(pytest.param(at, marks=pytest.mark.slow) for at in (4, 18, 23))]
)
def test_a_killed_and_resumed_run_equals_one_in_one_go_to_the_bit(
    in_one_go, tiny_export, tmp_path, at
):
    killed_run(tiny_export, tmp_path / "run", at=at)
    torch.manual_seed(at)
    trainer = toy_run(tiny_export, tmp_path / "run", resume=True)
    assert trainer.start_iter == at // 4 * 4
    trainer.train()
    assert_same_run(in_one_go, tmp_path / "run")


@pytest.mark.slow
def test_a_failed_last_evaluation_is_made_up_for(in_one_go, tiny_export, tmp_path, monkeypatch):
    evaluate = ToyTrainer._evaluate_validation
    with monkeypatch.context() as patch:
        fails = lambda self: evaluate(self) if self.iter < 24 else 1 / 0  # noqa: E731
        patch.setattr(ToyTrainer, "_evaluate_validation", fails)
        with pytest.raises(ZeroDivisionError):
            toy_run(tiny_export, tmp_path / "run").train()
    resumed = toy_run(tiny_export, tmp_path / "run", resume=True)
    assert resumed.start_iter == 24
    resumed.train()
    assert_same_run(in_one_go, tmp_path / "run")


@pytest.mark.slow
def test_a_signal_saves_the_step_and_the_run_goes_on_from_there(in_one_go, tiny_export, tmp_path):
    trainer = toy_run(tiny_export, tmp_path / "run")
    trainer.register_hooks([At(6, lambda: os.kill(os.getpid(), signal.SIGTERM))])
    with pytest.raises(InterruptedRun, match="after step 7 of 24.*model_0000006.pth") as caught:
        trainer.train()
    assert caught.value.exit_code == 130
    toy_run(tiny_export, tmp_path / "run", resume=True).train()
    assert_same_run(in_one_go, tmp_path / "run")


@pytest.mark.slow
def test_trap_16_a_truncated_checkpoint_falls_back(in_one_go, tiny_export, tmp_path, caplog):
    """Trap 3: it goes on from the newest that is whole, not from the best."""
    output = tmp_path / "run"
    killed_run(tiny_export, output, at=22)
    assert load_checkpoint(output / "model_best.pth")["iteration"] == 17
    newest = output / "model_0000019.pth"
    newest.write_bytes(newest.read_bytes()[:-4000])
    trainer = toy_run(tiny_export, output, resume=True)
    assert trainer.checkpointer.resumed_from == output / "model_0000015.pth"
    (warning,) = [r.getMessage() for r in caplog.records if "goes on from" in r.getMessage()]
    assert "model_0000019.pth" in warning
    trainer.train()  # rows and best model of the time that is lost are written anew
    assert_same_run(in_one_go, output)


def test_other_data_is_refused_with_the_difference(stopped, tmp_path):
    write_export(tmp_path / "same", {"train": 6, "valid": 3})
    assert toy_run(tmp_path / "same", stopped, resume=True).start_iter == 4
    write_export(tmp_path / "other", {"train": 5, "valid": 3})
    said = "person_train had 6 images .* has 5 .*missing: scene_5_train"
    with pytest.raises(CheckpointError, match=said) as caught:
        toy_run(tmp_path / "other", stopped, resume=True)
    assert "\n" not in str(caught.value)


def test_a_changed_rate_and_decay_take_effect_on_a_resumed_run(stopped, tiny_export, tmp_path):
    lower = ("SOLVER.BASE_LR", 0.01, "SOLVER.WEIGHT_DECAY", 0.5)
    resumed = toy_run(tiny_export, stopped, *lower, resume=True)
    new = toy_run(tiny_export, tmp_path / "new", *lower)
    for _ in range(4):  # what the checkpoint has
        new.scheduler.step()
    for _ in range(2):
        groups = [trainer.optimizer.param_groups[0] for trainer in (resumed, new)]
        assert [g["lr"] for g in groups] == [groups[1]["lr"]] * 2
        assert [g["weight_decay"] for g in groups] == [groups[1]["weight_decay"]] * 2
        resumed.scheduler.step()
        new.scheduler.step()


def test_nothing_to_resume_starts_anew_and_says_so(tiny_export, tmp_path, caplog):
    assert toy_run(tiny_export, tmp_path / "run", resume=True).start_iter == 0
    assert "nothing to resume" in caplog.text
    (tmp_path / "run" / "model_best.pth").touch()
    with pytest.raises(CheckpointError, match="has a model_best.pth and no checkpoint"):
        refuse_lost_checkpoints(tmp_path / "run")


def test_a_change_that_makes_other_steps_is_named_with_both_values():
    expected = ["SEED: -1 → 7", "SOLVER.MAX_ITER: 40000 → 50000"]
    for schedule, changes in (("WarmupMultiStepLR", expected[:1]), ("WarmupCosineLR", expected)):
        before = get_cfg()
        before.SOLVER.LR_SCHEDULER_NAME = schedule
        now = before.clone()
        now.SEED, now.LOG_PERIOD, now.SOLVER.MAX_ITER = 7, 7, 50000
        assert list(config_changes(before.dump(), now.dump())) == changes


def test_the_first_signal_is_remembered_and_the_second_stops_at_once():
    with Interruption() as interruption:
        assert not interruption.agreed()
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.agreed()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as `nohup` does
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert not interruption.requested


def test_an_interruption_says_how_to_go_on():
    words = ["python", "-u", "tools/train_net.py", "--overwrite", "OUTPUT_DIR", "it's here"]
    again = shlex.split(resume_command(words))
    assert again == [*words[:3], "--resume", *words[4:]]
    assert resume_command(again) == resume_command(words)
    sentences = {InterruptedRun("saved"): "^saved; go on with: python", KeyboardInterrupt(): "once"}
    for error, sentence in sentences.items():
        with pytest.raises(InterruptedRun, match=sentence), saying_how_to_resume(words):
            raise error


def flags_of(export, output, *flags):
    """Return a command line for the real model with workers: 12 steps, a checkpoint every 4th."""
    opts = """MODEL.DEVICE cpu INPUT.ALBUMENTATIONS.PIPELINE light INPUT.MIN_SIZE_TRAIN (48,)
        DATALOADER.NUM_WORKERS 2 SOLVER.IMS_PER_BATCH 1 SOLVER.MAX_ITER 12 SOLVER.STEPS (8,)
        SOLVER.CHECKPOINT_PERIOD 4 TEST.EVAL_PERIOD 6 LOG_PERIOD 1""".split()
    data = ("DATASETS.ROBOFLOW.ROOT", str(export), "OUTPUT_DIR", str(output))
    return ["--config-file", str(CONFIG), *flags, *data, *opts]


def start(*words):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tools/train_net.py"), *flags_of(*words)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.slow
def test_12_steps_of_the_command_equal_7_and_a_kill_and_the_rest(tiny_export, tmp_path, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    whole, killed = start(tiny_export, one), start(tiny_export, two)
    log = two / "metrics.json"
    while killed.poll() is None and not (log.is_file() and '"iteration": 6' in log.read_text()):
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert (two / "model_0000003.pth").exists() and not (two / "model_final.pth").exists()
    with open(log, "a") as metrics:  # a kill can cut a row
        metrics.write('{"bbox/AP": 1')
    assert start(tiny_export, two, "--resume").wait() == whole.wait() == 0
    assert_same_run(one, two, "model_final.pth", "model_best.pth", "model_0000007.pth")
    names = {name for row in rows(two) for name in row}
    assert {"total_loss", "val/total_loss", "segm/AP"} <= names

    # Once more: nothing is left to do, and nothing is changed.
    before = {path.name: path.read_bytes() for path in two.glob("m*")}
    assert train_net.main(flags_of(tiny_export, two, "--resume")) == 0
    assert "finished" in capsys.readouterr().out
    assert before == {path.name: path.read_bytes() for path in two.glob("m*")}

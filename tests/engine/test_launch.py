"""Several processes: the same training as one, one set of files, and they end together."""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from detectron2.engine import launch as detectron2_launch
from detectron2.utils.events import EventStorage

from persondet.config import get_cfg
from persondet.data.loaders import build_validation_loss_loader
from persondet.engine import Trainer, setup
from persondet.engine.launch import check_processes, launch, started_by_torchrun
from persondet.engine.validation import validation_scalars
from persondet.errors import ConfigError, PersondetError, RankLostError
from persondet.results import RunError
from tests.engine.toy_training import CONFIG, ROOT

# A new process imports the cases by their name, from the path that it inherits.
sys.path.append(str(Path(__file__).parent))
import rank_cases

OPTS = [
    *("MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", "False", "SOLVER.MAX_ITER", "3"),
    *("DATALOADER.ASPECT_RATIO_GROUPING", "False", "LOG_PERIOD", "1"),
    *("DATASETS.VAL", "('person_valid','person_test')", "SOLVER.WARMUP_ITERS", "1"),
    *("MODEL.RESNETS.NORM", "FrozenBN", "MODEL.FPN.NORM", "", "MODEL.ROI_BOX_HEAD.NORM", ""),
    *("MODEL.ROI_MASK_HEAD.NORM", "", "INPUT.MIN_SIZE_TRAIN", "(48,)", "INPUT.MIN_SIZE_TEST", "48"),
]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def command_line(**changes):
    values = {"num_gpus": 2, "num_machines": 1, "machine_rank": 0, "dist_url": "auto", "opts": []}
    flags = {"eval_only": False, "resume": False, "overwrite": False, "config_file": str(CONFIG)}
    return argparse.Namespace(**(values | flags | changes))


def start(*launcher, root, output, keys):
    tool = [str(ROOT / "tools/train_net.py"), "--config-file", str(CONFIG)]
    flags = [] if launcher else ["--num-gpus", "2"]
    opts = ["DATASETS.ROBOFLOW.ROOT", str(root), "OUTPUT_DIR", str(output), *OPTS, *keys.split()]
    return subprocess.Popen(
        [sys.executable, *launcher, *tool, *flags, *opts],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


MANY = {"dist_url": "tcp://a:1"}


@pytest.mark.parametrize(
    ("device", "flags", "says"),
    [
        ("cpu", {"num_gpus": 0}, "--num-gpus is 0"),
        ("cpu", {"num_machines": 2}, "--dist-url"),
        # Four images are enough for the two of this machine, and not for all six.
        ("cpu", {"num_machines": 3, **MANY}, "4, which 6 processes"),
        ("cpu", {"num_machines": 2, "machine_rank": 2, **MANY}, "--machine-rank"),
        ("cuda", {"num_gpus": 4}, "--num-gpus is 4, and torch finds 2"),
        ("cuda:1", {}, "MODEL.DEVICE is 'cuda:1'"),
        ("cpu", {"num_gpus": 4}, ""),  # they share the cores
        ("cuda", {}, ""),
    ],
)
def test_processes_that_cannot_work_together_are_refused(device, flags, says, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.SOLVER.IMS_PER_BATCH = device, 4
    with pytest.raises(ConfigError, match=says) if says else contextlib.nullcontext():
        check_processes(cfg, command_line(**flags))


def test_torchrun_starts_the_processes_itself(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        assert not started_by_torchrun()  # a cluster may set some of these alone
        monkeypatch.setenv(name, "2")
    assert started_by_torchrun()
    with pytest.raises(ConfigError, match="leave --num-gpus"):
        check_processes(get_cfg(), command_line(num_gpus=2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ("bad input", RunError, r"^a\.json: is no run; remove it\.$"),
        ("bug", RuntimeError, r"rank 1 .*(?s:.*)end_badly(?s:.*)ZeroDivisionError: one by nought"),
        ("killed", RankLostError, "rank 1 was ended by SIGKILL"),
    ],
)
def test_a_rank_that_dies_ends_the_others_with_its_error(tmp_path, how, error, says):
    begin, before = time.monotonic(), signal.getsignal(signal.SIGINT)
    with pytest.raises(error, match=says) as raised:
        launch(rank_cases.end_badly, (how, str(tmp_path)), processes=2, device="cpu")
    assert isinstance(raised.value, PersondetError) == (how != "bug")
    assert time.monotonic() - begin < 300  # far below the group's timeout, and no hang
    for rank in (0, 1):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / f"pid_{rank}").read_text()), 0)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_two_ranks_train_as_one_process_does(tmp_path, export_writer, monkeypatch):
    """Their validation loss and AP, too, are those of one; Detectron2's own launch starts them."""
    # The second validation set has one image: rank 1 has none of it.
    export_writer(tmp_path / "export", {"train": 6, "valid": 3, "test": 1})
    opts = [*OPTS, "DATASETS.ROBOFLOW.ROOT", str(tmp_path / "export")]
    two = command_line(opts=[*opts, "OUTPUT_DIR", str(tmp_path / "two")])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    detectron2_launch(rank_cases.train, 2, dist_url="auto", args=(two,))
    begin, end = (
        torch.load(tmp_path / f"two/{name}.pt", weights_only=True) for name in ("start", "end")
    )

    trainer = Trainer(setup(command_line(opts=[*opts, "OUTPUT_DIR", str(tmp_path / "one")])))
    model = trainer.model
    assert all(torch.equal(tensor, begin[name]) for name, tensor in model.state_dict().items())
    first_loss = train_on_halves(trainer, steps=3)
    torch.testing.assert_close(dict(model.state_dict()), dict(end), rtol=1e-4, atol=1e-6)
    moved = max(float((tensor - begin[name]).abs().max()) for name, tensor in end.items())
    assert moved > 1e-4  # far beyond the tolerance

    rows = [json.loads(line) for line in (tmp_path / "two/metrics.json").read_text().splitlines()]
    assert rows[0]["total_loss"] == pytest.approx(first_loss, rel=1e-5)  # of both ranks
    last = {key: value for row in rows for key, value in row.items()}
    model.load_state_dict(end)
    scores = trainer._evaluate_validation()
    for name in ("person_valid", "person_test"):
        for task in ("bbox", "segm"):
            assert last[f"{name}/{task}/AP"] == pytest.approx(scores[name][task]["AP"], abs=1e-6)
        scalars = validation_scalars(model, build_validation_loss_loader(trainer.cfg, name))
        assert "mask_rcnn/accuracy" in scalars
        for key, value in scalars.items():
            assert last[f"val/{name}/{key}"] == pytest.approx(value, rel=1e-6)


def train_on_halves(trainer, steps):
    """Do by hand what two ranks do: each half of a batch alone; return the first step's loss."""
    trainer.model.train()
    batches = iter(trainer.data_loader)
    totals = []
    for step in range(steps):
        halves = next(batches)
        assert len(halves) == 2
        trainer.optimizer.zero_grad()
        losses = []
        for rank, half in enumerate(halves):
            torch.manual_seed(1000 * step + rank)
            with torch.enable_grad(), EventStorage():
                losses.append(sum(trainer.model([half]).values()) / 2)
            losses[-1].backward()
        totals.append(sum(loss.item() for loss in losses))
        trainer.optimizer.step()
        trainer.scheduler.step()
    return totals[0]


@pytest.mark.slow
def test_torchrun_gives_the_same_run_and_both_leave_one_set_of_files(tmp_path, tiny_export):
    weights, files, keys = [], [], "SOLVER.MAX_ITER 2 TEST.EVAL_PERIOD 0"
    processes = {
        tmp_path / name: start(*launcher, root=tiny_export, output=tmp_path / name, keys=keys)
        for name, launcher in (("ours", ()), ("torchrun", TORCHRUN))
    }
    for output, process in processes.items():
        said, wrong = process.communicate()
        assert process.returncode == 0, said + wrong
        assert said.count("Scoring model_best.pth") == 1  # one rank speaks
        weights.append(torch.load(output / "model_final.pth", weights_only=True)["model"])
        files.append(sorted(file.name.partition("tfevents")[0] for file in output.iterdir()))
    torch.testing.assert_close(*map(dict, weights), rtol=1e-5, atol=1e-7)
    assert files[0] == files[1]
    assert not [name for name in files[0] if "rank" in name]


@pytest.mark.slow
def test_an_interruption_of_several_ranks_saves_once_and_ends_with_130(tmp_path, tiny_export):
    output = tmp_path / "run"
    keys = "SOLVER.MAX_ITER 90000 SOLVER.CHECKPOINT_PERIOD 90000 TEST.EVAL_PERIOD 0"
    process = start(root=tiny_export, output=output, keys=keys)
    rows = output / "metrics.json"
    while process.poll() is None and not (rows.is_file() and rows.stat().st_size):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)  # to the first process alone
    _, wrong = process.communicate(timeout=300)
    assert process.returncode == 130, wrong
    assert "Traceback" not in wrong
    assert wrong.count("--resume") == 1
    assert len(list(output.glob("model_*.pth"))) == 1

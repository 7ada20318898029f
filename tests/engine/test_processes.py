"""Several processes: the same training as one, one set of files, and they end together."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from detectron2.engine import launch as detectron2_launch
from detectron2.utils.events import EventStorage

from persondet.config import get_cfg
from persondet.data.loaders import build_validation_loss_loader
from persondet.engine import Trainer, setup
from persondet.engine.launch import check_processes, launch, started_by_torchrun
from persondet.engine.rank_failure import Failure, read_failures, report
from persondet.engine.rank_log import RankLog
from persondet.engine.validation import validation_scalars
from persondet.errors import ConfigError, DatasetError, PersondetError, RankLostError

# A new process imports the cases by their name, from the path that it inherits.
sys.path.append(str(Path(__file__).parent))
import rank_cases

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"


def command_line(**changes: Any) -> argparse.Namespace:
    values = {
        "num_gpus": 2,
        "num_machines": 1,
        "machine_rank": 0,
        "dist_url": "auto",
        "eval_only": False,
        "resume": False,
        "overwrite": False,
        "config_file": str(CONFIG),
        "opts": [],
    }
    return argparse.Namespace(**(values | changes))


@pytest.mark.parametrize(
    ("flags", "opts", "word"),
    [
        ({"num_gpus": 0}, [], "--num-gpus is 0"),
        ({"num_gpus": 3}, [], "IMS_PER_BATCH is 2, which 3 processes"),
        ({"num_machines": 2}, [], "--dist-url"),
        ({"num_machines": 2, "machine_rank": 2, "dist_url": "tcp://a:1"}, [], "--machine-rank"),
    ],
)
def test_processes_that_cannot_work_together_are_refused(
    flags: dict[str, Any], opts: list[str], word: str
) -> None:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.SOLVER.IMS_PER_BATCH = 2
    with pytest.raises(ConfigError, match=word):
        check_processes(cfg, command_line(**flags))


def test_without_gpus_processes_share_the_cores_and_with_them_each_needs_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cfg = get_cfg()
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.MODEL.DEVICE = "cpu"
    check_processes(cfg, command_line(num_gpus=4))
    cfg.MODEL.DEVICE = "cuda"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_processes(cfg, command_line(num_gpus=2))
    with pytest.raises(ConfigError, match="--num-gpus is 4, and torch finds 2"):
        check_processes(cfg, command_line(num_gpus=4))
    cfg.MODEL.DEVICE = "cuda:1"
    with pytest.raises(ConfigError, match="MODEL.DEVICE is 'cuda:1'"):
        check_processes(cfg, command_line(num_gpus=2))


def test_torchrun_starts_the_processes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not started_by_torchrun()
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not started_by_torchrun()  # a cluster may set these alone
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "1")
    assert started_by_torchrun()
    with pytest.raises(ConfigError, match="leave --num-gpus"):
        check_processes(get_cfg(), command_line(num_gpus=2))


def test_one_process_is_this_one() -> None:
    pids: list[int] = []
    launch(lambda: pids.append(os.getpid()))
    assert pids == [os.getpid()]


def test_the_error_of_a_rank_travels_and_is_told_from_its_consequences() -> None:
    store = dist.HashStore()

    def failed(rank: int, error: Exception) -> bool:
        try:
            raise error
        except Exception as caught:
            return report(store, Failure.of(rank, caught))

    assert failed(1, DatasetError("a.jpg: is no image."))
    assert not failed(0, RuntimeError("[pair.cc] Gloo: gloo connectFullMesh failed"))
    assert not failed(2, KeyError("boxes"))
    bad, lost, bug = read_failures(store)
    assert [failure.rank for failure in (bad, lost, bug)] == [1, 0, 2]
    assert [failure.is_consequence for failure in (bad, lost, bug)] == [False, True, False]
    assert isinstance(bad.error(), DatasetError)
    assert str(bad.error()) == "a.jpg: is no image."
    assert type(bug.error()) is RuntimeError
    assert "rank 2" in str(bug.error())
    assert "KeyError: 'boxes'" in str(bug.error())
    assert "test_processes.py" in str(bug.error())  # its traceback


def test_the_log_of_a_further_rank_is_written_only_when_it_fails(tmp_path: Path) -> None:
    log = RankLog(tmp_path / "log.txt.rank1", lines=2)
    for number in range(3):
        log.handle(logging.makeLogRecord({"msg": f"line {number}", "levelname": "INFO"}))
    assert not log.path.exists()
    log.write("the traceback")
    text = log.path.read_text()
    assert "line 0" not in text
    assert text.index("line 1") < text.index("line 2") < text.index("the traceback")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ("bad input", DatasetError, r"^a\.jpg: is no image; remove it\.$"),
        ("bug", RuntimeError, r"rank 1 .*(?s:.*)end_badly(?s:.*)ZeroDivisionError: one by nought"),
        ("killed", RankLostError, "rank 1 was ended by SIGKILL"),
    ],
)
def test_a_rank_that_dies_ends_the_others_with_its_error(
    tmp_path: Path, how: str, error: type[Exception], says: str
) -> None:
    start, before = time.monotonic(), signal.getsignal(signal.SIGINT)
    with pytest.raises(error, match=says) as raised:
        launch(rank_cases.end_badly, (how, str(tmp_path)), processes=2, device="cpu")
    assert isinstance(raised.value, PersondetError) == (how != "bug")
    assert time.monotonic() - start < 120  # far below the group's timeout, and no hang
    for rank in (0, 1):
        pid = int((tmp_path / f"pid_{rank}").read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert signal.getsignal(signal.SIGINT) is before


OPTS = [
    *("MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", "False", "SOLVER.MAX_ITER", "3"),
    *("DATALOADER.ASPECT_RATIO_GROUPING", "False", "LOG_PERIOD", "1"),
    *("DATASETS.VAL", "('person_valid','person_test')", "SOLVER.WARMUP_ITERS", "1"),
    *("MODEL.RESNETS.NORM", "FrozenBN", "MODEL.FPN.NORM", "", "MODEL.ROI_BOX_HEAD.NORM", ""),
    *("MODEL.ROI_MASK_HEAD.NORM", ""),
]


@pytest.mark.slow
def test_two_ranks_end_as_one_process_that_averages_the_gradients_of_the_halves(
    tmp_path: Path, export_writer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also: validation loss and AP of two ranks are those of one, and Detectron2's launch will do.

    The second validation set has one image: rank 1 has none of it.
    """
    export_writer(tmp_path / "export", {"train": 6, "valid": 3, "test": 1})
    opts = [*OPTS, "DATASETS.ROBOFLOW.ROOT", str(tmp_path / "export")]
    two = command_line(opts=[*opts, "OUTPUT_DIR", str(tmp_path / "two")])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    detectron2_launch(rank_cases.train, 2, dist_url="auto", args=(two,))
    start = torch.load(tmp_path / "two/start.pt", weights_only=True)
    end = torch.load(tmp_path / "two/end.pt", weights_only=True)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    trainer = Trainer(setup(command_line(opts=[*opts, "OUTPUT_DIR", str(tmp_path / "one")])))
    model, optimizer = trainer.model, trainer.optimizer
    assert all(torch.equal(tensor, start[name]) for name, tensor in model.state_dict().items())
    model.train()
    batches = iter(trainer.data_loader)
    totals = []
    for step in range(3):
        halves = next(batches)
        assert len(halves) == 2
        optimizer.zero_grad()
        totals.append(0.0)
        for rank in (0, 1):
            torch.manual_seed(1000 * step + rank)
            with torch.enable_grad(), EventStorage():
                loss = sum(model([halves[rank]]).values()) / 2
            loss.backward()
            totals[-1] += loss.item()
        optimizer.step()
        trainer.scheduler.step()
    moved = 0.0
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, end[name], rtol=1e-4, atol=1e-6, msg=name)
        moved = max(moved, float((tensor - start[name]).abs().max()))
    assert moved > 1e-4  # far beyond the tolerance

    rows = [json.loads(line) for line in (tmp_path / "two/metrics.json").read_text().splitlines()]
    assert rows[0]["total_loss"] == pytest.approx(totals[0], rel=1e-5)  # of both ranks
    last = {key: value for row in rows for key, value in row.items()}
    model.load_state_dict(end)
    scores = trainer._evaluate_validation()
    for name in ("person_valid", "person_test"):
        for task in ("bbox", "segm"):
            assert last[f"{name}/{task}/AP"] == pytest.approx(scores[name][task]["AP"], abs=1e-6)
    for name in ("person_valid", "person_test"):
        scalars = validation_scalars(model, build_validation_loss_loader(trainer.cfg, name))
        assert "mask_rcnn/accuracy" in scalars
        for key, value in scalars.items():
            assert last[f"val/{name}/{key}"] == pytest.approx(value, rel=1e-6)
    torch.set_num_threads(threads)


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def command(*launcher: str, root: Path, output: Path, steps: int) -> list[str]:
    keys = ["DATASETS.ROBOFLOW.ROOT", str(root), "OUTPUT_DIR", str(output), *OPTS]
    tool = [str(ROOT / "tools/train_net.py"), "--config-file", str(CONFIG)]
    flags = [] if launcher else ["--num-gpus", "2"]
    return [sys.executable, *launcher, *tool, *flags, *keys, "SOLVER.MAX_ITER", str(steps)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.slow
def test_torchrun_gives_the_same_run_and_both_leave_one_set_of_files(
    tmp_path: Path, tiny_export: Path
) -> None:
    weights, files = [], []
    for name, launcher in (("ours", ()), ("torchrun", TORCHRUN)):
        words = command(*launcher, root=tiny_export, output=tmp_path / name, steps=2)
        done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("Scoring model_best.pth") == 1  # one rank speaks
        path = tmp_path / name / "model_final.pth"
        weights.append(torch.load(path, weights_only=True)["model"])
        found = (file.name for file in (tmp_path / name).iterdir())
        files.append(sorted(file.partition("tfevents")[0] for file in found))
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-5, atol=1e-7, msg=name)
    assert files[0] == files[1]
    assert len(set(files[0])) == len(files[0])
    assert {"log.txt", "metrics.json", "config.yaml", "model_final.pth"} <= set(files[0])
    assert not [name for name in files[0] if "rank" in name]


@pytest.mark.slow
def test_bad_input_to_torchrun_is_one_sentence(tmp_path: Path, tiny_export: Path) -> None:
    words = command(*TORCHRUN, root=tiny_export, output=tmp_path / "run", steps=2)
    done = subprocess.run(
        [*words, "SOLVER.IMS_PER_BATCH", "3"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.count("error: config: SOLVER.IMS_PER_BATCH is 3") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_interruption_of_several_ranks_saves_once_and_ends_with_130(
    tmp_path: Path, tiny_export: Path
) -> None:
    words = command(root=tiny_export, output=tmp_path / "run", steps=100_000)
    words += ["TEST.EVAL_PERIOD", "0", "SOLVER.CHECKPOINT_PERIOD", "100000"]
    process = subprocess.Popen(
        words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    rows = tmp_path / "run/metrics.json"
    while process.poll() is None and not (rows.is_file() and rows.stat().st_size):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)  # to the first process alone
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert said.count("--resume") == 1
    assert len(list((tmp_path / "run").glob("model_*.pth"))) == 1

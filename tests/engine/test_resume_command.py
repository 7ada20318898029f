"""The command itself: killed, interrupted, and resumed, with the real model and with workers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from persondet.checkpoint.model_file import load_checkpoint
from tests.engine.toy_training import CONFIG, rows, same

ROOT = Path(__file__).resolve().parents[2]


def command(export, output, *flags, steps=100):
    period = steps // 5
    keys = {
        "DATASETS.ROBOFLOW.ROOT": export,
        "OUTPUT_DIR": output,
        "MODEL.DEVICE": "cpu",
        "INPUT.ALBUMENTATIONS.PIPELINE": "light",
        "INPUT.MIN_SIZE_TRAIN": "(48,)",
        "DATALOADER.NUM_WORKERS": 2,
        "SOLVER.IMS_PER_BATCH": 1,
        "SOLVER.MAX_ITER": steps,
        "SOLVER.STEPS": f"({steps * 3 // 5},)",
        "SOLVER.CHECKPOINT_PERIOD": period,
        "TEST.EVAL_PERIOD": period,
        "LOG_PERIOD": 4,
    }
    opts = [str(word) for pair in keys.items() for word in pair]
    tool = [sys.executable, "tools/train_net.py", "--config-file", str(CONFIG)]
    return [*tool, *flags, *opts]


def start(words):
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A job in the background is started to ignore Ctrl-C, and so are its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )


def finish(process, code=0):
    output, _ = process.communicate(timeout=600)
    assert process.returncode == code, output[-3000:]
    return output


def wait_for_row(process, output, iteration):
    while process.poll() is None:
        if output.joinpath("metrics.json").is_file():
            text = output.joinpath("metrics.json").read_text()
            written = [json.loads(line) for line in text.splitlines(keepends=True) if "\n" in line]
            if any(row["iteration"] >= iteration for row in written):
                return
        time.sleep(0.02)
    raise AssertionError(finish(process))


@pytest.mark.slow
def test_100_steps_equal_40_and_a_kill_and_60(tiny_export, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    finish(start(command(tiny_export, one)))
    killed = start(command(tiny_export, two))
    wait_for_row(killed, two, 43)
    os.killpg(killed.pid, signal.SIGKILL)
    finish(killed, code=-signal.SIGKILL)
    assert load_checkpoint(two / "model_0000039.pth")["iteration"] == 39
    assert not (two / "model_0000059.pth").exists()
    with open(two / "metrics.json", "a") as metrics:  # a kill can cut a row
        metrics.write('{"bbox/AP": 1')
    finish(start(command(tiny_export, two, "--resume")))

    assert rows(one) == rows(two)
    iterations = [row["iteration"] for row in rows(two)]
    assert iterations == sorted(set(iterations))
    assert {"total_loss", "val/total_loss", "segm/AP"} <= {key for row in rows(two) for key in row}
    for name in ("model_final.pth", "model_best.pth", "model_0000079.pth"):
        first, second = load_checkpoint(one / name), load_checkpoint(two / name)
        for part in ("model", "trainer", "run_state"):
            assert same(first.get(part), second.get(part)), f"{name}: {part}"

    # Once more: nothing is left to do, and nothing is changed.
    before = {path.name: path.read_bytes() for path in two.glob("m*")}
    output = finish(start(command(tiny_export, two, "--resume")))
    assert "finished" in output
    assert before == {path.name: path.read_bytes() for path in two.glob("m*")}

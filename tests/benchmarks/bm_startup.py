"""How long it takes from the command to the end of the first training step."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

from bm_pairs import Progress, Row, Seconds, Turns, medians
from bm_scenes import write_export

from persondet.engine.defaults import load_cfg
from persondet.errors import PersondetError
from persondet.modeling.precision import resolve_device

_ROOT = Path(__file__).resolve().parents[2]
# `instant_test`: a narrow ResNet-18 on images of 96 pixels, whose step costs next to nothing; and
# the config that a user begins with, at its own size, from random weights.
_CONFIGS = {
    "small": "quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml",
    "default": "person_mask_rcnn_R_50_FPN.yaml",
}
# Of both sides. A side whose benchmark was killed ends by itself, after three steps.
_KEYS: list[Any] = [
    "DATALOADER.NUM_WORKERS",
    2,
    "MODEL.WEIGHTS",
    "",
    "SOLVER.MAX_ITER",
    3,
    "SOLVER.STEPS",
    (),
]
_PATIENCE = 300.0  # seconds for one start


def main(*, pairs: int = 10, images: int = 24, progress: Progress | None = None) -> dict[str, Row]:
    """Measure `tools/train_net.py` against Detectron2's way to start the same training.

    Each start is a process of its own, on the same export with the same settings, and is
    stopped when its first step is over: ours when the first row stands in `metrics.json`, the
    stock side when a hook that runs after the step has written a file.

    Raises: PersondetError: when a side ends, or takes minutes, without a step.
    """
    found: dict[str, Row] = {}
    turns, starts = Turns(pairs, rows=len(_CONFIGS), progress=progress), count()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        train = folder / "export" / "train"
        write_export(train.parent, {"train": images, "valid": max(1, images // 6)})
        for name, file in _CONFIGS.items():
            config, stock_yaml = _ROOT / "configs" / file, folder / f"{name}.yaml"
            stock_yaml.write_text(_stock_yaml(config), encoding="utf-8")

            def ours(config: Path = config) -> Seconds:
                output = folder / f"run_{next(starts)}"
                keys = ["DATASETS.ROBOFLOW.ROOT", train.parent, "OUTPUT_DIR", output, *_KEYS]
                words = [_ROOT / "tools/train_net.py", "--config-file", config, *keys]
                return _until(output / "metrics.json", [*words, "LOG_PERIOD", 1])

            def stock(config: Path = stock_yaml) -> Seconds:
                output = folder / f"run_{next(starts)}"
                marker = output.with_suffix(".marker")
                words = [config, train / "_annotations.coco.json", train, output, marker]
                return _until(marker, [Path(__file__).with_name("bm_stock.py"), *words])

            times = turns.time(ours, stock)
            what = f"command to first step, {name} model"
            found[name] = {"what": what, "details": medians(times, "{:.2f} s"), **times}
    return found


def _stock_yaml(config: Path) -> str:
    """Return a config for Detectron2's own train_net; keys that it does not know are idle there."""
    keys = load_cfg(config, [*_KEYS, "MODEL.ROI_HEADS.NUM_CLASSES", "1"])
    keys.MODEL.DEVICE = resolve_device(keys.MODEL.DEVICE)
    keys.SOLVER.AMP.ENABLED = False  # as in Detectron2's defaults; on a CPU it has none
    return str(keys.dump())


def _until(marker: Path, words: list[Any]) -> Seconds:
    """Run a script until `marker` holds a line; return how long that took, and end it."""
    command = [sys.executable, *map(str, words)]
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        # A group of its own, so that the loader's workers end with it.
        process = subprocess.Popen(command, stdout=log, stderr=log, process_group=0)
        try:
            while not (marker.exists() and b"\n" in marker.read_bytes()):
                if process.poll() is not None or time.perf_counter() - start > _PATIENCE:
                    log.seek(0)
                    said = " ".join(log.read().decode("utf-8", "replace").split())[-400:]
                    raise PersondetError(f"{words[0]} came to no first step; it said last: {said}")
                time.sleep(0.004)
            return Seconds(time.perf_counter() - start)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

"""How long it takes from the command to the end of the first training step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from bm_pairs import Progress, Row, Seconds, Turns, medians
from bm_scenes import write_export
from detectron2.config import CfgNode
from detectron2.config import get_cfg as stock_cfg

from persondet.engine.defaults import load_cfg
from persondet.errors import PersondetError
from persondet.modeling.precision import resolve_device

_ROOT = Path(__file__).resolve().parents[2]
_STOCK = Path(__file__).with_name("bm_stock.py")
_CONFIGS = {
    "small": "quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml",
    "default": "person_mask_rcnn_R_50_FPN.yaml",
}
_WORKERS = 2  # of both sides' loaders
_PATIENCE = 300.0  # seconds for one start
_GLANCE = 0.004  # seconds between looks at the marker


def main(*, pairs: int = 10, images: int = 24, progress: Progress | None = None) -> dict[str, Any]:
    """Measure `tools/train_net.py` against Detectron2's way to start the same training.

    Each start is a process of its own, on the same export with the same settings, and is
    stopped when its first step is over: ours when the first row stands in `metrics.json`, the
    stock side when a hook that runs after the step has written a file.

    Args:
        pairs: starts of each side with each model, after one that warms the file cache.
        images: of the train split; a sixth of them more for validation.
        progress: called with the number of starts done and of all.

    Returns: `small` (the `instant_test` schedule: a narrow ResNet-18 on images of 96 pixels, whose
        step costs next to nothing) and `default` (the config that a user begins with, at its own
        size, from random weights): the statistics of `PairedTimes`, ours the first side.

    Raises: PersondetError: when a side ends, or takes minutes, without a step.
    """
    found: dict[str, Any] = {}
    turns, starts = Turns(pairs, rows=len(_CONFIGS), progress=progress), count()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_export(folder / "export", {"train": images, "valid": max(1, images // 6)})
        for name, file in _CONFIGS.items():
            config, stock = _ROOT / "configs" / file, folder / f"{name}.yaml"
            stock.write_text(_stock_yaml(load_cfg(config)), encoding="utf-8")
            times = turns.time(
                partial(_start_ours, folder, config, starts),
                partial(_start_stock, folder, stock, starts),
            )
            found[name] = {"images": images, **times.as_json()}
    return found


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the lines of the table."""
    models = {"small": "a small model on small images", "default": "the default model"}
    return [
        (f"command to first step, {what}", found[name], medians(found[name], "{:.2f} s"))
        for name, what in models.items()
    ]


def _stock_yaml(cfg: CfgNode) -> str:
    """Return the keys of a config that Detectron2 knows, for its own train_net."""

    def shared(ours: CfgNode, known: CfgNode) -> dict[str, Any]:
        return {
            key: shared(value, known[key]) if isinstance(value, CfgNode) else value
            for key, value in ours.items()
            if key in known
        }

    keys = CfgNode(shared(cfg, stock_cfg()))
    keys.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
    keys.MODEL.WEIGHTS, keys.DATALOADER.NUM_WORKERS = "", _WORKERS
    # A side whose benchmark was killed ends by itself.
    keys.SOLVER.MAX_ITER, keys.SOLVER.STEPS = 3, ()
    keys.SOLVER.AMP.ENABLED = False  # as in Detectron2's defaults; on a CPU it has none
    keys.MODEL.ROI_HEADS.NUM_CLASSES = 1
    return str(keys.dump())


def _start_ours(folder: Path, config: Path, starts: count[int]) -> Seconds:
    output = folder / f"run_{next(starts)}"
    train_net = str(_ROOT / "tools" / "train_net.py")
    overrides = {
        "DATASETS.ROBOFLOW.ROOT": folder / "export",
        "OUTPUT_DIR": output,
        "DATALOADER.NUM_WORKERS": _WORKERS,
        "MODEL.WEIGHTS": "",
        "LOG_PERIOD": 1,
        "SOLVER.MAX_ITER": 3,
        "SOLVER.STEPS": (),
    }
    words = [str(word) for pair in overrides.items() for word in pair]
    command = [sys.executable, train_net, "--config-file", str(config), *words]
    return _until(output / "metrics.json", command, output)


def _start_stock(folder: Path, config: Path, starts: count[int]) -> Seconds:
    output = folder / f"run_{next(starts)}"
    train, marker = folder / "export" / "train", output.with_suffix(".marker")
    words = [config, train / "_annotations.coco.json", train, output, marker]
    return _until(marker, [sys.executable, str(_STOCK), *map(str, words)], output)


def _until(marker: Path, command: list[str], output: Path) -> Seconds:
    """Run a command until `marker` holds a line; return how long that took, and end it."""
    said = output.with_suffix(".log")
    with said.open("wb") as log:
        start = time.perf_counter()
        # A group of its own, so that the loader's workers end with it.
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, process_group=0)
        try:
            while not (marker.exists() and b"\n" in marker.read_bytes()):
                if process.poll() is not None or time.perf_counter() - start > _PATIENCE:
                    raise PersondetError(
                        f"{Path(command[1]).name} came to no first step; it said last: "
                        f"{' '.join(said.read_text('utf-8', 'replace').split())[-400:]}"
                    )
                time.sleep(_GLANCE)
            return Seconds(time.perf_counter() - start)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

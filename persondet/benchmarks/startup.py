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

from detectron2.config import CfgNode
from detectron2.config import get_cfg as stock_cfg

from persondet.benchmarks.export import write_export
from persondet.benchmarks.pairs import Progress, Seconds, interleaved, part_of
from persondet.engine.defaults import load_cfg
from persondet.errors import PersondetError
from persondet.modeling.precision import resolve_device

_TRAIN_NET = Path(__file__).resolve().parents[2] / "tools" / "train_net.py"
_STOCK = Path(__file__).with_name("stock_startup.py")
_DEFAULT = _TRAIN_NET.parents[1] / "configs" / "person_mask_rcnn_R_50_FPN.yaml"
_PATIENCE = 300.0  # seconds for one start
_GLANCE = 0.004  # seconds between looks at the marker

# Detectron2's keys only, so that both sides read the same file. A small model and small pictures:
# the step itself belongs to the training benchmark. Three steps: a side whose benchmark was killed
# ends by itself.
_SMALL = """\
MODEL:
  DEVICE: {device}
  META_ARCHITECTURE: GeneralizedRCNN
  WEIGHTS: ""
  BACKBONE: {{NAME: build_resnet_fpn_backbone, FREEZE_AT: 0}}
  MASK_ON: True
  RESNETS:
    DEPTH: 18
    RES2_OUT_CHANNELS: 64
    OUT_FEATURES: [res2, res3, res4, res5]
    NORM: BN
    STRIDE_IN_1X1: False
  FPN: {{IN_FEATURES: [res2, res3, res4, res5], OUT_CHANNELS: 32}}
  ANCHOR_GENERATOR:
    SIZES: [[16], [32], [64], [128], [224]]
    ASPECT_RATIOS: [[0.5, 1.0, 2.0]]
  RPN:
    IN_FEATURES: [p2, p3, p4, p5, p6]
    PRE_NMS_TOPK_TRAIN: 100
    POST_NMS_TOPK_TRAIN: 50
  ROI_HEADS:
    NAME: StandardROIHeads
    IN_FEATURES: [p2, p3, p4, p5]
    BATCH_SIZE_PER_IMAGE: 32
    NUM_CLASSES: 1
  ROI_BOX_HEAD: {{NAME: FastRCNNConvFCHead, NUM_FC: 1, FC_DIM: 64, POOLER_RESOLUTION: 7}}
  ROI_MASK_HEAD:
    NAME: MaskRCNNConvUpsampleHead
    NUM_CONV: 1
    CONV_DIM: 32
    POOLER_RESOLUTION: 14
INPUT: {{MIN_SIZE_TRAIN: [192], MAX_SIZE_TRAIN: 384, MASK_FORMAT: polygon}}
DATALOADER: {{NUM_WORKERS: 2}}
SOLVER: {{IMS_PER_BATCH: 2, BASE_LR: 0.001, MAX_ITER: 3, STEPS: []}}
TEST: {{EVAL_PERIOD: 0}}
SEED: 42
VERSION: 2
"""


def benchmark_startup(
    *, pairs: int = 10, images: int = 24, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure `tools/train_net.py` against Detectron2's way to start the same training.

    Each start is a process of its own, on the same export with the same config file, and is
    stopped when its first step is over: ours when the first row stands in `metrics.json`, the
    stock side when a hook that runs after the step has written a file.

    Args:
        pairs: starts of each side with each model, after one that warms the file cache.
        images: of the train split; a sixth of them more for validation.
        progress: called with the number of starts done and of all.

    Returns: `small` (a narrow ResNet-18 and pictures of 192 pixels, whose step costs next to
    nothing) and `default` (the config that a user begins with, at its own size, from random
    weights): the statistics of `PairedTimes`, ours the first side.

    Raises: PersondetError: when a side ends, or takes minutes, without a step.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_export(folder / "export", {"train": images, "valid": max(1, images // 6)})
        small = folder / "small.yaml"
        small.write_text(_SMALL.format(device=resolve_device("auto")), encoding="utf-8")
        default = folder / "default.yaml"
        default.write_text(_stock_yaml(load_cfg(_DEFAULT)), encoding="utf-8")
        starts, found = count(), {}
        configs = {"small": (small, small), "default": (_DEFAULT, default)}
        for number, (name, (ours, stock)) in enumerate(configs.items()):
            times = interleaved(
                partial(_start_ours, folder, ours, starts),
                partial(_start_stock, folder, stock, starts),
                pairs=pairs,
                progress=part_of(progress, number, len(configs)),
            )
            found[name] = {"images": images, **times.as_json()}
    return found


def _stock_yaml(cfg: CfgNode) -> str:
    """Return those keys of a config that Detectron2 has, for its own train_net."""

    def shared(ours: CfgNode, known: CfgNode) -> dict[str, Any]:
        return {
            key: shared(value, known[key]) if isinstance(value, CfgNode) else value
            for key, value in ours.items()
            if key in known
        }

    keys = CfgNode(shared(cfg, stock_cfg()))
    keys.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
    keys.MODEL.WEIGHTS = ""
    keys.SOLVER.MAX_ITER, keys.SOLVER.STEPS = 3, ()
    keys.SOLVER.AMP.ENABLED = False  # as in Detectron2's defaults; on a CPU it has none
    keys.MODEL.ROI_HEADS.NUM_CLASSES = 1
    return str(keys.dump())


def _start_ours(folder: Path, config: Path, starts: count[int]) -> Seconds:
    output = folder / f"run_{next(starts)}"
    command = [sys.executable, str(_TRAIN_NET), "--config-file", str(config)]
    overrides = ["DATASETS.ROBOFLOW.ROOT", str(folder / "export"), "OUTPUT_DIR", str(output)]
    overrides += ["MODEL.WEIGHTS", "", "LOG_PERIOD", "1"]
    overrides += ["SOLVER.MAX_ITER", "3", "SOLVER.STEPS", "()"]
    return _until(output / "metrics.json", [*command, *overrides], output)


def _start_stock(folder: Path, config: Path, starts: count[int]) -> Seconds:
    output = folder / f"run_{next(starts)}"
    train = folder / "export" / "train"
    data = [str(train / "_annotations.coco.json"), str(train)]
    marker = folder / f"{output.name}.marker"
    command = [sys.executable, str(_STOCK), str(config), *data, str(output), str(marker)]
    return _until(marker, command, output)


def _until(marker: Path, command: list[str], output: Path) -> Seconds:
    """Run a command until `marker` holds a line; return how long that took, and end it."""
    said = output.with_suffix(".log")
    with said.open("wb") as log:
        start = time.perf_counter()
        # A group of its own, so that the loader's workers end with it.
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, process_group=0)
        try:
            while not _has_line(marker):
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


def _has_line(marker: Path) -> bool:
    try:
        return b"\n" in marker.read_bytes()
    except FileNotFoundError:
        return False

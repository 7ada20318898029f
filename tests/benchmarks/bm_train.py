"""How fast a training step is beside Detectron2's own, and what it keeps for the way back."""

import itertools
import os
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from bm_pairs import Progress, Row, Turns, medians
from bm_scenes import background, boxes_of, outlines
from bm_stock import build_stock_trainer
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

from persondet.engine.defaults import load_cfg
from persondet.engine.train_step import AutocastTrainer
from persondet.engine.trainer import Trainer
from persondet.modeling.precision import resolve_device, resolve_dtype

_CONFIGS = Path(__file__).resolve().parents[2] / "configs"
_CONFIG = _CONFIGS / "person_mask_rcnn_R_50_FPN.yaml"
CPU_CONFIG = _CONFIGS / "person_mask_rcnn_EfficientNet_Lite0_FPN.yaml"
_CORNERS = 40  # per outline
# The rate of the first steps of Detectron2's warm-up. At the full rate, weights that never saw an
# image would diverge within the benchmark.
_RATE = 2.5e-6


def main(
    *,
    pairs: int = 10,
    progress: Progress | None = None,
    size: int = 800,
    small_size: int = 320,
    batch_size: int = 2,
    dtype: str = "auto",
) -> dict[str, Row]:
    """Measure our training step against `SimpleTrainer`'s in float32, in turns, in one process.

    Both sides train one model (Mask R-CNN, R50-FPN, stem and res2 frozen; and that of the config
    for CPUs) from the same random weights on the same batch, from the same random state at every
    pair. On a GPU, a step ends when the GPU has finished it. `size` and, for the CPU's config,
    `small_size`: the shorter side of the images in pixels, of which the longer one is 4/3; `dtype`:
    of our side of the first row and of the bytes.
    """
    # Two models are more than the tools' bound for one; read at the first convolution.
    os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = "1024"
    turns = Turns(pairs, rows=3, progress=progress)
    found: dict[str, Row] = {}
    for name, config, own_type, edge in (
        ("default", _CONFIG, dtype, size),
        ("float32", _CONFIG, "float32", size),
        ("cpu", CPU_CONFIG, "float32", small_size),
    ):
        trainer, weights = prepared(config, own_type, size=edge, batch_size=batch_size)
        exact = _config(config, "float32")
        stock = _Side(build_stock_trainer(exact, weights, next(iter(trainer.data_loader))))
        ours = _Side(trainer)
        if name == "default":
            saved = {"ours": ours.bytes_saved(), "stock": stock.bytes_saved()}
        times = turns.time(ours.step, stock.step)
        losses = {"ours": ours.mean_losses(), "stock": stock.mean_losses()}
        apart = max(abs(losses["ours"][key] / value - 1) for key, value in losses["stock"].items())
        found[name] = {
            "what": f"training step of {exact.MODEL.TIMM.NAME or 'R-50'} at {edge} pixels, "
            f"{str(trainer.dtype).removeprefix('torch.')}, against stock in float32",
            "details": f"{medians(times, '{:.2f} s')}, losses within {100 * apart:.2f} %",
            "losses": losses,
            **times,
        }
    found["saved"] = saved | {
        "what": "bytes saved for backward, default settings",
        "details": ", ".join(f"{size / 1e6:.0f} MB" for size in saved.values()),
        "ratio": saved["ours"] / saved["stock"],
    }
    return found


def prepared(
    config: Path, dtype: str, *, size: int, batch_size: int
) -> tuple[AutocastTrainer, dict[str, torch.Tensor]]:
    """Return our trainer of a config on a random batch, and the random weights it starts from."""
    cfg = _config(config, dtype)
    torch.manual_seed(0)
    model = Trainer.build_model(cfg)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer, rng = Trainer.build_optimizer(cfg, model), np.random.default_rng(0)
    repeated = itertools.repeat(
        [random_sample(rng, (size * 4 // 3, size)) for _ in range(batch_size)]
    )
    return AutocastTrainer(model, repeated, optimizer, dtype=resolve_dtype(cfg)), weights


def random_sample(
    rng: np.random.Generator, size: tuple[int, int], people: int = 8
) -> dict[str, Any]:
    """Return what a mapper returns for an image of `size` (width, height) pixels with people."""
    around = outlines(rng, size, people, _CORNERS)
    instances = Instances(size[::-1])
    instances.gt_boxes = Boxes(torch.from_numpy(boxes_of(around)).float())
    instances.gt_classes = torch.zeros(people, dtype=torch.int64)
    instances.gt_masks = PolygonMasks([[outline.ravel()] for outline in around])
    image = background(rng, size).transpose(2, 0, 1)
    return {"image": torch.from_numpy(image.copy()), "instances": instances}


class _Side:
    """One side of the comparison: a trainer that can be asked for single steps."""

    def __init__(self, trainer: SimpleTrainer) -> None:
        self.trainer = trainer
        self.trainer.iter = 0
        self.losses: list[dict[str, float]] = []

    def step(self) -> None:
        """Take a step from the random state that both sides share."""
        torch.manual_seed(self.trainer.iter)
        with EventStorage(self.trainer.iter) as storage:
            self.trainer.run_step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        latest = storage.latest().items()
        self.losses.append({name: value for name, (value, _) in latest if "loss" in name})
        self.trainer.iter += 1

    def mean_losses(self) -> dict[str, float]:
        """Return the mean of each loss; rounding may change which proposals a step draws."""
        return {name: fmean(row[name] for row in self.losses) for name in self.losses[0]}

    def bytes_saved(self) -> int:
        """Return the bytes that one forward pass keeps for its backward pass.

        Each storage counts once, whole; parameters, which exist anyway, do not.
        """
        model = self.trainer.model
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        dtype = getattr(self.trainer, "dtype", torch.float32)
        device = next(model.parameters()).device.type
        torch.manual_seed(0)
        with (
            EventStorage(),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32),
        ):
            losses = model(next(iter(self.trainer.data_loader)))
        own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        del losses
        return sum(size for place, size in kept.items() if place not in own)


def _config(config: Path, dtype: str) -> CfgNode:
    opts = ["MODEL.WEIGHTS", "", "SOLVER.AMP.DTYPE", dtype, "SOLVER.BASE_LR", str(_RATE)]
    cfg = load_cfg(config, [*opts, "MODEL.ROI_HEADS.NUM_CLASSES", "1"])
    cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
    return cfg

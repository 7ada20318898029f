"""How fast a training step is beside Detectron2's own, and what it keeps for the way back."""

from __future__ import annotations

import itertools
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
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import nn

from persondet.config.defaults import get_cfg
from persondet.engine.train_step import AutocastTrainer
from persondet.engine.trainer import Trainer
from persondet.environment import environment_report
from persondet.modeling.precision import resolve_device, resolve_dtype

_CONFIG = Path(__file__).resolve().parents[2] / "configs" / "person_mask_rcnn_R_50_FPN.yaml"
_PEOPLE, _CORNERS = 8, 40  # per image, per outline
# The rate of the first steps of Detectron2's warm-up. At the full rate, weights that never saw an
# image would diverge within the benchmark.
_RATE = 2.5e-6


def main(
    *,
    pairs: int = 10,
    progress: Progress | None = None,
    size: int = 800,
    batch_size: int = 2,
    dtype: str = "auto",
) -> dict[str, Any]:
    """Measure our training step against `SimpleTrainer`'s in float32, in turns, in one process.

    Both sides train the default model (Mask R-CNN, R50-FPN, stem and res2 frozen) from the same
    random weights on the same batch, from the same random state at every pair. On a GPU, a step
    ends when the GPU has finished it.

    Args:
        pairs: timed steps of each side for each row, after one untimed step of each.
        progress: called with the steps done and of all.
        size: shorter side of the images in pixels; the longer one is 4/3 of it.
        batch_size: images per step.
        dtype: of our side of the first row and of the bytes; `auto` as in `SOLVER.AMP.DTYPE`.

    Returns: `rows`: `default` and `float32` (the statistics of `PairedTimes`, ours the first side,
    and `losses`, the means of both sides over all steps), and `saved` (bytes that autograd keeps
    between the passes, parameters left out: `ours`, `stock`, `ratio`); `device`, `dtype`,
    `threads`, `size`, `batch_size`.
    """
    exact = _config("float32")
    batch = _random_batch(size, batch_size)
    weights = _random_weights(exact, batch)
    turns = Turns(pairs, rows=2, progress=progress)
    measured: dict[str, Any] = {}
    for name, cfg in (("default", _config(dtype)), ("float32", exact)):
        ours = _Side(_our_trainer(cfg, weights, batch))
        stock = _Side(build_stock_trainer(exact, weights, batch))
        if name == "default":
            saved = {"ours": ours.bytes_saved(), "stock": stock.bytes_saved()}
            measured["saved"] = {**saved, "ratio": saved["ours"] / saved["stock"]}
        measured[name] = {
            **turns.time(ours.step, stock.step).as_json(),
            "dtype": str(resolve_dtype(cfg)).removeprefix("torch."),
            "losses": {"ours": ours.mean_losses(), "stock": stock.mean_losses()},
        }
    return {
        "rows": measured,
        "dtype": measured["default"]["dtype"],
        "size": size,
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
        "device": str(environment_report()["device"]),
    }


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the lines of the table."""
    default, exact, saved = (found["rows"][name] for name in ("default", "float32", "saved"))
    ours, stock = exact["losses"]["ours"], exact["losses"]["stock"]
    apart = max(abs(ours[name] - stock[name]) / max(abs(stock[name]), 1e-9) for name in stock)
    step, stored = "{:.2f} s", [f"{saved[side] / 1e6:.0f} MB" for side in ("ours", "stock")]
    what = f"training step, default settings ({default['dtype']}), against stock in float32"
    details = f"{medians(exact, step)}, losses within {100 * apart:.2f} %"
    return [
        (what, default, medians(default, step)),
        ("training step, float32, against the same", exact, details),
        ("bytes saved for backward, default settings", saved, ", ".join(stored)),
    ]


def _random_batch(size: int, batch_size: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    width, height = size * 4 // 3, size
    batch = []
    for _ in range(batch_size):
        image = background(rng, (width, height)).transpose(2, 0, 1)
        people = outlines(rng, (width, height), _PEOPLE, _CORNERS)
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.from_numpy(boxes_of(people)).float())
        instances.gt_classes = torch.zeros(_PEOPLE, dtype=torch.int64)
        instances.gt_masks = PolygonMasks([[outline.ravel()] for outline in people])
        batch.append({"image": torch.from_numpy(image.copy()), "instances": instances})
    return batch


class _Side:
    """One side of the comparison: a trainer that can be asked for single steps."""

    def __init__(self, trainer: SimpleTrainer) -> None:
        self.trainer = trainer
        self.trainer.iter = 0
        self.on_gpu = next(trainer.model.parameters()).is_cuda
        self.losses: list[dict[str, float]] = []

    def step(self) -> None:
        """Take a step from the random state that both sides share."""
        torch.manual_seed(self.trainer.iter)
        with EventStorage(self.trainer.iter) as storage:
            self.trainer.run_step()
        if self.on_gpu:
            torch.cuda.synchronize()
        self.losses.append(
            {name: value for name, (value, _) in storage.latest().items() if "loss" in name}
        )
        self.trainer.iter += 1

    def mean_losses(self) -> dict[str, float]:
        """Return the mean of each loss over the steps so far.

        Both sides draw the same samples from their proposals; where rounding changes one proposal
        of a thousand, the draw changes with it, and the mean of several steps tells more.
        """
        return {name: fmean(row[name] for row in self.losses) for name in self.losses[0]}

    def bytes_saved(self) -> int:
        """Return the bytes that one forward pass keeps for its backward pass.

        Each storage counts once, whole; parameters, which exist anyway, do not.
        """
        model = self.trainer.model
        own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        kept: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage
            return tensor

        dtype = getattr(self.trainer, "dtype", torch.float32)
        device = next(model.parameters()).device.type
        batch = next(iter(self.trainer.data_loader))
        torch.manual_seed(0)
        with (
            EventStorage(),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32),
        ):
            losses = model(batch)
        del losses
        return sum(storage.nbytes() for storage in kept.values())


def _config(dtype: str) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(str(_CONFIG))
    cfg.MODEL.DEVICE = resolve_device("auto")
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    cfg.SOLVER.AMP.DTYPE = dtype
    cfg.SOLVER.BASE_LR = _RATE
    return cfg


def _our_trainer(
    cfg: CfgNode, weights: dict[str, torch.Tensor], batch: list[dict[str, Any]]
) -> AutocastTrainer:
    model = Trainer.build_model(cfg)
    model.load_state_dict(weights)
    return AutocastTrainer(
        model,
        itertools.repeat(batch),
        Trainer.build_optimizer(cfg, model),
        dtype=resolve_dtype(cfg),
    )


def _random_weights(cfg: CfgNode, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    # Untrained frozen batch norm normalises nothing, and through fifty layers the activations
    # would grow beyond float16. It gets the statistics of the batch, as a trained one has them.
    torch.manual_seed(0)
    model = build_model(cfg)

    def measure(norm: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0].float(), dim=(0, 2, 3))
        norm.get_buffer("running_mean").copy_(mean)
        norm.get_buffer("running_var").copy_(variance)

    hooks = [
        module.register_forward_pre_hook(measure)
        for module in model.modules()
        if isinstance(module, FrozenBatchNorm2d)
    ]
    with torch.no_grad():
        model.backbone(model.preprocess_image(batch).tensor)
    for hook in hooks:
        hook.remove()
    return model.state_dict()

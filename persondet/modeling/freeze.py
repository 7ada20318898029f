"""Freezing modules by name or pattern, and the table of trainable and frozen parameters."""

from __future__ import annotations

import difflib
import fnmatch
import logging
from collections.abc import Collection, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from tabulate import tabulate
from torch import nn

from persondet.errors import ConfigError

logger = logging.getLogger(__name__)


def freeze_modules(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Freeze every module of `model` whose dotted name matches a pattern, in place.

    Parameters stop requiring a gradient, and batch norm becomes `FrozenBatchNorm2d`: its
    statistics would otherwise go on moving and the frozen part would not be frozen.

    Args:
        model: any module; a name is what `named_modules()` says, e.g. `proposal_generator`.
        patterns: names, or shell patterns such as `backbone.fpn_*`.

    Returns: the names that matched, in the model's order, without those inside another match.

    Raises: ConfigError: when a pattern matches nothing.

    Example:
        >>> freeze_modules(model, ["backbone.fpn_*", "proposal_generator"])[-1]
        'proposal_generator'
        >>> any(p.requires_grad for p in model.proposal_generator.parameters())
        False
    """
    names = [name for name, _ in model.named_modules() if name]
    frozen: list[str] = []
    for pattern in patterns:
        matches = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not matches:
            hint = _hint(model, names, pattern)
            raise ConfigError(
                f"config: MODEL.FREEZE.MODULES has {pattern!r}, and the model has no such module; "
                f"{hint}"
            )
        frozen += matches
    inner = {name for name in names if any(name.startswith(f"{other}.") for other in frozen)}
    outer = [name for name in names if name in frozen and name not in inner]
    for name in outer:
        module = model.get_submodule(name)
        replacement = freeze_module(module)
        if replacement is not module:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, replacement)
    if outer:
        logger.info("Frozen by MODEL.FREEZE.MODULES: %s", ", ".join(outer))
    return outer


def freeze_module(module: nn.Module) -> nn.Module:
    """Freeze the parameters and the batch norm below `module`, in place.

    Returns: `module`, or its frozen replacement when it is a batch norm itself.
    """
    for parameter in module.parameters():
        parameter.requires_grad = False
    return freeze_batch_norm(module)


class FrozenBatchNormAct2d(FrozenBatchNorm2d):
    """Frozen batch norm, followed by the activation that timm's `BatchNormAct2d` has inside."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise float x (N, C, H, W) by the statistics of the checkpoint, then activate."""
        activated: torch.Tensor = self.act(self.drop(super().forward(x)))
        return activated


def freeze_batch_norm(module: nn.Module) -> nn.Module:
    """Make every batch norm below `module` a `FrozenBatchNorm2d`, in place.

    As Detectron2's `convert_frozen_batchnorm`, which loses the activation of `BatchNormAct2d`.

    Returns: `module`, or its frozen replacement when it is a batch norm itself.
    """
    if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
        frozen: nn.Module = FrozenBatchNorm2d.convert_frozen_batchnorm(module)
        if hasattr(module, "act"):
            frozen.__class__ = FrozenBatchNormAct2d
            frozen.drop, frozen.act = module.drop, module.act
        return frozen
    for name, child in module.named_children():
        setattr(module, name, freeze_batch_norm(child))
    return module


@torch.no_grad()
def normalise_random_backbone(model: Any) -> None:
    """Let the frozen batch norms of a model of random weights keep the spread of their maps.

    Those of a new model divide by one. Through fifty layers maps then grow to thousands, proposals
    move by a hundred times their size, and training diverges within a few steps. Here each divides
    by the spread that a noise has in front of it. Means are left at zero.

    Source: Mishkin and Matas, "All You Need Is a Good Init", ICLR 2016.

    Args:
        model: an R-CNN with `backbone` and `preprocess_image`.
    """

    def divide_by_the_spread(norm: Any, given: tuple[torch.Tensor]) -> None:
        norm.running_var.fill_(given[0].var().item())

    backbone = model.backbone
    norms = [module for module in backbone.modules() if isinstance(module, FrozenBatchNorm2d)]
    if not norms:
        return
    hooks = [norm.register_forward_pre_hook(divide_by_the_spread) for norm in norms]
    training = [(module, module.training) for module in backbone.modules()]
    noise = torch.randint(256, (3, 224, 224), generator=torch.Generator().manual_seed(0))
    try:
        backbone.eval()(model.preprocess_image([{"image": noise.to(torch.uint8)}]).tensor)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training:
            module.training = mode


def asks_for_gradient(*tensors: torch.Tensor) -> bool:
    """Return whether a result computed of `tensors` now is one that a backward pass may reach."""
    return torch.is_grad_enabled() and learns(*tensors)


def learns(*tensors: torch.Tensor) -> bool:
    """Return whether one of `tensors` is asked for a gradient wherever gradients are computed."""
    return any(tensor.requires_grad for tensor in tensors)


def freeze_from_cfg(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Freeze what `MODEL.FREEZE.MODULES` names (`FREEZE_AT` acts while the backbone is built)."""
    freeze_modules(model, cfg.MODEL.FREEZE.MODULES)
    return model


def parameter_table(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> str:
    """Return the table of trainable and frozen parameters per module, as plain text.

    Args:
        optimizer: adds a column with the base rates of a module's parameters.

    Example:
        >>> table = parameter_table(model)
        >>> table.split()[:3]
        ['module', 'trainable', 'frozen']
    """
    rows = [
        {**row, **{key: f"{row[key]:,}" for key in ("trainable", "frozen")}}
        for row in parameter_records(model, optimizer)
    ]
    sides = ("left", "right", "right", "left", "left")[: len(rows[0])]
    return tabulate(rows, headers="keys", colalign=sides, disable_numparse=True)


def parameter_records(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> list[dict[str, Any]]:
    """Return the rows of `parameter_table` for JSON: a stage of the backbone, a head, and all.

    The weights, biases and statistics of `FrozenBatchNorm2d` are buffers; they count as frozen,
    so that freezing a stage changes where its numbers stand and not their sum by much.

    Returns: `module` ("all" in the last row), `trainable` and `frozen` (parameters), `state`;
    with an optimizer also `rate`.
    """
    tensors = [(name, p.numel(), p.requires_grad) for name, p in model.named_parameters()]
    for name, module in model.named_modules():
        if isinstance(module, FrozenBatchNorm2d):
            size = module.weight.numel() + module.bias.numel()
            tensors.append((f"{name}.weight", size, False))
    rates, records = _rates(model, optimizer), []
    for part in [*dict.fromkeys(part_of(name) for name, _, _ in tensors), "all"]:
        own = [tensor for tensor in tensors if part in ("all", part_of(tensor[0]))]
        trainable = sum(size for _, size, trained in own if trained)
        frozen = sum(size for _, size, trained in own if not trained)
        state = "frozen" if not trainable else "in part" if frozen else "trained"
        row = {"module": part, "trainable": trainable, "frozen": frozen, "state": state}
        if optimizer is not None:
            row["rate"] = _span({rates[name][0] for name, _, _ in own if name in rates})
        records.append(row)
    return records


def tensor_table(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """Return a line per tensor of `model`: shape, whether it is trained, base rate, weight decay.

    Batch norm's running statistics are neither trained nor frozen: they follow the batches.
    """
    rates = _rates(model, optimizer)
    parameters = dict(model.named_parameters())
    frozen = set(frozen_tensors(model))
    rows = []
    for name, tensor in model.state_dict().items():
        rate, decay = rates.get(name, ("", ""))
        if name in frozen:
            state = "frozen"
        else:
            state = "trained" if name in parameters else "follows batches"
        shape = " x ".join(map(str, tensor.shape)) or "1"
        rows.append((name, shape, state, rate, decay))
    headers = ("tensor", "shape", "state", "rate", "weight decay")
    return tabulate(rows, headers=headers, disable_numparse=True)


def frozen_tensors(model: nn.Module) -> list[str]:
    """Return the names of what no step changes: frozen parameters, and frozen batch norm."""
    names = [name for name, p in model.named_parameters() if not p.requires_grad]
    for name, module in model.named_modules():
        if isinstance(module, FrozenBatchNorm2d):
            names += [f"{name}.{buffer}" for buffer, _ in module.named_buffers()]
    return names


def frozen_at_random(model: nn.Module, loaded: Collection[str]) -> str:
    """Return a warning about frozen parts that no checkpoint gave weights to; empty when fine.

    Args:
        loaded: names of the tensors that a checkpoint gave.
    """
    parameters = dict(model.named_parameters())
    bare = [name for name in frozen_tensors(model) if name not in loaded]
    bare = [name for name in bare if not name.endswith("num_batches_tracked")]
    weights = dict.fromkeys(part_of(name) for name in bare if name in parameters)
    norms = dict.fromkeys(part_of(name) for name in bare if name not in parameters)
    sentences = []
    if weights:
        sentences.append(
            f"Frozen and never trained: {', '.join(weights)} have random weights, for no "
            "checkpoint gave them any; name one in MODEL.WEIGHTS, or train them "
            "(MODEL.BACKBONE.FREEZE_AT 0, MODEL.FREEZE.MODULES ())."
        )
    if norms.keys() - weights.keys():
        sentences.append(
            f"Frozen batch norm in {', '.join(norms.keys() - weights.keys())} has no statistics "
            "of a checkpoint and normalises nothing; set MODEL.RESNETS.NORM BN or GN (of a timm "
            "model: MODEL.TIMM.NORM BN) to train from random weights."
        )
    return " ".join(sentences)


def _rates(
    model: nn.Module, optimizer: torch.optim.Optimizer | None
) -> dict[str, tuple[float, float]]:
    """Return base rate and weight decay of each parameter by name; a schedule scales the rate."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group.get("initial_lr", group["lr"]), group["weight_decay"])
        for group in (optimizer.param_groups if optimizer else ())
        for parameter in group["params"]
    }


def _span(rates: set[float]) -> str:
    return " to ".join(f"{rate:.3g}" for rate in sorted({min(rates), max(rates)})) if rates else ""


def _hint(model: nn.Module, names: Sequence[str], pattern: str) -> str:
    parameters = (name for name, _ in model.named_parameters())
    within = next((name for name in parameters if fnmatch.fnmatchcase(name, pattern)), "")
    if within:
        return f"{within} is a parameter: freeze its module, {within.rpartition('.')[0]}."
    ends = [name for name in names if name.rpartition(".")[2] == pattern]
    close = ends or difflib.get_close_matches(pattern, names, n=1, cutoff=0.4)
    top = ", ".join(name for name, _ in model.named_children())
    return f"did you mean {close[0]}?" if close else f"the top is {top}."


def part_of(name: str) -> str:
    """Return the part that a tensor or module belongs to: a stage, the pyramid, a head.

    Args:
        name: in a Detectron2 R-CNN, such as `backbone.bottom_up.res2.0.conv1.weight`.

    Returns: its first names, such as `backbone.bottom_up.res2`.
    """
    parts = name.split(".")
    if name.startswith("backbone.fpn_"):
        return "backbone.fpn"
    depth = {"backbone": 3 if "bottom_up" in parts else 2, "roi_heads": 2}.get(parts[0], 1)
    return ".".join(parts[: min(depth, max(len(parts) - 1, 1))])

"""What is frozen: modules by name or pattern, and the table of trainable and frozen parameters."""

from __future__ import annotations

import difflib
import fnmatch
import logging
from collections.abc import Sequence
from dataclasses import dataclass

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
    """
    names = [name for name, _ in model.named_modules() if name]
    frozen: list[str] = []
    for pattern in patterns:
        matches = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not matches:
            close = difflib.get_close_matches(pattern, names, n=1, cutoff=0.4)
            hint = f"did you mean {close[0]}?" if close else f"the top is {_top(model)}."
            raise ConfigError(
                f"config: MODEL.FREEZE.MODULES has {pattern!r}, and the model has no such module; "
                f"{hint}"
            )
        frozen += matches
    chosen = set(frozen)
    outer = [name for name in names if name in chosen and not _has_ancestor(name, chosen)]
    for name in outer:
        module = model.get_submodule(name)
        for parameter in module.parameters():
            parameter.requires_grad = False
        replacement = FrozenBatchNorm2d.convert_frozen_batchnorm(module)
        if replacement is not module:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, replacement)
    if outer:
        logger.info("Frozen by MODEL.FREEZE.MODULES: %s", ", ".join(outer))
    return outer


def freeze_from_cfg(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Freeze what `MODEL.FREEZE.MODULES` names (`FREEZE_AT` acts while the backbone is built)."""
    freeze_modules(model, cfg.MODEL.FREEZE.MODULES)
    return model


@dataclass(frozen=True)
class ParameterRow:
    """Trainable and frozen parameters of one module; frozen batch norm counts as frozen."""

    module: str
    trainable: int
    frozen: int


def parameter_rows(model: nn.Module) -> list[ParameterRow]:
    """Count parameters per stage of the backbone, per head, and in all (the last row).

    The weights, biases and statistics of `FrozenBatchNorm2d` are buffers; they count as frozen,
    so that freezing a stage changes where its numbers stand and not their sum by much.
    """
    counts: dict[str, list[int]] = {}

    def add(name: str, size: int, trainable: bool) -> None:
        row = counts.setdefault(_group(name), [0, 0])
        row[0 if trainable else 1] += size

    for name, parameter in model.named_parameters():
        add(name, parameter.numel(), parameter.requires_grad)
    for name, module in model.named_modules():
        if isinstance(module, FrozenBatchNorm2d):
            add(f"{name}.weight", module.weight.numel() + module.bias.numel(), False)
    rows = [ParameterRow(name, *row) for name, row in counts.items()]
    total = ParameterRow("all", sum(r.trainable for r in rows), sum(r.frozen for r in rows))
    return [*rows, total]


def parameter_table(model: nn.Module) -> str:
    """Return the table of trainable and frozen parameters per module, as plain text."""
    rows = [
        (row.module, f"{row.trainable:,}", f"{row.frozen:,}", _state(row))
        for row in parameter_rows(model)
    ]
    headers = ("module", "trainable", "frozen", "")
    return tabulate(rows, headers=headers, colalign=("left", "right", "right", "left"))


def _state(row: ParameterRow) -> str:
    if not row.trainable:
        return "frozen"
    return "trained" if not row.frozen else "in part"


def _group(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "backbone" and len(parts) > 2:
        if parts[1] == "bottom_up":
            return ".".join(parts[:3])
        return "backbone.fpn"
    if parts[0] == "roi_heads" and len(parts) > 2:
        return ".".join(parts[:2])
    return parts[0]


def _has_ancestor(name: str, names: set[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:end]) in names for end in range(1, len(parts)))


def _top(model: nn.Module) -> str:
    return ", ".join(name for name, _ in model.named_children())

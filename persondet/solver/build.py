"""The optimizer that the config asks for, with its parameter groups."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping

from persondet.errors import ConfigError


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Build `SOLVER.OPTIMIZER` over the trainable parameters of `model`.

    As `detectron2.solver.build_optimizer`, plus AdamW and `SOLVER.BACKBONE_LR_FACTOR`, which
    scales the rate of every parameter below `backbone`.
    """
    factor = cfg.SOLVER.BACKBONE_LR_FACTOR

    def rate_factor(name: str) -> float:
        return factor if name.removeprefix("module.").startswith("backbone.") else 1.0

    groups = get_default_optimizer_params(
        model,
        base_lr=cfg.SOLVER.BASE_LR,
        weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
        bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
        weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
        lr_factor_func=rate_factor,
    )
    if not groups:
        raise ConfigError(
            "config: MODEL.BACKBONE.FREEZE_AT and MODEL.FREEZE.MODULES freeze every parameter; "
            "nothing is left to train."
        )
    common = {"lr": cfg.SOLVER.BASE_LR, "weight_decay": cfg.SOLVER.WEIGHT_DECAY, "foreach": True}
    optimizer: torch.optim.Optimizer
    if cfg.SOLVER.OPTIMIZER == "AdamW":
        optimizer = torch.optim.AdamW(groups, **common)
    else:
        optimizer = torch.optim.SGD(
            groups, momentum=cfg.SOLVER.MOMENTUM, nesterov=cfg.SOLVER.NESTEROV, **common
        )
    return maybe_add_gradient_clipping(cfg, optimizer)

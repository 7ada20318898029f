"""The stock side of the training benchmark: Detectron2's model, optimizer and step, as they are."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer


def build_stock_trainer(
    cfg: CfgNode, weights: dict[str, torch.Tensor], batch: list[dict[str, Any]]
) -> SimpleTrainer:
    """Build what Detectron2's `DefaultTrainer` would train with, in float32.

    Args:
        cfg: of which only Detectron2's own keys are read.
        weights: the state of the model at the start.
        batch: model inputs, fed again at every step.
    """
    model = build_model(cfg)
    model.load_state_dict(weights)
    return SimpleTrainer(model, itertools.repeat(batch), build_optimizer(cfg, model))

"""How fast batch norm forgets what it has seen."""

from __future__ import annotations

from detectron2.config import CfgNode
from torch import nn


def set_momentum(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Give batch norm that learns `MODEL.BATCH_NORM_MOMENTUM`, in place, and return the model.

    A trained model normalises by the running statistics, a mean over the last 1 / momentum batches.
    At PyTorch's 0.1 and two pictures a batch those are the last twenty pictures, and where pictures
    differ much the score of one and the same set of weights depends on which they were.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = cfg.MODEL.BATCH_NORM_MOMENTUM
    return model

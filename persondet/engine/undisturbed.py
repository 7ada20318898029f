"""Looking at the model in the middle of training without leaving a trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

# Learns from what it sees in training mode.
BATCH_NORM = nn.modules.batchnorm._BatchNorm


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[nn.Module]:
    """Give back every random state, and each module's training or eval mode, when the block ends.

    A data loader draws its workers' seed from torch's random state when it is iterated, and
    Detectron2's `inference_context` puts modules that were in eval mode into training mode: either
    would make a training with validation differ from one without. The random states are those of
    Python, numpy, torch on the CPU, and torch on the model's GPUs.

    The ranks look at one model: batch-norm statistics, which each rank gathers by itself, are those
    of rank 0 inside the block.

    Yields: the model that `DistributedDataParallel` wraps, or `model` itself: ranks may have
    different numbers of images to look at, so no pass here may wait for another rank.
    """
    modes = {module: module.training for module in model.modules()}
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    own_statistics = _take_statistics_of_rank_0(inner) if inner is not model else {}
    try:
        with torch.random.fork_rng(devices=devices):
            yield inner
    finally:
        for buffer, own in own_statistics.items():
            buffer.copy_(own)
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        for module, mode in modes.items():
            module.training = mode


def _take_statistics_of_rank_0(model: nn.Module) -> dict[torch.Tensor, torch.Tensor]:
    """Overwrite the statistics of `model`'s batch norm by rank 0's, and return what they were."""
    own: dict[torch.Tensor, torch.Tensor] = {}
    for module in model.modules():
        if isinstance(module, BATCH_NORM):
            for buffer in module.buffers(recurse=False):
                own[buffer] = buffer.clone()
                dist.broadcast(buffer, src=0)
    return own

"""The model of one rank among several."""

from __future__ import annotations

import inspect

from detectron2.engine import create_ddp_model
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def data_parallel(model: nn.Module) -> nn.Module:
    """Let `model` average its gradients over all ranks; one rank alone keeps it as it is.

    Detectron2's `create_ddp_model` hands each rank its GPU; on the CPU there is none to hand out.
    Batch-norm statistics stay each rank's own, as in Detectron2.
    """
    if comm.get_world_size() == 1:
        return model
    # PyTorch has renamed it, and warns of the old name.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    on_gpu = next(model.parameters()).is_cuda
    devices = {} if on_gpu else {"device_ids": None}
    return create_ddp_model(model, **{name: False}, **devices)

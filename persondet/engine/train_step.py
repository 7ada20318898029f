"""One training step in mixed precision on any device, and the two ways in which it fails.

A training that diverges stops with the loss, the images and the rate; one that runs out of memory
stops with the keys to lower and their values. Each is one sentence.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from torch import nn

from persondet.errors import TrainingError
from persondet.modeling.precision import resolve_dtype


class AutocastTrainer(SimpleTrainer):
    """`SimpleTrainer` whose forward pass runs under `torch.autocast`.

    Detectron2's `AMPTrainer` asserts a GPU and scales the loss whatever the type; this step runs
    on CPUs too, and scales for float16 alone, the only type whose range is too small.

    Args:
        dtype: `torch.float32` (no autocast), `torch.bfloat16` or `torch.float16`.
        others: as `SimpleTrainer`.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Any,
        optimizer: torch.optim.Optimizer,
        *,
        dtype: torch.dtype = torch.float32,
        **others: Any,
    ) -> None:
        super().__init__(model, data_loader, optimizer, **others)
        self.dtype = dtype
        self.device = next(model.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)

    def run_step(self) -> None:
        """Fetch a batch, compute the losses, step, and write them to the event storage.

        Raises: TrainingError: when a loss is not finite, before the weights change.
        """
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        if self.device.type == "cuda":
            batch = images_on_gpu(batch, self.device)
        # Before the forward pass: the gradients of the last step need not lie beside this one's.
        self.optimizer.zero_grad(set_to_none=True)
        enabled = self.dtype != torch.float32
        try:
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled):
                losses = self.model(batch)
        except FloatingPointError as error:
            # Detectron2's region proposal network looks at its boxes before any loss is returned.
            raise self._divergence({}, batch) from error
        self.scaler.scale(sum(losses.values())).backward()
        self.after_backward()
        # Before the step: a loss that is not finite raises here, with the weights intact.
        # One copy from the device for all losses together; each rank names its own images.
        values = torch.stack([loss.detach().float() for loss in losses.values()]).cpu()
        if not bool(torch.isfinite(values).all()):
            raise self._divergence(dict(zip(losses, values.tolist(), strict=True)), batch)
        self._write_metrics(losses, data_time)
        # Clipping, which acts inside the optimizer's step, has to see the true gradients.
        self.scaler.unscale_(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _divergence(
        self, losses: Mapping[str, float], batch: list[dict[str, Any]]
    ) -> TrainingError:
        """Return the error that names each loss that is not finite, the images, and the rate."""
        wrong = {name: value for name, value in losses.items() if not math.isfinite(value)}
        what = ", ".join(f"{name} is {value}" for name, value in wrong.items())
        images = ", ".join(str(item["file_name"]) for item in batch if "file_name" in item)
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        return TrainingError(
            f"training diverged at iteration {self.iter}: "
            f"{what or 'the predicted boxes are NaN'}, at a learning rate of {rate:.3g}, on "
            f"{images or 'images without a file name'}; lower SOLVER.BASE_LR, lengthen "
            "SOLVER.WARMUP_ITERS, clip gradients (SOLVER.CLIP_GRADIENTS.ENABLED True, or a lower "
            "CLIP_VALUE), or start from trained weights."
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimizer and, for float16, of the loss scale."""
        state = super().state_dict()
        if self.scaler.is_enabled():
            state["grad_scaler"] = self.scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state_dict)
        if self.scaler.is_enabled() and "grad_scaler" in state_dict:
            self.scaler.load_state_dict(state_dict["grad_scaler"])


def images_on_gpu(batch: list[dict[str, Any]], device: torch.device) -> list[dict[str, Any]]:
    """Start to copy the images of a batch to a GPU, without waiting for the copy.

    The model's own copy would be from pageable memory, for which CUDA makes the host wait.

    Args:
        batch: model inputs; `image` uint8 (3, H, W), in pinned memory or not.

    Returns: new dicts that share all but the images; the batch keeps its own.
    """
    moved = []
    for sample in batch:
        image = sample["image"]
        if image.device.type == "cpu" and not image.is_pinned():
            image = image.pin_memory()
        moved.append({**sample, "image": image.to(device, non_blocking=True)})
    return moved


# What the sentences of others say, and what to do beside lowering sizes.
_SHORTAGES = {
    "Bus error|out of shared memory|unable to (write to file|open shared memory|mmap)": (
        "the loader's workers ran out of shared memory; enlarge /dev/shm (Docker: --shm-size 2g), "
        "or"
    ),
    "DataLoader worker .*(is killed by signal: Killed|exited unexpectedly)"
    "|DefaultCPUAllocator: (can't|not enough)|could not allocate|Failed to allocate": (
        "the machine's memory ran out;"
    ),
    "out of memory|CUDNN_STATUS_ALLOC_FAILED|CUBLAS_STATUS_ALLOC_FAILED": "out of memory;",
}


def memory_shortage(error: BaseException | None) -> str | None:
    """Return how a sentence begins where the memory of a device, a process or /dev/shm ran out.

    Returns: None for any other error.
    """
    if isinstance(error, MemoryError):
        return "the machine's memory ran out;"
    # What torch and its loader raise as RuntimeError, and OpenCV as an error of its own.
    if not isinstance(error, RuntimeError) and type(error).__module__ != "cv2":
        return None
    return next((told for said, told in _SHORTAGES.items() if re.search(said, str(error))), None)


@contextmanager
def memory_in_one_sentence(cfg: CfgNode, *, training: bool) -> Iterator[None]:
    """Let an error that means "out of memory" leave the block as one sentence.

    Raises: TrainingError: naming the keys to lower with their values.
    """
    try:
        yield
    except Exception as error:
        told = memory_shortage(error)
        if told is None:
            raise
        split = "TRAIN" if training else "TEST"
        keys = {
            f"INPUT.MIN_SIZE_{split}": cfg.INPUT[f"MIN_SIZE_{split}"],
            f"INPUT.MAX_SIZE_{split}": cfg.INPUT[f"MAX_SIZE_{split}"],
            "DATALOADER.NUM_WORKERS": cfg.DATALOADER.NUM_WORKERS,
        }
        half = ""
        if training:
            keys = {"SOLVER.IMS_PER_BATCH": cfg.SOLVER.IMS_PER_BATCH} | keys
            if resolve_dtype(cfg) == torch.float32:
                half = "; SOLVER.AMP.ENABLED True with AMP.DTYPE bfloat16 halves the features"
        values = ", ".join(f"{key} ({value} now)" for key, value in keys.items())
        raise TrainingError(f"{cfg.MODEL.DEVICE}: {told} lower {values}{half}.") from error

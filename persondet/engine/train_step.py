"""One training step, in mixed precision on any device."""

from __future__ import annotations

import time
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from torch import nn

from persondet.engine.divergence import divergence_in_forward, refuse_divergence


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
        diverged = divergence_in_forward(
            batch, self.optimizer, model=self.model, iteration=self.iter
        )
        with diverged, torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled):
            losses = self.model(batch)
        self.scaler.scale(sum(losses.values())).backward()
        self.after_backward()
        # Before the step: a loss that is not finite raises here, with the weights intact.
        refuse_divergence(losses, batch, self.optimizer, model=self.model, iteration=self.iter)
        self._write_metrics(losses, data_time)
        # Clipping, which acts inside the optimizer's step, has to see the true gradients.
        self.scaler.unscale_(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()

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

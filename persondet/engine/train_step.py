"""One training step, in mixed precision on any device."""

from __future__ import annotations

import time
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from torch import nn


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
        self.device_type = next(model.parameters()).device.type
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=dtype == torch.float16)

    def run_step(self) -> None:
        """Fetch a batch, compute the losses, step, and write them to the event storage."""
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        enabled = self.dtype != torch.float32
        with torch.autocast(self.device_type, dtype=self.dtype, enabled=enabled):
            losses = self.model(batch)
        self.optimizer.zero_grad()
        self.scaler.scale(sum(losses.values())).backward()
        self.after_backward()
        # Written before the step: a loss that is not finite raises here, with the weights intact.
        self._write_metrics(losses, data_time)
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

"""Gradient clipping as `SOLVER.CLIP_GRADIENTS` asks for it."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode


class ClipGradients:
    """A hook before each step of an optimizer: every parameter's gradient is clipped by itself.

    The same as `detectron2.solver.build.maybe_add_gradient_clipping`, for all parameters at once;
    one that got no gradient, of which Detectron2's clipping by value dies, is passed over.

    Args:
        keys: `SOLVER.CLIP_GRADIENTS`: `CLIP_TYPE` "norm" (the gradient is scaled down until its
            norm of order `NORM_TYPE` is `CLIP_VALUE`) or "value" (each element stays within
            ± `CLIP_VALUE`).
    """

    def __init__(self, keys: CfgNode) -> None:
        self._by_norm = keys.CLIP_TYPE == "norm"
        self._most = float(keys.CLIP_VALUE)
        self._order = float(keys.NORM_TYPE)

    @torch.no_grad()
    def __call__(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Clip the gradients of all parameters of `optimizer`, in place."""
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return
        if not self._by_norm:
            torch._foreach_clamp_min_(gradients, -self._most)
            torch._foreach_clamp_max_(gradients, self._most)
            return
        norms = torch._foreach_norm(gradients, self._order)
        scales = self._most / (torch.stack(norms) + 1e-6)  # as torch.nn.utils.clip_grad_norm_
        torch._foreach_mul_(gradients, list(scales.clamp(max=1.0)))

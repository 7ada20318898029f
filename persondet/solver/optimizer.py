"""The optimizer, its parameter groups and its gradient clipping, as the config asks for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier
from detectron2.solver.build import get_default_optimizer_params

from persondet.errors import ConfigError

# Devices for which PyTorch has fused optimizers that were tried here.
_FUSED = ("cpu", "cuda")
_LARGE_TENSOR = 2**17  # elements, on average


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Build `SOLVER.OPTIMIZER` over the trainable parameters of `model`.

    As `detectron2.solver.build_optimizer`, plus AdamW and `SOLVER.BACKBONE_LR_FACTOR`, which
    scales the rate of every parameter below `backbone`, biases included.

    Raises: ConfigError: when every parameter is frozen.
    """
    solver = cfg.SOLVER

    def rate_factor(name: str) -> float:
        below_backbone = name.removeprefix("module.").startswith("backbone.")
        factor = solver.BACKBONE_LR_FACTOR if below_backbone else 1.0
        # Given to Detectron2 as `bias_lr_factor` it would take the place of the backbone's factor.
        return factor * (solver.BIAS_LR_FACTOR if name.endswith(".bias") else 1.0)

    groups = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        lr_factor_func=rate_factor,
    )
    if not groups:
        raise ConfigError(
            "config: MODEL.BACKBONE.FREEZE_AT and MODEL.FREEZE.MODULES freeze every parameter; "
            "nothing is left to train."
        )
    # One pass over memory instead of several: the same numbers, several times as fast.
    fused = all(p.device.type in _FUSED for group in groups for p in group["params"])
    common = {
        "lr": solver.BASE_LR,
        "weight_decay": solver.WEIGHT_DECAY,
        **({"fused": True} if fused else {"foreach": True}),
    }
    kind: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW
    if solver.OPTIMIZER == "SGD":
        kind = partial(torch.optim.SGD, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV)
    optimizer = kind(groups, **common)
    if fused:
        optimizer.register_step_pre_hook(_same_layout)
    if solver.CLIP_GRADIENTS.ENABLED:
        optimizer.register_step_pre_hook(partial(_clip, solver.CLIP_GRADIENTS))
    sizes = [p.numel() for group in groups for p in group["params"] if p.device.type == "cpu"]
    if sizes and sum(sizes) < _LARGE_TENSOR * len(sizes):
        _step_on_one_thread(optimizer)
    return optimizer


def _step_on_one_thread(optimizer: torch.optim.Optimizer) -> None:
    """Let the kernels of a step run on one thread: of small tensors each costs more to share."""
    threads: list[int] = []

    def before(*_: Any) -> None:
        threads.append(torch.get_num_threads())
        torch.set_num_threads(1)

    def after(*_: Any) -> None:
        torch.set_num_threads(threads.pop())

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


def _same_layout(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Give gradients and momenta the memory layout of their parameter.

    The fused kernels walk through memory and silently mix elements up where layouts differ, as
    they do when a run goes on with another `MODEL.CHANNELS_LAST`.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad = _laid_out_like(parameter, parameter.grad)
            state = optimizer.state.get(parameter, {})
            for name, value in state.items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    state[name] = _laid_out_like(parameter, value)


def _laid_out_like(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    if value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def settings_of(optimizer: torch.optim.Optimizer, scheduler: LRMultiplier) -> Callable[[], None]:
    """Return a function that gives a new optimizer and its schedule their own settings back.

    A checkpoint brings those it was saved with: rate, decay and momentum that the config has now
    would have no effect on a run that is resumed. Where nothing was changed nothing changes.
    """
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    rates = list(scheduler.base_lrs)

    def give_back() -> None:
        scheduler.base_lrs = rates
        for group, own, rate in zip(
            optimizer.param_groups, groups, scheduler.get_lr(), strict=True
        ):
            group.update(own | {"lr": rate})

    return give_back


@torch.no_grad()
def _clip(keys: CfgNode, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Clip every parameter's gradient by itself, in place, before a step.

    The same as `detectron2.solver.build.maybe_add_gradient_clipping`, for all parameters at once;
    one that got no gradient, of which Detectron2's clipping by value dies, is passed over.

    Args:
        keys: `SOLVER.CLIP_GRADIENTS`: `CLIP_TYPE` "norm" (the gradient is scaled down until its
            norm of order `NORM_TYPE` is `CLIP_VALUE`) or "value" (each element stays within
            ± `CLIP_VALUE`).
    """
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    gradients = [p.grad for p in parameters if p.grad is not None]
    most = float(keys.CLIP_VALUE)
    if gradients and keys.CLIP_TYPE == "norm":
        norms = torch._foreach_norm(gradients, float(keys.NORM_TYPE))
        scales = most / (torch.stack(norms) + 1e-6)  # as torch.nn.utils.clip_grad_norm_
        if scales.device.type == "cpu":  # what keeps its size is left alone
            large = (~scales.ge(1.0)).nonzero()[:, 0].tolist()
            gradients, scales = [gradients[k] for k in large], scales[large]
        if gradients:
            torch._foreach_mul_(gradients, list(scales.clamp(max=1.0)))
    elif gradients:
        torch._foreach_clamp_min_(gradients, -most)
        torch._foreach_clamp_max_(gradients, most)

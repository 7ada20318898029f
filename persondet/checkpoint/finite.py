"""No NaN and no infinity in a checkpoint: they cannot be trained away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from persondet.errors import TrainingError


def non_finite_tensors(state: Any, name: str = "") -> Iterator[str]:
    """Yield the dotted names of the floating-point tensors in nested containers that hold NaN or
    infinity.
    """
    if torch.is_tensor(state):
        if state.is_floating_point() and not bool(torch.isfinite(state).all()):
            yield name
        return
    if isinstance(state, Mapping):
        pairs: Any = state.items()
    elif isinstance(state, list | tuple):
        pairs = enumerate(state)
    else:
        return
    for key, inner in pairs:
        yield from non_finite_tensors(inner, f"{name}.{key}" if name else str(key))


def first_non_finite_weight(model: nn.Module) -> str | None:
    """Return the name of the first weight of `model` that holds NaN or infinity.

    Buffers do not count: the forward pass itself spoils the running statistics of batch norm.
    """
    return next(non_finite_tensors(dict(model.named_parameters())), None)


def refuse_non_finite(state: Mapping[str, Any], path: str) -> None:
    """Refuse to write a checkpoint that nothing could be trained or detected with.

    Args:
        state: what is to be saved: weights under `model`, the optimizer's tensors further down.

    Raises: TrainingError: naming the first tensor and the mend.
    """
    bad = next(non_finite_tensors(state), None)
    if bad is not None:
        raise TrainingError(
            f"training diverged: {bad.removeprefix('model.')} holds NaN or infinity, so {path} is "
            "not written and the checkpoint before it stays the newest; lower SOLVER.BASE_LR, "
            "lengthen SOLVER.WARMUP_ITERS, or clip gradients (SOLVER.CLIP_GRADIENTS.ENABLED True, "
            "or a lower CLIP_VALUE)."
        )

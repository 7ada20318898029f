"""A training that diverged: which loss, on which images, at which rate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from persondet.checkpoint.finite import first_non_finite_weight
from persondet.errors import TrainingError

_SHOWN = 8
_MEND = (
    "lower SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS, clip gradients "
    "(SOLVER.CLIP_GRADIENTS.ENABLED True, or a lower CLIP_VALUE), or start from trained weights"
)


def refuse_divergence(
    losses: Mapping[str, torch.Tensor],
    batch: Any,
    optimizer: torch.optim.Optimizer,
    *,
    model: nn.Module,
    iteration: int,
) -> None:
    """Stop when a loss is NaN or infinite; to be called before the optimizer's step.

    Every rank looks at its own losses and names its own images. One copy from the device for all
    losses together.

    Args:
        losses: scalars by name.
        batch: list of mapped dataset dicts; their `file_name` is what the error names.
        optimizer: its highest learning rate is named.

    Raises: TrainingError: naming each loss that is not finite, the images, and the rate.
    """
    values = torch.stack([loss.detach().float() for loss in losses.values()]).cpu()
    if not bool(torch.isfinite(values).all()):
        named = dict(zip(losses, values.tolist(), strict=True))
        raise TrainingError(_sentence(named, batch, optimizer, model, iteration))


@contextmanager
def divergence_in_forward(
    batch: Any, optimizer: torch.optim.Optimizer, *, model: nn.Module, iteration: int
) -> Iterator[None]:
    """Around the forward pass: Detectron2 raises there when the predicted boxes are not finite.

    The proposals of the region proposal network are looked at before any loss is returned; its
    losses are then known to the frame that raised, and are named where they are not finite.

    Raises: TrainingError: in place of Detectron2's FloatingPointError; as `refuse_divergence`.
    """
    try:
        yield
    except FloatingPointError as error:
        named = _losses_of_frames(error)
        raise TrainingError(_sentence(named, batch, optimizer, model, iteration)) from error


def _sentence(
    losses: Mapping[str, float],
    batch: Any,
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    iteration: int,
) -> str:
    wrong = {n: v for n, v in losses.items() if not torch.isfinite(torch.tensor(v))}
    what = ", ".join(f"{name} is {value}" for name, value in wrong.items())
    rate = max(group["lr"] for group in optimizer.param_groups)
    weight = (first_non_finite_weight(model) or "").removeprefix("module.")
    # Weights that were spoilt by the step before need a smaller step; else these images matter.
    since = f"; {weight} was not finite before this step" if weight else ""
    return (
        f"training diverged at iteration {iteration}: {what or 'the predicted boxes are NaN'}, at "
        f"a learning rate of {rate:.3g}, on {_images(batch)}{since}; {_MEND}."
    )


def _images(batch: Any) -> str:
    known = [item for item in batch if isinstance(item, Mapping)] if _is_list(batch) else []
    names = [str(item["file_name"]) for item in known if "file_name" in item]
    if not names:
        return "images without a file name"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _is_list(batch: Any) -> bool:
    return isinstance(batch, Sequence) and not isinstance(batch, str)


def _losses_of_frames(error: BaseException) -> dict[str, float]:
    """Return the losses that the frames between us and the error had computed."""
    found: dict[str, float] = {}
    trace = error.__traceback__
    while trace is not None:
        losses = trace.tb_frame.f_locals.get("losses")
        if isinstance(losses, Mapping):
            found |= {
                str(name): float(value.detach())
                for name, value in losses.items()
                if torch.is_tensor(value) and value.numel() == 1
            }
        trace = trace.tb_next
    return found

"""What a checkpoint may hold: tensors and plain containers, which load without running code."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

_SCALARS = (str, bytes, bool, int, float, type(None), torch.Tensor)


def plain(value: Any) -> Any:
    """Return `value` with numpy's numbers and arrays made Python's and torch's.

    `torch.load(weights_only=True)` refuses a whole file for one numpy scalar: what it would refuse
    is refused here, while the run that saves it can still be mended.

    Raises: TypeError: when it holds anything but numbers, strings, tensors, arrays and containers.
    """
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in _SCALARS:
        return value
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([plain(inner) for inner in value])
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")

"""Every random state of a process, as tensors and numbers that a checkpoint may hold."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """Return the states of Python's, numpy's and torch's generators, of the GPU in use too."""
    version, words, gauss = random.getstate()
    # The state that Detectron2, Albumentations and data loaders draw from is the global one.
    kind, key, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    return {
        "python": [version, torch.tensor(words), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(key, np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if on_gpu else None,
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put every generator into the state that `random_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    kind, key, position, has_gauss, cached = state["numpy"]
    key = key.numpy().astype(np.uint32)
    np.random.set_state((kind, key, position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])

"""Moving averages, for curves that are too noisy to read."""

from __future__ import annotations

import numpy as np


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Return the centred moving average of `values`: float64, (N,), NaN where nothing is known.

    `window` counts values and is odd. At both ends it is cut off, down to its half, and NaN inside
    a window is left out of its mean.
    """
    half = window // 2
    known = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(known)])
    index = np.arange(len(values))
    first = np.maximum(index - half, 0)
    last = np.minimum(index + half + 1, len(values))
    inside = count[last] - count[first]
    mean = (total[last] - total[first]) / np.maximum(inside, 1)
    return np.where(known & (inside > 0), mean, np.nan)


def smoothing_window(count: int) -> int:
    """Return the odd window that suits `count` values: 1 (nothing) below 40, else about 1/20."""
    return 1 if count < 40 else 2 * (count // 40) + 1

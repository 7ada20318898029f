"""Box sizes as training sees them, and which of them the anchors of a config can meet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

REACH = 2**0.5
"""A square anchor of side a meets square boxes of side a/√2 to a·√2 with an IoU of 0.5 or more."""


def training_scale(
    width: npt.NDArray[np.float64],
    height: npt.NDArray[np.float64],
    shortest_edge: float,
    longest_edge: float,
) -> FloatArray:
    """Return by how much training enlarges images, as Detectron2's `ResizeShortestEdge`.

    Args:
        width, height: of the images, pixels, (N,), above 0.
        shortest_edge: what the shorter edge becomes, pixels; 0: images are not resized.
        longest_edge: what the longer edge is at most, pixels; 0: there is no limit.

    Returns: float64, (N,).
    """
    if not shortest_edge:
        return np.ones(len(width))
    scale = shortest_edge / np.minimum(width, height)
    return np.minimum(scale, longest_edge / np.maximum(width, height)) if longest_edge else scale


def reach_in_words(sides: FloatArray, sizes: Sequence[float]) -> str:
    """Say which share of boxes is too small or too large for the anchors.

    Args:
        sides: √area of the boxes, pixels, (N,), N > 0.
        sizes: sides of the anchors, pixels, at least one.
    """
    low, high = min(sizes) / REACH, max(sizes) * REACH
    under, over = float((sides < low).mean()), float((sides > high).mean())
    if not under and not over:
        return "every box is within their reach"
    parts = [f"{_percent(under)} too small, under {low:.0f} px"] if under else []
    parts += [f"{_percent(over)} too large, over {high:.0f} px"] if over else []
    return "; ".join(parts)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"

"""The parts that a table of a model's tensors has a row for."""

from __future__ import annotations


def part_of(name: str) -> str:
    """Return the part that a tensor or module belongs to: a stage, the pyramid, a head.

    Args:
        name: in a Detectron2 R-CNN, such as `backbone.bottom_up.res2.0.conv1.weight`.

    Returns: its first names, such as `backbone.bottom_up.res2`.
    """
    parts = name.split(".")
    if name.startswith("backbone.fpn_"):
        return "backbone.fpn"
    depth = {"backbone": 3 if "bottom_up" in parts else 2, "roi_heads": 2}.get(parts[0], 1)
    return ".".join(parts[: min(depth, max(len(parts) - 1, 1))])

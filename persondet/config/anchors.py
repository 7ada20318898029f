"""The sizes that a config's anchors have, and the size at which it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from persondet.config.check import merge_yaml
from persondet.config.defaults import get_cfg


def training_anchors(config_file: str | Path) -> dict[str, Any]:
    """Return what the boxes of a dataset are held against.

    Returns: `sizes` (sides of the anchors in pixels, rising), `shortest_edge` (the middle one of
    `INPUT.MIN_SIZE_TRAIN`) and `longest_edge` (`INPUT.MAX_SIZE_TRAIN`), in pixels.

    Raises: ConfigError: when the file cannot be used.
    """
    cfg = get_cfg()
    merge_yaml(cfg, config_file)
    sizes = sorted({float(size) for level in cfg.MODEL.ANCHOR_GENERATOR.SIZES for size in level})
    edges = sorted(cfg.INPUT.MIN_SIZE_TRAIN)
    return {
        "sizes": sizes,
        "shortest_edge": edges[len(edges) // 2],
        "longest_edge": cfg.INPUT.MAX_SIZE_TRAIN,
    }

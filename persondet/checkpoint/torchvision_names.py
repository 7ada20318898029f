"""torchvision's ResNet weights under Detectron2's names.

torchvision says `layer1.0.bn2.weight` where Detectron2 says `res2.0.conv2.norm.weight`. The
tensors are the same; what they expect of the input differs, see `conventions`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

AUTHOR = "torchvision"

# In this order: a batch norm first becomes part of its convolution, then a stage gets its number.
_RULES = (
    (r"^(conv1|bn1)\.", r"stem.\1."),
    (r"\bbn(\d)\.", r"conv\1.norm."),
    (r"\bdownsample\.0\.", "shortcut."),
    (r"\bdownsample\.1\.", "shortcut.norm."),
)


def is_resnet(names: Mapping[str, Any]) -> bool:
    """Return whether these are the names of torchvision's ResNet (also ResNeXt and Wide ResNet)."""
    return {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight"} <= names.keys()


def is_detector(names: Mapping[str, Any]) -> bool:
    """Return whether these are the names of one of torchvision's detectors."""
    return any(name.startswith("backbone.body.") for name in names)


def detectron2_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors of a torchvision ResNet under the names of Detectron2's.

    `num_batches_tracked` is left out, for frozen batch norm does not count; the classifier `fc`
    keeps its name, and no detector uses it.
    """
    renamed = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        for pattern, ours in _RULES:
            name = re.sub(pattern, ours, name)
        name = re.sub(r"^layer(\d)\.", lambda stage: f"res{int(stage[1]) + 1}.", name)
        renamed[name] = tensor
    return renamed

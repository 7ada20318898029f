"""What people look like to the detector itself: features of its backbone, pooled at each mask.

No second network: the features are those that the detector computes anyway, of its two finest
levels, where colours and patterns of clothes still show. The mean over the mask is taken in three
stripes, one above the other: head and shoulders, trunk, legs.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Instances
from torch import nn
from torch.nn import functional as F

FIELD = "appearance"
"""The field in which `Instances` carry what they look like: float32, (N, D)."""
_GRID = 14  # cells of a box, each way
_STRIPES = ((0, 4), (4, 8), (8, 14))  # first row of the grid, and the one behind the last


class Appearance:
    """Adds `FIELD` to the raw results of an R-CNN; may be used by several threads at once.

    Args:
        model: its backbone's features are kept as they are computed; of an FPN, those below it.
    """

    def __init__(self, model: GeneralizedRCNN) -> None:
        self._kept = threading.local()
        backbone: Any = model.backbone
        source = getattr(backbone, "bottom_up", backbone)
        strides = {name: shape.stride for name, shape in source.output_shape().items()}
        self._align = {
            name: ROIAlign((_GRID, _GRID), 1 / strides[name], sampling_ratio=1)
            for name in sorted(strides, key=lambda name: (strides[name], name))[:2]
        }
        rows = torch.arange(_GRID)[:, None].expand(_GRID, _GRID)
        self._stripes = torch.stack([(a <= rows) & (rows < b) for a, b in _STRIPES])
        source.register_forward_hook(self._keep)

    def _keep(self, _: nn.Module, __: Any, output: dict[str, torch.Tensor]) -> None:
        self._kept.features = {name: output[name] for name in self._align}

    def add(self, results: list[Instances]) -> None:
        """Set the field of the results of the forward pass that this thread did last.

        Args:
            results: of each image, `pred_boxes` in pixels of the model's input and perhaps
                `pred_masks` (float, (N, 1, M, M)), as before `detector_postprocess`.
        """
        features = self._kept.features
        self._kept.features = None
        device = results[0].pred_boxes.device if results else torch.device("cpu")
        with torch.autocast(device.type, enabled=False):  # means of bfloat16 would be too coarse
            self._add(results, features)

    def _add(self, results: list[Instances], features: dict[str, torch.Tensor]) -> None:
        for k, found in enumerate(results):
            boxes = found.pred_boxes.tensor.float()
            rois = torch.cat((torch.zeros_like(boxes[:, :1]), boxes), dim=1)
            weight = boxes.new_ones((len(found), 1, _GRID, _GRID))
            if found.has("pred_masks") and len(found):
                weight = F.adaptive_avg_pool2d(found.pred_masks.float(), _GRID) + 1e-3
            shares = (weight * self._stripes.to(weight)).flatten(2)  # (N, stripes, cells)
            shares = shares / shares.sum(2, keepdim=True)
            means = [
                (shares @ align(features[name][k : k + 1].float(), rois).flatten(2).mT).flatten(1)
                for name, align in self._align.items()
            ]
            found.set(FIELD, torch.cat(means, dim=1))

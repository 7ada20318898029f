"""Boxes keep their places in reduced precision."""

from __future__ import annotations

import torch
from detectron2.layers import ROIAlign
from torch import nn

from persondet.modeling.precision import keep_boxes_exact


def test_pooling_of_bfloat16_features_uses_exact_boxes() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 3, 80, 80).bfloat16()
    boxes = torch.tensor([[0.0, 201.3, 150.7, 262.9, 301.1]])
    exact = ROIAlign((7, 7), 0.25, 0)(features.float(), boxes)
    module = keep_boxes_exact(nn.Sequential(ROIAlign((7, 7), 0.25, 0)))[0]
    pooled = module(features, boxes)
    assert pooled.dtype == torch.bfloat16
    assert torch.allclose(pooled.float(), exact, atol=0.02)
    # Detectron2's own would be off by a visible amount: the test would see the difference.
    stock = ROIAlign((7, 7), 0.25, 0)(features.float(), boxes.bfloat16().float())
    assert not torch.allclose(stock, exact, atol=0.02)

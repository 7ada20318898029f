"""Parameter groups and the optimizer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from persondet.config import get_cfg
from persondet.solver.build import build_optimizer


def model() -> nn.Module:
    module = nn.Module()
    module.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    module.head = nn.Linear(4, 2)
    module.backbone[0].bias.requires_grad = False
    return module


@pytest.mark.parametrize(("name", "kind"), [("SGD", torch.optim.SGD), ("AdamW", torch.optim.AdamW)])
def test_the_backbone_learns_at_its_own_rate_and_frozen_tensors_not_at_all(
    name: str, kind: type[torch.optim.Optimizer]
) -> None:
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZER = name
    cfg.SOLVER.BASE_LR = 0.01
    cfg.SOLVER.BACKBONE_LR_FACTOR = 0.1
    net = model()
    optimizer = build_optimizer(cfg, net)
    assert isinstance(optimizer, kind)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(net.backbone[0].weight)] == pytest.approx(0.001)
    assert rates[id(net.head.weight)] == pytest.approx(0.01)
    assert id(net.backbone[0].bias) not in rates


def test_clipping_holds_the_step_of_a_huge_gradient() -> None:
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR = 1.0
    cfg.SOLVER.MOMENTUM = 0.0
    cfg.SOLVER.WEIGHT_DECAY = 0.0
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "norm"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    net = model()
    optimizer = build_optimizer(cfg, net)
    before = net.head.weight.detach().clone()
    net.head.weight.grad = torch.full_like(net.head.weight, 1e6)
    optimizer.step()
    assert float((net.head.weight.detach() - before).norm()) == pytest.approx(0.5, rel=1e-4)

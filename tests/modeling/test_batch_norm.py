"""The momentum of batch norm."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from persondet.config.check import check_cfg, merge_yaml
from persondet.config.defaults import get_cfg
from persondet.engine.trainer import Trainer
from persondet.errors import ConfigError
from persondet.modeling.batch_norm import set_momentum

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"


def test_the_running_mean_moves_by_the_share_that_the_key_says() -> None:
    cfg = get_cfg()
    cfg.MODEL.BATCH_NORM_MOMENTUM = 0.02
    model = set_momentum(cfg, nn.Sequential(nn.BatchNorm2d(3), FrozenBatchNorm2d(3)))
    model(torch.full((2, 3, 4, 4), 5.0))
    assert model[0].running_mean.tolist() == pytest.approx([0.1] * 3)
    assert model[1].running_mean.tolist() == [0.0] * 3


def test_the_trainers_model_has_it() -> None:
    cfg = get_cfg()
    merge_yaml(cfg, CONFIG)
    cfg.MODEL.DEVICE, cfg.MODEL.BATCH_NORM_MOMENTUM = "cpu", 0.03
    norms = [m for m in Trainer.build_model(cfg).modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert {norm.momentum for norm in norms} == {0.03}


@pytest.mark.parametrize("momentum", [0.0, 1.5])
def test_a_share_that_is_none_is_refused(momentum: float) -> None:
    cfg = get_cfg()
    cfg.MODEL.BATCH_NORM_MOMENTUM = momentum
    with pytest.raises(ConfigError, match="BATCH_NORM_MOMENTUM"):
        check_cfg(cfg)

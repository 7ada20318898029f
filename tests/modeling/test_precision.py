"""In which type and layout the model computes."""

import torch
from torch import nn

from persondet.config.defaults import get_cfg
from persondet.modeling.precision import autocast, resolve_dtype, set_memory_format


def test_a_type_named_is_the_type_computed_in_on_the_cpu():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        cfg.SOLVER.AMP.DTYPE = str(dtype).removeprefix("torch.")
        with autocast(cfg):
            assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype


def test_auto_takes_bfloat16_where_the_processor_multiplies_it(monkeypatch):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    assert cfg.SOLVER.AMP.DTYPE == "auto"
    for name, dtype in {"avx512_bf16": torch.bfloat16, "avx2": torch.float32}.items():
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=name: {found: True})
        assert resolve_dtype(cfg) == dtype


def test_convolutions_are_channels_last_when_the_config_says_so():
    cfg = get_cfg()
    for cfg.MODEL.CHANNELS_LAST in (True, False):
        weight = set_memory_format(cfg, nn.Conv2d(3, 4, 3)).weight
        is_so = weight.is_contiguous(memory_format=torch.channels_last)
        assert is_so is cfg.MODEL.CHANNELS_LAST

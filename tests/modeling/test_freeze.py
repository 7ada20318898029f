"""What freezing does to gradients, to batch norm, and to the table."""

import pytest
import torch
from torch import nn

from persondet.config import get_cfg
from persondet.errors import ConfigError
from persondet.modeling.freeze import freeze_from_cfg, freeze_modules, frozen_tensors, part_of
from persondet.solver.optimizer import build_optimizer


def toy():
    torch.manual_seed(0)
    lateral = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    backbone = {"fpn_lateral2": lateral, "fpn_output2": nn.Conv2d(4, 4, 1)}
    backbone["bottom_up"] = nn.ModuleDict({"stem": nn.Conv2d(3, 2, 3)})
    return nn.ModuleDict({"backbone": nn.ModuleDict(backbone), "head": nn.Linear(4, 5)})


def test_a_pattern_freezes_what_it_names_and_nothing_else():
    model = toy()
    frozen = ["backbone.fpn_lateral2", "backbone.fpn_output2"]
    assert freeze_modules(model, ["backbone.fpn_*"]) == frozen
    trainable = {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {"bottom_up", "weight", "bias"}
    with pytest.raises(ConfigError, match=r"did you mean backbone\?"):
        freeze_modules(model, ["backbon"])


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_frozen_tensors_are_the_same_to_the_bit_after_training_and_resuming(optimizer):
    """With weight decay and momentum, through a saved optimizer, statistics included."""
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.OPTIMIZER", optimizer, "SOLVER.WEIGHT_DECAY", 0.5])
    cfg.merge_from_list(["MODEL.FREEZE.MODULES", ("backbone.fpn_*",), "SOLVER.BASE_LR", 0.05])
    state, weights, before = {}, {}, {}
    for _ in range(2):  # the second time goes on from what the first one saved
        model = freeze_from_cfg(cfg, toy()).train()
        steps = build_optimizer(cfg, model)
        if state:
            model.load_state_dict(weights)
            steps.load_state_dict(state)
        frozen = frozen_tensors(model)
        before = before or {name: model.state_dict()[name].clone() for name in frozen}
        for _ in range(3):
            x = model.backbone.fpn_lateral2(torch.randn(4, 3, 6, 6))
            x = model.backbone.fpn_output2(x).mean((2, 3))
            (model.head(x).square().sum() + model.backbone.bottom_up.stem.weight.sum()).backward()
            steps.step()
            steps.zero_grad()
        weights, state = model.state_dict(), steps.state_dict()
    assert {"backbone.fpn_lateral2.1.running_mean", "backbone.fpn_output2.weight"} <= set(before)
    assert all(torch.equal(weights[name], before[name]) for name in before)
    assert not torch.equal(weights["head.weight"], toy().head.weight)


def test_a_tensor_belongs_to_a_stage_the_pyramid_or_a_head():
    for name, part in {
        "backbone.bottom_up.res2.0.conv1.norm.bias": "backbone.bottom_up.res2",
        "backbone.fpn_output5.norm.weight": "backbone.fpn",
        "proposal_generator.rpn_head.conv.weight": "proposal_generator",
        "roi_heads.box_predictor.cls_score.weight": "roi_heads.box_predictor",
    }.items():
        assert part_of(name) == part

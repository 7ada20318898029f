"""What a pattern freezes, and to which part a tensor belongs."""

import pytest
from torch import nn

from persondet.errors import ConfigError
from persondet.modeling.freeze import freeze_modules, part_of


def toy():
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


def test_a_tensor_belongs_to_a_stage_the_pyramid_or_a_head():
    for name, part in {
        "backbone.bottom_up.res2.0.conv1.norm.bias": "backbone.bottom_up.res2",
        "backbone.fpn_output5.norm.weight": "backbone.fpn",
        "proposal_generator.rpn_head.conv.weight": "proposal_generator",
        "roi_heads.box_predictor.cls_score.weight": "roi_heads.box_predictor",
    }.items():
        assert part_of(name) == part

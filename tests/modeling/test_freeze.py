"""What a pattern freezes, where a tensor belongs, and frozen norms of random weights."""

from pathlib import Path

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from torch import nn

from persondet.engine.defaults import load_cfg
from persondet.engine.trainer import Trainer
from persondet.errors import ConfigError
from persondet.modeling.freeze import freeze_modules, normalise_random_backbone, part_of

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


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


@pytest.mark.parametrize(
    "name", ["person_mask_rcnn_R_50_FPN", "person_mask_rcnn_timm_ResNet50_FPN"]
)
def test_maps_of_random_weights_neither_grow_nor_fade(name):
    opts = ["MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.NUM_CLASSES", "1"]
    cfg = load_cfg(CONFIGS / f"{name}.yaml", opts)
    model = Trainer.build_model(cfg).eval()
    image = torch.randint(256, (3, 96, 128), dtype=torch.uint8)
    with torch.no_grad():
        maps = model.backbone.bottom_up(model.preprocess_image([{"image": image}]).tensor)
    assert {*maps} == {"res2", "res3", "res4", "res5"}
    assert all(0.3 < m.std() < 3 for m in maps.values()), {k: m.std() for k, m in maps.items()}


def test_only_what_frozen_norms_divide_by_changes():
    opts = ["MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.NUM_CLASSES", "1"]
    model = build_model(load_cfg(CONFIGS / "person_mask_rcnn_R_50_FPN.yaml", opts)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    normalise_random_backbone(model)
    assert torch.equal(random, torch.get_rng_state())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
    after = model.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    norms = [n for n, m in model.named_modules() if isinstance(m, FrozenBatchNorm2d)]
    assert changed == {f"{name}.running_var" for name in norms}

"""What freezing does to gradients, to batch norm, and to the table."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from torch import nn

from persondet.config import get_cfg
from persondet.errors import ConfigError
from persondet.modeling.freeze import (
    freeze_from_cfg,
    freeze_modules,
    frozen_at_random,
    frozen_tensors,
    parameter_rows,
    parameter_table,
    tensor_table,
)
from persondet.solver.optimizer import build_optimizer


def toy() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.fpn_lateral2 = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model.backbone.fpn_output2 = nn.Conv2d(4, 4, 1)
    model.backbone.bottom_up = nn.Module()
    model.backbone.bottom_up.stem = nn.Conv2d(3, 2, 3)
    model.head = nn.Linear(4, 5)
    return model


def test_a_pattern_freezes_what_it_names_and_nothing_else() -> None:
    model = toy()
    assert freeze_modules(model, ["backbone.fpn_*"]) == [
        "backbone.fpn_lateral2",
        "backbone.fpn_output2",
    ]
    trainable = {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {"bottom_up", "weight", "bias"}


def test_frozen_batch_norm_keeps_its_statistics_in_training_mode() -> None:
    model = toy()
    frozen = model.backbone.fpn_lateral2
    frozen[1].running_mean.fill_(0.25)
    freeze_modules(model, ["backbone.fpn_lateral2"])
    model.train()
    model.backbone.fpn_lateral2(torch.randn(2, 3, 8, 8))
    norm = model.backbone.fpn_lateral2[1]
    assert isinstance(norm, FrozenBatchNorm2d)
    assert torch.equal(norm.running_mean, torch.full((4,), 0.25))


def test_a_batch_norm_named_itself_is_replaced_in_its_parent() -> None:
    model = toy()
    freeze_modules(model, ["backbone.fpn_lateral2.1"])
    assert isinstance(model.backbone.fpn_lateral2[1], FrozenBatchNorm2d)


def test_a_name_that_matches_nothing_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"did you mean backbone\?"):
        freeze_modules(toy(), ["backbon"])


def test_the_table_counts_every_parameter_once() -> None:
    model = toy()
    total = sum(p.numel() for p in model.parameters())
    freeze_modules(model, ["backbone.fpn_*"])
    rows = {row.module: row for row in parameter_rows(model)}
    # lateral: 3·4 + 4 and a batch norm of 4 + 4; output: 4·4 + 4
    assert (rows["backbone.fpn"].trainable, rows["backbone.fpn"].frozen) == (0, 44)
    assert (rows["head"].trainable, rows["head"].frozen) == (25, 0)
    assert rows["all"].trainable + rows["all"].frozen == total
    assert "frozen" in parameter_table(model).splitlines()[2]


def test_a_backbone_without_a_pyramid_has_a_row_for_each_stage() -> None:
    model = nn.Module()
    model.backbone = nn.ModuleDict(
        {"stem": nn.Linear(1, 1), "res2": nn.Sequential(nn.Linear(2, 3))}
    )
    freeze_modules(model, ["backbone.stem"])
    assert [(row.module, row.trainable, row.frozen) for row in parameter_rows(model)] == [
        ("backbone.stem", 0, 2),
        ("backbone.res2", 9, 0),
        ("all", 9, 2),
    ]


def test_a_parameter_is_no_module_and_the_sentence_names_its_module() -> None:
    with pytest.raises(ConfigError, match="head.weight is a parameter: freeze its module, head"):
        freeze_modules(toy(), ["head.weight"])
    with pytest.raises(ConfigError, match=r"did you mean backbone.bottom_up.stem\?"):
        freeze_modules(toy(), ["stem"])


@pytest.mark.parametrize("norm", ["BN", "SyncBN", "GN", "FrozenBN"])
@pytest.mark.parametrize("freeze_at", [0, 1, 2, 3, 4, 5])
def test_freeze_at_freezes_stages_and_their_norms(freeze_at: int, norm: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(
        ["MODEL.BACKBONE.FREEZE_AT", freeze_at, "MODEL.RESNETS.NORM", norm]
        + ["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64]
        + ["MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"]]
    )
    with torch.device("meta"):
        resnet = build_resnet_backbone(cfg, ShapeSpec(channels=3))
    frozen = set(frozen_tensors(resnet))
    for number, stage in enumerate(("stem", "res2", "res3", "res4", "res5"), start=1):
        names = {name for name in resnet.state_dict() if name.startswith(f"{stage}.")}
        norms = {type(m) for m in resnet.get_submodule(stage).modules() if "Norm" in repr(type(m))}
        if number <= freeze_at:
            assert names <= frozen
            assert not norms & {nn.BatchNorm2d, nn.SyncBatchNorm}
        else:
            assert any(name.endswith("conv1.weight") for name in names - frozen)
            assert (FrozenBatchNorm2d in norms) == (norm == "FrozenBN")


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_frozen_tensors_are_the_same_to_the_bit_after_training_and_resuming(
    optimizer: str,
) -> None:
    """With weight decay and momentum, through a saved optimizer, statistics included."""
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.OPTIMIZER", optimizer, "SOLVER.WEIGHT_DECAY", 0.5])
    cfg.merge_from_list(["MODEL.FREEZE.MODULES", ("backbone.fpn_*",), "SOLVER.BASE_LR", 0.05])
    state: dict[str, Any] = {}
    weights: dict[str, torch.Tensor] = {}
    before: dict[str, torch.Tensor] = {}
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


def test_the_whole_model_frozen_leaves_nothing_to_train() -> None:
    cfg = get_cfg()
    model = toy()
    freeze_modules(model, ["*"])
    assert set(frozen_tensors(model)) == set(model.state_dict())
    with pytest.raises(ConfigError, match="nothing is left to train"):
        build_optimizer(cfg, model)


def test_what_is_frozen_with_random_weights_is_named() -> None:
    model = toy()
    freeze_modules(model, ["backbone.fpn_*", "head"])
    assert frozen_at_random(model, model.state_dict().keys()) == ""
    said = frozen_at_random(model, [name for name in model.state_dict() if "fpn" in name])
    assert said.startswith("Frozen and never trained: head have random weights")
    assert "MODEL.WEIGHTS" in said and "fpn" not in said
    assert frozen_at_random(toy(), ()) == ""


def test_frozen_batch_norm_without_statistics_is_named() -> None:
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), FrozenBatchNorm2d(4))
    said = frozen_at_random(model, ())
    assert "normalises nothing" in said and "MODEL.RESNETS.NORM" in said
    assert "never trained" not in said


def test_the_tables_show_rates_shapes_and_state() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.BASE_LR", 0.5, "SOLVER.BACKBONE_LR_FACTOR", 0.1])
    model = toy()
    freeze_modules(model, ["backbone.fpn_output2"])
    optimizer = build_optimizer(cfg, model)
    rows = {
        line.split()[0]: line.split() for line in parameter_table(model, optimizer).splitlines()
    }
    assert rows["backbone.bottom_up.stem"][-1] == "0.05"
    assert rows["head"][-1] == "0.5"
    assert rows["all"][-3:] == ["0.05", "to", "0.5"]
    tensors = {line.split()[0]: line for line in tensor_table(model, optimizer).splitlines()}
    assert "5 x 4" in tensors["head.weight"] and "trained" in tensors["head.weight"]
    assert "frozen" in tensors["backbone.fpn_output2.weight"]
    assert "follows" in tensors["backbone.fpn_lateral2.1.running_mean"]
    assert len(tensors) == len(model.state_dict()) + 2

"""What freezing does to gradients, to batch norm, and to the table."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from persondet.errors import ConfigError
from persondet.modeling.freeze import freeze_modules, parameter_rows, parameter_table


def toy() -> nn.Module:
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

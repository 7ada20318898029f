"""timm's models as backbones: their maps, their stages, and what freezing them means."""

import copy

import pytest
import timm
import torch
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_backbone
from torch import nn

from persondet.config import get_cfg
from persondet.config.check import check_cfg
from persondet.errors import ConfigError
from persondet.modeling.backbones import LEVELS, TimmBackbone, check_backbone
from persondet.modeling.cpu import ConvWithNorm2d, accelerate
from persondet.modeling.freeze import (
    freeze_batch_norm,
    freeze_modules,
    frozen_tensors,
    parameter_records,
)

STAGES = ("stem", "res2", "res3", "res4", "res5")
# Of five levels and of four; batch norm with and without an activation inside; layer norm.
KINDS = ("test_resnet", "test_efficientnet", "mobilenetv3_small_050", "test_convnext")
SWIN = "swin_tiny_patch4_window7_224"


def cfg_of(name: str, **keys: object) -> CfgNode:
    cfg = get_cfg()
    keys = {"BACKBONE.NAME": "build_timm_fpn_backbone", "TIMM.NAME": name} | keys
    keys |= {"FPN.IN_FEATURES": list(STAGES[1:]), "FPN.OUT_CHANNELS": 8}
    cfg.merge_from_list([word for key, value in keys.items() for word in (f"MODEL.{key}", value)])
    return cfg


def backbone(name: str, **keys: object) -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone(name, STAGES[1:], **keys)


def with_statistics(model: nn.Module) -> nn.Module:
    """Give batch norms numbers that leave no map as it was."""
    torch.manual_seed(1)
    ranges = {"weight": (0.7, 1.3), "bias": (-0.3, 0.3)}
    ranges |= {"running_mean": (-0.3, 0.3), "running_var": (0.6, 1.6)}
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d):
            for name, (low, high) in ranges.items():
                getattr(norm, name).data.uniform_(low, high)
    return model


def timm_maps(name: str, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the maps of timm's own model with the weights of `backbone(name)`, by stage."""
    torch.manual_seed(0)
    swin = {"strict_img_size": False} if name == SWIN else {}
    model = with_statistics(timm.create_model(name, features_only=True, **swin).eval())
    with torch.no_grad():
        found = dict(zip(model.feature_info.reduction(), model(x), strict=True))
    return {
        LEVELS[r]: m.permute(0, 3, 1, 2) if swin else m for r, m in found.items() if r in LEVELS
    }


@pytest.mark.parametrize("name", KINDS)
def test_the_maps_are_those_of_timm_with_frozen_batch_norm_and_with_fast_layers(name: str) -> None:
    x = torch.randn(2, 3, 64, 96)
    model = backbone(name, norm="BN").eval()
    freeze_batch_norm(with_statistics(model))
    names, expected = list(model.state_dict()), timm_maps(name, x)
    for prepare in (lambda model: model, accelerate):
        with torch.no_grad():
            maps = prepare(model).train()(x)
        for stage, shape in model.output_shape().items():
            torch.testing.assert_close(maps[stage], expected[stage], atol=1e-5, rtol=1e-4)
            assert maps[stage].shape[1:3] == (shape.channels, 64 // shape.stride)
    assert list(model.state_dict()) == names
    folded = sum(isinstance(module, ConvWithNorm2d) for module in model.modules())
    assert folded == sum(isinstance(m, FrozenBatchNorm2d) for m in model.modules())


def test_fast_layers_have_the_same_gradients() -> None:
    x, sides = torch.randn(1, 3, 64, 64), []
    for prepare in (lambda model: model, accelerate):
        model = prepare(with_statistics(backbone("tf_efficientnet_lite0", freeze_at=2)))
        sum(m.square().mean() for m in model(x).values()).backward()
        sides.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
        maps = torch.no_grad()(model)(x)  # in oneDNN's layout
        sides[-1] |= {stage: m / m.abs().max() for stage, m in maps.items()}
    assert sides[0].keys() == sides[1].keys() != set()
    for name, gradient in sides[0].items():
        torch.testing.assert_close(sides[1][name], gradient, atol=1e-5, rtol=1e-3)


def test_trap_an_activation_inside_of_batch_norm_survives_freezing() -> None:
    norm = with_statistics(timm.layers.BatchNormAct2d(4, act_layer=nn.ReLU6, eps=1e-3)).eval()
    x = torch.randn(2, 4, 5, 5) * 9
    expected = norm(x)
    frozen = freeze_batch_norm(norm).train()
    torch.testing.assert_close(frozen(x), expected)
    assert 0 <= float(frozen(x).min()) < float(frozen(x).max()) == 6
    assert isinstance(frozen, FrozenBatchNorm2d)


def test_trap_freezing_makes_no_class_of_timm_that_tables_and_folding_do_not_know() -> None:
    model = nn.ModuleDict({"backbone": nn.ModuleDict({"bottom_up": backbone(KINDS[1], norm="BN")})})
    freeze_modules(model, ["backbone.bottom_up.res4"])
    kinds = {type(m).__name__ for m in model.backbone.bottom_up.res4.modules()}
    assert {kind for kind in kinds if "Norm" in kind} == {"FrozenBatchNormAct2d"}
    rows = {row["module"].rpartition(".")[2]: row for row in parameter_records(model)}
    assert rows["res4"]["trainable"] == 0 < rows["res4"]["frozen"]
    assert rows["res3"]["frozen"] == 0


@pytest.mark.parametrize("freeze_at", [0, 1, 3, 5])
@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext"])
def test_freeze_at_freezes_the_stem_and_then_a_stage_per_level(name: str, freeze_at: int) -> None:
    keys = {"BACKBONE.FREEZE_AT": freeze_at, "TIMM.NORM": "BN"}
    with torch.device("meta"):
        bottom_up = build_backbone(cfg_of(name, **keys), ShapeSpec(3)).bottom_up
    frozen = set(frozen_tensors(bottom_up))
    assert [stage for stage, _ in bottom_up.named_children()] == list(STAGES)
    for number, stage in enumerate(STAGES, start=1):
        tensors = {tensor for tensor in bottom_up.state_dict() if tensor.startswith(f"{stage}.")}
        assert tensors & frozen == (tensors if number <= freeze_at else set())


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (6, 3), (1, 2)])
def test_trap_same_padding_puts_the_odd_pixel_right_and_below(kernel: int, stride: int) -> None:
    cases = ((63, 95), 1, nn.ReLU), ((64, 64), 4, nn.ReLU6), ((33, 70), 2, nn.GELU)
    for size, groups, act in cases:
        conv = timm.layers.Conv2dSame(4, 4, kernel, stride, groups=groups)
        norm = with_statistics(freeze_batch_norm(timm.layers.BatchNormAct2d(4, act_layer=act)))
        fast, sides = copy.deepcopy(conv), []
        fast.__class__, fast.norm_behind, fast.same_padding = ConvWithNorm2d, (norm,), True
        given = torch.randn(2, 4, *size)
        for layer in (lambda x, conv=conv, norm=norm: norm(conv(x))), fast:
            x = given.clone().requires_grad_()
            layer(x).sin().sum().backward()
            sides.append((layer(x), x.grad))
        for want, got in zip(*sides, strict=True):
            torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)
        for want, got in zip(conv.parameters(), fast.parameters(), strict=True):  # long sums
            torch.testing.assert_close(got.grad, want.grad, atol=1e-3, rtol=1e-4)


def test_trap_swin_takes_images_of_other_sizes_than_it_learnt(small_swin: None) -> None:
    model = backbone(SWIN).eval()
    for size in ((64, 96), (96, 32)):
        x = torch.randn(1, 3, *size)
        with torch.no_grad():
            maps = model(x)
        for stage, expected in timm_maps(SWIN, x).items():
            torch.testing.assert_close(maps[stage], expected, atol=1e-5, rtol=1e-4)
            assert size[0] / maps[stage].shape[2] == size[1] / maps[stage].shape[3]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("test_vit", "any size"),  # one stride, for one size
        ("shvit_s1", "strides 16, 32, 64: there is no res2"),
        ("hrnet_w18_small", "cannot be divided into stages"),
    ],
)
def test_a_model_without_the_levels_of_a_pyramid_is_refused(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_backbone(cfg_of(name))


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"TIMM.NAME": "resnt50"}, "did you mean resnet50"),
        ({"TIMM.NAME": "resnet50.nope"}, "timm has weights for .*resnet50.a1_in1k"),
        ({"TIMM.NAME": ""}, "needs its name"),
        ({"BACKBONE.NAME": "build_resnet_fpn_backbone"}, "any other backbone an empty name"),
        ({"TIMM.NORM": "GN"}, "choose one of FrozenBN, BN"),
    ],
)
def test_a_config_that_names_no_model_is_refused(keys: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_cfg(cfg_of(**({"name": "resnet18"} | keys)))

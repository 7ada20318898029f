"""Backbones of timm behind Detectron2's feature pyramid: a stem, then one stage per level.

timm says how many times smaller than the image each of its feature maps is. The layers up to the
map of 1/4 are `stem` and `res2`, those from there to 1/8 are `res3`, and so on to `res5`. So
`MODEL.BACKBONE.FREEZE_AT`, names of modules and tables mean what they mean for a ResNet of
Detectron2.

Within a stage layers keep timm's names, with `_` for the first dot where timm numbers its stages:
`stages.1.blocks.0.norm.weight` is `res3.stages_1.blocks.0.norm.weight` here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import nn

from persondet.errors import ConfigError
from persondet.modeling.freeze import freeze_batch_norm, freeze_module

# How many times a map is smaller than the image → the stage that ends there. The number of a
# stage is the FREEZE_AT that freezes it; the stem has 1.
LEVELS = {4: "res2", 8: "res3", 16: "res4", 32: "res5"}


class TimmBackbone(Backbone):
    """A timm model up to its last feature map, divided into stages.

    Args:
        name: of a timm model, with or without the tag of its weights.
        out_features: the stages whose maps are returned, such as `("res2", "res3")`.
        norm: "FrozenBN": batch norm is frozen; "BN": it is trained. Models without batch norm
            train the norm that they have.
        freeze_at: freeze nothing (0), the stem (1), the stem and `res2` (2), … all stages (5).

    Raises: ConfigError: when the model does not have these maps, or cannot be divided.
    """

    def __init__(
        self, name: str, out_features: Sequence[str], *, norm: str = "FrozenBN", freeze_at: int = 0
    ) -> None:
        super().__init__()
        self.name = name
        features = _features(name)
        info = features.feature_info.get_dicts()
        taps = {LEVELS[tap["reduction"]]: tap for tap in info if tap["reduction"] in LEVELS}
        missing = [stage for stage in out_features if stage not in taps]
        if missing:
            strides = ", ".join(str(tap["reduction"]) for tap in info)
            raise ConfigError(
                f"config: MODEL.TIMM.NAME is {name!r}, and its feature maps have strides "
                f"{strides}: there is no {missing[0]}; choose a model with strides 4, 8, 16 and "
                "32, or fewer MODEL.FPN.IN_FEATURES."
            )
        for stage, layers in _divided(name, features, taps):
            self.add_module(stage, layers)
        self._out_features = list(out_features)
        self._out_feature_strides = {stage: tap["reduction"] for stage, tap in taps.items()}
        self._out_feature_channels = {stage: tap["num_chs"] for stage, tap in taps.items()}
        # timm's own word for maps of (N, H, W, C), which the layers of such a model pass on.
        self._channels_last = "NHWC" in str(getattr(features, "output_fmt", ""))
        if norm == "FrozenBN":
            freeze_batch_norm(self)
        for stage, layers in self.named_children():
            if int(stage.removeprefix("res").replace("stem", "1")) <= freeze_at:
                freeze_module(layers)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the maps (N, C, H / stride, W / stride) of normalised images (N, 3, H, W)."""
        maps = {}
        for stage, layers in self.named_children():
            x = layers(x)
            if stage in self._out_features:
                maps[stage] = x.permute(0, 3, 1, 2) if self._channels_last else x
        return maps


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build the timm model of `MODEL.TIMM` and a feature pyramid on the levels of `MODEL.FPN`.

    Raises: ConfigError: when the model does not have these levels.
    """
    return FPN(
        bottom_up=bottom_up_from_cfg(cfg),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def bottom_up_from_cfg(cfg: CfgNode) -> TimmBackbone:
    """Build the timm model of the config, without a pyramid.

    Raises: ConfigError: when the model does not have the levels of `MODEL.FPN.IN_FEATURES`.
    """
    return TimmBackbone(
        cfg.MODEL.TIMM.NAME,
        cfg.MODEL.FPN.IN_FEATURES,
        norm=cfg.MODEL.TIMM.NORM,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )


def check_backbone(cfg: CfgNode) -> None:
    """Refuse a timm model that no pyramid can stand on; the model is built without its weights.

    Raises: ConfigError: naming the key.
    """
    if cfg.MODEL.TIMM.NAME:
        with torch.device("meta"):
            bottom_up_from_cfg(cfg)


def _features(name: str) -> Any:
    """Return timm's own model of feature maps, with random weights, for images of any size."""
    import timm  # a second to import, for these models only

    try:
        known = timm.get_pretrained_cfg(name)
        # Lets a model of a fixed image size, such as Swin, take images of other sizes.
        flexible: dict[str, Any] = (
            {"strict_img_size": False} if known and known.fixed_input_size else {}
        )
        return timm.create_model(name, features_only=True, **flexible)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"config: MODEL.TIMM.NAME is {name!r}, and timm cannot make feature maps of it for "
            f"images of any size ({' '.join(str(error).split())[:120]}); choose another model."
        ) from error


def _divided(
    name: str, features: nn.Module, taps: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, nn.Sequential]]:
    """Yield the stages and their layers; what comes before the first level's layer is the stem."""
    ends = {tap["module"].replace(".", "_"): stage for stage, tap in taps.items()}
    layers = list(_chain(features, set(ends)))
    names = [layer for layer, _ in layers]
    if not ends.keys() <= set(names):
        raise ConfigError(
            f"config: MODEL.TIMM.NAME is {name!r}, and its layers do not follow one another, so "
            "that it cannot be divided into stages; choose a model such as a ResNet, EfficientNet, "
            "MobileNet, ConvNeXt or Swin."
        )
    stage, begin = "stem", 0
    for place in sorted(names.index(end) for end in ends):
        if stage == "stem":
            yield stage, nn.Sequential(OrderedDict(layers[:place]))
            begin = place
        stage = ends[names[place]]
        yield stage, nn.Sequential(OrderedDict(layers[begin : place + 1]))
        begin = place + 1


def _chain(features: nn.Module, ends: set[str]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers in the order they run; a list of stages gives its stages."""
    for name, layer in features.named_children():
        inner = [(f"{name}_{number}", part) for number, part in layer.named_children()]
        if isinstance(layer, nn.Sequential) and ends & {part for part, _ in inner}:
            yield from inner
        else:
            yield name, layer

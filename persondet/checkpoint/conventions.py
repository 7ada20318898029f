"""What weights expect of the config: colour order, mean, deviation, strides, depth.

A network trained on RGB with unit deviation loads without a warning into a config that feeds it BGR
with deviation 58, and then detects little. So a run compares what a file is known to expect with
the config before it begins. torchvision's ResNets get Detectron2's names here:
`layer1.0.bn2.weight` becomes `res2.0.conv2.norm.weight`, with the same tensors.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import yaml
from detectron2.checkpoint.c2_model_loading import convert_basic_c2_names
from detectron2.config import CfgNode

from persondet.checkpoint import timm_weights
from persondet.errors import CheckpointError

INPUT_KEYS = ("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD")
STRIDE_KEY = "MODEL.RESNETS.STRIDE_IN_1X1"
ANCHOR_KEYS = ("MODEL.ANCHOR_GENERATOR.SIZES", "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS")

# Source: torchvision, transforms of its classification weights: mean (0.485, 0.456, 0.406) and
# deviation (0.229, 0.224, 0.225) of RGB in 0..1. Its bottlenecks stride in the 3x3 convolution.
_TORCHVISION = {
    "INPUT.FORMAT": "RGB",
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    STRIDE_KEY: False,
}
# Source: Detectron2's configs of the models that start from these files.
_CAFFE2 = {"INPUT.FORMAT": "BGR", "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675]}
_CAFFE2_OF_OLD = {**_CAFFE2, "MODEL.PIXEL_STD": [1.0, 1.0, 1.0]}
_CAFFE2_X_101 = {**_CAFFE2, "MODEL.PIXEL_STD": [57.375, 57.12, 58.395]}

# Blocks in res2 to res5, and whether they are bottlenecks → depth.
_DEPTHS: dict[tuple[tuple[int, ...], bool], int] = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}


def check_conventions(checkpoint: Mapping[str, Any], cfg: CfgNode, weights: str) -> None:
    """Refuse weights that learnt under another colour order, mean, deviation, stride or depth.

    Args:
        checkpoint: as `load_checkpoint` returns it.
        cfg: what the model is to be built from; only keys the file is known to expect are read.
        weights: the name of the file or address, for recognition and for the sentence.

    Raises: CheckpointError: naming the keys and the values to set.
    """
    source, expected = expected_keys(checkpoint, weights)
    wrong = {key: value for key, value in expected.items() if not _equal(_get(cfg, key), value)}
    if not wrong:
        return
    here = ", ".join(f"{key} is {_get(cfg, key)}" for key in wrong)
    there = " ".join(f'{key} "{value}"' for key, value in wrong.items())
    raise CheckpointError(
        f"{weights}: {source} learnt with other settings than the config's ({here}); add to the "
        f"command: {there}."
    )


def expected_keys(checkpoint: Mapping[str, Any], weights: str) -> tuple[str, dict[str, Any]]:
    """Return whose weights these are, and the config keys with the values they learnt under.

    What a file does not tell is not in the dict.
    """
    author = checkpoint.get("__author__", "")
    built = _architecture(checkpoint)
    if isinstance(checkpoint.get("persondet"), dict):
        carried = _carried(checkpoint)
        source, keys = "this model of ours", {k: carried[k] for k in _CARRIED if k in carried}
    elif author == AUTHOR:
        source, keys = "torchvision's ResNet", dict(_TORCHVISION)
    elif author == "Caffe2":
        source, keys = "Caffe2's ResNet", _caffe2(checkpoint["model"], built)
    elif author == timm_weights.AUTHOR:
        name = timm_weights.name_of(weights) or checkpoint["architecture"]
        source, keys = f"timm's {name}", _timm(name)
    else:
        source, keys = "the model zoo's model", _model_zoo(author, weights)
        source = source if keys else "this model"
    if built.get("MODEL.RESNETS.DEPTH", 50) < 50:
        keys.pop(STRIDE_KEY, None)  # basic blocks have no 1x1 convolution to stride in
    return source, keys | built


def other_anchors(theirs: str, ours: str) -> str:
    """Return how the anchors of two configs (YAML text) differ, in words; empty when they do not.

    The heads of other anchors fit in shape when their number is the same, and yet speak of boxes
    of another size.
    """
    before, now = _flat(theirs), _flat(ours)
    return ", ".join(
        f"{key} was {before[key]} and is {now[key]}"
        for key in ANCHOR_KEYS
        if key in before and key in now and before[key] != now[key]
    )


_KEYS = (*INPUT_KEYS, STRIDE_KEY)
_CARRIED = (*_KEYS, "MODEL.TIMM.NAME")


def _timm(name: str) -> dict[str, Any]:
    """Return the keys that the weights of a timm model learnt under; timm's numbers are of 0..1."""
    import timm

    known = timm.get_pretrained_cfg(name)
    if known is None:
        return {}
    mean, deviation = ([round(255 * value, 3) for value in v] for v in (known.mean, known.std))
    return dict(zip(INPUT_KEYS, ("RGB", mean, deviation), strict=True))


def _caffe2(names: Mapping[str, Any], built: Mapping[str, Any]) -> dict[str, Any]:
    if built.get("MODEL.RESNETS.NUM_GROUPS", 1) > 1:
        known = built.get("MODEL.RESNETS.DEPTH") == 101
        return {**(_CAFFE2_X_101 if known else _CAFFE2), STRIDE_KEY: False}
    group_norm = any("_gn_" in name for name in names)
    return {**_CAFFE2_OF_OLD, STRIDE_KEY: not group_norm}


def _model_zoo(author: str, weights: str) -> dict[str, Any]:
    """Return the keys of a model of Detectron2's zoo, told by its file name, from its config."""
    name = PurePath(weights.partition("?")[0]).name
    if author != "Detectron2 Model Zoo":
        return {}
    from detectron2 import model_zoo  # a slow import, for these files only
    from detectron2.model_zoo.model_zoo import _ModelZooUrls

    for config, address in _ModelZooUrls.CONFIG_PATH_TO_URL_SUFFIX.items():
        if PurePath(address).name == name and not config.startswith("new_baselines/"):
            cfg = model_zoo.get_config(f"{config}.yaml")
            return {key: _get(cfg, key) for key in _KEYS}
    return {}


def _architecture(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that the shapes of a ResNet's tensors tell; none when there is no ResNet."""
    state = checkpoint["model"]
    names = list(state)
    if checkpoint.get("__author__") == "Caffe2":
        names = convert_basic_c2_names(names)
    shapes = {}
    for name, value in zip(names, state.values(), strict=True):
        found = re.search(r"(?:^|\.)res([2-5])\.(\d+)\.(conv\d)\.weight$", name)
        if found:
            shapes[int(found[1]), int(found[2]), found[3]] = tuple(value.shape)
    blocks = tuple(len({b for s, b, _ in shapes if s == stage}) for stage in (2, 3, 4, 5))
    bottleneck = (2, 0, "conv3") in shapes
    if (blocks, bottleneck) not in _DEPTHS:
        return {}
    built = {
        "MODEL.RESNETS.DEPTH": _DEPTHS[blocks, bottleneck],
        "MODEL.RESNETS.RES2_OUT_CHANNELS": shapes[2, 0, "conv3" if bottleneck else "conv2"][0],
    }
    if bottleneck and (2, 0, "conv2") in shapes:
        out, per_group = shapes[2, 0, "conv2"][:2]
        built["MODEL.RESNETS.NUM_GROUPS"] = out // per_group
        built["MODEL.RESNETS.WIDTH_PER_GROUP"] = per_group
    return built


def _carried(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    return _flat(str(checkpoint["persondet"].get("config", "")))


@functools.lru_cache(maxsize=2)  # 30 ms; a checkpoint's config is looked at twice
def _flat(text: str) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    flat = {}
    for key in (*_CARRIED, *ANCHOR_KEYS):
        value: Any = tree
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            flat[key] = value
    return flat


def _get(cfg: CfgNode, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def _equal(ours: Any, theirs: Any) -> bool:
    """Compare two values; a mean or deviation within a hundredth is the same one, rounded."""
    if isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(
            math.isclose(a, b, rel_tol=0.01) for a, b in zip(ours, theirs, strict=True)
        )
    return bool(ours == theirs)


AUTHOR = "torchvision"

# In this order: a batch norm first becomes part of its convolution, then a stage gets its number.
_RULES = (
    (r"^(conv1|bn1)\.", r"stem.\1."),
    (r"\bbn(\d)\.", r"conv\1.norm."),
    (r"\bdownsample\.0\.", "shortcut."),
    (r"\bdownsample\.1\.", "shortcut.norm."),
)


def is_resnet(names: Mapping[str, Any]) -> bool:
    """Return whether these are the names of torchvision's ResNet (also ResNeXt and Wide ResNet)."""
    return {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight"} <= names.keys()


def is_detector(names: Mapping[str, Any]) -> bool:
    """Return whether these are the names of one of torchvision's detectors."""
    return any(name.startswith("backbone.body.") for name in names)


def detectron2_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors of a torchvision ResNet under the names of Detectron2's.

    `num_batches_tracked` is left out, for frozen batch norm does not count; the classifier `fc`
    keeps its name, and no detector uses it.
    """
    renamed = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        for pattern, ours in _RULES:
            name = re.sub(pattern, ours, name)
        name = re.sub(r"^layer(\d)\.", lambda stage: f"res{int(stage[1]) + 1}.", name)
        renamed[name] = tensor
    return renamed

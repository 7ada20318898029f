"""A checkpoint file on disk: where it is, what it holds, and whose classes it knows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from torch import nn

from persondet.checkpoint.conventions import (
    TIMM,
    backbone_tensors,
    check_conventions,
    name_of,
    reason_of,
    timm_file,
    torchvision_layout,
)
from persondet.checkpoint.restricted_pickle import load_arrays
from persondet.errors import CheckpointError
from persondet.files import atomic_path, sha256_of_file
from persondet.modeling.backbones import TimmBackbone, bottom_up_from_cfg

# The key, beside `model`, under which a checkpoint of ours carries what it needs to be a model.
CARRIED = "persondet"
CLASS_LAYER = "roi_heads.box_predictor.cls_score.weight"


@dataclass(frozen=True)
class CarriedFacts:
    """What a checkpoint says of itself; empty for weights that come from elsewhere."""

    config: str = ""
    class_names: tuple[str, ...] = ()
    iteration: int | None = None
    score_threshold: float | None = None

    @classmethod
    def from_checkpoint(cls, checkpoint: dict[str, Any]) -> CarriedFacts:
        """Read the facts of a loaded checkpoint."""
        carried = checkpoint.get(CARRIED)
        if not isinstance(carried, dict):
            return cls()
        return cls(
            config=str(carried.get("config", "")),
            class_names=tuple(str(name) for name in carried.get("class_names", ())),
            iteration=carried.get("iteration"),
            score_threshold=carried.get("score_threshold"),
        )


def local_weights(weights: str) -> str:
    """Return the local file of a path or an address (`detectron2://…`, `timm://…`), fetched once.

    Raises: CheckpointError: when the file is missing or the address cannot be reached.
    """
    path, _, query = weights.partition("?")
    if "://" not in path:
        if not Path(path).is_file():
            raise CheckpointError(
                f"{path}: there is no such checkpoint; give MODEL.WEIGHTS a .pth or .pkl file, "
                "or an empty string to start from random weights."
            )
        return weights
    if name_of(path):
        return str(timm_file(path))
    try:
        local = PathManager.get_local_path(path)
    except Exception as error:  # urllib, iopath and sockets raise a dozen kinds
        raise CheckpointError(
            f"{path} cannot be fetched ({reason_of(error)}); download it elsewhere and name the "
            "file with MODEL.WEIGHTS, or give an empty string to start from random weights."
        ) from error
    return f"{local}?{query}" if query else local


def load_checkpoint(path: str | Path, model: nn.Module | None = None) -> dict[str, Any]:
    """Load a `.pth` or `.safetensors` (tensors only) or `.pkl` (arrays only) file onto the CPU.

    Args:
        model: what it is loaded for. Where that has a backbone of timm's, timm's names become
            those of the model; default: they stay, or become those of Detectron2's ResNet.

    Returns: a dict with at least `model`: names → tensors or arrays.

    Raises: CheckpointError: when the file is missing, damaged, or holds more than plain data.
    """
    path = Path(path)
    if path.suffix == ".pkl":
        return _detectron_layout(load_arrays(path), path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: Any = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such checkpoint.") from error
    except Exception as error:  # zip, pickle and struct errors: all mean the same to a person
        if carries := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise CheckpointError(
                f"{path}: holds {carries[1]} beside tensors, and loading that would run code; use "
                "a file with the state_dict() of a model, from a source that you trust."
            ) from error
        raise CheckpointError(
            f"{path}: not a checkpoint of plain tensors, or a damaged one "
            f"({reason_of(error)}); use another checkpoint of the run, or train again."
        ) from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, not a dict of tensors.")
    if "model" not in loaded:
        loaded = {"model": loaded}
    state: Any = loaded["model"]
    if not isinstance(state, dict) or not any(torch.is_tensor(v) for v in state.values()):
        raise CheckpointError(f"{path}: holds no weights of a model.")
    modules = model.modules() if model is not None else ()
    backbone = next((m for m in modules if isinstance(m, TimmBackbone)), None)
    if backbone is None or CARRIED in loaded or any(n.startswith("backbone.") for n in state):
        return torchvision_layout(loaded, path)
    tensors = backbone_tensors(state, backbone, str(path))
    return {"model": tensors, "__author__": TIMM, "architecture": backbone.name}


def check_weights(weights: str, cfg: CfgNode | None = None) -> None:
    """Refuse weights that no detector of ours can start from, before anything is written.

    Args:
        cfg: the config to start with; default: what the weights expect of it is not looked at.

    Raises: CheckpointError: when the file is missing, unreachable, damaged, not a detector's, or
    learnt under another colour order, mean, deviation, stride or depth than the config has.
    """
    path, _, query = local_weights(weights).partition("?")
    backbone = None
    if cfg is not None and cfg.MODEL.TIMM.NAME:
        with torch.device("meta"):
            backbone = bottom_up_from_cfg(cfg)
    elif cfg is not None and name_of(weights):
        raise CheckpointError(
            f"{weights}: is for a timm model, and MODEL.BACKBONE.NAME is "
            f"{cfg.MODEL.BACKBONE.NAME}; add to the command: MODEL.BACKBONE.NAME "
            f"build_timm_fpn_backbone MODEL.TIMM.NAME {name_of(weights)}."
        )
    checkpoint = load_checkpoint(path, backbone)
    if cfg is not None:
        check_conventions(checkpoint, cfg, weights)
    # Weights that are matched by heuristics have names of their own.
    if checkpoint.get("matching_heuristics") or "matching_heuristics" in query:
        return
    if not any("backbone." in name for name in checkpoint["model"]):
        some = ", ".join(list(checkpoint["model"])[:3])
        raise CheckpointError(
            f"{weights}: none of its tensors fits a detector (it has {some}); check MODEL.WEIGHTS."
        )


def model_record(weights: str, iteration: int | None) -> dict[str, Any]:
    """Return what tells one checkpoint from another, for the files that are made with it.

    Args:
        weights: a path, or an address such as `detectron2://…`, with or without a query.
        iteration: the step after which it was saved, counted from 0; None: it does not say.

    Returns: `file` (the name alone), `iteration` and `sha256` of the whole file.

    Raises: CheckpointError: when the file is missing or the address cannot be reached.
    """
    local = local_weights(weights).partition("?")[0]
    name = weights.partition("?")[0].rstrip("/").rpartition("/")[2]
    return {"file": name, "iteration": iteration, "sha256": sha256_of_file(local)}


def store_score_threshold(path: Path, threshold: float | None) -> None:
    """Make a checkpoint carry the score threshold to draw with, 0..1; None: it has none; atomic."""
    checkpoint = load_checkpoint(path)
    carried = checkpoint.get(CARRIED, {})
    changed = carried | {"score_threshold": threshold}
    if changed != carried:
        with atomic_path(path) as temporary:
            torch.save(checkpoint | {CARRIED: changed}, temporary)


def class_count(checkpoint: dict[str, Any]) -> int | None:
    """Return how many classes the box head of a checkpoint tells apart, background not counted."""
    weight = checkpoint["model"].get(CLASS_LAYER)
    return None if weight is None else int(weight.shape[0]) - 1


def _detectron_layout(data: Any, path: Path) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: holds a {type(data).__name__}, not a dict of arrays.")
    zoo = "model" in data and "__author__" in data
    # Caffe2's files: detection models keep their arrays under "blobs", backbones at the top.
    arrays = data["model"] if zoo else data.get("blobs", data)
    if not isinstance(arrays, dict) or not all(isinstance(name, str) for name in arrays):
        raise CheckpointError(f"{path}: holds no weights of a model.")
    if zoo:
        return data
    kept = {name: value for name, value in arrays.items() if not name.endswith("_momentum")}
    return {"model": kept, "__author__": "Caffe2", "matching_heuristics": True}

"""A model ready for inference from a config and a checkpoint, whatever classes it knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.modeling import build_model
from torch import nn

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.checkpoint.checkpointer import KeyReport
from persondet.checkpoint.conventions import check_conventions
from persondet.checkpoint.model_file import (
    CarriedFacts,
    class_count,
    load_checkpoint,
    local_weights,
)
from persondet.errors import CheckpointError
from persondet.modeling.cpu import accelerate
from persondet.modeling.detections import map_classes
from persondet.modeling.precision import resolve_device, set_memory_format

COCO_CLASSES = tuple(
    str(category["name"]) for category in COCO_CATEGORIES if category["isthing"] == 1
)


@dataclass(frozen=True)
class InferenceModel:
    """A model in eval mode on its device, the classes it speaks, and what its file says."""

    model: nn.Module
    class_names: tuple[str, ...]
    facts: CarriedFacts
    weights: str


def build_inference_model(cfg: CfgNode, class_names: Sequence[str] | None = None) -> InferenceModel:
    """Build the config's model, load `MODEL.WEIGHTS`, and make it speak `class_names`.

    A model of COCO's 80 classes serves before any training: its `person` is mapped to ours.

    Args:
        cfg: not changed.
        class_names: the dataset's classes; default: `DATASETS.ROBOFLOW.CLASSES`, else those the
            checkpoint carries, else `person`.

    Raises: CheckpointError: when the file is missing, foreign, or knows none of the classes.
    """
    if not cfg.MODEL.WEIGHTS:
        raise CheckpointError(
            "MODEL.WEIGHTS is empty, and random weights find nothing; name a checkpoint, such as "
            "MODEL.WEIGHTS output/demo/model_best.pth."
        )
    weights = local_weights(cfg.MODEL.WEIGHTS)
    checkpoint = load_checkpoint(weights.partition("?")[0])
    check_conventions(checkpoint, cfg, cfg.MODEL.WEIGHTS)
    facts = CarriedFacts.from_checkpoint(checkpoint)
    count = class_count(checkpoint)
    del checkpoint
    theirs = facts.class_names or (COCO_CLASSES if count == len(COCO_CLASSES) else ())
    ours = tuple(class_names or cfg.DATASETS.ROBOFLOW.CLASSES or facts.class_names or ("person",))
    if not theirs:
        if count not in (None, len(ours)):
            raise CheckpointError(
                f"{cfg.MODEL.WEIGHTS}: knows {count} classes and does not name them; list them in "
                "DATASETS.ROBOFLOW.CLASSES, in the checkpoint's order."
            )
        theirs = ours

    model_cfg = cfg.clone()
    model_cfg.defrost()
    model_cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
    model_cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(theirs)
    model = accelerate(build_model(model_cfg))
    checkpointer = SafeDetectionCheckpointer(model)
    checkpointer.load(weights, checkpointables=[])
    _refuse_gaps(cfg.MODEL.WEIGHTS, checkpointer.key_report)
    set_memory_format(model_cfg, model)
    return InferenceModel(
        model=map_classes(model, theirs, ours).eval(),
        class_names=ours,
        facts=facts,
        weights=cfg.MODEL.WEIGHTS,
    )


def _refuse_gaps(weights: str, report: KeyReport | None) -> None:
    # A head with random weights would predict noise, and nobody would know why.
    if report is None:
        return
    gaps = [name for name, _, _ in report.not_fitting] + list(report.missing)
    if gaps:
        raise CheckpointError(
            f"{weights}: {gaps[0]} does not fit this model ({len(gaps)} tensors in all); use the "
            "config it was trained with: the config.yaml in its run folder."
        )

"""What a detector hands out: masks as small as the mask head left them, and our classes.

Which of equally scored proposals come first is the same on every processor.

Detectron2 resamples the 28 x 28 probabilities of each box into a mask of the whole image before
anybody asks for one; `persondet.inference.masks` pastes only what is needed. And a model that knows
other classes than the dataset speaks ours: its `person` becomes the dataset's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.structures import Instances, ROIMasks
from torch import nn

from persondet.errors import CheckpointError
from persondet.inference.masks import ROI_FIELD


def keep_roi_masks(model: nn.Module) -> list[GeneralizedRCNN]:
    """Let the R-CNNs in `model` hand out `roi_masks` instead of `pred_masks`; return them.

    Boxes, scores, classes and their order stay what they are. Other models are left alone.
    """
    found = [module for module in model.modules() if isinstance(module, GeneralizedRCNN)]
    for module in found:
        module.inference = partial(_inference, module)
    return found


@contextmanager
def roi_masks_kept(model: nn.Module) -> Iterator[None]:
    """As `keep_roi_masks` inside the block; the model is as before when it ends.

    Args:
        model: holds a `GeneralizedRCNN`, or is one.
    """
    found = keep_roi_masks(model)
    try:
        yield
    finally:
        for module in found:
            del module.inference


def _inference(
    model: GeneralizedRCNN,
    batched_inputs: list[dict[str, Any]],
    detected_instances: list[Instances] | None = None,
    do_postprocess: bool = True,
) -> list[Any]:
    """As `GeneralizedRCNN.inference`, with the masks as the mask head left them."""
    results = type(model).inference(model, batched_inputs, detected_instances, do_postprocess=False)
    if not do_postprocess:
        return list(results)
    return [
        {"instances": roi_postprocess(result, asked.get("height"), asked.get("width"))}
        for result, asked in zip(results, batched_inputs, strict=True)
    ]


def roi_postprocess(
    result: Instances, height: int | None = None, width: int | None = None
) -> Instances:
    """Scale a raw result to its image as `detector_postprocess` does, the masks left small.

    Args:
        result: of a box and mask head, with `pred_masks` (float, (N, 1, M, M)); is changed.
        height, width: of the image, pixels; None: of what the model has seen.

    Returns: as `detector_postprocess`, with `roi_masks` instead of `pred_masks`.
    """
    if result.has("pred_masks"):
        # Under another name, so that they are kept in step and not pasted.
        result.set(ROI_FIELD, ROIMasks(result.pred_masks[:, 0]))
        result.remove("pred_masks")
    seen_height, seen_width = result.image_size
    return detector_postprocess(result, height or seen_height, width or seen_width)


class OrderedRPN(RPN):
    """`RPN` that takes equal proposals in the order of their places, outside of training.

    In a flat part of an image hundreds have the same score. Which of them come first, and so into
    the best `POST_NMS_TOPK_TEST`, Detectron2 leaves to PyTorch's sorting, which differs from
    processor to processor. Here the logits of the proposals become their ranks.
    """

    def predict_proposals(
        self, anchors: Any, pred_objectness_logits: list[torch.Tensor], *others: Any
    ) -> Any:
        """Return the best proposals as `RPN` does; `objectness_logits` are 0, -1, -2, …"""
        # An exported graph sorts by score, then place.
        if not (self.training or torch.jit.is_tracing()):
            logits = torch.cat(pred_objectness_logits, dim=1).float()
            order = logits.argsort(dim=1, descending=True, stable=True)
            ranks = -torch.arange(logits.shape[1], device=logits.device, dtype=logits.dtype)
            ranks = torch.empty_like(logits).scatter_(1, order, ranks.expand_as(order))
            ranks = torch.where(logits.isfinite(), ranks, logits)  # what is not finite is dropped
            pred_objectness_logits = list(
                ranks.split([x.shape[1] for x in pred_objectness_logits], 1)
            )
        return super().predict_proposals(anchors, pred_objectness_logits, *others)


logger = logging.getLogger(__name__)

# What datasets of people call them, in lower case.
PERSON_NAMES = frozenset(
    {"person", "persons", "people", "human", "humans", "pedestrian", "pedestrians"}
)


def match_classes(theirs: Sequence[str], ours: Sequence[str]) -> list[int]:
    """Return, for each of the model's classes, the index in `ours`, or -1 for none.

    Names match without regard to case; people match under any of their usual names; and where
    we have one class only, the model's person is that class whatever it is called.
    """
    lowered = [name.casefold() for name in ours]
    people = [index for index, name in enumerate(lowered) if name in PERSON_NAMES]
    if len(ours) == 1:
        people = [0]

    def match(name: str) -> int:
        name = name.casefold()
        if name in lowered:
            return lowered.index(name)
        return people[0] if people and name in PERSON_NAMES else -1

    return [match(name) for name in theirs]


class ClassMappedModel(nn.Module):
    """A detector whose predictions are translated to other classes, or dropped.

    Args:
        model: a Detectron2 model; in eval mode it returns a list of `{"instances": Instances}`.
        mapping: for each of its classes ours, or -1.
    """

    mapping: torch.Tensor

    def __init__(self, model: nn.Module, mapping: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mapping", torch.tensor(mapping, dtype=torch.int64), persistent=False)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Predict, keep the detections of our classes, and number them our way."""
        outputs = self.model(batched_inputs)
        translated = []
        for output in outputs:
            instances = output["instances"]
            classes = self.mapping.to(instances.pred_classes.device)[instances.pred_classes]
            kept = instances[classes >= 0]
            kept.pred_classes = classes[classes >= 0]
            translated.append({**output, "instances": kept})
        return translated


def map_classes(model: nn.Module, theirs: Sequence[str], ours: Sequence[str]) -> nn.Module:
    """Wrap `model`, which knows `theirs`, so that it speaks `ours`; itself when they are equal.

    Raises: CheckpointError: when the two have no class in common.
    """
    if tuple(theirs) == tuple(ours):
        return model
    mapping = match_classes(theirs, ours)
    if all(index < 0 for index in mapping):
        raise CheckpointError(
            f"the checkpoint knows {_listed(theirs)}, and the dataset has {_listed(ours)}: no "
            "class in common; train on this dataset first, or name its classes in "
            "DATASETS.ROBOFLOW.CLASSES."
        )
    pairs = [f"{theirs[i]} → {ours[index]}" for i, index in enumerate(mapping) if index >= 0]
    logger.info("Classes of the checkpoint mapped to ours: %s", ", ".join(pairs))
    return ClassMappedModel(model, mapping)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown

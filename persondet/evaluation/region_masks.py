"""Masks from a model's small probabilities to COCO's code, without a mask of the whole picture.

Mask R-CNN predicts 28 x 28 probabilities for each box. Detectron2 resamples them into a mask of
the whole picture for every person, and COCO's code is made of those. Here only the box and a
margin of one pixel is resampled, by the very function that Detectron2 uses on a CPU, and encoded
where it lies: the code is the same, byte for byte.

On a GPU Detectron2 resamples there, the whole picture at once. Here it is done on the CPU always,
and where a probability lies within a rounding error of one half the two may disagree on a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from detectron2.layers.mask_ops import _do_paste_mask
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances, ROIMasks
from torch import nn

from persondet.masks import encode_mask, encode_region

FIELD = "roi_masks"
"""Where `Instances` carry the probabilities, a `ROIMasks`, instead of `pred_masks`."""
THRESHOLD = 0.5  # `detector_postprocess`'s


@contextmanager
def roi_masks_kept(model: nn.Module) -> Iterator[None]:
    """Let the R-CNNs in `model` hand out `roi_masks` instead of `pred_masks` inside the block.

    Boxes, scores, classes and their order stay what they are. Other models are left alone.

    Args:
        model: holds a `GeneralizedRCNN`, or is one; it is as before when the block ends.
    """
    found = [module for module in model.modules() if isinstance(module, GeneralizedRCNN)]
    for module in found:
        module.inference = partial(_inference, module)
    try:
        yield
    finally:
        for module in found:
            del module.inference


def encoded_masks(instances: Instances) -> list[dict[str, Any]] | None:
    """Return the masks of the predictions of one picture in COCO's code; None without masks.

    Args:
        instances: on the CPU, with `pred_boxes` (XYXY_ABS, pixels of the picture) and `roi_masks`
            (N, M, M probabilities) or `pred_masks` (bool, (N, H, W)).

    Returns: for each `{"size": [H, W], "counts": str}`.
    """
    height, width = instances.image_size
    boxes = instances.pred_boxes.tensor
    if instances.has(FIELD):
        probabilities = instances.get(FIELD).tensor
        return [
            _encoded(p[None, None], box[None], height, width)
            for p, box in zip(probabilities, boxes, strict=True)
        ]
    if instances.has("pred_masks"):
        whole = instances.pred_masks.numpy()
        return [encode_mask(mask, box) for mask, box in zip(whole, boxes.numpy(), strict=True)]
    return None


def _encoded(
    probabilities: torch.Tensor, box: torch.Tensor, height: int, width: int
) -> dict[str, Any]:
    """Resample (1, 1, M, M) probabilities into the region of a box, (1, 4), and encode it."""
    pasted, (rows, columns) = _do_paste_mask(probabilities, box, height, width, skip_empty=True)
    region = (pasted[0] >= THRESHOLD).numpy()
    return encode_region(region, int(columns.start), int(rows.start), height, width)


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
    """Scale a raw result to its picture as `detector_postprocess` does, the masks left small.

    Args:
        result: of a box and mask head, with `pred_masks` (float, (N, 1, M, M)); is changed.
        height, width: of the picture, pixels; None: of what the model has seen.

    Returns: as `detector_postprocess`, with `roi_masks` instead of `pred_masks`.
    """
    if result.has("pred_masks"):
        # Under another name, so that they are kept in step and not pasted.
        result.set(FIELD, ROIMasks(result.pred_masks[:, 0]))
        result.remove("pred_masks")
    seen_height, seen_width = result.image_size
    return detector_postprocess(result, height or seen_height, width or seen_width)

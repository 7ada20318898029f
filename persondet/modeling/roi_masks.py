"""R-CNNs that hand out their masks small, as the mask head left them.

Detectron2 resamples the 28 x 28 probabilities of each box into a mask of the whole image before
anybody asks for one; `persondet.inference.masks` pastes only what is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances, ROIMasks
from torch import nn

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

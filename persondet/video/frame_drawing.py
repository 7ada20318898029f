"""Drawing on the frames of a clip, by our visualizer or by any of Detectron2's kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from persondet.region_masks import region_masks_of

if TYPE_CHECKING:
    from detectron2.structures import Instances


class FrameVisualizer(Protocol):
    """What a visualizer must offer; Detectron2's `VideoVisualizer` does.

    Where it has `draw_on(image, instances)`, which draws in place on BGR, that is called instead,
    and where it has `unique_people`, the number of people so far is set before each frame.
    """

    def draw_instance_predictions(self, frame: np.ndarray, predictions: Instances) -> Any:
        """Draw on a frame, uint8 (H, W, 3) RGB; the result has `get_image()`."""


def draw_people(
    image: np.ndarray, instances: Instances, visualizer: FrameVisualizer, unique: int | None = None
) -> np.ndarray:
    """Draw the people of one frame.

    Args:
        image: uint8, (H, W, 3), BGR; may be drawn on.
        instances: on the CPU, with `roi_masks`, `region_masks`, `pred_masks` or no masks.
        visualizer: draws them.
        unique: people so far, where they are tracked.

    Returns: the annotated frame, uint8, (H, W, 3), BGR.
    """
    if hasattr(visualizer, "unique_people"):
        visualizer.unique_people = unique
    if hasattr(visualizer, "draw_on"):
        if not (image.flags.c_contiguous and image.flags.writeable):
            image = np.array(image, order="C")
        visualizer.draw_on(image, instances)
        return image
    frame = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    drawn = visualizer.draw_instance_predictions(frame, with_whole_masks(instances)).get_image()
    return cv2.cvtColor(np.ascontiguousarray(drawn), cv2.COLOR_RGB2BGR)


def with_whole_masks(instances: Instances) -> Instances:
    """Return instances as Detectron2 knows them: `pred_masks`, bool, (N, H, W), if any masks."""
    import torch

    fields = dict(instances.get_fields())
    small = [fields.pop(name, None) for name in ("region_masks", "roi_masks")]
    if small == [None, None]:
        return instances
    masks = region_masks_of(instances)
    assert masks is not None
    whole = np.zeros((len(instances), *instances.image_size), bool)
    for number in range(len(instances)):
        whole[number] = masks.whole(number)
    return type(instances)(instances.image_size, **fields, pred_masks=torch.from_numpy(whole))

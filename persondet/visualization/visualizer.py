"""Detectron2's `VideoVisualizer`, drawn with OpenCV: the same call, fast enough for every frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.structures import Instances
from detectron2.utils.video_visualizer import VideoVisualizer
from detectron2.utils.visualizer import ColorMode, VisImage

from persondet.masks import mask_extent
from persondet.visualization import drawing
from persondet.visualization.colors import ColorAssigner
from persondet.visualization.labels import draw_plate, place_labels, plate_size

MASK_ALPHA = 0.42
BADGE_COLOR: drawing.Color = (32, 32, 32)
BADGE_ALPHA = 0.72


class DrawnImage(VisImage):
    """What `VideoVisualizer` returns, without a matplotlib figure behind it."""

    def __init__(self, image: np.ndarray) -> None:
        """Hold a finished picture: uint8, (H, W, 3), RGB."""
        # VisImage's own constructor opens a figure, which costs more than all the drawing.
        self.img = image
        self.scale = 1.0
        self.height, self.width = image.shape[:2]

    def get_image(self) -> np.ndarray:
        """Return the picture: uint8, (H, W, 3), RGB."""
        return self.img

    def save(self, filepath: str | Path) -> None:
        """Write the picture; the format follows from the name."""
        cv2.imwrite(str(filepath), cv2.cvtColor(self.img, cv2.COLOR_RGB2BGR))


class PersonVideoVisualizer(VideoVisualizer):
    """Draws detections on the frames of a clip, in order.

    A person keeps the colour as long as the boxes of neighbouring frames overlap, or for good where
    the instances carry an `ID`. Sizes follow from the picture's. Instances with keypoints, and
    the methods for segmentation, are left to Detectron2.
    """

    def __init__(
        self,
        metadata: Any,
        instance_mode: ColorMode = ColorMode.IMAGE,
        *,
        masks: bool = True,
        labels: bool = True,
        count: bool = True,
    ) -> None:
        """Choose what is drawn.

        Args:
            metadata: Detectron2's Metadata with `thing_classes`.
            instance_mode: IMAGE, or IMAGE_BW: grey where nobody is.
            masks: tint and outline the masks, where the model makes them.
            labels: write class, score and track beside each box.
            count: write the number of people in view into the upper left corner.
        """
        super().__init__(metadata, instance_mode)
        self._draws_masks, self._draws_labels, self._draws_count = masks, labels, count
        self._colors = ColorAssigner()

    def draw_instance_predictions(self, frame: np.ndarray, predictions: Instances) -> VisImage:
        """Draw one frame's detections.

        Args:
            frame: uint8, (H, W, 3), RGB; left as it is.
            predictions: `pred_boxes scores pred_classes [pred_masks] [ID] [COLOR]`.

        Returns: an object whose `get_image()` is uint8, (H, W, 3), RGB.
        """
        if predictions.has("pred_keypoints"):
            return super().draw_instance_predictions(frame, predictions)
        image = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2BGR)
        self.draw_on(image, predictions)
        return DrawnImage(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))

    def draw_on(self, image: np.ndarray, predictions: Instances) -> None:
        """Draw one frame's detections in place on uint8, (H, W, 3), BGR, contiguous."""
        predictions = predictions.to("cpu")
        boxes = predictions.pred_boxes.tensor.numpy()
        finite = np.isfinite(boxes).all(axis=1)
        if not finite.all():
            predictions, boxes = predictions[finite], boxes[finite]
        masks = predictions.pred_masks if predictions.has("pred_masks") else None
        masks = None if masks is None else np.asarray(masks).astype(bool, copy=False)
        colors = self._colors_of(predictions)
        # The lower edge tells who stands nearer: draw those later.
        order = np.argsort(boxes[:, 3], kind="stable")
        if self._instance_mode == ColorMode.IMAGE_BW:
            _grey_out(image, masks)
        for i in order:
            if masks is not None and self._draws_masks:
                _draw_mask(image, masks[i], boxes[i], colors[i])
        width = drawing.line_width(image)
        for i in order:
            drawing.draw_box(image, boxes[i], colors[i], width=width)
        taken = [self._draw_count(image, len(boxes))] if self._draws_count else []
        if self._draws_labels:
            self._draw_labels(image, predictions, colors, taken)

    def _colors_of(self, predictions: Instances) -> list[drawing.Color]:
        """Return a BGR colour for each instance."""
        if predictions.has("COLOR"):  # Detectron2's convention: RGB, 0..1
            return [tuple(round(255 * float(v)) for v in rgb[::-1]) for rgb in predictions.COLOR]  # type: ignore[misc]
        boxes = predictions.pred_boxes.tensor.numpy()
        if predictions.has("ID"):
            numbers = self._colors.by_track([int(track) for track in predictions.ID], boxes)
        else:
            numbers = self._colors.by_overlap(boxes, predictions.pred_classes.numpy())
        return [drawing.palette_color(number) for number in numbers]

    def _draw_count(self, image: np.ndarray, count: int) -> tuple[int, int, int, int]:
        """Write the number of people in view; return the rectangle that it takes."""
        names = {str(name).lower() for name in self.metadata.get("thing_classes", ())}
        if names <= {"person", "people", "pedestrian", "human"}:
            text = f"{count} {'person' if count == 1 else 'people'} in view"
        else:
            text = f"{count} in view"
        size = font_size(image) * 5 // 4
        margin = size // 2
        draw_plate(image, text, (margin, margin), size, BADGE_COLOR, BADGE_ALPHA)
        width, height = plate_size(text, size)
        return (margin, margin, margin + width, margin + height)

    def _draw_labels(
        self,
        image: np.ndarray,
        predictions: Instances,
        colors: list[drawing.Color],
        taken: list[tuple[int, int, int, int]],
    ) -> None:
        """Write class, score and track of each instance; the surest choose their place first."""
        texts = label_texts(predictions, self.metadata.get("thing_classes", None))
        size = font_size(image)
        boxes = predictions.pred_boxes.tensor.numpy()
        scores = predictions.scores.numpy() if predictions.has("scores") else np.ones(len(boxes))
        order = [int(i) for i in np.argsort(-scores, kind="stable")]
        picture = (image.shape[1], image.shape[0])
        sizes = [plate_size(texts[i], size) for i in order]
        for placement in place_labels(boxes[order], sizes, picture, taken):
            i = order[placement.number]
            draw_plate(image, texts[i], placement.corner, size, colors[i], alpha=0.9)


def font_size(image: np.ndarray) -> int:
    """Return a font size in pixels that can be read on `image`: 11 at 360 lines, 16 at 720."""
    return max(11, round(min(image.shape[:2]) / 45))


def label_texts(predictions: Instances, classes: list[str] | None) -> list[str]:
    """Return "class score" of each instance, with "#track" in front where tracks are known."""
    texts = []
    for i in range(len(predictions)):
        number = int(predictions.pred_classes[i])
        name = classes[number] if classes is not None else str(number)
        track = f"#{int(predictions.ID[i])} " if predictions.has("ID") else ""
        score = f" {float(predictions.scores[i]):.0%}" if predictions.has("scores") else ""
        texts.append(f"{track}{name}{score}")
    return texts


def draw_instances(
    image: np.ndarray, instances: Instances, metadata: Any, **choices: bool
) -> np.ndarray:
    """Draw detections on a single picture.

    Args:
        image: uint8, (H, W, 3), BGR; left as it is.
        instances: `pred_boxes scores pred_classes [pred_masks]`.
        metadata: Detectron2's Metadata with `thing_classes`.
        choices: `masks`, `labels`, `count`, as of `PersonVideoVisualizer`.

    Returns: uint8, (H, W, 3), BGR.
    """
    drawn = np.array(image, order="C")
    PersonVideoVisualizer(metadata, **choices).draw_on(drawn, instances)
    return drawn


def _draw_mask(image: np.ndarray, mask: np.ndarray, box: np.ndarray, color: drawing.Color) -> None:
    """Tint and outline a mask (bool, (H, W)), at the cost of its rectangle."""
    x0, y0, x1, y1 = mask_extent(mask, box)
    if x1 == x0:
        return
    outline = drawing.line_width(image)
    # Room for the outline, half of which lies outside the mask.
    rows = slice(max(0, y0 - outline), y1 + outline)
    columns = slice(max(0, x0 - outline), x1 + outline)
    drawing.draw_mask(
        image[rows, columns], mask[rows, columns], color, alpha=MASK_ALPHA, outline=outline
    )


def _grey_out(image: np.ndarray, masks: np.ndarray | None) -> None:
    """Take the colour out of everything that no mask covers, in place."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if masks is not None and len(masks):
        covered = masks.any(axis=0)
        grey[covered] = image[covered]
    image[:] = grey

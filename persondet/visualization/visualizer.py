"""Detectron2's `VideoVisualizer`, drawn with OpenCV: the same call, fast enough for every frame."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.structures import Instances
from detectron2.utils.video_visualizer import VideoVisualizer
from detectron2.utils.visualizer import ColorMode, VisImage
from torchvision.ops import box_iou

from persondet.inference.masks import RegionMasks, region_masks_of
from persondet.visualization import drawing
from persondet.visualization.labels import (
    LabelLayout,
    Rectangle,
    ShownScores,
    count_text,
    draw_plate,
    label_texts,
    plate_size,
)

OUTLINE = 0.6  # width of a mask's outline, of a box's line
BADGE_COLOR: drawing.Color = (32, 32, 32)
BADGE_ALPHA = 0.72
LEGIBLE = 100  # the shorter side, in pixels, of an image on which text leaves room for people

# Two boxes of neighbouring frames that overlap by this much are the same person.
SAME_PERSON_IOU = 0.3
# Frames that a person who is not seen keeps the colour.
PATIENCE = 12
# People whose colour is remembered: hours of a busy street, and no end to the clip.
MOST_PEOPLE = 4096


@dataclass(frozen=True)
class _Seen:
    """A person's colour number, class, the frame when they were last seen, and their box there."""

    color: int
    label: int
    last: int
    box: np.ndarray


class ColorAssigner:
    """Tells who is who from frame to frame, and in which colour of the palette."""

    def __init__(self) -> None:
        """Start without memory."""
        self._names = itertools.count()
        self._seen: OrderedDict[Hashable, _Seen] = OrderedDict()  # the latest last
        self._frame = 0

    def assign(
        self, boxes: np.ndarray, labels: np.ndarray, tracks: Sequence[Hashable] | None = None
    ) -> tuple[list[Hashable], list[int]]:
        """Return who each box of a frame belongs to, and the palette number of each.

        Args:
            boxes: (N, 4), XYXY_ABS, pixels.
            labels: (N,), class numbers.
            tracks: the N identities; None: a box that overlaps an old one of its class is the same.
        """
        self._frame += 1
        latest = reversed(self._seen.items())
        recent = dict(
            itertools.takewhile(lambda one: self._frame - one[1].last <= PATIENCE + 1, latest)
        )
        keys = self._match(recent, boxes, labels) if tracks is None else list(tracks)
        away = [one for key, one in recent.items() if key not in keys]
        known = [self._seen[key].color if key in self._seen else None for key in keys]
        numbers = _fill(known, boxes, away)
        for key, number, label, box in zip(keys, numbers, labels, boxes, strict=True):
            self._seen[key] = _Seen(number, int(label), self._frame, np.array(box, np.float64))
            self._seen.move_to_end(key)
        while len(self._seen) > max(MOST_PEOPLE, len(keys)):
            self._seen.popitem(last=False)
        return keys, numbers

    def _match(
        self, recent: dict[Hashable, _Seen], boxes: np.ndarray, labels: np.ndarray
    ) -> list[Hashable]:
        """Return a key for each box: of the earlier person it overlaps most, or a new one."""
        keys: list[Hashable] = [None] * len(boxes)
        old = list(recent.items())
        if old and len(boxes):
            before = torch.from_numpy(np.stack([one.box for _, one in old]))
            iou = box_iou(before, torch.from_numpy(boxes.astype(np.float64))).nan_to_num().numpy()
            iou[np.array([one.label for _, one in old])[:, None] != labels] = 0
            while iou.max() >= SAME_PERSON_IOU:
                i, j = np.unravel_index(iou.argmax(), iou.shape)
                keys[j] = old[i][0]
                iou[i], iou[:, j] = 0, 0
        return [next(self._names) if key is None else key for key in keys]


def _fill(numbers: Sequence[int | None], boxes: np.ndarray, away: Sequence[_Seen]) -> list[int]:
    """Choose palette numbers where there is None yet: those whose next bearer is farthest away.

    Colours that nobody in view has come first. People who are `away` for a moment count as near as
    they were.
    """
    filled = list(numbers)
    places = np.concatenate([boxes, *(one.box[None] for one in away)])
    centres = (places[:, :2] + places[:, 2:]) / 2

    def preference(color: int, i: int) -> tuple[bool, float, int]:
        taken = [*filled, *(one.color for one in away)]
        same = [j for j, number in enumerate(taken) if number == color]
        distance = np.abs(centres[same] - centres[i]).sum(axis=1).min() if same else np.inf
        return (color in filled, -float(distance), color)

    for i, number in enumerate(filled):
        if number is None:
            filled[i] = min(preference(color, i) for color in range(len(drawing.PALETTE)))[2]
    return [number for number in filled if number is not None]


class DrawnImage(VisImage):
    """What `VideoVisualizer` returns, without a matplotlib figure behind it."""

    def __init__(self, image: np.ndarray) -> None:
        """Hold a finished image: uint8, (H, W, 3), RGB."""
        # VisImage's own constructor opens a figure, which costs more than all the drawing.
        self.img = image
        self.scale = 1.0
        self.height, self.width = image.shape[:2]

    def get_image(self) -> np.ndarray:
        """Return the image: uint8, (H, W, 3), RGB."""
        return self.img

    def save(self, filepath: str | Path) -> None:
        """Write the image; the format follows from the name."""
        cv2.imwrite(str(filepath), cv2.cvtColor(self.img, cv2.COLOR_RGB2BGR))


class PersonVideoVisualizer(VideoVisualizer):
    """Draws detections on the frames of a clip, in order.

    A person keeps the colour as long as the boxes of neighbouring frames overlap, or for good where
    the instances carry an `ID`; labels keep their place. Sizes follow from the image's, and text is
    left out where its shorter side is below `LEGIBLE`. Instances
    with keypoints, and the methods for segmentation, are left to Detectron2.

    Attributes:
        unique_people: people since the clip began, if somebody counts them; shown with the count.
    """

    def __init__(
        self,
        metadata: Any,
        instance_mode: ColorMode = ColorMode.IMAGE,
        *,
        masks: bool = True,
        labels: bool = True,
        count: bool = True,
        boxes: bool = True,
    ) -> None:
        """Choose what is drawn.

        Args:
            metadata: Detectron2's Metadata with `thing_classes`.
            instance_mode: IMAGE, or IMAGE_BW: grey where nobody is.
            masks: tint and outline the masks, where the model makes them.
            labels: write class, score and track beside each box.
            count: write the number of people in view into the upper left corner.
            boxes: draw the boxes.
        """
        super().__init__(metadata, instance_mode)
        self.unique_people: int | None = None
        self._draws_masks, self._draws_labels, self._draws_count = masks, labels, count
        self._draws_boxes = boxes
        self._colors, self._layout, self._scores = ColorAssigner(), LabelLayout(), ShownScores()

    def draw_instance_predictions(self, frame: np.ndarray, predictions: Instances) -> VisImage:
        """Draw one frame's detections.

        Args:
            frame: uint8, (H, W, 3), RGB; left as it is.
            predictions: as of `draw_on`.

        Returns: an object whose `get_image()` is uint8, (H, W, 3), RGB.
        """
        if predictions.has("pred_keypoints"):
            return super().draw_instance_predictions(frame, predictions)
        image = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2BGR)
        self.draw_on(image, predictions)
        return DrawnImage(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))

    def draw_on(self, image: np.ndarray, predictions: Instances) -> None:
        """Draw one frame's detections in place.

        Args:
            image: uint8, (H, W, 3), BGR, contiguous.
            predictions: of this size, `pred_boxes pred_classes [scores] [ID] [COLOR]`, and masks as
                `pred_masks`, `region_masks` or `roi_masks`.
        """
        predictions = predictions.to("cpu")
        boxes = predictions.pred_boxes.tensor.numpy()
        finite = np.isfinite(boxes).all(axis=1)
        if not finite.all():
            predictions = predictions[torch.from_numpy(np.flatnonzero(finite))]
            boxes = boxes[finite]
        grey = self._instance_mode == ColorMode.IMAGE_BW
        masks = region_masks_of(predictions) if self._draws_masks or grey else None
        keys, colors = self._people(predictions, boxes)
        # The lower edge tells who stands nearer: draw those later.
        order = np.argsort(boxes[:, 3], kind="stable")
        if grey:
            _grey_out(image, masks)
        width = drawing.stroke_width(image)
        if masks is not None and self._draws_masks:
            outline = max(1, round(OUTLINE * width))
            for i in order:
                region, corner = masks.regions[i], masks.corners[i]
                drawing.draw_region(image, region, corner, colors[i], outline=outline)
        for i in order if self._draws_boxes else ():
            drawing.draw_box(image, boxes[i], colors[i], width=width)
        legible = min(image.shape[:2]) >= LEGIBLE
        taken = self._draw_count(image, len(boxes)) if self._draws_count and legible else []
        if self._draws_labels and legible:
            self._draw_labels(image, predictions, keys, colors, taken)

    def _people(
        self, predictions: Instances, boxes: np.ndarray
    ) -> tuple[list[Hashable], list[drawing.Color]]:
        """Return who each instance is, the same in every frame, and a BGR colour for each."""
        tracks = [int(track) for track in predictions.ID] if predictions.has("ID") else None
        keys, numbers = self._colors.assign(boxes, predictions.pred_classes.numpy(), tracks)
        colors = [drawing.palette_color(number) for number in numbers]
        if predictions.has("COLOR"):  # Detectron2's convention: RGB, 0..1
            colors = [tuple(round(255 * float(v)) for v in rgb[::-1]) for rgb in predictions.COLOR]  # type: ignore[misc]
        return keys, colors

    def _draw_count(self, image: np.ndarray, count: int) -> list[Rectangle]:
        """Write the number of people in view if there is room; return the rectangle it takes."""
        text = count_text(count, self.unique_people, self.metadata.get("thing_classes", ()))
        size = font_size(image) * 5 // 4
        margin = size // 2
        width, height = plate_size(text, size)
        if width + 2 * margin > image.shape[1]:
            return []
        draw_plate(image, text, (margin, margin), size, BADGE_COLOR, BADGE_ALPHA)
        return [(margin, margin, margin + width, margin + height)]

    def _draw_labels(
        self,
        image: np.ndarray,
        predictions: Instances,
        keys: list[Hashable],
        colors: list[drawing.Color],
        taken: list[Rectangle],
    ) -> None:
        """Write class, score and track of each instance; the surest choose their place first."""
        size = font_size(image)
        boxes = predictions.pred_boxes.tensor.numpy()
        scores = predictions.scores.numpy() if predictions.has("scores") else np.ones(len(boxes))
        shown = self._scores.update(keys, scores) if predictions.has("scores") else None
        texts = label_texts(predictions, self.metadata.get("thing_classes", None), shown)
        order = [int(i) for i in np.argsort(-scores, kind="stable")]
        placements = self._layout.place(
            [keys[i] for i in order],
            boxes[order],
            [[plate_size(text, size) for text in texts[i]] for i in order],
            (image.shape[1], image.shape[0]),
            taken,
        )
        for number, version, corner in placements:
            i = order[number]
            draw_plate(image, texts[i][version], corner, size, colors[i])


def font_size(image: np.ndarray) -> int:
    """Return a font size in pixels that can be read on `image`: 11 at 360 lines, 16 at 720."""
    return max(11, round(min(image.shape[:2]) / 45))


def draw_instances(
    image: np.ndarray, instances: Instances, metadata: Any, **choices: bool
) -> np.ndarray:
    """Draw detections on a single image.

    Args:
        image: uint8, (H, W, 3), BGR; left as it is.
        instances: `pred_boxes scores pred_classes [pred_masks]`.
        metadata: Detectron2's Metadata with `thing_classes`.
        choices: `masks`, `labels`, `count`, `boxes`, as of `PersonVideoVisualizer`.

    Returns: uint8, (H, W, 3), BGR.
    """
    drawn = np.array(image, order="C")
    PersonVideoVisualizer(metadata, **choices).draw_on(drawn, instances)
    return drawn


def _grey_out(image: np.ndarray, masks: RegionMasks | None) -> None:
    """Take the colour out of everything that no mask covers, in place."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    for region, (x, y) in masks or ():
        place = (slice(y, y + region.shape[0]), slice(x, x + region.shape[1]))
        grey[place][region] = image[place][region]
    image[:] = grey

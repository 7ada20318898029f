"""A street for the video benchmark, without a model: ten people who walk, and what a model sees."""

from __future__ import annotations

import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.structures import Boxes, Instances, ROIMasks

from persondet.inference.masks import ROI_FIELD
from persondet.video.writer import VideoWriter

PEOPLE = 10  # on each frame
FPS = 25
_MASK = 28  # pixels of the mask head's output
_SPEED = 2.0  # pixels per frame, at 1280 pixels


def street(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Return a background with large shapes and fine grain: uint8, (H, W, 3), BGR."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (height // 80 + 1, width // 80 + 1, 3), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = random.integers(-4, 5, image.shape, np.int16)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def raw_people(index: int, width: int, height: int) -> Instances:
    """Return the raw result of a mask head for frame `index`: the same one at every call.

    Returns: `pred_boxes` (XYXY_ABS, pixels), `scores`, `pred_classes` and `pred_masks` (float32,
    (10, 1, 28, 28), 0..1) of people who cross the picture to both sides.
    """
    boxes = []
    for number in range(PEOPLE):
        tall = height * (0.25 + 0.05 * number)
        wide = tall * 0.4
        way = _SPEED * width / 1280 * index * (1 if number % 2 else -1)
        left = (number * width / PEOPLE + way) % (width - wide)
        top = height * 0.95 - tall - number % 3 * height * 0.03
        boxes.append([left, top, left + wide, top + tall])
    result = Instances((height, width))
    result.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
    result.scores = torch.linspace(0.99, 0.6, PEOPLE)
    result.pred_classes = torch.zeros(PEOPLE, dtype=torch.int64)
    result.pred_masks = torch.from_numpy(_probabilities()).repeat(PEOPLE, 1, 1, 1)
    return result


def small_masks(result: Instances) -> Instances:
    """Return a raw result as `Predictor.predict_frames` gives it: with `roi_masks`."""
    fields = result.get_fields()
    fields = {name: field for name, field in fields.items() if name != "pred_masks"}
    masks = ROIMasks(result.pred_masks[:, 0])
    return Instances(result.image_size, **fields, **{ROI_FIELD: masks})


def write_street(path: Path, frames: int, size: tuple[int, int]) -> Path:
    """Write a clip of `frames` frames of (width, height): a pan over a background, and back."""
    width, height = size
    wide = street(width + 64, height)
    steps = [*range(0, 64, 2), *range(64, 0, -2)]
    with VideoWriter(
        path, width=width, height=height, fps=Fraction(FPS), preset="ultrafast", overwrite=True
    ) as writer:
        for index in range(frames):
            left = steps[index % len(steps)]
            writer.write(wide[:, left : left + width], Fraction(index, FPS))
    return path


class SimulatedPredictor:
    """Stands in for a model on another device: waits, and finds the ten people of each frame.

    Frames must come in order.
    """

    def __init__(self, metadata: object, seconds: float, batch_size: int = 4) -> None:
        """`seconds`: how long one frame takes; the processor is free meanwhile."""
        self.metadata, self.seconds, self.batch_size = metadata, seconds, batch_size
        self.confidence_threshold, self.model_file = 0.5, "simulated"
        self.frames = 0

    def predict_frames(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Return ten people with small masks for each frame."""
        return [small_masks(result) for result in self.raw(images)]

    predict_batch = predict_frames

    def raw(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Return the raw results of the next frames."""
        if self.seconds:
            time.sleep(self.seconds * len(images))
        found = []
        for image in images:
            height, width = image.shape[:2]
            found.append(raw_people(self.frames, width, height))
            self.frames += 1
        return found


def _probabilities() -> np.ndarray:
    """Return a head, a body and two legs, soft at the edges: float32, (1, 28, 28), 0..1."""
    y, x = np.mgrid[0:_MASK, 0:_MASK] / (_MASK - 1.0) * 2 - 1
    head = 0.22 - np.hypot(x, y + 0.76)
    body = 0.5 - np.hypot(x * 1.1, (y + 0.1) * 0.9)
    legs = np.minimum(0.22 - np.abs(np.abs(x) - 0.3), np.minimum(1 - y, y + 0.05))
    inside = np.maximum(np.maximum(head, body), legs)
    return (1 / (1 + np.exp(-18 * inside)))[None].astype(np.float32)

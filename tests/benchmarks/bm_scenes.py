"""What the benchmarks measure with: people without a photograph, and results without a model."""

import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.structures import Boxes, Instances, ROIMasks, pairwise_iou

from persondet.data.coco_json import write_coco
from persondet.inference.masks import ROI_FIELD
from persondet.video.writer import VideoWriter

PEOPLE = 10  # in each image
SIZE = (1280, 720)  # width and height of an image, pixels
FPS = 25


def outlines(
    rng: np.random.Generator, size: tuple[int, int], count: int = PEOPLE, corners: int = 30
) -> np.ndarray:
    """Return upright outlines with rough edges, a tenth to six tenths of the image's height tall.

    Returns: float64, (count, corners, 2), x and y, pixels, inside the image (width, height).
    """
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    circle = np.stack((np.cos(turn), np.sin(turn)), axis=1)
    radii = rng.uniform(0.05, 0.3, (count, 1, 1)) * size[1]
    radii = radii * np.stack((rng.uniform(0.3, 0.5, (count, 1)), np.ones((count, 1))), axis=2)
    centre = rng.uniform(radii, np.array(size) - radii)
    return np.round(centre + radii * circle * rng.uniform(0.8, 1, (count, corners, 1)), 3)


def boxes_of(people: np.ndarray) -> np.ndarray:
    """Return the boxes of outlines: float64, (N, 4), XYXY_ABS, pixels."""
    return np.concatenate((people.min(axis=1), people.max(axis=1)), axis=1)


def coco_of(
    images: Sequence[np.ndarray], size: tuple[int, int] = SIZE, split: str = "train"
) -> dict[str, Any]:
    """Return the COCO json of the outlines of each image; ids from 1, names as Roboflow's."""
    crowd = [(number, outline) for number, people in enumerate(images, 1) for outline in people]
    boxes = boxes_of(np.stack([outline for _, outline in crowd]))
    boxes[:, 2:] -= boxes[:, :2]
    frame = {"width": size[0], "height": size[1]}
    person = {"category_id": 1, "iscrowd": 0}
    rows = enumerate(zip(crowd, boxes.tolist(), strict=True), start=1)
    return {
        "info": {},
        "categories": [{"id": 1, "name": "person", "supercategory": "none"}],
        "images": [
            {"id": number, "file_name": f"{split}_{number:06d}_jpg.rf.{number:032x}.jpg", **frame}
            for number in range(1, len(images) + 1)
        ],
        "annotations": [
            {
                **{"id": number, "image_id": image_id, **person, "bbox": box},
                "area": float(cv2.contourArea(outline.astype(np.float32))),
                "segmentation": [outline.ravel().tolist()],
            }
            for number, ((image_id, outline), box) in rows
        ],
    }


def background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Return smooth colours under fine noise, uint8 (H, W, 3): its JPEG is a photograph's size."""
    coarse = rng.integers(0, 256, (size[1] // 40 + 1, size[0] // 40 + 1, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def write_export(root: Path, counts: Mapping[str, int]) -> None:
    """Write an export in Roboflow's layout, the same for the same `counts`: split → JPEGs."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        (root / split).mkdir(parents=True)
        coco = coco_of([outlines(rng, SIZE) for _ in range(count)], split=split)
        for image in coco["images"]:
            path = root / split / image["file_name"]
            cv2.imwrite(str(path), background(rng, SIZE), [cv2.IMWRITE_JPEG_QUALITY, 85])
        write_coco(root / split / "_annotations.coco.json", coco)


def raw_result(boxes: np.ndarray, scores: np.ndarray, size: tuple[int, int]) -> Instances:
    """Return what a mask head would say of people in boxes (N, 4), XYXY_ABS, pixels.

    Returns: `pred_boxes`, `scores`, `pred_classes`, `pred_masks` (float32, (N, 1, 28, 28), 0..1).
    """
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 28)] * 2, indexing="ij")
    mask = torch.sigmoid(18 * (0.9 - torch.hypot(x, y)))
    return Instances(
        (size[1], size[0]),
        pred_boxes=Boxes(torch.as_tensor(boxes, dtype=torch.float32)),
        scores=torch.as_tensor(scores, dtype=torch.float32),
        pred_classes=torch.zeros(len(boxes), dtype=torch.int64),
        pred_masks=mask.repeat(len(boxes), 1, 1, 1),
    )


def raw_people(index: int, size: tuple[int, int] = SIZE) -> Instances:
    """Return the raw result for frame `index`, the same at every call: ten people who cross it."""
    width, height = size
    number = np.arange(PEOPLE)
    tall = height * (0.25 + 0.05 * number)
    wide = tall * 0.4
    way = width / 640 * index * np.where(number % 2, 1, -1)
    left = (number * width / PEOPLE + way) % (width - wide)
    top = height * 0.95 - tall - number % 3 * height * 0.03
    boxes = np.stack((left, top, left + wide, top + tall), axis=1)
    return raw_result(boxes, np.linspace(0.99, 0.6, PEOPLE), size)


def small_masks(result: Instances) -> Instances:
    """Return a raw result as `Predictor.predict_frames` gives it: with `roi_masks`."""
    fields = result.get_fields() | {ROI_FIELD: ROIMasks(result.pred_masks[:, 0])}
    del fields["pred_masks"]
    return Instances(result.image_size, **fields)


def same_objects(first: Boxes, second: Boxes, least: float) -> list[tuple[int, int]]:
    """Return the pairs of boxes that overlap each other best, with an IoU of at least `least`."""
    overlap = pairwise_iou(first, second)
    if not overlap.numel():
        return []
    best, back = overlap.argmax(dim=1).tolist(), overlap.argmax(dim=0).tolist()
    return [(i, j) for i, j in enumerate(best) if back[j] == i and overlap[i, j] >= least]


def write_street(path: Path, frames: int, size: tuple[int, int]) -> Path:
    """Write a clip of `frames` frames of (width, height): a pan over a background, and back."""
    wide = background(np.random.default_rng(0), (size[0] + 64, size[1]))
    kind: dict[str, Any] = {"fps": Fraction(FPS), "preset": "ultrafast", "overwrite": True}
    with VideoWriter(path, width=size[0], height=size[1], **kind) as writer:
        for index in range(frames):
            left = 64 - abs(2 * index % 128 - 64)
            writer.write(wide[:, left : left + size[0]], Fraction(index, FPS))
    return path


class SimulatedPredictor:
    """Stands in for a model on another device: waits, and detects ten people in each next frame."""

    confidence_threshold, model_file, batch_size, frames = 0.5, "simulated", 4, 0

    def __init__(self, metadata: object, seconds: float) -> None:
        """`seconds`: how long one frame takes; the processor is free meanwhile."""
        self.metadata, self.seconds = metadata, seconds

    def predict_frames(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Return ten people with small masks for each frame."""
        return [small_masks(self.raw(image)) for image in images]

    predict_batch = predict_frames

    def raw(self, image: np.ndarray) -> Instances:
        """Return the raw result of the next frame."""
        time.sleep(self.seconds)
        self.frames += 1
        return raw_people(self.frames - 1, (image.shape[1], image.shape[0]))

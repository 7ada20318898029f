"""Images to score without a picture or a model: annotations, and what a detector might have said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances

HEIGHT, WIDTH = 480, 640  # COCO's usual picture
PEOPLE = 10  # on each image
_KINDS = 32  # images that differ; the others repeat them under other ids, with other scores
_CORNERS = 30
_MASK = 28  # pixels of the mask head's output


@dataclass(frozen=True)
class Scene:
    """One image: its annotated outlines, and the raw result of a detector.

    Attributes:
        outlines: float64, (PEOPLE, _CORNERS, 2), x and y, pixels.
        boxes: float32, (PEOPLE, 4), XYXY_ABS, pixels: of the predictions.
        probabilities: float32, (PEOPLE, 1, 28, 28).
        pasted: bool, (PEOPLE, HEIGHT, WIDTH): the masks as Detectron2's evaluator gets them.
    """

    outlines: np.ndarray
    boxes: torch.Tensor
    probabilities: torch.Tensor
    pasted: torch.Tensor


def make_scenes(seed: int = 0) -> list[Scene]:
    """Return images with outlines of a person's shape, and predictions some pixels beside them."""
    rng = np.random.default_rng(seed)
    return [_scene(rng) for _ in range(_KINDS)]


def write_ground_truth(path: Path, scenes: list[Scene], images: int) -> None:
    """Write the COCO json of `images` images, ids from 1."""
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, images + 1):
        for outline in scenes[image_id % len(scenes)].outlines:
            low, high = outline.min(axis=0), outline.max(axis=0)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "bbox": [*low.tolist(), *(high - low).tolist()],
                    "area": _area(outline),
                    "segmentation": [outline.ravel().tolist()],
                    "iscrowd": 0,
                }
            )
    coco = {
        "info": {},
        "categories": [{"id": 1, "name": "person"}],
        "images": [
            {"id": image_id, "file_name": f"{image_id}.jpg", "height": HEIGHT, "width": WIDTH}
            for image_id in range(1, images + 1)
        ],
        "annotations": annotations,
    }
    path.write_text(json.dumps(coco), encoding="utf-8")


def predictions(
    scenes: list[Scene], images: int, *, raw: bool = False
) -> Iterator[tuple[dict[str, Any], Instances]]:
    """Yield the input and the result of each image; the same ones at every call.

    Args:
        scenes: from `make_scenes`.
        images: how many.
        raw: the mask head's output (`pred_masks` float32, (N, 1, 28, 28)) instead of whole masks.
    """
    rng = np.random.default_rng(1)
    for image_id in range(1, images + 1):
        scene = scenes[image_id % len(scenes)]
        result = Instances((HEIGHT, WIDTH))
        result.pred_boxes = Boxes(scene.boxes.clone())
        scores = np.sort(rng.uniform(0.05, 1.0, PEOPLE))[::-1].astype(np.float32)
        result.scores = torch.from_numpy(scores.copy())
        result.pred_classes = torch.zeros(PEOPLE, dtype=torch.int64)
        result.pred_masks = scene.probabilities if raw else scene.pasted
        yield {"image_id": image_id, "height": HEIGHT, "width": WIDTH}, result


def _scene(rng: np.random.Generator) -> Scene:
    turn = np.linspace(0.0, 2.0 * np.pi, _CORNERS, endpoint=False)
    circle = np.stack((np.cos(turn) * (1 + 0.1 * np.sin(5 * turn)), np.sin(turn)), axis=1)
    outlines, boxes = [], []
    for _ in range(PEOPLE):
        tall = rng.uniform(0.1, 0.6) * HEIGHT
        half = np.array([tall * rng.uniform(0.3, 0.5), tall]) / 2
        centre = rng.uniform(half, np.array([WIDTH, HEIGHT]) - half)
        outline = np.clip(centre + half * circle, 0, (WIDTH, HEIGHT)).round(2)
        outlines.append(outline)
        beside = np.concatenate((outline.min(axis=0), outline.max(axis=0)))
        boxes.append(beside + rng.normal(0, 0.03, 4) * tall)
    kept = np.clip(boxes, 0, [WIDTH, HEIGHT] * 2).astype(np.float32)
    across = (np.arange(_MASK) + 0.5) / _MASK * 2 - 1
    distance = across[:, None] ** 2 + across[None] ** 2
    steep = rng.uniform(3, 8, (PEOPLE, 1, 1, 1))
    probabilities = torch.from_numpy((1 / (1 + np.exp(steep * (distance - 1)))).astype(np.float32))
    raw = Instances((HEIGHT, WIDTH))
    raw.pred_boxes, raw.pred_masks = Boxes(torch.from_numpy(kept.copy())), probabilities
    pasted = detector_postprocess(raw, HEIGHT, WIDTH).pred_masks
    return Scene(np.array(outlines), torch.from_numpy(kept), probabilities, pasted)


def _area(outline: np.ndarray) -> float:
    x, y = outline.T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)

"""Inference on overlapping tiles and the whole image, for small and far people.

A detector sees an image at a fixed size, and on a wide shot a person may be a few pixels high in
it. A tile goes through the same detector at the same size, so everything in it is larger. Where
several views show one object, their masks tell: boxes of people in a crowd overlap, masks hardly.

Source: Akyon et al., "Slicing Aided Hyper Inference and Fine-tuning for Small Object Detection",
ICIP 2022, for tiles beside the whole image; the merging by masks is ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.structures import Boxes, Instances
from detectron2.structures.boxes import pairwise_intersection
from torch import nn

from persondet.inference.masks import (
    REGION_FIELD,
    RegionMasks,
    region_intersection,
    region_masks_of,
)

OVERLAP = 0.2
"""Share of a tile that its neighbour shows too; a person no larger than that is whole in one."""
_SAME = 0.5  # IoU of two detections of one object
_PART = 0.7  # share of a detection that lies in another one when it is a part of that
_AT_EDGE = 0.01  # of the tile's side: closer to a cut than that, a box is cut


def tile_rectangles(size: tuple[int, int], tiles: tuple[int, int]) -> list[tuple[int, ...]]:
    """Return the tiles of an image, row by row.

    Args:
        size: (H, W) of the image, pixels.
        tiles: columns and rows.

    Returns: (x0, y0, x1, y1) of each, whole pixels, x1 and y1 excluded. Tiles of an image have one
    size, cover it, and share at least `OVERLAP` of their sides with their neighbours.
    """
    spans = []
    for length, count in ((size[1], tiles[0]), (size[0], tiles[1])):
        side = min(length, int(np.ceil(length / (count - OVERLAP * (count - 1)))))
        starts = np.floor(np.linspace(0, length - side, count)).astype(int).tolist()
        spans.append([(start, start + side) for start in starts])
    return [(x0, y0, x1, y1) for y0, y1 in spans[1] for x0, x1 in spans[0]]


def whole_size(cfg: CfgNode) -> CfgNode:
    """Return the config of a loader whose images a `TiledModel` gets: in their own size."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.MIN_SIZE_TEST = 0
    return cfg


class TiledModel(nn.Module):
    """A detector that looks at whole images and at their tiles.

    Args:
        cfg: with `TEST.TILES`, `TEST.DETECTIONS_PER_IMAGE`, `INPUT.MIN_SIZE_TEST` and
            `INPUT.MAX_SIZE_TEST`; the whole image and each tile are resized by the last two.
        model: takes and returns what a `GeneralizedRCNN` does in inference.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.tiles = tuple(cfg.TEST.TILES)
        self.limit = cfg.TEST.DETECTIONS_PER_IMAGE
        edge = cfg.INPUT.MIN_SIZE_TEST
        self._resize = ResizeShortestEdge([edge, edge], cfg.INPUT.MAX_SIZE_TEST)
        self.at_once = 8 if cfg.MODEL.DEVICE.startswith("cuda") else 2
        self.train(model.training)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Detect in images, each by itself.

        Args:
            batched_inputs: `image` uint8 (C, H, W) in the image's own size, in the channel order of
                the model.

        Returns: for each `instances` on the CPU by falling score, in pixels of the given image, at
        most `TEST.DETECTIONS_PER_IMAGE`; their masks as `region_masks`.
        """
        return [{"instances": self._detect(asked["image"])} for asked in batched_inputs]

    def _detect(self, image: torch.Tensor) -> Instances:
        pixels = np.ascontiguousarray(image.cpu().numpy().transpose(1, 2, 0))
        size = pixels.shape[:2]
        rectangles = [(0, 0, size[1], size[0]), *tile_rectangles(size, self.tiles)]
        inputs = [self._view(pixels[y0:y1, x0:x1]) for x0, y0, x1, y1 in rectangles]
        outputs: list[Instances] = []
        for start in range(0, len(inputs), self.at_once):
            found = self.model(inputs[start : start + self.at_once])
            outputs += [output["instances"].to("cpu") for output in found]
        placed = [
            _placed(instances, rectangle, size)
            for instances, rectangle in zip(outputs, rectangles, strict=True)
        ]
        return merge_views(placed, self.limit)

    def _view(self, pixels: np.ndarray) -> dict[str, Any]:
        height, width = pixels.shape[:2]
        resized = self._resize.get_transform(pixels).apply_image(pixels)
        tensor = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}


def _placed(instances: Instances, rectangle: tuple[int, ...], size: tuple[int, int]) -> Instances:
    """Return a view's detections in the image; those that the edge of a tile cuts are left out."""
    x0, y0, x1, y1 = rectangle
    masks = region_masks_of(instances)
    boxes = instances.pred_boxes.tensor.float() + torch.tensor([x0, y0, x0, y0])
    fields: dict[str, Any] = {
        "pred_boxes": Boxes(boxes),
        "scores": instances.scores.float(),
        "pred_classes": instances.pred_classes,
    }
    if masks is not None:
        corners = [(x + x0, y + y0) for x, y in masks.corners]
        fields[REGION_FIELD] = RegionMasks(masks.regions, corners, size)
    if instances.has("appearance"):
        fields["appearance"] = instances.get("appearance")
    near_x, near_y = _AT_EDGE * (x1 - x0), _AT_EDGE * (y1 - y0)
    low = torch.tensor([x0 + near_x if x0 else -1.0, y0 + near_y if y0 else -1.0])
    high = torch.tensor(
        [x1 - near_x if x1 < size[1] else x1 + 1.0, y1 - near_y if y1 < size[0] else y1 + 1.0]
    )
    whole = (boxes[:, :2] > low).all(1) & (boxes[:, 2:] < high).all(1)
    return Instances(size, **fields)[whole]


def merge_views(views: list[Instances], limit: int) -> Instances:
    """Return the detections of several views of an image, each object once.

    Of two detections of one object, the one with the higher score stays. A detection that is part
    of a larger one goes, and stays only if its score is more than twice the larger one's, or if
    both come from one view: there the detector's own suppression has decided.

    Args:
        views: on the CPU, in pixels of the image, with `pred_boxes`, `scores`, `pred_classes` and,
            if the model has masks, `region_masks`. The first is the whole image.
        limit: how many detections to return at most.
    """
    view = np.repeat(np.arange(len(views)), [len(one) for one in views])
    found = Instances.cat(views)
    order = torch.argsort(found.scores, descending=True, stable=True)
    found, view = found[order], view[order.numpy()]
    scores, classes = found.scores.numpy(), found.pred_classes.numpy()
    areas, shared = _overlaps(found)
    stays = np.ones(len(found), bool)
    for i, j in np.argwhere(np.triu(shared > 0, 1) & (view[:, None] != view)):
        if not stays[i] or not stays[j] or classes[i] != classes[j]:
            continue
        if shared[i, j] > _SAME * (areas[i] + areas[j] - shared[i, j]):
            stays[j] = False
        elif shared[i, j] > _PART * min(areas[i], areas[j]):
            # j has the lower score.
            part = j if areas[j] < areas[i] else i
            if part == j or scores[j] >= scores[i] / 2:
                stays[part] = False
    return found[torch.from_numpy(np.flatnonzero(stays)[:limit])]


def _overlaps(found: Instances) -> tuple[np.ndarray, np.ndarray]:
    """Return the areas (N,) and the areas of the pairs' intersections (N, N), by mask or by box."""
    boxes: Boxes = found.pred_boxes
    shared = pairwise_intersection(boxes, boxes).numpy().astype(np.float64)
    if not found.has(REGION_FIELD):
        return boxes.area().numpy(), shared
    masks: RegionMasks = found.get(REGION_FIELD)
    areas = np.array([region.sum() for region in masks.regions], np.float64)
    for i, j in np.argwhere(np.triu(shared > 0, 1)):
        a, b = ((masks.regions[k], masks.corners[k]) for k in (i, j))
        shared[i, j] = region_intersection(*a, *b)
    return areas, shared

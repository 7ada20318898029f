"""The shapes of one image's annotations on their way through augmentation and resizing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pycocotools.mask as mask_util
import torch
from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    Instances,
    PolygonMasks,
    polygons_to_bitmask,
)

from persondet.data.polygons import (
    FloatArray,
    clip_polygon,
    extent,
    polygon_area,
    transform_points,
)
from persondet.errors import DatasetError

Mask = npt.NDArray[np.uint8]


@dataclass
class InstanceShapes:
    """Annotations of one image; lists of one length, one entry per annotation.

    Attributes:
        height, width: of the image that the shapes lie in, in pixels.
        classes: contiguous class numbers.
        boxes: XYXY_ABS, float64, (N, 4); may leave the image.
        polygons: per annotation its parts, each float64 (P, 2); None when it has no polygons.
        rasters: per annotation a mask uint8 (height, width) of 0 and 1; None when it has none.
        visible: the share of its area that the annotation has kept so far.
    """

    height: int
    width: int
    classes: list[int]
    boxes: FloatArray
    polygons: list[list[FloatArray] | None]
    rasters: list[Mask | None]
    visible: list[float] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        dataset_dict: dict[str, Any],
        size: tuple[int, int],
        *,
        use_masks: bool,
        rasterise: bool,
    ) -> InstanceShapes:
        """Read the annotations of a standard dataset dict, without those of crowds.

        Args:
            size: height and width of the image.
            use_masks: read the masks, not only the boxes.
            rasterise: turn polygons into rasters.

        Raises: DatasetError: when masks are used and an annotation has none.
        """
        height, width = size
        annotations = [a for a in dataset_dict.get("annotations", ()) if not a.get("iscrowd", 0)]
        polygons: list[list[FloatArray] | None] = []
        rasters: list[Mask | None] = []
        for annotation in annotations:
            parts, raster = None, None
            if use_masks:
                segmentation = annotation.get("segmentation")
                if not segmentation:
                    raise DatasetError(
                        f"{dataset_dict['file_name']}: an annotation has no mask, but MODEL.MASK_ON "
                        "is True; set it to False, or DATASETS.ROBOFLOW.MASKS to 'box'."
                    )
                if isinstance(segmentation, dict):
                    raster = mask_util.decode(segmentation)
                elif rasterise:
                    raster = polygons_to_bitmask(segmentation, height, width).astype(np.uint8)
                else:
                    parts = [np.asarray(p, np.float64).reshape(-1, 2) for p in segmentation]
            polygons.append(parts)
            rasters.append(raster)
        boxes = [
            BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
            for annotation in annotations
        ]
        return cls(
            height=height,
            width=width,
            classes=[annotation["category_id"] for annotation in annotations],
            boxes=np.asarray(boxes, np.float64).reshape(-1, 4),
            polygons=polygons,
            rasters=rasters,
            visible=[1.0] * len(annotations),
        )

    def clipped_boxes(self, height: int, width: int) -> FloatArray:
        """The boxes, XYXY_ABS (N, 4), clipped to the image."""
        return np.clip(self.boxes, 0, [width, height, width, height])


def projected(
    shapes: InstanceShapes, matrix: FloatArray, masks: Sequence[Mask], height: int, width: int
) -> InstanceShapes:
    """Map all shapes by one 3 x 3 matrix into an image of `height` x `width`, and clip them there.

    Args:
        masks: the rasters of `shapes`, already transformed, in the same order (those that exist).
    """
    points = shapes.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
    corners = transform_points(points, matrix).reshape(-1, 4, 2)
    whole_boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    boxes = np.clip(whole_boxes, 0, [width, height, width, height])
    remaining = iter(masks)
    polygons: list[list[FloatArray] | None] = []
    rasters: list[Mask | None] = []
    visible = []
    for index, parts in enumerate(shapes.polygons):
        share = _box_area(boxes[index]) / max(_box_area(whole_boxes[index]), 1e-9)
        clipped = None
        if parts is not None:
            moved = [transform_points(part, matrix) for part in parts]
            clipped = [part for part in (_clip(p, width, height) for p in moved) if len(part)]
            whole = sum(polygon_area(part) for part in moved)
            share = sum(polygon_area(part) for part in clipped) / max(whole, 1e-9)
        polygons.append(clipped)
        rasters.append(None if shapes.rasters[index] is None else next(remaining))
        visible.append(share)
    return InstanceShapes(height, width, shapes.classes, boxes, polygons, rasters, visible)


def rasterised(
    shapes: InstanceShapes,
    masks: Sequence[Mask],
    boxes: npt.NDArray[Any],
    kept: npt.NDArray[np.int64],
    size: tuple[int, int],
) -> InstanceShapes:
    """Put together what Albumentations returned after transforms that bend straight lines.

    Albumentations drops boxes that keep too little, but no mask: `kept` says which boxes remain.

    Args:
        masks: every raster of `shapes`, transformed.
        boxes: (K, 4) XYXY_ABS, transformed; box k belongs to annotation `kept[k]`.
        size: height and width of the transformed image.
    """
    by_index = dict(zip(kept.tolist(), np.asarray(boxes, np.float64).reshape(-1, 4), strict=True))
    remaining = iter(masks)
    rasters = [None if raster is None else next(remaining) for raster in shapes.rasters]
    order = sorted(by_index)
    return InstanceShapes(
        height=size[0],
        width=size[1],
        classes=[shapes.classes[index] for index in order],
        boxes=np.array([by_index[index] for index in order]).reshape(-1, 4),
        polygons=[None] * len(order),
        rasters=[rasters[index] for index in order],
        visible=[1.0] * len(order),
    )


def to_instances(
    shapes: InstanceShapes,
    resize: Any,
    *,
    mask_format: str,
    recompute_boxes: bool,
    min_visibility: float,
    min_box_size: float,
) -> Instances:
    """Resize the shapes and build the `Instances` that models train on.

    Args:
        resize: a Detectron2 `ResizeTransform` from the shapes' image to the final one.
        mask_format: `"polygon"`, `"bitmask"`, or `""` for no `gt_masks`.
        recompute_boxes: take a box from its mask's extent instead of the annotation.
        min_visibility: share of its area that an annotation must have kept.
        min_box_size: pixels that the shorter side of a box must have after resizing.

    Returns:
        `gt_boxes`, `gt_classes` and (unless `mask_format` is empty) `gt_masks`: `PolygonMasks` when
        `mask_format` is polygon and every mask is one, else `BitMasks` of the final size.
    """
    height, width = resize.new_h, resize.new_w
    scale = np.array([width / shapes.width, height / shapes.height])
    classes: list[int] = []
    boxes: list[FloatArray] = []
    polygons: list[list[FloatArray] | None] = []
    rasters: list[Mask | None] = []
    for index, share in enumerate(shapes.visible):
        if share < min_visibility:
            continue
        parts, raster = shapes.polygons[index], shapes.rasters[index]
        box = shapes.boxes[index] * np.tile(scale, 2)
        box = np.clip(box, 0, [width, height, width, height])
        if parts is not None:
            parts = [part * scale for part in parts]
            if not parts:
                continue
            if recompute_boxes:
                box = extent(parts)
        elif raster is not None:
            raster = resize.apply_segmentation(raster)
            if not raster.any():
                continue
            if recompute_boxes:
                box = _mask_extent(raster)
        if min(box[2] - box[0], box[3] - box[1]) < max(min_box_size, 1e-5):
            continue
        classes.append(shapes.classes[index])
        boxes.append(box)
        polygons.append(parts)
        rasters.append(raster)
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.from_numpy(np.array(boxes, np.float32).reshape(-1, 4)))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    if mask_format == "polygon" and all(parts is not None for parts in polygons):
        instances.gt_masks = PolygonMasks(
            [[part.reshape(-1) for part in parts or ()] for parts in polygons]
        )
    elif mask_format:
        bits = [
            _raster_of(parts, raster, height, width)
            for parts, raster in zip(polygons, rasters, strict=True)
        ]
        stacked = np.stack(bits) if bits else np.zeros((0, height, width), bool)
        instances.gt_masks = BitMasks(torch.from_numpy(stacked))
    return instances


def _raster_of(
    parts: list[FloatArray] | None, raster: Mask | None, height: int, width: int
) -> npt.NDArray[np.bool_]:
    if raster is not None:
        return raster.astype(bool)
    return polygons_to_bitmask([part.reshape(-1) for part in parts or ()], height, width)


def _clip(polygon: FloatArray, width: int, height: int) -> FloatArray:
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    if low.min() >= 0 and high[0] <= width and high[1] <= height:
        return polygon
    clipped = clip_polygon(polygon, width, height)
    return clipped if len(clipped) and polygon_area(clipped) > 1e-6 else np.zeros((0, 2))


def _box_area(box: FloatArray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _mask_extent(mask: Mask) -> FloatArray:
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)

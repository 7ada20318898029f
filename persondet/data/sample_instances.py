"""Shapes of one image to the `Instances` that models train on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks, polygons_to_bitmask

from persondet.data.instance_geometry import InstanceShapes, Mask
from persondet.data.polygons import FloatArray, extent
from persondet.data.resizing import resized_mask


def to_instances(
    shapes: InstanceShapes,
    size: tuple[int, int],
    *,
    mask_format: str,
    recompute_boxes: bool,
    min_visibility: float,
    min_box_size: float,
) -> Instances:
    """Resize the shapes and build the `Instances` that models train on.

    Args:
        size: height and width of the final image.
        mask_format: `"polygon"`, `"bitmask"`, or `""` for no `gt_masks`.
        recompute_boxes: take a box from its mask's extent instead of the annotation.
        min_visibility: share of its area that an annotation must have kept.
        min_box_size: pixels that the shorter side of a box must have after resizing.

    Returns:
        `gt_boxes`, `gt_classes` and (unless `mask_format` is empty) `gt_masks`: `PolygonMasks` when
        `mask_format` is polygon and every mask is one, else `BitMasks` of the final size.
    """
    height, width = size
    scale = np.array([width / shapes.width, height / shapes.height])
    whole_boxes = np.clip(shapes.boxes * np.tile(scale, 2), 0, [width, height, width, height])
    classes: list[int] = []
    boxes: list[FloatArray] = []
    polygons: list[list[FloatArray] | None] = []
    rasters: list[Mask | None] = []
    for index, share in enumerate(shapes.visible):
        if share < min_visibility:
            continue
        parts, raster = shapes.polygons[index], shapes.rasters[index]
        box = whole_boxes[index]
        if parts is not None:
            parts = [part * scale for part in parts]
            if not parts:
                continue
            if recompute_boxes:
                box = extent(parts)
        elif raster is not None:
            raster = resized_mask(raster, size)
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


def _mask_extent(mask: Mask) -> FloatArray:
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)

"""The geometry of a training sample: shapes under augmentation, pixels and masks under resizing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pycocotools.mask as mask_util
import torch
from detectron2.structures import BoxMode, polygons_to_bitmask
from PIL import Image
from torch.nn.functional import interpolate

from persondet.data.shapes import FloatArray, polygon_area, split_polygon, transform_points
from persondet.errors import DatasetError

Mask = npt.NDArray[np.uint8]

Shape = list[FloatArray] | Mask | None
"""The parts of a polygon, each float64 (P, 2), or a raster uint8 (height, width) of 0 and 1."""

_ROUNDING = 1e-3  # pixels; float32 points of an image of 8000 pixels are that far off


@dataclass
class InstanceShapes:
    """Annotations of one image; lists of one length, one entry per annotation.

    Attributes:
        height, width: of the image that the shapes lie in, in pixels.
        classes: contiguous class numbers.
        boxes: XYXY_ABS, float64, (N, 4); may leave the image.
        masks: the shape of each annotation, None when it has no mask.
        visible: the share of its area that the annotation has kept so far.
    """

    height: int
    width: int
    classes: list[int]
    boxes: FloatArray
    masks: list[Shape]
    visible: list[float]

    @classmethod
    def of(
        cls, dataset_dict: dict[str, Any], size: tuple[int, int], *, use_masks: bool, raster: bool
    ) -> InstanceShapes:
        """Read the annotations of a standard dataset dict, without those of crowds.

        Args:
            size: height and width of the image.
            use_masks: read the masks, not only the boxes.
            raster: turn polygons into rasters.

        Raises: DatasetError: when masks are used and an annotation has none.
        """
        annotations = [a for a in dataset_dict.get("annotations", ()) if not a.get("iscrowd", 0)]
        masks: list[Shape] = [None] * len(annotations)
        for index, annotation in enumerate(annotations if use_masks else ()):
            segmentation = annotation.get("segmentation")
            if not segmentation:
                raise DatasetError(
                    f"{dataset_dict['file_name']}: an annotation has no mask, but "
                    "MODEL.MASK_ON is True; set it to False, or DATASETS.ROBOFLOW.MASKS to 'box'."
                )
            if isinstance(segmentation, dict):
                masks[index] = mask_util.decode(segmentation)
            elif raster:
                masks[index] = polygons_to_bitmask(segmentation, *size).astype(np.uint8)
            else:
                masks[index] = [np.asarray(p, np.float64).reshape(-1, 2) for p in segmentation]
        classes = [annotation["category_id"] for annotation in annotations]
        return cls(*size, classes, _corner_boxes(annotations), masks, [1.0] * len(annotations))

    @property
    def rasters(self) -> list[Mask]:
        """The masks that are rasters, in order."""
        return [mask for mask in self.masks if isinstance(mask, np.ndarray)]


def clipped(boxes: FloatArray, height: int, width: int) -> FloatArray:
    """Return boxes, XYXY_ABS (N, 4), clipped to an image."""
    return np.clip(boxes, 0, [width, height, width, height])


def projected(
    shapes: InstanceShapes, matrix: FloatArray, rasters: Sequence[Mask], height: int, width: int
) -> InstanceShapes:
    """Map all shapes by one 3 x 3 matrix into an image of `height` x `width`, and clip them there.

    Args:
        rasters: those of `shapes`, already transformed.
    """
    points = shapes.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
    corners = transform_points(points, matrix).reshape(-1, 4, 2)
    whole_boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    boxes = clipped(whole_boxes, height, width)
    sizes, whole_sizes = boxes[:, 2:] - boxes[:, :2], whole_boxes[:, 2:] - whole_boxes[:, :2]
    visible = (sizes.prod(axis=1) / np.maximum(whole_sizes.prod(axis=1), 1e-9)).tolist()
    polygons = [mask for mask in shapes.masks if isinstance(mask, list)]
    moved_polygons = iter(_projected_polygons(polygons, matrix, height, width))
    moved_rasters = iter(rasters)
    masks = list(shapes.masks)
    for index, mask in enumerate(shapes.masks):
        if isinstance(mask, list):
            masks[index], visible[index] = next(moved_polygons)
        elif mask is not None:
            masks[index] = moved = next(moved_rasters)
            # Around the middle of the box the matrix changes areas by this factor.
            factor = _area_factor(matrix, shapes.boxes[index].reshape(2, 2).mean(axis=0))
            visible[index] = float(np.count_nonzero(moved) / max(mask.sum() * factor, 1e-9))
    return InstanceShapes(height, width, shapes.classes, boxes, masks, visible)


def _projected_polygons(
    polygons: list[list[FloatArray]], matrix: FloatArray, height: int, width: int
) -> list[tuple[list[FloatArray], float]]:
    """Map and clip the polygons of annotations; also return the share that each one keeps."""
    parts = [part for annotation in polygons for part in annotation]
    if not parts:
        return [([], 0.0)] * len(polygons)
    ends = np.cumsum([len(part) for part in parts])
    starts = ends - [len(part) for part in parts]
    points = _snapped(transform_points(np.concatenate(parts), matrix), width, height)
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    inside = ((low >= 0) & (high <= [width, height])).all(axis=1)
    slices = iter(np.stack([starts, ends, inside], axis=1).tolist())
    results = []
    for annotation in polygons:
        mine = [next(slices) for _ in annotation]
        moved = pieces = [points[start:end] for start, end, _ in mine]
        share = 1.0
        if not all(whole for _, _, whole in mine):
            pieces = [piece for part in moved for piece in split_polygon(part, width, height)]
            share = sum(map(polygon_area, pieces)) / max(sum(map(polygon_area, moved)), 1e-9)
        results.append((pieces, share))
    return results


def _corner_boxes(annotations: Sequence[dict[str, Any]]) -> FloatArray:
    """Return the boxes of annotations as XYXY_ABS (N, 4), rounded like Detectron2 (float32)."""
    boxes = np.array([a["bbox"] for a in annotations], np.float32).reshape(-1, 4)
    modes = np.array([a["bbox_mode"] for a in annotations], np.int64)
    for mode in set(modes.tolist()):
        boxes[modes == mode] = BoxMode.convert(boxes[modes == mode], mode, BoxMode.XYXY_ABS)
    return boxes.astype(np.float64)


def _snapped(points: FloatArray, width: int, height: int) -> FloatArray:
    """Put points (N, 2) back on the border when rounding moved them off: cuts would double them."""
    border = np.array([width, height], np.float64)
    points = np.where(np.abs(points) < _ROUNDING, 0.0, points)
    return np.where(np.abs(points - border) < _ROUNDING, border, points)


def _area_factor(matrix: FloatArray, point: FloatArray) -> float:
    """Return how much a 3 x 3 projective matrix enlarges a small area around a point (2,)."""
    depth = matrix[2, :2] @ point + matrix[2, 2]
    return float(abs(np.linalg.det(matrix) / depth**3))


def bent(
    shapes: InstanceShapes,
    rasters: Sequence[Mask],
    boxes: npt.NDArray[Any],
    kept: npt.NDArray[np.int64],
    size: tuple[int, int],
) -> InstanceShapes:
    """Build the shapes from the output of transforms that bend straight lines.

    Albumentations drops boxes that keep too little, but no mask: `kept` says which boxes remain.

    Args:
        rasters: those of `shapes`, transformed.
        boxes: (K, 4) XYXY_ABS, transformed; box k belongs to annotation `kept[k]`.
        size: height and width of the transformed image.
    """
    by_index = dict(zip(kept.tolist(), np.asarray(boxes, np.float64).reshape(-1, 4), strict=True))
    remaining = iter(rasters)
    masks = [None if mask is None else next(remaining) for mask in shapes.masks]
    order = sorted(by_index)
    return InstanceShapes(
        *size,
        classes=[shapes.classes[index] for index in order],
        boxes=np.array([by_index[index] for index in order]).reshape(-1, 4),
        masks=[masks[index] for index in order],
        visible=[1.0] * len(order),
    )


def resized_image(
    image: npt.NDArray[np.uint8], size: tuple[int, int], *, exact: bool
) -> npt.NDArray[np.uint8]:
    """Resize an image, bilinear and with antialiasing, about the outer edge of its first pixel.

    Args:
        image: uint8, (H, W, C), contiguous.
        size: height and width of the result.
        exact: with Pillow, to the bit what Detectron2's `ResizeTransform` gives. Otherwise with
            PyTorch, in an eighth of the time; its weights have fewer bits, so that one value in
            500 of a photograph (one in 80 of noise) differs, by one level.

    Returns: uint8, (*size, C), contiguous; `image` itself when it has that size.
    """
    if image.shape[:2] == size:
        return image
    height, width = size
    if exact:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    # Permuted like this PyTorch recognises the memory format and works in place, pixel by pixel.
    batch = torch.from_numpy(image)[None].permute(0, 3, 1, 2)
    resized = interpolate(batch, size=size, mode="bilinear", antialias=True)
    result: npt.NDArray[np.uint8] = resized[0].permute(1, 2, 0).contiguous().numpy()
    return result


def resized_mask(mask: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Resize a mask, uint8 (H, W), to `size` (height, width) by its nearest pixels' centres."""
    if mask.shape == size:
        return mask
    height, width = size
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def to_channels(image: npt.NDArray[np.uint8], image_format: str) -> torch.Tensor:
    """Turn an RGB image, uint8 (H, W, 3), into a contiguous tensor (3, H, W) in `image_format`.

    Args:
        image_format: `"BGR"` or `"RGB"`.
    """
    channels = np.empty((3, *image.shape[:2]), np.uint8)
    # OpenCV takes the pixels apart with vector instructions, ten times as fast as numpy's copy.
    cv2.split(image, [*(channels if image_format == "RGB" else channels[::-1])])
    return torch.from_numpy(channels)

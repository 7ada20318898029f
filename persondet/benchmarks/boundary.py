"""How far two ways to the same masks put their boundaries apart."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from detectron2.structures import BitMasks, Instances, polygons_to_bitmask
from detectron2.structures import pairwise_iou as overlap_of

ZOOM = 4
"""Masks are compared in cells of a quarter of a pixel, to which distances are exact."""
_MARGIN = 8  # pixels around a person

Mask = npt.NDArray[np.uint8]


def boundary_distances(polygons: Instances, rasters: Instances) -> list[npt.NDArray[np.float64]]:
    """Return the distances between the boundaries of each person that both have.

    People are paired by their boxes (intersection over union above 0.5, the best first). Boundaries
    where the picture cuts a mask are left out: there is none.

    Args:
        polygons: with `gt_boxes`, and `PolygonMasks` as `gt_masks`.
        rasters: of a picture of the same size, with `BitMasks`.

    Returns: for each pair float64, (N,), pixels: from points all along either boundary to the next
    point of the other one.
    """
    overlap = overlap_of(polygons.gt_boxes, rasters.gt_boxes).numpy()
    found = []
    while overlap.size and overlap.max() > 0.5:
        row, column = np.unravel_index(overlap.argmax(), overlap.shape)
        overlap[row], overlap[:, column] = 0, 0
        boxes = [
            one.gt_boxes.tensor[number].numpy()
            for one, number in ((polygons, row), (rasters, column))
        ]
        left, top = np.floor(np.minimum(boxes[0][:2], boxes[1][:2]) - _MARGIN).astype(int)
        right, bottom = np.ceil(np.maximum(boxes[0][2:], boxes[1][2:]) + _MARGIN).astype(int)
        height, width = rasters.image_size
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        parts = [
            (np.asarray(part, np.float64).reshape(-1, 2) - (left, top)).reshape(-1) * ZOOM
            for part in polygons.gt_masks.polygons[row]
        ]
        mine = polygons_to_bitmask(parts, (bottom - top) * ZOOM, (right - left) * ZOOM)
        masks: BitMasks = rasters.gt_masks
        cut = masks.tensor[int(column), top:bottom, left:right].numpy().astype(np.uint8)
        other = cut.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
        found.append(mask_boundary_distances(mine.astype(np.uint8), other) / ZOOM)
    return found


def mask_boundary_distances(first: Mask, second: Mask) -> npt.NDArray[np.float64]:
    """Return the distances between the boundaries of two masks: uint8, (H, W), 0 or 1.

    Returns: float64, (N,), in cells: from each cell at the boundary of either mask to the boundary
    of the other one; 0 where they agree.
    """
    distances = []
    for one, other in ((first, second), (second, first)):
        inside = cv2.distanceTransform(other, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        outside = cv2.distanceTransform(1 - other, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        # A cell next to the boundary is one cell from the nearest one beyond it.
        away = np.maximum(inside - 1, outside)
        edge = one - cv2.erode(one, np.ones((3, 3), np.uint8), borderValue=1)
        distances.append(away[edge == 1])
    return np.concatenate(distances).astype(np.float64)

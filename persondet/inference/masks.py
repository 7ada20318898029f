"""Masks of detections, each only where it can be: a rectangle around the box, not the whole image.

Mask R-CNN predicts 28 x 28 probabilities for each box. Detectron2 resamples them into a mask of
the whole image for every detection. This module resamples the box and a margin of one pixel, and
keeps, draws and encodes that rectangle. The masks are Detectron2's, bit for bit (on the CPU: a GPU
may round a probability of one half the other way).

`Instances` carry their masks as `roi_masks` (probabilities, `ROIMasks`), `region_masks`
(`RegionMasks`) or `pred_masks` (bool, (N, H, W)); everything behind a predictor accepts all three.
A mask is `bool, (H, W)`; a box is 4 numbers, XYXY_ABS, pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco_mask

if TYPE_CHECKING:  # resampling needs PyTorch; encoding does not
    import torch
    from detectron2.structures import Instances

ROI_FIELD = "roi_masks"
"""The field in which `Instances` carry the mask head's probabilities, a `ROIMasks`."""
REGION_FIELD = "region_masks"
"""The field in which they carry `RegionMasks`."""
THRESHOLD = 0.5  # `detector_postprocess`'s
# Closer to the threshold than this, `grid_sample` decides instead of the fast path.
_DOUBT = np.float32(1e-5)
_Pair = tuple[np.ndarray, np.ndarray]


class RegionMasks:
    """The masks of N detections in one image, each only its rectangle; a field of `Instances`.

    Args:
        regions: N arrays, bool, (h, w); around its rectangle a mask is empty.
        corners: N pairs (x0, y0): column and row of the image where the rectangle begins.
        image_size: (H, W) of the image, pixels.

    Raises: ValueError: when a rectangle leaves the image, or there are not N corners.
    """

    def __init__(
        self,
        regions: Sequence[np.ndarray],
        corners: Sequence[tuple[int, int]],
        image_size: tuple[int, int],
    ) -> None:
        height, width = image_size
        for region, (x0, y0) in zip(regions, corners, strict=True):
            if x0 < 0 or y0 < 0 or y0 + region.shape[0] > height or x0 + region.shape[1] > width:
                raise ValueError(
                    f"a region of {region.shape} at {(x0, y0)} leaves the image of {image_size}"
                )
        self.regions, self.corners = list(regions), list(corners)
        self.image_size = (int(height), int(width))

    def __len__(self) -> int:
        return len(self.regions)

    def __iter__(self) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
        """Yield (region, bool (h, w); corner (x0, y0)) of each detection."""
        return iter(zip(self.regions, self.corners, strict=True))

    def __getitem__(self, item: Any) -> RegionMasks:
        """Return some of the masks.

        Args:
            item: a number, a slice, or an array or tensor of numbers or of N booleans.
        """
        if not isinstance(item, slice):
            item = np.asarray(item.cpu() if hasattr(item, "cpu") else item)
            item = item if item.dtype == bool else item.astype(np.int64)
        chosen = np.atleast_1d(np.arange(len(self))[item])
        return RegionMasks(
            [self.regions[i] for i in chosen], [self.corners[i] for i in chosen], self.image_size
        )

    def to(self, *args: Any, **kwargs: Any) -> RegionMasks:
        """Return itself: regions stay on the CPU; so `Instances.to` works."""
        return self

    @staticmethod
    def cat(masks: Sequence[RegionMasks]) -> RegionMasks:
        """Concatenate the masks of one image; for `Instances.cat`."""
        return RegionMasks(
            [region for one in masks for region in one.regions],
            [corner for one in masks for corner in one.corners],
            masks[0].image_size,
        )

    def whole(self, i: int) -> np.ndarray:
        """Return a mask of the whole image: bool, (H, W)."""
        mask = np.zeros(self.image_size, bool)
        region, (x0, y0) = self.regions[i], self.corners[i]
        mask[y0 : y0 + region.shape[0], x0 : x0 + region.shape[1]] = region
        return mask

    def encode(self, i: int) -> dict[str, Any]:
        """Return COCO's run-length encoding of a mask, `{"size": [H, W], "counts": str}`."""
        return encode_region(self.regions[i], *self.corners[i], *self.image_size)


def region_masks_of(instances: Instances) -> RegionMasks | None:
    """Return the masks of an image's detections, whichever field carries them; None without masks.

    Args:
        instances: on the CPU, with `pred_boxes` (XYXY_ABS, pixels).
    """
    if instances.has(REGION_FIELD):
        masks: RegionMasks = instances.get(REGION_FIELD)
        return masks
    boxes = instances.pred_boxes.tensor
    if instances.has(ROI_FIELD):
        return paste_masks(instances.get(ROI_FIELD).tensor, boxes, instances.image_size)
    if not instances.has("pred_masks"):
        return None
    whole = np.asarray(instances.pred_masks).astype(bool, copy=False)
    extents = [mask_extent(m, box) for m, box in zip(whole, boxes.numpy(), strict=True)]
    regions = [m[y0:y1, x0:x1] for m, (x0, y0, x1, y1) in zip(whole, extents, strict=True)]
    return RegionMasks(regions, [extent[:2] for extent in extents], instances.image_size)


def paste_regions(instances: Instances) -> Instances:
    """Return the instances with `region_masks` instead of `roi_masks`; others as they are.

    Any number of threads may call it at once.

    Args:
        instances: on the CPU, with `pred_boxes` (XYXY_ABS, pixels); not changed.
    """
    if not instances.has(ROI_FIELD):
        return instances
    fields = {name: field for name, field in instances.get_fields().items() if name != ROI_FIELD}
    fields[REGION_FIELD] = region_masks_of(instances)
    return type(instances)(instances.image_size, **fields)


def paste_whole(instances: Instances) -> Instances:
    """Return the instances as Detectron2 knows them: any masks as `pred_masks`, bool, (N, H, W).

    Args:
        instances: on the CPU, with `pred_boxes` (XYXY_ABS, pixels); not changed.
    """
    import torch

    fields = dict(paste_regions(instances).get_fields())
    masks: RegionMasks | None = fields.pop(REGION_FIELD, None)
    if masks is None:
        return instances
    whole = torch.zeros((len(masks), *instances.image_size), dtype=torch.bool)
    for i in range(len(masks)):
        whole[i] = torch.from_numpy(masks.whole(i))
    return type(instances)(instances.image_size, **fields, pred_masks=whole)


def encoded_masks(instances: Instances) -> list[dict[str, Any]] | None:
    """Return COCO's run-length encodings of an image's masks; None without masks.

    Args:
        instances: see `region_masks_of`.

    Returns: for each detection `{"size": [H, W], "counts": str}`.
    """
    masks = region_masks_of(instances)
    return None if masks is None else [masks.encode(i) for i in range(len(masks))]


def paste_masks(
    probabilities: torch.Tensor, boxes: torch.Tensor, image_size: tuple[int, int]
) -> RegionMasks:
    """Resample probabilities into the regions of their boxes, as `paste_masks_in_image` does.

    Args:
        probabilities: float, (N, M, M), 0..1, on the CPU.
        boxes: float32, (N, 4), XYXY_ABS, pixels.
        image_size: (H, W) of the image, pixels.

    Returns: the masks, each without its empty rest. The mask of a box that is not finite, or
        outside the image, is empty.
    """
    import torch
    from detectron2.layers.mask_ops import _do_paste_mask

    regions, corners = [], []
    exact = probabilities.dtype == torch.float32 and boxes.dtype == torch.float32
    for grid, box in zip(probabilities, boxes, strict=True):
        x0, y0, x1, y1 = _rectangle(box, image_size)
        corners.append((x0, y0))
        if x0 >= x1 or y0 >= y1:
            regions.append(np.zeros((0, 0), bool))
        elif exact:
            regions.append(_resampled(grid, box.numpy(), (x0, y0, x1, y1)))
        else:
            pasted, _ = _do_paste_mask(grid[None, None], box[None], *image_size, skip_empty=True)
            regions.append((pasted[0] >= THRESHOLD).numpy())
    return RegionMasks(regions, corners, image_size)


def _rectangle(box: torch.Tensor, image_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the part of the image that Detectron2 resamples for a box, x1 and y1 excluded."""
    height, width = image_size
    x0, y0, x1, y1 = box.tolist()
    if not math.isfinite(x0 + y0 + x1 + y1):
        return 0, 0, 0, 0
    left, top = max(0, math.floor(x0) - 1), max(0, math.floor(y0) - 1)
    right, bottom = min(width, math.ceil(x1) + 1), min(height, math.ceil(y1) + 1)
    return (left, top, right, bottom) if left < right and top < bottom else (0, 0, 0, 0)


def _resampled(
    probabilities: torch.Tensor, box: np.ndarray, rectangle: tuple[int, int, int, int]
) -> np.ndarray:
    """Return where bilinear interpolation of (M, M) float32 probabilities reaches one half.

    Interpolates columns first, then rows: many times faster than `grid_sample`, which decides only
    the few pixels so close to one half that rounding matters. Nothing here starts threads, as a
    matrix product would: they would take the cores from the other stages of a clip.
    """
    import torch
    from torch.nn import functional as F

    left, top, right, bottom = rectangle
    x0, y0, x1, y1 = box
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # In float32 and in this order, as `_do_paste_mask` computes its grid.
        x = (np.arange(left, right, dtype=np.float32) + np.float32(0.5) - x0) / (x1 - x0) * 2 - 1
        y = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5) - y0) / (y1 - y0) * 2 - 1
        size = probabilities.shape[-1]
        (above, below), (near_above, near_below) = _cells(y, size)
        (left_of, right_of), (near_left, near_right) = _cells(x, size)
        grid = probabilities.numpy()
        bands = grid.take(left_of, axis=1) * near_left + grid.take(right_of, axis=1) * near_right
        value, lower = bands.take(above, axis=0), bands.take(below, axis=0)
        value *= near_above[:, None]
        lower *= near_below[:, None]
        value += lower
        value -= np.float32(THRESHOLD)
        region: np.ndarray = value >= 0
        doubtful = np.flatnonzero(~(np.abs(value, out=value) >= _DOUBT))  # NaN is doubtful too
    if len(doubtful):
        rows, columns = np.divmod(doubtful, right - left)
        points = torch.from_numpy(np.stack((x[columns], y[rows]), axis=-1))
        exact = F.grid_sample(probabilities[None, None], points[None, None], align_corners=False)
        region.reshape(-1)[doubtful] = exact[0, 0, 0].numpy() >= THRESHOLD
    return region


def _cells(places: np.ndarray, size: int) -> tuple[_Pair, _Pair]:
    """Return the two cells (of `size`) around each place from -1 to 1, and their weights.

    The weight of a cell beyond the border is 0; that of a place that is NaN is NaN.
    """
    at = ((places + 1) * size - 1) / 2
    below = np.floor(at)
    share = at - below
    nothing = share * 0  # NaN where the place is NaN
    first = np.nan_to_num(below, nan=-2, posinf=-2, neginf=-2).clip(-2, size).astype(np.intp)
    cells, weights = [], []
    for cell, weight in ((first, 1 - share), (first + 1, share)):
        inside = (cell >= 0) & (cell < size)
        cells.append(np.where(inside, cell, 0))
        weights.append(np.where(inside, weight, nothing))
    return (cells[0], cells[1]), (weights[0], weights[1])


def mask_extent(mask: np.ndarray, box: np.ndarray | None = None) -> tuple[int, int, int, int]:
    """Return (x0, y0, x1, y1), whole pixels, of a rectangle that holds all of a mask.

    Args:
        mask: bool, (H, W).
        box: where to look first, XYXY_ABS; a good one saves time.

    Returns: the rectangle, x1 and y1 excluded; (0, 0, 0, 0) for an empty mask.
    """
    height, width = mask.shape
    total = np.count_nonzero(mask)
    if total == 0:
        return (0, 0, 0, 0)
    if box is not None and np.isfinite(box).all():
        x0, y0 = (max(0, int(v) - 2) for v in box[:2])
        x1, y1 = (
            max(0, min(limit, int(v) + 3))
            for v, limit in zip(box[2:], (width, height), strict=True)
        )
        if np.count_nonzero(mask[y0:y1, x0:x1]) == total:
            return (x0, y0, x1, y1)
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def encode_mask(mask: np.ndarray, box: np.ndarray | None = None) -> dict[str, Any]:
    """Return COCO's compressed run-length encoding of a mask.

    Equals `pycocotools.mask.encode` of the whole mask, at the cost of its rectangle.

    Args:
        mask: bool, (H, W).
        box: where to look first, see `mask_extent`.

    Returns: `{"size": [H, W], "counts": str}`, ready for JSON.
    """
    height, width = mask.shape
    x0, y0, x1, y1 = mask_extent(mask, box)
    return encode_region(mask[y0:y1, x0:x1], x0, y0, height, width)


def encode_region(region: np.ndarray, x0: int, y0: int, height: int, width: int) -> dict[str, Any]:
    """Return COCO's compressed run-length encoding of a mask, given only a rectangle of it.

    Equals `pycocotools.mask.encode` of the whole mask, at the cost of the rectangle.

    Args:
        region: bool, (h, w); around it the mask is empty.
        x0, y0: column and row of the whole mask at which the rectangle begins, pixels.
        height, width: of the whole mask, pixels.

    Returns: `{"size": [height, width], "counts": str}`, ready for JSON.
    """
    rows, columns = region.shape
    # Runs go down the columns. A row of zeros below the rectangle ends each run in its column.
    pixels = np.zeros(columns * (rows + 1) + 1, np.bool_)
    pixels[1:].reshape(columns, rows + 1)[:, :rows] = region.T
    column, row = np.divmod(np.flatnonzero(pixels[1:] != pixels[:-1]), rows + 1)
    borders = (column + x0) * height + (row + y0)
    if rows == height:  # a run may continue in the next column: join both
        joined = np.flatnonzero(borders[1:-1:2] == borders[2::2]) * 2 + 1
        borders = np.delete(borders, np.concatenate((joined, joined + 1)))
    runs = np.diff(np.concatenate(([0], borders, [height * width]))).tolist()
    if len(runs) > 1 and runs[-1] == 0:
        runs.pop()
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}

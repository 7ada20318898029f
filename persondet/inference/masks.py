"""Masks of detections, each only where it can be: a rectangle around the box, not the whole image.

Mask R-CNN predicts 28 x 28 probabilities for each box. Detectron2 resamples them into a mask of
the whole image for every detection. This module resamples the box and a margin of one pixel, and
keeps, draws and encodes that rectangle. The masks are Detectron2's, bit for bit (on the CPU: a GPU
may round a probability of one half the other way).

Arrays need numpy alone (`paste_arrays`): a deployed model has no PyTorch.

`Instances` carry their masks as `roi_masks` (probabilities, `ROIMasks`), `region_masks`
(`RegionMasks`) or `pred_masks` (bool, (N, H, W)); everything behind a predictor accepts all three.
A mask is `bool, (H, W)`; a box is 4 numbers, XYXY_ABS, pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from detectron2.structures import Instances

ROI_FIELD = "roi_masks"
"""The field in which `Instances` carry the mask head's probabilities, a `ROIMasks`."""
REGION_FIELD = "region_masks"
"""The field in which they carry `RegionMasks`."""
THRESHOLD = 0.5  # `detector_postprocess`'s
# Closer to the threshold than this, `grid_sample` decides instead of the fast path.
_DOUBT = np.float32(1e-5)


class RegionMasks:
    """The masks of N detections in one image, each only its rectangle; a field of `Instances`.

    Args:
        regions: N arrays, bool, (h, w); around its rectangle a mask is empty.
        corners: N pairs (x0, y0): column and row of the image where the rectangle begins.
        image_size: (H, W) of the image, pixels.
    """

    def __init__(
        self,
        regions: Sequence[np.ndarray],
        corners: Sequence[tuple[int, int]],
        image_size: tuple[int, int],
    ) -> None:
        self.regions, self.corners = list(regions), list(corners)
        self.image_size = (int(image_size[0]), int(image_size[1]))

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
        item = item.cpu().numpy() if hasattr(item, "cpu") else item
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
    extents = [mask_extent(m) for m in whole]
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
    if masks is None:
        return None
    return [encode_region(region, *corner, *masks.image_size) for region, corner in masks]


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
        rectangle = _rectangle(box.tolist(), image_size)
        corners.append(rectangle[:2])
        if exact or rectangle[0] == rectangle[2]:
            arrays = grid.float().numpy(), box.float().numpy()
            regions.append(_resampled(*arrays, rectangle, _grid_sampled))
        else:
            pasted, _ = _do_paste_mask(grid[None, None], box[None], *image_size, skip_empty=True)
            regions.append((pasted[0] >= THRESHOLD).numpy())
    return RegionMasks(regions, corners, image_size)


def paste_arrays(
    probabilities: np.ndarray, boxes: np.ndarray, image_size: tuple[int, int]
) -> RegionMasks:
    """As `paste_masks`, with numpy alone: a pixel within 1e-5 of one half may fall otherwise.

    Args:
        probabilities: float32, (N, M, M), 0..1.
        boxes: float32, (N, 4), XYXY_ABS, pixels.
        image_size: (H, W) of the image, pixels.
    """
    rectangles = [_rectangle(box.tolist(), image_size) for box in boxes]
    pairs = zip(probabilities, boxes, rectangles, strict=True)
    regions = [_resampled(grid, box, rectangle) for grid, box, rectangle in pairs]
    return RegionMasks(regions, [rectangle[:2] for rectangle in rectangles], image_size)


def _rectangle(box: Sequence[float], image_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the part of the image that Detectron2 resamples for a box, x1 and y1 excluded."""
    height, width = image_size
    x0, y0, x1, y1 = box
    if not math.isfinite(x0 + y0 + x1 + y1):
        return 0, 0, 0, 0
    left, top = max(0, math.floor(x0) - 1), max(0, math.floor(y0) - 1)
    right, bottom = min(width, math.ceil(x1) + 1), min(height, math.ceil(y1) + 1)
    return (left, top, right, bottom) if left < right and top < bottom else (0, 0, 0, 0)


def _resampled(
    probabilities: np.ndarray,
    box: np.ndarray,
    rectangle: tuple[int, int, int, int],
    exactly: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Return where bilinear interpolation of (M, M) float32 probabilities reaches one half.

    Interpolates columns first, then rows: many times faster than `grid_sample`, which decides
    (`exactly`) only the few pixels so close to one half that rounding matters. Nothing here starts
    threads, as a matrix product would: they would take the cores from the other stages of a clip.
    """
    left, top, right, bottom = rectangle
    x0, y0, x1, y1 = box
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # In float32 and in this order, as `_do_paste_mask` computes its grid.
        x = (np.arange(left, right, dtype=np.float32) + np.float32(0.5) - x0) / (x1 - x0) * 2 - 1
        y = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5) - y0) / (y1 - y0) * 2 - 1
        grid = np.pad(probabilities, 2)  # a place beyond the border meets zeros alone
        (column, across), (row, down) = (_cells(at, probabilities.shape[-1]) for at in (x, y))
        bands = grid.take(column, axis=1) * (1 - across) + grid.take(column + 1, axis=1) * across
        value = bands.take(row, axis=0) * (1 - down)[:, None]
        value += bands.take(row + 1, axis=0) * down[:, None]
        value -= np.float32(THRESHOLD)
        region: np.ndarray = value >= 0
        doubtful = np.flatnonzero(~(np.abs(value) >= _DOUBT))  # NaN is doubtful too
    if exactly is not None and len(doubtful):
        rows, columns = np.divmod(doubtful, right - left)
        region.reshape(-1)[doubtful] = exactly(probabilities, x[columns], y[rows]) >= THRESHOLD
    return region


def _grid_sampled(probabilities: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return PyTorch's interpolation of (M, M) float32 at places (P,) from -1 to 1."""
    import torch
    from torch.nn import functional as F

    points = torch.from_numpy(np.stack((x, y), axis=-1))
    grid = torch.from_numpy(probabilities)
    found = F.grid_sample(grid[None, None], points[None, None], align_corners=False)
    return np.asarray(found[0, 0, 0])


def _cells(places: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first of the two cells around each place from -1 to 1, and the second's weight.

    The cells count from the corner of a grid that has two cells more than `size` on each side.
    """
    at = ((places + 1) * size - 1) / 2
    below = np.floor(at)
    cells = np.nan_to_num(below, nan=-2, posinf=-2, neginf=-2).clip(-2, size).astype(np.intp)
    return cells + 2, at - below


def mask_extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return (x0, y0, x1, y1), whole pixels, of the rectangle that holds all of a mask.

    Args:
        mask: bool, (H, W).

    Returns: the rectangle, x1 and y1 excluded; (0, 0, 0, 0) for an empty mask.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return (0, 0, 0, 0)
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def encode_region(region: np.ndarray, x0: int, y0: int, height: int, width: int) -> dict[str, Any]:
    """Return COCO's compressed run-length encoding of a mask, given only a rectangle of it.

    Equals `pycocotools.mask.encode` of the whole mask, at the cost of the rectangle's columns.

    Args:
        region: bool, (h, w); around it the mask is empty.
        x0, y0: column and row of the whole mask at which the rectangle begins, pixels.
        height, width: of the whole mask, pixels.

    Returns: `{"size": [height, width], "counts": str}`, ready for JSON.
    """
    from pycocotools import mask as coco_mask

    rows, columns = region.shape
    strip = np.zeros((columns, height), np.bool_)  # runs go down the columns
    strip[:, y0 : y0 + rows] = region.T
    borders = np.flatnonzero(np.diff(strip.ravel(), prepend=False, append=False)) + x0 * height
    runs = np.diff(borders, prepend=0, append=height * width).tolist()
    if len(runs) > 1 and runs[-1] == 0:
        runs.pop()
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}

"""Masks of people, each only where it can be: a rectangle around the box, not the whole image.

Mask R-CNN predicts 28 x 28 probabilities for each box. Detectron2 resamples them into a mask of
the whole image for every person. Here the box and a margin of one pixel is resampled, and what
comes of it is kept, drawn and encoded where it lies. The masks are Detectron2's, bit for bit (on
the CPU: a GPU may round a probability of one half the other way).

`Instances` carry their masks as `roi_masks` (probabilities, `ROIMasks`), `region_masks`
(`RegionMasks`) or `pred_masks` (bool, (N, H, W)); what follows a predictor accepts all three.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.layers.mask_ops import _do_paste_mask
from detectron2.structures import Instances
from torch.nn import functional as F

from persondet.inference.masks import encode_region, mask_extent

ROI_FIELD = "roi_masks"
"""Where `Instances` carry the mask head's probabilities, a `ROIMasks`, instead of `pred_masks`."""
REGION_FIELD = "region_masks"
"""Where they carry `RegionMasks`."""
THRESHOLD = 0.5  # `detector_postprocess`'s
# Nearer to the threshold than this, the quick way to resample is not trusted.
_DOUBT = np.float32(1e-5)
_Pair = tuple[np.ndarray, np.ndarray]


class RegionMasks:
    """The masks of N people of one image, each only its rectangle; a field of `Instances`.

    Args:
        regions: N arrays, bool, (h, w); around its rectangle a mask is empty.
        corners: N pairs (x0, y0): column and row of the image where the rectangle begins.
        image_size: (H, W) of the image, pixels.

    Raises: ValueError: when a rectangle leaves the image, or the numbers of both differ.
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
        """Yield (region, bool (h, w); corner (x0, y0)) of each person."""
        return iter(zip(self.regions, self.corners, strict=True))

    def __getitem__(self, item: Any) -> RegionMasks:
        """Return some of the masks: `item` is a number, a slice, or an array or tensor of numbers
        or of N truth values."""
        chosen = np.atleast_1d(
            np.arange(len(self))[item if isinstance(item, slice) else _key(item)]
        )
        return RegionMasks(
            [self.regions[i] for i in chosen], [self.corners[i] for i in chosen], self.image_size
        )

    def to(self, *args: Any, **kwargs: Any) -> RegionMasks:
        """Return itself: regions stay on the CPU; so `Instances.to` works."""
        return self

    @staticmethod
    def cat(masks: Sequence[RegionMasks]) -> RegionMasks:
        """Return the masks of several, of one image, one after the other; for `Instances.cat`."""
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
        """Return a mask in COCO's code, `{"size": [H, W], "counts": str}`, as the whole one's."""
        return encode_region(self.regions[i], *self.corners[i], *self.image_size)


def _key(item: Any) -> Any:
    """Return what numpy takes as an index for what torch takes as one."""
    key = np.asarray(item.cpu() if hasattr(item, "cpu") else item)
    return key if key.dtype == bool else key.astype(np.int64)


def region_masks_of(instances: Instances) -> RegionMasks | None:
    """Return the masks of an image's people, whichever field carries them; None without.

    Args:
        instances: on the CPU, with `pred_boxes` (XYXY_ABS, pixels) and one of the fields above.
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

    On the CPU; any number of threads may call it at once.

    Args:
        instances: on the CPU, with `pred_boxes` (XYXY_ABS, pixels); not changed.
    """
    if not instances.has(ROI_FIELD):
        return instances
    fields = {name: field for name, field in instances.get_fields().items() if name != ROI_FIELD}
    return Instances(instances.image_size, **fields, **{REGION_FIELD: region_masks_of(instances)})


def encoded_masks(instances: Instances) -> list[dict[str, Any]] | None:
    """Return the masks of the people of one image in COCO's code; None without masks.

    Args:
        instances: see `region_masks_of`.

    Returns: for each `{"size": [H, W], "counts": str}`.
    """
    masks = region_masks_of(instances)
    return None if masks is None else [masks.encode(i) for i in range(len(masks))]


def paste_masks(
    probabilities: torch.Tensor, boxes: torch.Tensor, image_size: tuple[int, int]
) -> RegionMasks:
    """Resample probabilities into the regions of their boxes.

    Args:
        probabilities: float, (N, M, M), 0..1, on the CPU.
        boxes: float32, (N, 4), XYXY_ABS, pixels.
        image_size: (H, W) of the image, pixels.

    Returns: the masks of `detectron2.layers.paste_masks_in_image`, without the empty rest. A box
        that is not finite or lies outside has an empty one.
    """
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

    Columns first, then whole rows: many times faster than `grid_sample`, which is asked about the few
    pixels so near to one half that rounding decides. Nothing here calls up threads, as a product of
    matrices would: they would take the cores from the other stages of a clip.
    """
    left, top, right, bottom = rectangle
    x0, y0, x1, y1 = box
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # In float32 and in this order: as `_do_paste_mask` computes its grid.
        x = (np.arange(left, right, dtype=np.float32) + np.float32(0.5) - x0) / (x1 - x0) * 2 - 1
        y = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5) - y0) / (y1 - y0) * 2 - 1
        size = probabilities.shape[-1]
        (above, below), (near_above, near_below) = _cells(y, size)
        (left_of, right_of), (near_left, near_right) = _cells(x, size)
        grid = probabilities.numpy()
        bands = grid.take(left_of, axis=1) * near_left + grid.take(right_of, axis=1) * near_right
        found, lower = bands.take(above, axis=0), bands.take(below, axis=0)
        found *= near_above[:, None]
        lower *= near_below[:, None]
        found += lower
        found -= np.float32(THRESHOLD)
        region: np.ndarray = found >= 0
        doubtful = np.flatnonzero(~(np.abs(found, out=found) >= _DOUBT))  # also where not a number
    if len(doubtful):
        rows, columns = np.divmod(doubtful, right - left)
        points = torch.from_numpy(np.stack((x[columns], y[rows]), axis=-1))
        exact = F.grid_sample(probabilities[None, None], points[None, None], align_corners=False)
        region.reshape(-1)[doubtful] = exact[0, 0, 0].numpy() >= THRESHOLD
    return region


def _cells(places: np.ndarray, size: int) -> tuple[_Pair, _Pair]:
    """Return the two of `size` cells between which places from -1 to 1 lie, and their weights.

    Beyond the border the weight is 0; of a place that is not a number it is none either.
    """
    at = ((places + 1) * size - 1) / 2
    below = np.floor(at)
    share = at - below
    nothing = share * 0  # not a number where the place is none
    first = np.nan_to_num(below, nan=-2, posinf=-2, neginf=-2).clip(-2, size).astype(np.intp)
    cells, weights = [], []
    for cell, weight in ((first, 1 - share), (first + 1, share)):
        inside = (cell >= 0) & (cell < size)
        cells.append(np.where(inside, cell, 0))
        weights.append(np.where(inside, weight, nothing))
    return (cells[0], cells[1]), (weights[0], weights[1])

"""ROIAlign on CPUs: weighted sums of whole feature vectors, both ways, all levels at once.

Source: He et al., "Mask R-CNN", ICCV 2017, section 3; `ROIPooler` is Detectron2's.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import (
    ROIPooler,
    assign_boxes_to_levels,
    convert_boxes_to_pooler_format,
)
from detectron2.structures import Boxes


class ExactROIAlign(ROIAlign):
    """ROIAlign whose boxes keep their places in reduced precision, and that is fast on CPUs.

    Detectron2's casts the boxes to the type of the features, and in bfloat16 a coordinate of 300
    pixels is off by up to a pixel. And torchvision's CPU kernel walks the map channel by channel,
    in one thread on the way back; in channels-last layout each output bin is a short weighted sum
    of contiguous vectors, which `embedding_bag` computes with vector units and all threads.
    """

    def forward(self, features: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Pool float features (N, C, H, W) in boxes (R, 5): index and XYXY in input pixels.

        Returns: (R, C, *output_size), in the type of the features.
        """
        if features.device.type != "cpu" or torch.jit.is_tracing():
            return super().forward(features.float(), boxes.float()).to(features.dtype)
        return _pooled([features], boxes, torch.zeros(len(boxes), dtype=torch.int64), [self])


class PyramidPooler(ROIPooler):
    """`ROIPooler` that pools from all levels at once, on CPUs: most of its time went by calls."""

    def forward(self, x: list[torch.Tensor], box_lists: list[Boxes]) -> torch.Tensor:
        """Pool features (N, C, H, W) in the boxes of N images, as Detectron2's does."""
        poolers = list(self.level_poolers)
        if (
            len(poolers) == 1
            or not box_lists
            or x[0].device.type != "cpu"
            or torch.jit.is_tracing()
            or any(type(pooler) is not ExactROIAlign for pooler in poolers)
        ):
            found: torch.Tensor = super().forward(x, box_lists)
            return found
        boxes = convert_boxes_to_pooler_format(box_lists)
        limits = (self.min_level, self.max_level, self.canonical_box_size, self.canonical_level)
        return _pooled(x, boxes, assign_boxes_to_levels(box_lists, *limits), poolers)


def _pooled(
    features: Sequence[torch.Tensor],
    boxes: torch.Tensor,
    levels: torch.Tensor,
    poolers: Sequence[ROIAlign],
) -> torch.Tensor:
    size = poolers[0].output_size
    height, width = (size, size) if isinstance(size, int) else size
    scales = [pooler.spatial_scale for pooler in poolers]
    shapes = [tuple(level.shape) for level in features]
    how = (poolers[0].sampling_ratio, poolers[0].aligned)
    samples = bin_samples(boxes.detach().float(), levels, shapes, scales, (height, width), *how)
    with torch.autocast("cpu", enabled=False):
        pooled: torch.Tensor = _Pool.apply(samples, *features)
    # NHWC in memory, as the features.
    return pooled.view(len(boxes), height, width, pooled.shape[1]).permute(0, 3, 1, 2)


class BinSamples(NamedTuple):
    """Which cells of the feature maps make up each bin, as a sparse matrix in rows of bins.

    Attributes:
        cells: int64 (E,), place of the cell in the levels' joined maps of (N * H * W) cells.
        weights: float32 (E,).
        offsets: int64 (B + 1,), where the entries of bin b begin and end; bins in the order
            (box, row, column).
    """

    cells: torch.Tensor
    weights: torch.Tensor
    offsets: torch.Tensor


def bin_samples(
    boxes: torch.Tensor,
    levels: torch.Tensor,
    shapes: Sequence[tuple[int, ...]],
    scales: Sequence[float],
    output_size: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
) -> BinSamples:
    """Return the bilinear weights of every bin.

    The samples of a bin form a grid, so a cell's weight is the product of one per row and one per
    column. Source: He et al., "Mask R-CNN", ICCV 2017, section 3; `aligned` as in Detectron2.

    Args:
        boxes: float32 (R, 5), index of the image and XYXY in input pixels.
        levels: int64 (R,), the level of each box.
        shapes: of the features of each level, (N, C, H, W).
        scales: of each level's features relative to the input.
        output_size: bins per box, (rows, columns).
        sampling_ratio: samples per bin and axis; 0: one per cell, rounded up.
        aligned: cell centres at half cells.
    """
    heights, widths = torch.tensor([shape[2:] for shape in shapes])[levels].unbind(1)
    firsts = itertools.accumulate((n * h * w for n, _, h, w in shapes[:-1]), initial=0)
    scale = torch.tensor(scales, dtype=boxes.dtype)[levels]
    corners = boxes[:, 1:] * scale[:, None] - (0.5 if aligned else 0.0)
    rows, columns = output_size
    edges = torch.cat([corners[:, 1::2], corners[:, 0::2]])  # down, then across
    bins = torch.tensor([rows, columns], dtype=edges.dtype).repeat_interleave(len(boxes))
    axes = _axis(edges, bins, torch.cat([heights, widths]).float(), sampling_ratio, aligned)
    first_y, count_y, weight_y = (t[: len(boxes), :rows] for t in axes)
    first_x, count_x, weight_x = (t[len(boxes) :, :columns] for t in axes)
    # The cell before the first column, in the first row.
    first_y = (first_y + (boxes[:, 0].long() * heights)[:, None]) * widths[:, None]
    first_y = first_y + torch.tensor(list(firsts))[levels][:, None]
    # A bin has count_y x count_x entries; each entry finds its bin, then its place in there.
    sizes = (count_y[:, :, None] * count_x[:, None, :]).flatten()
    offsets = F.pad(sizes.cumsum(0), (1, 0))
    bins = torch.repeat_interleave(sizes)
    place = torch.arange(len(bins)) - offsets[bins]
    bin_y = bins // columns
    box = bin_y // rows
    bin_x = box * columns + bins % columns
    wide = count_x.flatten()[bin_x]
    down = torch.div(place, wide, rounding_mode="floor")
    right = place - down * wide
    cells = first_y.flatten()[bin_y] + down * widths[box] + first_x.flatten()[bin_x] + right
    weights = (
        weight_y.flatten()[bin_y * weight_y.shape[2] + down]
        * weight_x.flatten()[bin_x * weight_x.shape[2] + right]
    )
    return BinSamples(cells, weights, offsets)


def _axis(
    edges: torch.Tensor, bins: torch.Tensor, cells: torch.Tensor, sampling_ratio: int, aligned: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    # For each box and bin of an axis: the first cell, how many cells, and their weights
    # (R, bins, most); numbers of bins and cells are float32 (R,).
    low, high = edges.unbind(1)
    length = high - low if aligned else (high - low).clamp(min=1.0)
    step = length / bins
    samples = torch.full_like(low, sampling_ratio) if sampling_ratio else step.ceil().clamp(min=0)
    most = max(1, int(samples.max()) if len(samples) else 1)
    sample = torch.arange(most, dtype=low.dtype)
    inside = sample < samples[:, None]
    share = samples.clamp(min=1.0)
    within = (sample + 0.5) * (step / share)[:, None]
    bin_at = torch.arange(int(bins.max()) if len(bins) else 1, dtype=low.dtype)
    bin_start = low[:, None] + bin_at * step[:, None]
    place = bin_start[:, :, None] + within[:, None, :]
    cells = cells[:, None, None]
    inside = inside[:, None, :] & (place >= -1.0) & (place <= cells)
    place = place.clamp(min=0.0).minimum(cells - 1.0)
    cell = place.floor().minimum((cells - 2.0).clamp(min=0.0))
    right = (place - cell) * inside
    left = inside.to(right.dtype) - right
    first = torch.where(inside, cell, cells).amin(2)
    last = torch.where(inside, (cell + 1.0).minimum(cells - 1.0), -1.0).amax(2)
    count = (last - first + 1.0).clamp(min=0.0).long()
    first = first.minimum(cells[:, 0] - 1.0)
    at = torch.where(inside, cell - first[:, :, None], 0.0).long()
    weights = torch.zeros(*first.shape, max(1, int(count.max()) if count.numel() else 1) + 1)
    weights.scatter_add_(2, at, left / share[:, None, None])
    weights.scatter_add_(2, at + 1, right / share[:, None, None])
    return first.long(), count, weights


class _Pool(torch.autograd.Function):
    """Weighted sums of cells; backwards, weighted sums of bins."""

    @staticmethod
    def forward(ctx: Any, samples: BinSamples, *features: torch.Tensor) -> torch.Tensor:
        cells, weights, offsets = samples
        ctx.shapes, ctx.dtype = [level.shape for level in features], features[0].dtype
        # int32 halves what is kept until the backward pass.
        ctx.save_for_backward(cells.int(), weights, offsets)
        tables = [level.permute(0, 2, 3, 1).flatten(0, 2) for level in features]
        return _weighted_sums(torch.cat(tables).float(), cells, offsets, weights).to(ctx.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cells, weights, offsets = ctx.saved_tensors
        sizes = [images * height * width for images, _, height, width in ctx.shapes]
        # The transposed matrix: the entries in the order of their cells. The sort is stable, so
        # that the sums have one order and training is reproducible to the bit.
        cells, order = torch.sort(cells, stable=True)
        bins = torch.repeat_interleave(offsets.diff())[order]
        counts = torch.bincount(cells, minlength=sum(sizes))
        by_cell = F.pad(counts.cumsum(0), (1, 0))
        summed = _weighted_sums(gradient.float(), bins, by_cell, weights[order]).to(ctx.dtype)
        levels = zip(summed.split(sizes), ctx.shapes, strict=True)
        return None, *(t.view(n, h, w, c).permute(0, 3, 1, 2) for t, (n, c, h, w) in levels)


def _weighted_sums(
    table: torch.Tensor, rows: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    if not len(rows):
        return table.new_zeros(len(offsets) - 1, table.shape[1])
    return F.embedding_bag(
        rows, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )

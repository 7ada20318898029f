"""Faster layers for processors, with the same weights and the same mathematics.

- ROIAlign: weighted sums of whole feature vectors, forwards and backwards, all levels at once.
- The RPN head: its gradient is that of the sampled anchors alone.
- Convolution and frozen batch norm as one convolution, in Detectron2's layers and in timm's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, FrozenBatchNorm2d, ROIAlign
from detectron2.modeling.poolers import (
    ROIPooler,
    assign_boxes_to_levels,
    convert_boxes_to_pooler_format,
)
from detectron2.modeling.proposal_generator.rpn import RPN, StandardRPNHead
from detectron2.structures import Boxes
from torch import nn

from persondet.modeling import winograd
from persondet.modeling.backbones import TimmBackbone
from persondet.modeling.detections import OrderedRPN
from persondet.modeling.freeze import FrozenBatchNormAct2d, asks_for_gradient, learns


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


_POSITIONS_AT_ONCE = 4096


class SparseRPNHead(StandardRPNHead):
    """`StandardRPNHead` with a backward pass over the places that have a gradient.

    The loss samples 256 anchors of an image; at some 200,000 others the gradient of the head's
    outputs is exactly zero, and a dense backward pass multiplies these zeros at the price of two
    forward passes. This one computes the hidden layer once more at the sampled places only.
    """

    def forward(
        self, features: list[torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return logits (N, A, H, W) and deltas (N, 4 A, H, W) for each of the features."""
        if (
            type(self.conv) not in (Conv2d, FoldedConv2d)  # several layers
            or features[0].device.type != "cpu"
            or torch.jit.is_tracing()
        ):
            # On GPUs, finding the places would have to wait for the device, level by level.
            return super().forward(features)
        anchors = self.objectness_logits.out_channels
        # Two predictors on one input are one predictor.
        weight = torch.cat([self.objectness_logits.weight, self.anchor_deltas.weight])
        bias = torch.cat([self.objectness_logits.bias, self.anchor_deltas.bias])
        outputs = [_Head.apply(x, self.conv.weight, self.conv.bias, weight, bias) for x in features]
        return [out[:, :anchors] for out in outputs], [out[:, anchors:] for out in outputs]


class _Head(torch.autograd.Function):
    """3 x 3 convolution, ReLU, 1 x 1 convolution."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        conv_weight, conv_bias, weight, bias = tensors
        ctx.save_for_backward(x, conv_weight, conv_bias, weight)
        if _is_exact(x, conv_weight) and winograd.pays(x, conv_weight):
            hidden, _ = winograd.convolve(x, conv_weight, conv_bias)
        else:  # under autocast these convolutions cast x and the weights
            hidden = F.conv2d(x, conv_weight, conv_bias, padding=1)
        return F.conv2d(hidden.relu_(), weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        with torch.autocast(gradient.device.type, enabled=False):
            return _backward(gradient, ctx.saved_tensors, ctx.needs_input_grad)


def _backward(
    gradient: torch.Tensor, saved: tuple[torch.Tensor, ...], needed: tuple[bool, ...]
) -> tuple[torch.Tensor | None, ...]:
    x, conv_weight, conv_bias, weight = saved
    images, channels, height, width = x.shape
    x_rows = x.permute(0, 2, 3, 1).reshape(-1, channels)
    gradient_rows = gradient.permute(0, 2, 3, 1).reshape(-1, gradient.shape[1])
    places = gradient_rows.ne(0).any(1).nonzero()[:, 0]
    # (hidden, 3, 3, channels): the order in which the nine neighbours are gathered.
    kernel = conv_weight.float().permute(0, 2, 3, 1).flatten(1)
    predictor = weight.float().flatten(1)

    x_gradient = torch.zeros_like(x_rows) if needed[0] else None
    sums = [torch.zeros_like(t) for t in (kernel, conv_bias, predictor, predictor[:, 0])]
    for chunk in places.split(_POSITIONS_AT_ONCE):
        rows, inside = _neighbours(chunk, height, width)
        patches = (x_rows[rows].float() * inside[:, :, None]).flatten(1)
        hidden = torch.addmm(conv_bias.float(), patches, kernel.t()).relu_()
        out_gradient = gradient_rows[chunk].float()
        hidden_gradient = (out_gradient @ predictor) * (hidden > 0)
        sums[0] += hidden_gradient.t() @ patches
        sums[1] += hidden_gradient.sum(0)
        sums[2] += out_gradient.t() @ hidden
        sums[3] += out_gradient.sum(0)
        if x_gradient is not None:
            spread = (hidden_gradient @ kernel).view(-1, channels)
            touched, where = torch.unique(rows[inside], return_inverse=True)
            # Summed in float32, then rounded to the type of x once.
            summed = spread.new_zeros(len(touched), channels)
            summed.index_add_(0, where, spread[inside.flatten()])
            x_gradient[touched] += summed.to(x.dtype)

    hidden_channels = conv_weight.shape[0]
    kernel_gradient = sums[0].view(hidden_channels, 3, 3, channels).permute(0, 3, 1, 2)
    if x_gradient is not None:
        x_gradient = x_gradient.view(images, height, width, channels).permute(0, 3, 1, 2)
    return (
        x_gradient,
        kernel_gradient.to(conv_weight.dtype) if needed[1] else None,
        sums[1].to(conv_bias.dtype) if needed[2] else None,
        sums[2].view_as(weight).to(weight.dtype) if needed[3] else None,
        sums[3].to(weight.dtype) if needed[4] else None,
    )


def _neighbours(places: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    # Rows of the 3 x 3 neighbours of each place (P, 9), and which of them lie on the map.
    step = torch.arange(-1, 2, device=places.device)
    y = (places // width % height)[:, None, None] + step[:, None]
    x = (places % width)[:, None, None] + step
    inside = ((y >= 0) & (y < height) & (x >= 0) & (x < width)).flatten(1)
    offset = (step[:, None] * width + step).flatten()
    rows = torch.where(inside, places[:, None] + offset, places[:, None])
    return rows, inside


class FoldedConv2d(Conv2d):
    """`Conv2d` that multiplies a frozen batch norm into its weights, at every call.

    `conv(x, w) * s + b` equals `conv(x, w * s) + b`, and the second form does not pass over the
    whole map twice more. The weights are small, so folding costs next to nothing, and nothing is
    kept that loading or training could leave stale. The gradient flows through `w * s`. Without a
    gradient a batch norm in evaluation mode is folded too.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve float x (N, C, H, W), and apply norm and activation, as Detectron2's does."""
        norm = self.norm
        still = type(norm) is nn.BatchNorm2d and not (norm.training or torch.is_grad_enabled())
        if torch.jit.is_tracing():
            return super().forward(x)
        if norm is None or still or isinstance(norm, FrozenBatchNorm2d):
            return _convolve(self, x, norm, self.activation)
        x = norm(_convolve(self, x, None, None))
        return x if self.activation is None else self.activation(x)


class ConvWithNorm2d(nn.Conv2d):
    """A convolution of timm's that does the work of the frozen batch norm behind it.

    As `FoldedConv2d`, for layers that are two modules and not one. The activation inside the norm
    is its work too.
    """

    # In a tuple it is no submodule, so that the names of tensors stay.
    norm_behind: tuple[FrozenBatchNorm2d]
    same_padding: bool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve float x (N, C, H, W), normalise and activate."""
        (norm,) = self.norm_behind
        # `drop` of a frozen norm does nothing: feature maps are made without.
        return _convolve(self, x, norm, getattr(norm, "act", None), same=self.same_padding)


class NormInConv(FrozenBatchNorm2d):
    """A frozen batch norm whose work is done by the convolution before it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x (N, C, H, W) as it is."""
        return x


class NormActInConv(NormInConv, FrozenBatchNormAct2d):
    """As `NormInConv`, with an activation."""


# How oneDNN calls an activation.
_FUSED: dict[type[Any], tuple[str, list[float]]] = {
    type(None): ("none", []),
    nn.Identity: ("none", []),
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.Hardswish: ("hardswish", []),
    nn.SiLU: ("swish", []),
}
# The gradient of an activation, from its output and the gradient of that.
_GRADIENTS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "none": lambda gradient, _: gradient,
    "relu": lambda gradient, y: torch.ops.aten.threshold_backward(gradient, y, 0.0),
    "hardtanh": lambda gradient, y: torch.ops.aten.hardtanh_backward(gradient, y, 0.0, 6.0),
}


# Kernel, padding, stride, dilation and groups.
_POINTWISE = ((1, 1), (0, 0), (1, 1), (1, 1), 1)
_SAME_3_BY_3 = ((3, 3), (1, 1), (1, 1), (1, 1), 1)
# What activations do in place to a convolution's output.
_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda y: y,
    "relu": torch.relu_,
    "hardtanh": lambda y: y.clamp_(0.0, 6.0),
}


def _is_exact(x: torch.Tensor, weight: torch.Tensor) -> bool:
    # On a CPU and in float32, and nothing is recorded or cast.
    return (
        (x.device.type, x.dtype, weight.dtype) == ("cpu", torch.float32, torch.float32)
        and not (torch.is_autocast_enabled("cpu") or torch.jit.is_tracing())
        and len(x) > 0  # no instance has no masks
    )


class _Fused(torch.autograd.Function):
    """Convolution and activation in one call of oneDNN, which activates values in registers."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *given: Any) -> torch.Tensor:
        weight, bias, place, activation = given
        ctx.same = not x.is_mkldnn and (weight.shape[2:], *place) == _SAME_3_BY_3
        ctx.winograd = ctx.same and activation[0] in _ACTIVATIONS and winograd.pays(x, weight)
        kept = None
        if ctx.winograd:
            y, kept = winograd.convolve(x, weight, bias, keep=ctx.needs_input_grad[1])
            y = _ACTIVATIONS[activation[0]](y)
        else:
            y = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *place, *activation, "")
        # The output itself may be changed in place behind a convolution without an activation.
        ctx.save_for_backward(x, weight, y if activation[0] != "none" else None, kept)
        ctx.place, ctx.activation = place, activation[0]
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, y, kept = ctx.saved_tensors
        gradient, needed = _GRADIENTS[ctx.activation](gradient, y), ctx.needs_input_grad
        if ctx.winograd or (needed[0] and needed[1] and ctx.same and winograd.pays_back(x, weight)):
            of_x, of_weight = winograd.gradients(gradient, x, weight, kept=kept, needed=needed)
        else:
            of_x, of_weight = _gradients(gradient, x, weight, ctx.place, needed)
        of_bias = gradient.sum((0, 2, 3)) if needed[2] else None
        return of_x, of_weight, of_bias, None, None


def _gradients(
    gradient: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    place: tuple[Any, ...],
    needed: Sequence[bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    padding, stride, dilation, groups = place
    of_weight = _weight_gradient(gradient, x, weight, place) if needed[1] else None
    mask = [needed[0], needed[1] and of_weight is None, False]
    if not any(mask):
        return None, of_weight
    where = (None, stride, padding, dilation, False, (0, 0), groups)
    found = torch.ops.aten.convolution_backward.default(gradient, x, weight, *where, mask)
    return found[0], found[1] if of_weight is None else of_weight


def _weight_gradient(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, place: tuple[Any, ...]
) -> torch.Tensor | None:
    """Return the weights' gradient where there is a faster way than oneDNN's."""
    padding, stride, dilation, groups = place
    if (weight.shape[2:], *place) == _POINTWISE:  # a matrix product, a fifth faster
        rows, columns = (t.permute(0, 2, 3, 1).flatten(0, 2) for t in (gradient, x))
        return (rows.t() @ columns).view_as(weight)
    if not (groups == weight.shape[0] == x.shape[1] and dilation == (1, 1)):
        return None
    # Depthwise: the map convolved with the gradient, channel by channel: a tenth of the time that
    # oneDNN takes for kernels of more than 3 x 3.
    kernels, maps = gradient.flatten(0, 1)[:, None], x.flatten(0, 1)[None]
    taps = F.conv2d(maps, kernels.contiguous(), None, 1, padding, stride, maps.shape[1])
    taps = taps[0, :, : weight.shape[2], : weight.shape[3]]
    return taps.unflatten(0, x.shape[:2]).sum(0)[:, None]


def _folded(conv: nn.Conv2d, norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    of_norm = [norm.weight, norm.bias, norm.running_mean, norm.running_var]
    of_conv = [t for t in (conv.weight, conv.bias) if t is not None]

    def scale_of() -> tuple[torch.Tensor, torch.Tensor]:
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return scale, norm.bias - norm.running_mean * scale

    def fold() -> tuple[torch.Tensor, torch.Tensor]:
        scale, bias = _kept(conv, "_scale", norm, of_norm, scale_of)
        if conv.bias is not None:
            bias = bias + conv.bias * scale
        return conv.weight * scale[:, None, None, None], bias

    return _kept(conv, "_whole", norm, of_norm + of_conv, fold)


def _kept(
    conv: nn.Conv2d,
    name: str,
    norm: Any,
    given: list[torch.Tensor],
    make: Callable[[], tuple[torch.Tensor, torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor]:
    # Kept only where nothing learns: a fused optimizer writes weights without raising a version.
    keeps = isinstance(norm, FrozenBatchNorm2d) and not any(t.is_inference() for t in given)
    if learns(*given) or not keeps:
        return make()
    now = [(t.data_ptr(), t._version) for t in given]
    then, made = vars(conv).get(name, (None, None))
    if now != then:
        with torch.inference_mode(False), torch.no_grad():  # of use to a backward pass too
            made = make()
        vars(conv)[name] = now, made
    return made


def _convolve(
    conv: nn.Conv2d,
    x: torch.Tensor,
    norm: Any,
    activation: Callable[[torch.Tensor], torch.Tensor] | None,
    *,
    same: bool = False,
) -> torch.Tensor:
    """Convolve, normalise and activate float x (N, C, H, W); `same`: padded as TensorFlow does."""
    weight, bias = (conv.weight, conv.bias) if norm is None else _folded(conv, norm)
    padding: Any = conv.padding
    if same:
        x, weight, padding = _pad_same(conv, x, weight)
    how = _FUSED.get(type(activation), ("", []))
    known = how[0] in _GRADIENTS or (how[0] and not asks_for_gradient(x, *conv.parameters()))
    if known and _is_exact(x, weight):
        place = (padding, conv.stride, conv.dilation, conv.groups)
        return _Fused.apply(x, weight, bias, place, how)
    x = F.conv2d(x, weight, bias, conv.stride, padding, conv.dilation, conv.groups)
    return x if activation is None else activation(x)


def _pad_same(
    conv: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    # The map, the weights and the padding that convolve with "SAME" padding: half of it on each
    # side, and of an odd number one more to the right and below.
    # A trace keeps the numbers: those of all maps whose sides the stride divides, as a padded
    # image has them.
    sides = [int(side) for side in x.shape[2:]]
    sizes = zip(sides, conv.kernel_size, conv.stride, conv.dilation, strict=True)
    needs = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in sizes]
    down, across = (need % 2 for need in needs)
    if conv.groups > 1 and conv.dilation == (1, 1):
        # A zero before the kernel moves it by one. A copy of the map takes three times as long as
        # the whole depthwise convolution.
        weight = F.pad(weight, (across, 0, down, 0))
        return x, weight, [need - need // 2 for need in needs]
    if down or across:
        padded = F.pad(x.to_dense() if x.is_mkldnn else x, (0, across, 0, down))
        x = padded.to_mkldnn() if x.is_mkldnn else padded
    return x, weight, [need // 2 for need in needs]


class BlockedBackbone(TimmBackbone):
    """A timm model of convolutions, folded norms and sums only, without copies between layers.

    oneDNN computes on blocks of eight channels. Given maps in that layout it leaves them in it,
    and does not reorder every map before and behind every convolution.
    """

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the maps of normalised images (N, 3, H, W), as `TimmBackbone` does."""
        plain = x.device.type != "cpu" or x.dtype != torch.float32 or torch.jit.is_tracing()
        if plain or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        maps = {}
        for stage, layers in self.named_children():
            blocked = not asks_for_gradient(x, *layers.parameters())
            if x.is_mkldnn != blocked:
                x = x.to_mkldnn() if blocked else x.to_dense()
            x = layers(x)
            if stage in self._out_features:
                maps[stage] = x.to_dense()
        return maps


def _fold_norms(backbone: TimmBackbone) -> None:
    """Let convolutions of `backbone` do the work of the frozen batch norms behind them.

    One pass over an empty image tells which norm is given the very output of a convolution.
    """
    from timm.layers import Conv2dSame

    outputs: dict[int, tuple[nn.Module, torch.Tensor]] = {}
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def after_convolution(conv: nn.Module, _: Any, output: torch.Tensor) -> None:
        outputs[id(output)] = conv, output  # kept, so that no other tensor gets its id

    def before_norm(norm: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if id(given[0]) in outputs:
            pairs.append((outputs[id(given[0])][0], norm))

    hooks = [
        module.register_forward_hook(after_convolution)
        if type(module) in (nn.Conv2d, Conv2dSame)
        else module.register_forward_pre_hook(before_norm)
        for module in backbone.modules()
        if type(module) in (nn.Conv2d, Conv2dSame, *_IN_CONV)
    ]
    weight = next(backbone.parameters())
    training = [(module, module.training) for module in backbone.modules()]
    with torch.no_grad():
        backbone.eval()(weight.new_zeros(1, 3, 64, 64))
    for module, mode in training:
        module.training = mode
    for hook in hooks:
        hook.remove()
    for conv, norm in pairs:
        if sum(conv is c or norm is n for c, n in pairs) == 1:
            vars(conv).update(same_padding=isinstance(conv, Conv2dSame), norm_behind=(norm,))
            conv.__class__, norm.__class__ = ConvWithNorm2d, _IN_CONV[type(norm)]
    norms = {m for m in backbone.modules() if isinstance(m, NormInConv)}
    others = set(backbone.modules()).difference(*(norm.modules() for norm in norms))
    others = {type(m) for m in others if not any(m.children())}
    acts = {type(getattr(norm, "act", None)) for norm in norms}
    if others <= {ConvWithNorm2d, nn.Identity} and acts <= _FUSED.keys():
        backbone.__class__ = BlockedBackbone


_IN_CONV: dict[type[nn.Module], type[nn.Module]] = {
    FrozenBatchNorm2d: NormInConv,
    FrozenBatchNormAct2d: NormActInConv,
}


_FASTER: dict[type[nn.Module], type[nn.Module]] = {
    Conv2d: FoldedConv2d,
    ROIAlign: ExactROIAlign,
    RPN: OrderedRPN,
    ROIPooler: PyramidPooler,
    StandardRPNHead: SparseRPNHead,
}


def accelerate(model: nn.Module) -> nn.Module:
    """Let `model` compute by faster layers, in place; for training and inference.

    Only the classes of the layers change: parameters, buffers and their names stay, so that
    checkpoints load and save as before and freezing works before or after. Subclasses of the
    layers in question are left as they are. Equal proposals get an order (`OrderedRPN`).
    """
    for module in model.modules():
        module.__class__ = _FASTER.get(type(module), type(module))
        if isinstance(module, TimmBackbone) and any(type(m) in _IN_CONV for m in module.modules()):
            _fold_norms(module)
    return model

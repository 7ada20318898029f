"""The head of the region proposal network, whose gradient is that of the sampled anchors alone."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from torch import nn

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
        if not _is_plain(self) or features[0].device.type != "cpu" or torch.jit.is_tracing():
            # On GPUs, finding the places would have to wait for the device, level by level.
            return super().forward(features)
        anchors = self.objectness_logits.out_channels
        # Two predictors on one input are one predictor.
        weight = torch.cat([self.objectness_logits.weight, self.anchor_deltas.weight])
        bias = torch.cat([self.objectness_logits.bias, self.anchor_deltas.bias])
        outputs = [_Head.apply(x, self.conv.weight, self.conv.bias, weight, bias) for x in features]
        return [out[:, :anchors] for out in outputs], [out[:, anchors:] for out in outputs]


def _is_plain(head: StandardRPNHead) -> bool:
    conv = head.conv
    return (
        isinstance(conv, nn.Conv2d)
        and getattr(conv, "norm", None) is None
        and isinstance(getattr(conv, "activation", None), nn.ReLU)
        and conv.kernel_size == (3, 3)
        and conv.padding == (1, 1)
        and conv.stride == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.bias is not None
    )


class _Head(torch.autograd.Function):
    """3 x 3 convolution, ReLU, 1 x 1 convolution."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        conv_weight: torch.Tensor,
        conv_bias: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, conv_weight, conv_bias, weight)
        # Under autocast these convolutions cast x and the weights.
        hidden = F.conv2d(x, conv_weight, conv_bias, padding=1).relu_()
        return F.conv2d(hidden, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, conv_weight, conv_bias, weight = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            return _backward(gradient, x, conv_weight, conv_bias, weight, ctx.needs_input_grad)


def _backward(
    gradient: torch.Tensor,
    x: torch.Tensor,
    conv_weight: torch.Tensor,
    conv_bias: torch.Tensor,
    weight: torch.Tensor,
    needed: tuple[bool, ...],
) -> tuple[torch.Tensor | None, ...]:
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
    return (
        None
        if x_gradient is None
        else x_gradient.view(images, height, width, channels).permute(0, 3, 1, 2),
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

"""Convolution and frozen batch norm as one convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, FrozenBatchNorm2d


class FoldedConv2d(Conv2d):
    """`Conv2d` that multiplies a frozen batch norm into its weights, at every call.

    `conv(x, w) * s + b` equals `conv(x, w * s) + b`, and the second form does not pass over the
    whole map twice more. The weights are small, so folding costs next to nothing, and nothing is
    kept that loading or training could leave stale. The gradient flows through `w * s`.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve float x (N, C, H, W), and apply norm and activation, as Detectron2's does."""
        norm = self.norm
        if not isinstance(norm, FrozenBatchNorm2d) or torch.jit.is_tracing():
            return super().forward(x)
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        bias = norm.bias - norm.running_mean * scale
        if self.bias is not None:
            bias = bias + self.bias * scale
        weight = self.weight * scale[:, None, None, None]
        x = F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        return x if self.activation is None else self.activation(x)

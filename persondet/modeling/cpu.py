"""Faster layers for processors, with the same weights and the same mathematics.

- ROIAlign: weighted sums of whole feature vectors, forwards and backwards, all levels at once.
- The RPN head: its gradient is that of the sampled anchors alone.
- Convolution and frozen batch norm as one convolution, in Detectron2's layers and in timm's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, FrozenBatchNorm2d, ROIAlign
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.rpn import RPN, StandardRPNHead
from torch import nn

from persondet.modeling import winograd
from persondet.modeling.backbones import TimmBackbone
from persondet.modeling.detections import OrderedRPN
from persondet.modeling.freeze import FrozenBatchNormAct2d, asks_for_gradient, learns
from persondet.modeling.roi_align import ExactROIAlign, PyramidPooler

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


def _is_same(x: torch.Tensor, weight: torch.Tensor, place: tuple[Any, ...]) -> bool:
    return not x.is_mkldnn and (weight.shape[2:], *place) == _SAME_3_BY_3


def _fused(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    place: tuple[Any, ...],
    activation: tuple[str, list[float]],
    *,
    keep: bool = False,
) -> tuple[torch.Tensor, bool, torch.Tensor | None]:
    """Return the map, whether it was found by Winograd's way, and what that keeps if asked to."""
    name = activation[0]
    if _is_same(x, weight, place) and name in _ACTIVATIONS and winograd.pays(x, weight):
        y, kept = winograd.convolve(x, weight, bias, keep=keep)
        return _ACTIVATIONS[name](y), True, kept
    y = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *place, *activation, "")
    return y, False, None


class _Fused(torch.autograd.Function):
    """Convolution and activation in one call of oneDNN, which activates values in registers.

    `scale` (O,) is multiplied into the weights; it learns nothing.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *given: Any) -> torch.Tensor:
        weight, scale, bias, place, activation = given
        if scale is not None:
            scale = scale[:, None, None, None]
            weight = weight * scale
        keep = ctx.needs_input_grad[1]
        y, ctx.winograd, kept = _fused(x, weight, bias, place, activation, keep=keep)
        # The output itself may be changed in place behind a convolution without an activation.
        ctx.save_for_backward(x, weight, scale, y if activation[0] != "none" else None, kept)
        ctx.place, ctx.activation = place, activation[0]
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, scale, y, kept = ctx.saved_tensors
        gradient, needed = _GRADIENTS[ctx.activation](gradient, y), ctx.needs_input_grad
        same, both = _is_same(x, weight, ctx.place), needed[0] and needed[1]
        if ctx.winograd or (both and same and winograd.pays_back(x, weight)):
            of_x, of_weight = winograd.gradients(gradient, x, weight, kept=kept, needed=needed)
        else:
            of_x, of_weight = _gradients(gradient, x, weight, ctx.place, needed)
        if of_weight is not None and scale is not None:
            of_weight *= scale
        of_bias = gradient.sum((0, 2, 3)) if needed[3] else None
        return of_x, of_weight, None, of_bias, None, None


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


def _folded(conv: nn.Conv2d, norm: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return weights, bias and, for weights that learn, the scale still to be multiplied in."""
    of_norm = [norm.weight, norm.bias, norm.running_mean, norm.running_var]
    of_conv = [t for t in (conv.weight, conv.bias) if t is not None]

    def scale_of() -> tuple[torch.Tensor, torch.Tensor]:
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return scale, norm.bias - norm.running_mean * scale

    def bias_of() -> tuple[torch.Tensor, torch.Tensor]:
        scale, bias = _kept(conv, "_scale", norm, of_norm, scale_of)
        return scale, bias if conv.bias is None else bias + conv.bias * scale

    def fold() -> tuple[torch.Tensor, torch.Tensor]:
        scale, bias = bias_of()
        return conv.weight * scale[:, None, None, None], bias

    if learns(conv.weight) and not learns(*of_norm):
        scale, bias = bias_of()
        return conv.weight, bias, scale
    return *_kept(conv, "_whole", norm, of_norm + of_conv, fold), None


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
    weight, bias, scale = conv.weight, conv.bias, None
    if norm is not None:
        weight, bias, scale = _folded(conv, norm)
    padding: Any = conv.padding
    if same:
        x, weight, padding = _pad_same(conv, x, weight)
    how = _FUSED.get(type(activation), ("", []))
    known = how[0] in _GRADIENTS or (how[0] and not asks_for_gradient(x, *conv.parameters()))
    fuses = known and _is_exact(x, weight)
    place = (padding, conv.stride, conv.dilation, conv.groups)
    if fuses and asks_for_gradient(*(t for t in (x, weight, bias) if t is not None)):
        return _Fused.apply(x, weight, scale, bias, place, how)
    if scale is not None:
        weight = weight * scale[:, None, None, None]
    if fuses:
        return _fused(x, weight, bias, place, how)[0]
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

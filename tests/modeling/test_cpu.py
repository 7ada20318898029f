"""Faster layers compute what Detectron2's do, from the same weights."""

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d, ROIAlign
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.structures import Boxes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from persondet.modeling.cpu import ExactROIAlign, SparseRPNHead, accelerate
from persondet.modeling.freeze import freeze_modules


def with_statistics(module):
    torch.manual_seed(1)
    for norm in module.modules():
        if isinstance(norm, FrozenBatchNorm2d):
            for name, buffer in norm.named_buffers():
                buffer.uniform_(0.5, 1.5) if name != "bias" else buffer.uniform_(-1, 1)
    return module


def block(norm="FrozenBN"):
    torch.manual_seed(0)
    return with_statistics(BottleneckBlock(8, 16, bottleneck_channels=4, stride=2, norm=norm))


def test_a_block_with_frozen_batch_norm_has_the_same_values_and_gradients():
    x, sides, loaded = torch.randn(2, 8, 9, 11), [], accelerate(block())
    nn.init.zeros_(loaded.conv1.weight)
    loaded.load_state_dict(block().state_dict())  # weights loaded later take effect
    for module in (block(), loaded):
        own = x.clone().requires_grad_()
        out = module(own)
        out.square().sum().backward()
        sides.append([out, own.grad, *(p.grad for p in module.parameters())])
    for want, got in zip(*sides, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.Hardswish(), nn.GELU()])
def test_without_a_gradient_batch_norm_and_activation_join_the_convolution(activation):
    norm = with_statistics(nn.BatchNorm2d(6)).eval()
    conv = Conv2d(4, 6, 3, 2, 1, groups=2, norm=norm, activation=activation)
    x = torch.randn(2, 4, 9, 11) * 3
    expected, statistics = conv(x), norm.running_mean.clone()
    with torch.no_grad():
        torch.testing.assert_close(accelerate(conv)(x), expected, atol=1e-5, rtol=1e-5)
        conv.weight.data.mul_(2)  # as a fused optimizer does: no version tells of it
        torch.testing.assert_close(conv(x), Conv2d.forward(conv, x), atol=1e-5, rtol=1e-5)
        assert torch.equal(norm.running_mean, statistics)
        conv.train()(x)  # in training the norm takes the batch's statistics, and keeps them
    assert not torch.equal(norm.running_mean, statistics)
    freeze_modules(nn.Sequential(conv.eval()), ["0"])
    with torch.inference_mode():
        conv(x)
    conv(x.requires_grad_()).sum().backward()  # a frozen layer above a trained one
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("before", [True, False])
def test_freezing_works_before_and_after(before):
    model = nn.Sequential(Conv2d(3, 4, 3, norm=nn.BatchNorm2d(4)))
    if not before:
        accelerate(model)
    freeze_modules(model, ["0"])
    accelerate(model)
    x, conv = torch.randn(2, 3, 8, 8), model[0]
    assert isinstance(conv.norm, FrozenBatchNorm2d)
    for scale in (1, 2):
        conv.weight.mul_(scale)
        out = model.train()(x)
        assert not out.requires_grad
        torch.testing.assert_close(out, conv.norm(nn.functional.conv2d(x, conv.weight, conv.bias)))


def head():
    torch.manual_seed(0)
    return StandardRPNHead(in_channels=6, num_anchors=3)


def head_gradients(module, places, dtype=torch.float32):
    # A loss that reads logits and deltas at a few places, as the sampled anchors do.
    torch.manual_seed(3)
    features = [
        torch.randn(2, 6, h, w).contiguous(memory_format=torch.channels_last).requires_grad_()
        for h, w in ((7, 9), (4, 5), (1, 1))
    ]
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        logits, deltas = module(features)
    flat = torch.cat([x.float().permute(0, 2, 3, 1).flatten(1) for x in (*logits, *deltas)], dim=1)
    flat[:, places].square().sum().backward()
    values = [x.detach().float() for x in (*logits, *deltas)]
    gradients = [None if x.grad is None else x.grad.clone() for x in module.parameters()]
    return values + [x.grad for x in features] + gradients


# The corners, neighbours that overlap, and the level of a single cell.
SAMPLED = torch.tensor([0, 1, 4, 26, 27, 100, 188, 189, 200, 250, 251, 252, 260, 700, 1000])


@pytest.mark.parametrize("frozen", [False, True])
def test_the_sparse_head_has_the_values_and_gradients_of_the_dense_one(frozen):
    model = nn.Sequential(head())
    if frozen:
        freeze_modules(model, ["0"])
    dense = head_gradients(model[0], SAMPLED)
    model.zero_grad(set_to_none=True)
    fast = accelerate(model)[0]
    assert type(fast) is SparseRPNHead
    backward = fast([torch.zeros(1, 6, 2, 2, requires_grad=True)])[0][0].grad_fn
    assert backward.next_functions[0][0].name() == "_HeadBackward"
    for want, got in zip(dense, head_gradients(fast, SAMPLED), strict=True):
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-4)
        assert frozen if want is None else want.abs().max() > 0


def test_the_sparse_head_in_bfloat16_is_as_near_to_float32_as_the_dense_one():
    exact = head_gradients(head(), SAMPLED)
    dense, sparse = (
        head_gradients(module, SAMPLED, torch.bfloat16) for module in (head(), accelerate(head()))
    )
    for want, other, got in zip(exact, dense, sparse, strict=True):
        assert got.dtype == other.dtype
        slack = 2e-2 * want.abs().max()
        assert (got - want).abs().max() <= 1.5 * (other - want).abs().max() + slack


# Of features of 2 x (13 x 17) cells at a scale of 1/4.
ODD_BOXES = torch.tensor(
    [
        [0.0, 3.3, 5.1, 40.2, 31.7],
        [1.0, -30.0, -20.0, 12.0, 9.0],  # over the corner
        [1.0, 10.0, 10.0, 10.0, 10.0],  # without extent
        [0.0, 30.0, 20.0, 10.0, 5.0],  # inside out
        [0.0, 300.0, 300.0, 400.0, 390.0],  # beside the image
        [1.0, 0.0, 0.0, 68.0, 52.0],  # the whole image
        [0.0, -4.0, 2.0, 72.0, 3.0],  # long and thin
    ]
)


def both(boxes, size=7, ratio=0, aligned=True, channels=3):
    torch.manual_seed(0)
    features = torch.randn(2, channels, 13, 17)
    weights = torch.randn(len(boxes), channels, size, size)
    for kind in (ROIAlign, ExactROIAlign):
        x = features.clone(memory_format=torch.channels_last).requires_grad_()
        out = kind((size, size), 0.25, ratio, aligned)(x, boxes)
        (out * weights).sum().backward()
        yield out, x.grad


@pytest.mark.parametrize(
    ("size", "ratio", "aligned"), [(7, 0, True), (14, 0, True), (7, 2, True), (7, 0, False)]
)
def test_values_and_gradients_equal_torchvisions(size, ratio, aligned):
    (want, want_grad), (got, got_grad) = both(ODD_BOXES, size, ratio, aligned)
    assert want.abs().max() > 0.5
    torch.testing.assert_close(got, want, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(got_grad, want_grad, atol=1e-5, rtol=1e-5)


coordinate, extent = st.floats(-60, 120, width=32), st.floats(0, 100, width=32)


@given(st.lists(st.tuples(st.integers(0, 1), *[coordinate] * 2, *[extent] * 2), min_size=1))
@settings(max_examples=40, deadline=None)
def test_any_boxes_pool_as_torchvisions(boxes):
    table = torch.tensor(boxes[:4], dtype=torch.float32)
    table[:, 3:] += table[:, 1:3]
    (want, want_grad), (got, got_grad) = both(table, size=3, channels=1)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got_grad, want_grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("per_image", [(40, 7), (0, 3), (0, 0)])
def test_all_levels_at_once_pool_as_one_after_the_other(per_image):
    torch.manual_seed(0)
    boxes = [Boxes(torch.rand(n, 2).mul(150).repeat(1, 2)) for n in per_image]
    for some in boxes:
        some.tensor[:, 2:] += torch.rand(len(some), 2) ** 3 * 300
    maps = [torch.randn(2, 5, 48 >> level, 40 >> level) for level in range(3)]
    pooler, sides = ROIPooler(7, [1 / 4, 1 / 8, 1 / 16], 0, "ROIAlignV2"), []
    for _ in range(2):
        own = [level.clone().requires_grad_() for level in maps]
        pooled = pooler(own, boxes)
        weights = torch.arange(pooled.numel()).sin().view_as(pooled)
        (pooled * weights).sum().backward()
        sides.append([pooled, *(level.grad for level in own)])
        accelerate(pooler)
    assert type(pooler) is not ROIPooler
    torch.testing.assert_close(sides[1], sides[0], atol=2e-5, rtol=1e-5)


def test_pooling_of_bfloat16_features_uses_exact_boxes():
    torch.manual_seed(0)
    features = torch.randn(1, 3, 80, 80).bfloat16()
    boxes = torch.tensor([[0.0, 201.3, 150.7, 262.9, 301.1]])
    exact = ROIAlign((7, 7), 0.25, 0)(features.float(), boxes)
    module = accelerate(nn.Sequential(ROIAlign((7, 7), 0.25, 0)))[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = module(features, boxes)
    assert pooled.dtype == torch.bfloat16
    assert torch.allclose(pooled.float(), exact, atol=0.02)
    # Detectron2's own would be off by a visible amount: the test would see the difference.
    stock = ROIAlign((7, 7), 0.25, 0)(features.float(), boxes.bfloat16().float())
    assert not torch.allclose(stock, exact, atol=0.02)

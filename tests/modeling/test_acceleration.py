"""Accelerated layers compute what Detectron2's do, from the same weights."""

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from torch import nn

from persondet.modeling.cpu import FoldedConv2d, SparseRPNHead, accelerate
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
    torch.manual_seed(2)
    x = torch.randn(2, 8, 9, 11)
    sides = []
    for module in (block(), accelerate(block())):
        own = x.clone().requires_grad_()
        out = module(own)
        out.square().sum().backward()
        sides.append([out, own.grad, *(p.grad for p in module.parameters())])
    for want, got in zip(*sides, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-5)


def test_only_the_classes_change():
    plain, fast = block(), accelerate(block())
    assert isinstance(fast.conv1, FoldedConv2d)
    assert {n: v.shape for n, v in fast.state_dict().items()} == {
        n: v.shape for n, v in plain.state_dict().items()
    }
    for want, got in zip(plain.parameters(), fast.parameters(), strict=True):
        assert torch.equal(want, got)


def test_weights_loaded_later_take_effect():
    fast, x = accelerate(block()), torch.randn(1, 8, 6, 6)
    with torch.no_grad():
        fast(x)
    other = with_statistics(
        BottleneckBlock(8, 16, bottleneck_channels=4, stride=2, norm="FrozenBN")
    )
    fast.load_state_dict(other.state_dict())
    torch.testing.assert_close(fast(x), other(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("before", [True, False])
def test_freezing_works_before_and_after(before):
    torch.manual_seed(0)
    model = nn.Sequential(Conv2d(3, 4, 3, norm=nn.BatchNorm2d(4)))
    if not before:
        accelerate(model)
    freeze_modules(model, ["0"])
    accelerate(model)
    x = torch.randn(2, 3, 8, 8)
    out = model.train()(x)
    assert not out.requires_grad
    assert isinstance(model[0].norm, FrozenBatchNorm2d)
    conv = model[0]
    torch.testing.assert_close(out, conv.norm(nn.functional.conv2d(x, conv.weight, conv.bias)))


def head(**others):
    torch.manual_seed(0)
    return StandardRPNHead(in_channels=6, num_anchors=3, **others)


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
    return [
        *(x.detach().float() for x in (*logits, *deltas)),
        *(x.grad for x in features),
        *(p.grad for p in module.parameters()),
    ]


# The corners, neighbours that overlap, and the level of a single cell.
SAMPLED = torch.tensor([0, 1, 4, 26, 27, 100, 188, 189, 200, 250, 251, 252, 260, 700, 1000])


def test_the_sparse_head_has_the_values_and_gradients_of_the_dense_one():
    dense = head_gradients(head(), SAMPLED)
    fast = accelerate(head())
    assert type(fast) is SparseRPNHead
    for want, got in zip(dense, head_gradients(fast, SAMPLED), strict=True):
        assert want.abs().max() > 0
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-4)


def test_the_sparse_head_in_bfloat16_is_as_near_to_float32_as_the_dense_one():
    exact = head_gradients(head(), SAMPLED)
    dense = head_gradients(head(), SAMPLED, torch.bfloat16)
    sparse = head_gradients(accelerate(head()), SAMPLED, torch.bfloat16)
    for want, other, got in zip(exact, dense, sparse, strict=True):
        assert got.dtype == other.dtype
        slack = 2e-2 * want.abs().max()
        assert (got - want).abs().max() <= 1.5 * (other - want).abs().max() + slack


def test_a_frozen_head_passes_the_gradient_on():
    torch.manual_seed(0)
    model = nn.Sequential(head())
    freeze_modules(model, ["0"])
    dense = head_gradients(model[0], SAMPLED)
    sparse = head_gradients(accelerate(model)[0], SAMPLED)
    for want, got in zip(dense, sparse, strict=True):
        if want is None:
            assert got is None
        else:
            torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-4)

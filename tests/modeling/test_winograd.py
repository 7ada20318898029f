"""Winograd's convolution against the direct one, values and gradients, in and out of layers."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from persondet.modeling import winograd
from persondet.modeling.cpu import accelerate


@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(1, 23), st.integers(1, 70), st.integers(1, 9), st.booleans())
def test_values_and_weight_gradients_are_those_of_the_direct_convolution(n, h, w, channels, biased):
    torch.manual_seed(h)
    x, kernel = torch.randn(n, channels, h, w), torch.randn(5, channels, 3, 3)
    bias = torch.randn(5) if biased else None
    exact = [t.double() if t is not None else None for t in (x, kernel, bias)]
    image, weight = exact[0].requires_grad_(), exact[1].requires_grad_()
    want = F.conv2d(image, weight, exact[2], padding=1)
    got, kept = winograd.convolve(x, kernel, bias, keep=True)
    torch.testing.assert_close(got.double(), want.detach(), atol=2e-4, rtol=1e-4)
    assert got.is_contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(want.shape)
    want.backward(gradient.double())
    for tiles in (kept, None):
        found = winograd.gradients(gradient, x, kernel, kept=tiles)
        for got, by_autograd in zip(found, (image.grad, weight.grad), strict=True):
            atol = 1e-5 * by_autograd.abs().max().item()
            torch.testing.assert_close(got.double(), by_autograd, atol=atol, rtol=1e-3)
    alone = winograd.gradients(gradient, x, kernel, needed=(False, True))
    assert alone[0] is None and torch.equal(alone[1], found[1])


@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.ReLU6()])
def test_a_wide_layer_uses_it_with_the_same_gradients(activation, monkeypatch):
    calls = []
    plain = winograd.gradients
    monkeypatch.setattr(winograd, "gradients", lambda *a, **k: calls.append(1) or plain(*a, **k))
    torch.manual_seed(0)
    layer = Conv2d(128, 130, 3, padding=1, activation=activation)
    x, sides = torch.randn(2, 128, 23, 30), []
    for _ in range(2):
        own = x.clone().requires_grad_()
        layer.zero_grad()
        y = layer(own)
        y.square().sum().backward()
        sides.append([y, own.grad, *(p.grad.clone() for p in layer.parameters())])
        accelerate(layer)
    for want, got in zip(*sides, strict=True):
        torch.testing.assert_close(got, want, atol=3e-5 * want.abs().max().item(), rtol=1e-3)
    assert calls == [1]


@pytest.mark.parametrize("shape", [(2, 127, 40, 40), (1, 128, 8, 8), (90, 128, 5, 5)])
def test_few_channels_or_tiles_are_convolved_directly(shape):
    assert not winograd.pays(torch.empty(shape), torch.empty(128, shape[1], 3, 3))
    assert winograd.pays(torch.empty(2, 128, 40, 40), torch.empty(128, 128, 3, 3))

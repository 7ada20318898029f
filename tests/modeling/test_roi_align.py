"""ROIAlign by weighted sums equals torchvision's, in value and gradient."""

import pytest
import torch
from detectron2.layers import ROIAlign
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from persondet.modeling.cpu import ExactROIAlign, accelerate

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
    found = []
    for kind in (ROIAlign, ExactROIAlign):
        x = features.clone(memory_format=torch.channels_last).requires_grad_()
        out = kind((size, size), 0.25, ratio, aligned)(x, boxes)
        (out * weights).sum().backward()
        found.append((out, x.grad))
    return found


@pytest.mark.parametrize("size", [7, 14])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_values_and_gradients_equal_torchvisions(size, ratio, aligned):
    (want, want_grad), (got, got_grad) = both(ODD_BOXES, size, ratio, aligned)
    assert want.abs().max() > 0.5
    torch.testing.assert_close(got, want, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(got_grad, want_grad, atol=1e-5, rtol=1e-5)


coordinate, extent = st.floats(-60, 120, width=32), st.floats(0, 100, width=32)


@given(
    st.lists(
        st.tuples(st.integers(0, 1), coordinate, coordinate, extent, extent), min_size=1, max_size=4
    )
)
@settings(max_examples=40, deadline=None)
def test_any_boxes_pool_as_torchvisions(boxes):
    table = torch.tensor(boxes, dtype=torch.float32)
    table[:, 3:] += table[:, 1:3]
    (want, want_grad), (got, got_grad) = both(table, size=3, channels=1)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got_grad, want_grad, atol=1e-4, rtol=1e-4)


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

"""What people look like: means of the backbone's features at the mask, for the right image."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import nn

from persondet.inference.predictor import Predictor, run_cfg
from persondet.modeling.appearance import FIELD, Appearance
from tests.inference.tiny_model import save_run, tiny_cfg


class Shades(nn.Module):
    """Two levels of one channel each: the image itself, and a coarser one of minus it."""

    def output_shape(self):
        return {"res3": SimpleNamespace(stride=2), "res2": SimpleNamespace(stride=1)}

    def forward(self, images):
        return {"res2": images, "res3": -nn.functional.avg_pool2d(images, 2)}


def test_the_mean_is_that_of_the_mask_in_each_stripe_of_the_right_image():
    backbone = Shades()
    looks = Appearance(SimpleNamespace(backbone=backbone))
    images = torch.zeros(2, 1, 84, 84)
    images[1, :, :, :42] = 5.0  # what the mask covers
    images[1, :, :24, :42] = 2.0
    images[1, :, 48:, :42] = 7.0
    backbone(images)
    mask = torch.zeros(1, 1, 28, 28)
    mask[..., :14] = 1.0
    boxes = Boxes([[0.0, 0, 84, 84]])
    results = [Instances((84, 84), pred_boxes=boxes, pred_masks=mask) for _ in images]
    results.append(Instances((84, 84), pred_boxes=Boxes(torch.zeros(0, 4))))
    looks.add(results[:2])
    assert results[0].get(FIELD).abs().max() == 0
    expected = torch.tensor([[2.0, 5, 7, -2, -5, -7]])
    assert torch.allclose(results[1].get(FIELD), expected, atol=0.05)
    backbone(images[:1])
    looks.add(results[2:])
    assert results[2].get(FIELD).shape == (0, 6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_predictor_returns_it_with_each_detection(tmp_path, dtype):
    torch.manual_seed(0)
    save_run(tmp_path, build_model(tiny_cfg()), tiny_cfg())
    cfg = run_cfg(tmp_path)
    cfg.MODEL.DEVICE, cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE = "cpu", True, dtype
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    found = Predictor(cfg, confidence_threshold=0.01)(image)
    assert len(found) > 1 and found.get(FIELD).shape[0] == len(found)
    assert found.get(FIELD).dtype == torch.float32
    assert found.get(FIELD).std(dim=0).max() > 0

"""R-CNNs hand out small masks when asked to, and are as before afterwards."""

import pytest
import torch
from detectron2.modeling import GeneralizedRCNN, build_model
from torch import nn

from persondet.engine import load_cfg
from persondet.inference.masks import encoded_masks
from persondet.modeling.detections import keep_roi_masks, roi_masks_kept

CONFIG = "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"


@pytest.fixture(scope="module")
def model():
    cfg = load_cfg(CONFIG, ["MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", "False"])
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.01
    torch.manual_seed(0)
    return build_model(cfg).eval()


@pytest.fixture(scope="module")
def picture():
    noise = torch.randint(0, 255, (3, 64, 96), generator=torch.Generator().manual_seed(0))
    return {"image": noise.to(torch.uint8), "height": 120, "width": 180}


def find(model, picture):
    with torch.no_grad():
        return model([picture])[0]["instances"]


def test_the_masks_are_small_inside_the_block_only(model, picture):
    whole = find(model, picture)
    with roi_masks_kept(model):
        small = find(model, picture)
    assert len(small) == len(whole) > 0
    assert small.image_size == (120, 180)
    assert small.has("roi_masks")
    assert not small.has("pred_masks")
    assert torch.equal(small.pred_boxes.tensor, whole.pred_boxes.tensor)
    assert torch.equal(small.scores, whole.scores)
    assert encoded_masks(small) == encoded_masks(whole)
    assert find(model, picture).has("pred_masks")


def test_a_wrapped_model_is_found_and_another_is_left_alone(model, picture):
    wrapped = nn.Sequential(model)
    assert keep_roi_masks(wrapped) == [model]
    try:
        assert find(wrapped, picture).has("roi_masks")
    finally:
        del model.inference
    assert isinstance(model, GeneralizedRCNN)
    assert keep_roi_masks(nn.Linear(2, 2)) == []

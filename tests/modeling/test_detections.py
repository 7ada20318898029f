"""What a detector hands out: small masks when asked to, and the dataset's classes."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.structures import Boxes, Instances
from torch import nn

from persondet.engine import load_cfg
from persondet.errors import CheckpointError
from persondet.inference.masks import encoded_masks
from persondet.modeling.cpu import accelerate
from persondet.modeling.detections import (
    OrderedRPN,
    map_classes,
    match_classes,
    roi_masks_kept,
)
from tests.inference.tiny_model import tiny_cfg

CONFIG = "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"


def test_the_masks_are_small_inside_the_block_only():
    cfg = load_cfg(CONFIG, ["MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", "False"])
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.01
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    image = torch.randint(0, 255, (3, 64, 96)).to(torch.uint8)

    def detections():
        with torch.no_grad():
            return model([{"image": image, "height": 120, "width": 180}])[0]["instances"]

    whole = detections()
    with roi_masks_kept(nn.Sequential(model)):
        small = detections()
    assert len(small) == len(whole) > 0
    assert small.image_size == (120, 180)
    assert small.has("roi_masks") and not small.has("pred_masks")
    assert torch.equal(small.pred_boxes.tensor, whole.pred_boxes.tensor)
    assert encoded_masks(small) == encoded_masks(whole)
    assert detections().has("pred_masks")


class ThreeDetections(nn.Module):
    def forward(self, batched_inputs):
        instances = Instances((10, 10), pred_boxes=Boxes(torch.arange(12.0).reshape(3, 4)))
        instances.scores = torch.tensor([0.9, 0.8, 0.7])
        instances.pred_classes = torch.tensor([2, 0, 1])
        return [{"instances": instances} for _ in batched_inputs]


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        (["person", "car"], ["person"], [0, -1]),
        (["person", "car"], ["worker-on-site"], [0, -1]),  # one class: whatever it is called
        (["person", "car"], ["car", "Human"], [1, 0]),
        (["cat", "dog"], ["dog", "person"], [-1, 0]),
        (["Pedestrian"], ["person", "bike"], [0]),
    ],
)
def test_classes_match_by_name_and_people_by_any_name(theirs, ours, expected):
    assert match_classes(theirs, ours) == expected


def test_detections_of_other_classes_are_dropped_and_ours_renumbered():
    model = map_classes(ThreeDetections(), ["person", "car", "bike"], ["bike", "person"])
    instances = model([{}])[0]["instances"]
    assert instances.pred_classes.tolist() == [0, 1]
    assert instances.scores.tolist() == pytest.approx([0.9, 0.8])
    assert instances.pred_boxes.tensor[:, 0].tolist() == [0.0, 4.0]
    with pytest.raises(CheckpointError, match="no class in common"):
        map_classes(model, ["cat"], ["dog", "person"])


def test_equal_proposals_come_in_the_order_of_their_places():
    rpn = accelerate(build_model(tiny_cfg())).eval().proposal_generator
    assert type(rpn) is OrderedRPN
    features = [torch.zeros(1, 1, 96 // stride, 128 // stride) for stride in (4, 8, 16, 32, 64)]
    anchors = rpn.anchor_generator(features[: len(rpn.anchor_generator.strides)])
    rpn.nms_thresh, before, after = 1.0, rpn.pre_nms_topk[False], rpn.post_nms_topk[False]
    deltas = [torch.zeros(1, len(level), 4) for level in anchors]

    def proposals(of, logits):
        (found,) = of(rpn, anchors, logits, deltas, [(96, 128)])
        return found.proposal_boxes.tensor

    places = Boxes(torch.cat([level.tensor[:before] for level in anchors]))
    places.clip((96, 128))
    flat = [torch.full((1, len(level)), -0.17) for level in anchors]
    ours = OrderedRPN.predict_proposals
    assert torch.equal(proposals(ours, flat), places[places.nonempty()].tensor[:after])
    # Where none are equal, they are those of Detectron2, for each of two images.
    sizes, count = [len(level) for level in anchors], sum(map(len, anchors))
    generator = torch.Generator().manual_seed(0)
    mixed = torch.stack([torch.randperm(count, generator=generator) for _ in range(2)]).float()
    moves = 0.3 * torch.randn(2, count, 4, generator=generator)
    given = [list(tensor.split(sizes, dim=1)) for tensor in (mixed, moves)]
    rpn.nms_thresh = 0.7
    for mine, stock in zip(
        ours(rpn, anchors, *given, [(96, 128), (80, 128)]),
        RPN.predict_proposals(rpn, anchors, *given, [(96, 128), (80, 128)]),
        strict=True,
    ):
        assert mine.image_size == stock.image_size and len(mine) == len(stock) > 5
        assert torch.equal(mine.proposal_boxes.tensor, stock.proposal_boxes.tensor)

"""The rows of the tables of tensors."""

import pytest

from persondet.modeling.freeze import part_of


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("backbone.bottom_up.stem.conv1.weight", "backbone.bottom_up.stem"),
        ("backbone.bottom_up.res2.0.conv1.norm.bias", "backbone.bottom_up.res2"),
        ("backbone.fpn_lateral2.weight", "backbone.fpn"),
        ("backbone.fpn_output5.norm.weight", "backbone.fpn"),
        ("proposal_generator.rpn_head.conv.weight", "proposal_generator"),
        ("roi_heads.box_predictor.cls_score.weight", "roi_heads.box_predictor"),
        ("weight", "weight"),
        ("linear.weight", "linear"),
    ],
)
def test_a_tensor_belongs_to_a_stage_the_pyramid_or_a_head(name, part):
    assert part_of(name) == part

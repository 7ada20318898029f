"""A model of other classes speaks ours."""

import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch import nn

from persondet.modeling.detections import map_classes, match_classes


class ThreeDetections(nn.Module):
    """Predicts classes 2, 0, 1 with scores 0.9, 0.8, 0.7."""

    def forward(self, batched_inputs):
        instances = Instances((10, 10))
        instances.pred_boxes = Boxes(torch.arange(12.0).reshape(3, 4))
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
    (output,) = model([{}])
    instances = output["instances"]
    assert instances.pred_classes.tolist() == [0, 1]
    assert instances.scores.tolist() == pytest.approx([0.9, 0.8])
    assert instances.pred_boxes.tensor[:, 0].tolist() == [0.0, 4.0]

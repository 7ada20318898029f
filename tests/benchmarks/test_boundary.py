"""The distance between boundaries, against shapes whose distance is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks

from persondet.benchmarks.boundary import boundary_distances


def rectangle(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def people(masks, boxes: list[list[float]]) -> Instances:
    instances = Instances((60, 80))
    instances.gt_boxes = Boxes(torch.tensor(boxes))
    instances.gt_masks = masks
    return instances


def outlined(*boxes: list[float]) -> Instances:
    polygons = [[np.array(rectangle(*box))] for box in boxes]
    return people(PolygonMasks(polygons), [list(box) for box in boxes])


def rastered(*boxes: list[int]) -> Instances:
    masks = torch.zeros(len(boxes), 60, 80, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return people(BitMasks(masks), [[float(edge) for edge in box] for box in boxes])


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 3.0])
def test_a_shifted_outline_is_as_far_away_as_it_was_shifted(shift):
    (distances,) = boundary_distances(
        outlined([20.0 + shift, 10.0, 50.0 + shift, 40.0]), rastered([20, 10, 50, 40])
    )
    assert distances.max() == pytest.approx(shift, abs=0.15)
    assert np.quantile(distances, 0.2) == pytest.approx(0.0, abs=0.15)  # top and bottom agree


def test_where_the_picture_cuts_a_mask_there_is_no_boundary():
    (distances,) = boundary_distances(outlined([0.0, 10.0, 30.0, 60.0]), rastered([0, 10, 30, 60]))
    assert distances.max() <= 0.25


def test_people_are_paired_by_their_boxes():
    distances = boundary_distances(
        outlined([5.0, 5.0, 20.0, 20.0], [40.0, 20.0, 70.0, 50.0]),
        rastered([40, 20, 70, 50], [5, 5, 20, 20]),
    )
    assert len(distances) == 2
    assert max(one.max() for one in distances) <= 0.25


def test_a_person_of_one_side_only_is_left_out():
    assert boundary_distances(outlined([5.0, 5.0, 20.0, 20.0]), rastered([40, 20, 70, 50])) == []

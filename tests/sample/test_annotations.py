"""Masks to polygons: little is lost, holes are cut, known answers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from persondet.sample.annotations import mask_to_polygons, polygon_box
from persondet.sample.figure import paint_person
from persondet.sample.people import random_looks, random_pose


def rasterise(polygons: list[list[float]], height: int, width: int) -> np.ndarray:
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))) > 0


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def test_a_rectangle_becomes_itself():
    mask = np.zeros((20, 30), bool)
    mask[4:14, 6:21] = True
    (polygon,) = mask_to_polygons(mask, 100, 50)
    # Half a pixel of the enlarged mask is lost at each side.
    np.testing.assert_allclose(polygon_box([polygon]), [106, 54, 15, 10], atol=0.26)
    assert len(polygon) == 10


def test_two_parts_become_two_polygons_and_specks_none():
    mask = np.zeros((40, 40), bool)
    mask[2:12, 2:8] = mask[20:38, 10:30] = True
    mask[30, 2] = True
    assert len(mask_to_polygons(mask)) == 2
    assert mask_to_polygons(np.zeros((5, 5), bool)) == []


def test_a_hole_is_cut_open():
    mask = np.zeros((40, 40), bool)
    mask[5:35, 5:35] = True
    mask[12:28, 15:22] = False
    polygons = mask_to_polygons(mask)
    assert len(polygons) == 2
    assert iou(rasterise(polygons, 40, 40), mask) > 0.97


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_blobs_survive(seed):
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.standard_normal((80, 80)), (0, 0), 6)
    mask = cv2.copyMakeBorder((noise > 0.02).astype(np.uint8), 3, 3, 3, 3, 0) > 0
    polygons = mask_to_polygons(mask)
    if mask.sum() > 200:
        assert iou(rasterise(polygons, 86, 86), mask) > 0.94
        rows, columns = np.nonzero(rasterise(polygons, 86, 86))
        x, y, width, height = polygon_box(polygons)
        assert x - 1 <= columns.min() and columns.max() <= x + width + 1
        assert y - 1 <= rows.min() and rows.max() <= y + height + 1


@pytest.mark.parametrize("height", [44.0, 70.0, 160.0])
def test_people_keep_97_percent_of_their_mask(height):
    rng = np.random.default_rng(1)
    found = []
    for _ in range(8):
        looks = random_looks(rng)
        sprite = paint_person(looks, random_pose(rng, looks), height, (150.3, 190.7))
        mask = np.zeros((220, 300), bool)
        x0, y0, x1, y1 = sprite.box
        mask[y0:y1, x0:x1] = sprite.mask()
        found.append(iou(rasterise(mask_to_polygons(mask), 220, 300), mask))
    assert min(found) > 0.94
    assert np.mean(found) > 0.97

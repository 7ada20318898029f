"""Masks encoded from their regions are Detectron2's pasted and encoded ones, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from persondet.evaluation.region_masks import FIELD, encoded_masks, roi_postprocess
from persondet.masks import encode_region


def raw_result(seed: int, *, people: int, kind: torch.dtype = torch.float32) -> Instances:
    """Return what the heads hand out: boxes of every size, some outside, some without area."""
    rng = np.random.default_rng(seed)
    result = Instances((30, 40))  # what the model saw
    corners = rng.uniform(-8, 44, (people, 2, 2))
    boxes = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)
    boxes[rng.random(people) < 0.1, 2:] = 0
    boxes[rng.random(people) < 0.2] = [-3, -3, 50, 50]  # the whole picture
    result.pred_boxes = Boxes(torch.from_numpy(boxes.astype(np.float32)))
    result.scores = torch.from_numpy(rng.random(people).astype(np.float32))
    result.pred_classes = torch.zeros(people, dtype=torch.int64)
    masks = rng.random((people, 1, 28, 28)) ** rng.choice([0.2, 1.0, 5.0])
    result.pred_masks = torch.from_numpy(masks.astype(np.float32)).to(kind)
    return result


def copied(result: Instances) -> Instances:
    fields = {
        name: Boxes(value.tensor.clone()) if isinstance(value, Boxes) else value.clone()
        for name, value in result.get_fields().items()
    }
    return Instances(result.image_size, **fields)


@settings(max_examples=30)
@given(
    st.integers(0, 2**32), st.integers(0, 4), st.integers(1, 90), st.integers(1, 90), st.booleans()
)
def test_from_probabilities_to_code_as_detectron2_pastes_and_encodes(seed, people, h, w, half):
    result = raw_result(seed, people=people, kind=torch.bfloat16 if half else torch.float32)
    pasted = detector_postprocess(copied(result), h, w)
    expected = instances_to_coco_json(copied(pasted), 1)
    small = roi_postprocess(copied(result), h, w)
    assert encoded_masks(small) == [record["segmentation"] for record in expected]
    # Everything else is what it was.
    assert torch.equal(small.pred_boxes.tensor, pasted.pred_boxes.tensor)
    assert torch.equal(small.scores, pasted.scores)
    assert not small.has("pred_masks") and len(small.get(FIELD)) == len(pasted)
    # Masks that are pasted already are encoded as well.
    assert encoded_masks(pasted) == [record["segmentation"] for record in expected]


def test_without_masks_there_is_nothing_to_encode():
    result = raw_result(0, people=2)
    result.remove("pred_masks")
    assert encoded_masks(roi_postprocess(result)) is None


@given(
    st.integers(0, 2**32),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_a_region_is_encoded_as_the_picture_that_it_lies_in(seed, rows, columns, right, below):
    rng = np.random.default_rng(seed)
    region = rng.random((rows, columns)) < rng.choice([0.0, 0.3, 0.9, 1.0])
    x0, y0 = int(rng.integers(3)), int(rng.integers(2))
    whole = np.zeros((y0 + rows + below, x0 + columns + right), np.uint8, order="F")
    whole[y0 : y0 + rows, x0 : x0 + columns] = region
    expected = coco_mask.encode(whole)
    found = encode_region(region, x0, y0, *whole.shape)
    assert found == {"size": list(whole.shape), "counts": expected["counts"].decode()}


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (4, 0)])
def test_an_empty_region_is_an_empty_mask(shape):
    found = encode_region(np.zeros(shape, bool), 0, 0, 6, 5)
    assert found["counts"].encode() == coco_mask.encode(np.zeros((6, 5), np.uint8, "F"))["counts"]

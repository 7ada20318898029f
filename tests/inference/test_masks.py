"""Masks in their rectangle are those of the whole image: pasted, chosen, encoded, bit for bit."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.layers import paste_masks_in_image
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from persondet.inference.masks import (
    ROI_FIELD,
    encode_region,
    encoded_masks,
    mask_extent,
    paste_masks,
    paste_regions,
    paste_whole,
    region_masks_of,
)
from persondet.modeling.detections import roi_postprocess
from persondet.records import decode_mask
from tests.data.exports import compressed_rle as code

MASKS = arrays.arrays(
    bool, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.booleans()
)


@given(MASKS, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_a_region_is_encoded_as_the_image_that_it_lies_in(region, left, above, right, below):
    whole = np.pad(region, ((above, below), (left, right)))
    assert encode_region(region, left, above, *whole.shape) == code(whole)
    x0, y0, x1, y1 = mask_extent(whole)
    part = whole[y0:y1, x0:x1]
    assert part.sum() == region.sum()
    assert encode_region(part, x0, y0, *whole.shape) == code(whole)
    if region.any():
        assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
    assert np.array_equal(decode_mask(code(whole)["counts"], *whole.shape), whole)


def raw_result(seed, *, people, kind=torch.float32):
    """Return what the heads hand out: boxes of every size, some outside, some without area."""
    rng = np.random.default_rng(seed)
    result = Instances((30, 40))  # what the model saw
    corners = rng.uniform(-8, 44, (people, 2, 2))
    boxes = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)
    boxes[rng.random(people) < 0.1, 2:] = 0
    boxes[rng.random(people) < 0.2] = [-3, -3, 50, 50]  # the whole image
    result.pred_boxes = Boxes(torch.from_numpy(boxes.astype(np.float32)))
    result.scores = torch.from_numpy(rng.random(people).astype(np.float32))
    result.pred_classes = torch.zeros(people, dtype=torch.int64)
    masks = rng.random((people, 1, 28, 28)) ** rng.choice([0.2, 1.0, 5.0])
    result.pred_masks = torch.from_numpy(masks.astype(np.float32)).to(kind)
    return result


@settings(max_examples=30)
@given(
    st.integers(0, 2**32), st.integers(0, 4), st.integers(1, 90), st.integers(1, 90), st.booleans()
)
def test_from_probabilities_to_code_as_detectron2_pastes_and_encodes(seed, people, h, w, half):
    result = raw_result(seed, people=people, kind=torch.bfloat16 if half else torch.float32)
    pasted = detector_postprocess(deepcopy(result), h, w)
    expected = instances_to_coco_json(deepcopy(pasted), 1)
    small = roi_postprocess(deepcopy(result), h, w)
    assert encoded_masks(small) == [record["segmentation"] for record in expected]
    # Everything else is what it was.
    assert torch.equal(small.pred_boxes.tensor, pasted.pred_boxes.tensor)
    assert torch.equal(small.scores, pasted.scores)
    assert not small.has("pred_masks") and len(small.get(ROI_FIELD)) == len(pasted)
    # Masks that are pasted already are encoded as well.
    assert encoded_masks(pasted) == [record["segmentation"] for record in expected]


@settings(max_examples=30)
@given(
    st.integers(0, 2**32),
    st.integers(1, 200),
    st.integers(1, 200),
    st.sampled_from([2, 7, 14, 28]),
    st.sampled_from(["noise", "half", "steps"]),
)
def test_pasted_regions_are_the_masks_that_detectron2_pastes(seed, height, width, cells, kind):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-20, 220, (6, 2, 2))
    boxes = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)
    boxes[0] = [0, 0, width, height]
    boxes = torch.from_numpy(np.clip(boxes, 0, [width, height] * 2).astype(np.float32))
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    values = {
        "noise": lambda: rng.random((len(boxes), cells, cells)),
        # The hardest cases: much of the box is at the threshold, or a rounding error from it.
        "half": lambda: 0.5 + rng.integers(-1, 2, (len(boxes), cells, cells)) * 6e-8,
        "steps": lambda: rng.integers(0, 2, (len(boxes), cells, cells)),
    }[kind]()
    probabilities = torch.from_numpy(values.astype(np.float32))
    found = paste_masks(probabilities, boxes, (height, width))
    expected = paste_masks_in_image(probabilities, boxes, (height, width)).numpy()
    assert len(found) == len(expected)
    for i, mask in enumerate(expected):
        assert np.array_equal(found.whole(i), mask)


@pytest.mark.parametrize(
    "box", [[float("nan"), 0, 5, 5], [0, 0, float("inf"), 9], [80, 5, 90, 9], [3, 99, 9, 120]]
)
def test_a_box_that_is_nowhere_has_an_empty_mask(box):
    masks = paste_masks(torch.ones(1, 28, 28), torch.tensor([box], dtype=torch.float32), (30, 40))
    assert len(masks) == 1
    assert not masks.whole(0).any()
    assert encode_region(masks.regions[0], *masks.corners[0], 30, 40) == code(masks.whole(0))


def some_masks(seed=3, people=4):
    small = roi_postprocess(raw_result(seed, people=people), 60, 80)
    masks = region_masks_of(small)
    # A region is no larger than its box and a margin.
    for (region, (x0, y0)), box in zip(masks, small.pred_boxes.tensor.tolist(), strict=True):
        assert min(x0 - box[0], y0 - box[1]) >= -2
        assert x0 + region.shape[1] <= box[2] + 2
        assert y0 + region.shape[0] <= box[3] + 2
    return small, masks


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        (slice(1, None), [1, 2, 3]),
        (torch.tensor([True, False, True, False]), [0, 2]),
        (np.array([2, 0]), [2, 0]),
        (3, [3]),
    ],
)
def test_regions_are_a_field_of_instances(key, wanted):
    small = paste_regions(some_masks()[0])
    masks, chosen = small.region_masks, small[key].region_masks
    assert len(masks) == 4
    assert [id(region) for region, _ in chosen] == [id(masks.regions[i]) for i in wanted]
    assert [corner for _, corner in chosen] == [masks.corners[i] for i in wanted]
    both = Instances.cat([small[:1].to("cpu"), small[1:]])
    assert [corner for _, corner in both.region_masks] == masks.corners


def test_every_way_to_carry_masks_gives_the_same_ones():
    small, masks = some_masks()
    pasted, whole = paste_regions(small), paste_whole(small)
    assert not pasted.has(ROI_FIELD)
    assert [whole.has(name) for name in ("roi_masks", "region_masks")] == [False, False]
    assert (whole.pred_masks.dtype, whole.pred_masks.shape) == (torch.bool, (4, 60, 80))
    for carrier in (small, pasted, whole, paste_whole(pasted)):
        again = region_masks_of(carrier)
        assert all(np.array_equal(again.whole(i), masks.whole(i)) for i in range(len(masks)))
        assert encoded_masks(carrier) == encoded_masks(small)
    assert paste_regions(whole) is paste_whole(whole) is whole
    whole.remove("pred_masks")
    assert region_masks_of(whole) is encoded_masks(whole) is None

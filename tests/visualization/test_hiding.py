"""Covers and paint: nothing of a person is left, nothing finer than a cell, nothing elsewhere."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances, ROIMasks
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.inference.masks import RegionMasks
from persondet.visualization.hiding import Cover, covers_of, hidden_mask, hide

SIZE = (60, 90)


def noisy():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def detections(boxes, **fields):
    found = Instances(SIZE, pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32)))
    for name, field in fields.items():
        found.set(name, field)
    return found


@settings(max_examples=15)
@given(
    st.tuples(st.integers(-9, 95), st.integers(-9, 65)),
    st.tuples(st.integers(0, 12), st.integers(0, 12)),
    st.floats(0, 12),
)
def test_a_margin_reaches_as_far_as_it_says_and_stays_in_the_image(corner, shape, margin):
    region = np.random.default_rng(1).random(shape) < 0.3
    grown = hidden_mask([Cover(region, corner, 40.0, margin)], SIZE)
    points = np.argwhere(region) + corner[::-1]
    away = np.indices(SIZE)[..., None] - points.T[:, None, None]
    distance = np.hypot(*away).min(axis=-1, initial=np.inf)
    # The distance transform is a few hundredths off.
    assert grown[distance < 0.95 * margin].all()
    assert not grown[distance > 1.06 * margin + 0.01].any()


@pytest.mark.parametrize("style", ["pixelate", "blur", "fill"])
def test_what_is_hidden_depends_on_the_means_of_its_cells_alone(style):
    region = np.zeros((48, 40), bool)
    region[3:45, 5:36] = True
    cover, image = Cover(region, (20, 6), 48.0, 2.0), noisy()
    hidden = hidden_mask([cover], SIZE)
    before, other = image.copy(), image.copy()
    # Pixels in a cell change places: each cell of 6 x 6 keeps its mean.
    rows, columns = slice(4, 56), slice(18, 62)  # the rectangle with the margin
    height, width = 52 // 6, 44 // 6
    hide(image, [cover], style)
    assert (image == before)[~hidden].all()
    assert (image != before)[hidden].any(axis=-1).mean() > 0.95
    if style == "fill":
        assert (image[hidden] == 0).all()
    else:
        values = np.unique(image[rows, columns][hidden[rows, columns]], axis=0)
        assert style == "blur" or len(values) <= height * width
    # Detail finer than a cell leaves no trace: a grid of one pixel gives a plain surface.
    other[rows, columns] = 40 + 160 * (np.indices((52, 44)).sum(axis=0) % 2)[..., None]
    hide(other, [cover], style)
    assert np.ptp(other[12:48, 26:54].astype(int)) <= 8


def test_the_coarser_cells_stay_where_people_overlap_whatever_the_order():
    near = Cover(np.ones((60, 60), bool), (10, 0), 320.0, 2.0)  # cells of 40 pixels
    far = Cover(np.ones((30, 20), bool), (30, 10), 32.0, 2.0)  # of four
    images = [noisy() for _ in range(3)]
    for image, covers in zip(images, ([near, far], [far, near], [near]), strict=True):
        hide(image, covers, "pixelate")
    assert (images[0] == images[1]).all() and (images[0] == images[2]).all()
    assert len(np.unique(images[0][12:38, 32:48].reshape(-1, 3), axis=0)) == 1


def test_a_cover_is_the_mask_from_a_low_probability_on_and_the_box_where_there_is_none():
    boxes = [[10.0, 10, 38, 50], [50, 5, 70, 45], [float("nan"), 0, 9, 9]]
    likely = torch.zeros(3, 28, 28)
    likely[0, :, 7:21] = 0.3  # too little for a mask to show, enough to hide
    found = detections(boxes, roi_masks=ROIMasks(likely))
    first, second, _ = (hidden_mask([c], SIZE) for c in covers_of(found))
    assert first[10:50, 18:30].all() and not first[:, :12].any()
    assert second[5:45, 50:70].all()  # an empty mask is not believed
    without = hidden_mask(covers_of(detections(boxes[:2])), SIZE)
    assert without[10:50, 10:38].all() and without[5:45, 50:70].all() and not without[55:].any()


def test_of_a_head_the_rest_stays_visible():
    region = np.zeros((50, 20), bool)
    region[:10, 7:13] = region[10:, 2:18] = True
    masks = RegionMasks([region], [(30, 5)], SIZE)
    found = detections([[32.0, 5, 48, 55]], region_masks=masks)
    (head,) = covers_of(found, "head")
    hidden = hidden_mask([head], SIZE)
    assert hidden[5:15, 37:43].all() and not hidden[22:].any()
    (whole,) = covers_of(detections([[5.0, 20, 85, 55]]), "head")  # somebody who lies
    assert hidden_mask([whole], SIZE)[20:55, 5:85].all()


def test_between_two_places_both_masks_are_hidden_at_the_place_between():
    tall, wide = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    tall[:, 8:12] = wide[8:12] = True
    cover = Cover(tall, (10, 10), 20.0, 2.0).between(Cover(wide, (50, 30), 30.0, 3.0), 0.25)
    assert (cover.corner, cover.height, cover.margin, cover.shown) == ((20, 15), 30.0, 3.0, False)
    assert (cover.region == tall | wide).all()
    grown = Cover(tall, (0, 0), 1.0, 1.0).between(Cover(np.ones((40, 60), bool), (0, 0), 1, 1), 0.5)
    assert grown.region.shape == (30, 40) and grown.region.all()


def test_somebody_shown_is_before_all_that_is_unsure_and_behind_the_others():
    one = Cover(np.ones((40, 20), bool), (10, 10), 40.0, 3.0, shown=True)
    unsure = Cover(np.ones((40, 40), bool), (0, 10), 40.0, 2.0, shown=None)
    other = Cover(np.ones((40, 20), bool), (25, 10), 40.0, 0.0)
    image, before = noisy(), noisy()
    hide(image, [other, one, unsure], "fill")
    assert (image[10:50, 10:25] == before[10:50, 10:25]).all()
    assert (image[10:50, :10] == 0).all() and (image[10:50, 25:45] == 0).all()
    hidden = hidden_mask([other, one, unsure], SIZE)
    assert (hidden == (image != before).any(axis=2)).mean() > 0.999

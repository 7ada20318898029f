"""Sheets of several images: layout, ground truth, before beside after."""

import math
import time

import cv2
import numpy as np
import pycocotools.mask
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks

from persondet.visualization.drawing import PALETTE
from persondet.visualization.sheets import (
    CROWD,
    RIGHT,
    TILE,
    WRONG,
    Shown,
    contact_sheet,
    draw_annotations,
    draw_dataset_dict,
    draw_shown,
    draw_side_by_side,
    draw_training_sample,
    ground_truth_sheet,
    segmentation_to_mask,
)
from persondet.visualization.sheets import MARGIN_OF_CLEANING_SHEET as MARGIN


def extent(sheet, color):
    """Return (left, top, width, height) of the pixels of a colour."""
    return cv2.boundingRect((sheet == color).all(axis=2).astype(np.uint8))


def test_tiles_fill_rows_in_order_each_in_the_middle_of_its_cell():
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 255, 255)]
    shapes = [(60, 80), (10, 80), (60, 20), (60, 80)]
    fitted = np.array([(0, 0, 80, 60), (0, 25, 80, 10), (30, 0, 20, 60), (0, 0, 80, 60)])
    tiles = [np.full((*s, 3), color, np.uint8) for s, color in zip(shapes, colors, strict=True)]
    sheet = contact_sheet(tiles, ["a caption " * 9] * 4, columns=3, tile_size=(80, 60))
    found = np.array([extent(sheet, color) for color in colors])
    assert (found[:, 2:] == fitted[:, 2:]).all()
    corners = found[:, :2] - fitted[:, :2]
    assert (corners[:3] - corners[0]).tolist() == [[0, 0], [88, 0], [176, 0]]
    assert corners[3, 0] == corners[0, 0] and corners[3, 1] > corners[0, 1] + 60


SQUARE = [10.0, 5.0, 30.0, 5.0, 30.0, 25.0, 10.0, 25.0]
ALL, INSIDE = (0, 0, 60, 40), np.zeros((40, 60), dtype=bool)
INSIDE[5:25, 10:30] = True
ANNOTATION = {"bbox": [10, 5, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}


def training_sample(image, masks=None):
    instances = Instances((40, 60), gt_boxes=Boxes([[10.0, 5.0, 30.0, 25.0]]))
    instances.gt_classes = torch.tensor([0])
    if masks is not None:
        instances.gt_masks = masks
    return {"image": image, "instances": instances}


def test_polygons_and_run_lengths_compressed_or_not_give_the_same_mask():
    code = pycocotools.mask.encode(np.asfortranarray(INSIDE.astype(np.uint8)))
    runs = [10 * 40 + 5, *[20, 20] * 19, 20, 30 * 40 + 15]
    half, beyond = INSIDE[1::2, 1::2], np.pad(INSIDE, 4)
    for segmentation in ([SQUARE], code, {"size": [40, 60], "counts": runs}):
        assert np.array_equal(segmentation_to_mask(segmentation, ALL, (60, 40)), INSIDE)
        small = segmentation_to_mask(segmentation, ALL, (30, 20))
        # Two edges of the polygon lie on half a pixel.
        assert (small != half).sum() <= (20 if segmentation == [SQUARE] else 0)
        around = segmentation_to_mask(segmentation, (-4, -4, 64, 44), (68, 48))
        assert np.array_equal(around, beyond)


@pytest.mark.parametrize(
    ("image_format", "masks"),
    [
        ("BGR", PolygonMasks([[np.array(SQUARE)]])),
        ("RGB", BitMasks(torch.from_numpy(INSIDE[None].copy()))),
        ("BGR", None),
    ],
)
def test_a_training_sample_looks_like_its_dataset_dict(image_format, masks):
    plain = np.full((40, 60, 3), (10, 90, 200), np.uint8)
    record = {"annotations": [ANNOTATION | {"segmentation": [SQUARE] if masks else []}]}
    drawn = draw_dataset_dict(plain, record, size=(60, 40))
    assert (plain == (10, 90, 200)).all()
    changed = (drawn != plain).any(axis=2)
    assert changed[INSIDE].all() == bool(masks)
    assert not (changed & (cv2.dilate(INSIDE.astype(np.uint8), np.ones((5, 5))) == 0)).any()
    pixels = plain if image_format == "BGR" else plain[:, :, ::-1]
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    sample = training_sample(image, masks)
    again = draw_training_sample(sample, size=(60, 40), image_format=image_format)
    assert np.array_equal(again, drawn)


def test_a_sheet_has_a_row_per_image_and_each_version_its_own_seed(tmp_path):
    seeds = []

    def mapper(record, seed):
        seeds.append(tuple(seed))
        if seed[2] == 1:
            return None  # nothing left of it
        return training_sample(torch.zeros(3, 40, 60, dtype=torch.uint8))

    path = str(tmp_path / "a.png")
    cv2.imwrite(path, np.full((40, 60, 3), 90, np.uint8))
    records = [{"file_name": path, "annotations": [ANNOTATION]}] * 2
    sheet = ground_truth_sheet(records, mapper, versions=2, seed=7)
    assert seeds == [(7, 0, 0), (7, 0, 1), (7, 1, 0), (7, 1, 1)]
    assert sheet.shape[1] > 3 * TILE[0] and sheet.shape[0] > 2 * TILE[1]
    assert shows(sheet, PALETTE[0])
    over = iter([False, *[True] * 9])  # the time is up after the first version
    short = ground_truth_sheet(records, mapper, versions=2, late=lambda: next(over))
    assert seeds[4:] == [(0, 0, 0)]
    assert short.shape[0] < sheet.shape[0]


def test_a_large_image_with_many_objects_costs_what_is_shown_of_it():
    image = np.zeros((3000, 4000, 3), np.uint8)
    code = {"size": [3000, 4000], "counts": [3000 * 20 + 9, 40, 3000 * 3980 - 49]}
    crowded = [Shown((9, 9, 99, 99), one, "person") for one in [[SQUARE], code] * 150]
    began = time.perf_counter()
    panel = draw_shown(image, crowded, (120, 90))
    assert time.perf_counter() - began < 1  # drawn at full size: 20 s
    assert panel.shape == (90, 120, 3)
    for tall, labelled in ((100, False), (2000, True)):  # 3 lines of the panel bear no label
        boxes = [Shown((0, 900, 3000, 900 + tall), label=label) for label in ("", "person")]
        bare, named = (draw_shown(image, [box], (120, 90)) for box in boxes)
        assert (bare != named).any() == labelled


def shows(panel, color):
    return (panel == color).all(axis=2).any()


def test_what_is_wrong_has_its_colour_on_its_side_alone():
    image = np.full((480, 628, 3), 90, np.uint8)  # a panel's own size: nothing is scaled
    missed, known = Shown((20, 20, 60, 90), wrong=True), Shown((200, 20, 260, 90))
    sheet = draw_side_by_side(image, [missed, known], [known, Shown((1, 1, 9, 9), crowd=True)])
    assert sheet.shape[1] == 1280
    left, right = sheet[8:488, 8:636], sheet[8:488, -636:-8]
    assert [shows(left, color) for color in (WRONG, RIGHT, CROWD)] == [True, True, False]
    assert [shows(right, color) for color in (WRONG, RIGHT, CROWD)] == [False, True, True]
    assert tuple(left[20, 40]) == WRONG  # the upper edge of the box
    # A cut-out shows its neighbourhood, and nothing from elsewhere.
    near, far = Shown((500, 500, 520, 540), wrong=True), Shown((10, 10, 60, 60), label="far")
    image = np.full((1000, 1000, 3), 90, np.uint8)
    sheet = draw_side_by_side(image, [near, far], [], around=near.box)
    assert (shows(sheet, WRONG), shows(sheet, RIGHT)) == (True, False)
    assert sheet.shape[0] > 200  # enlarged


IMAGE = np.zeros((60, 100, 3), np.uint8)


def test_a_box_that_leaves_the_image_is_seen_on_the_margin():
    margin, outside = round(MARGIN * 100), [{"bbox": [-5, 10, 20, 20]}]
    size = (100 + 2 * margin, 60 + 2 * margin)
    bare = draw_annotations(IMAGE, [], size=size)
    assert bare.shape == (*size[::-1], 3)
    changed = (draw_annotations(IMAGE, outside, size=size) != bare).any(axis=2)
    assert changed[:, :margin].any() and not changed[:, margin + 20 :].any()


@pytest.mark.parametrize(
    "annotation",
    [
        {"bbox": None, "segmentation": "x"},
        {"bbox": [math.nan] * 4, "segmentation": [[]]},
        {"bbox": [1, 2], "segmentation": [[1, 2, 3], None, 7]},
        {"segmentation": {"size": [60, 100], "counts": [3, -1]}},
        {"segmentation": {"size": [9, 9], "counts": "!"}},
    ],
)
def test_what_cannot_be_drawn_is_left_out(annotation):
    assert np.array_equal(draw_annotations(IMAGE, [annotation]), draw_annotations(IMAGE, []))

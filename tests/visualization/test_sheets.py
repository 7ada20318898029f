"""Sheets of several images: layout, ground truth, before beside after."""

import math

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
    WRONG,
    Shown,
    contact_sheet,
    draw_annotations,
    draw_dataset_dict,
    draw_side_by_side,
    draw_training_sample,
    ground_truth_sheet,
    letterbox,
    segmentation_to_mask,
)
from persondet.visualization.sheets import MARGIN_OF_CLEANING_SHEET as MARGIN

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 255, 255), (255, 0, 255)]


def flat(color, height=30, width=40):
    return np.full((height, width, 3), color, dtype=np.uint8)


def extent(sheet, color):
    """Return (left, top, width, height) of the pixels of a colour."""
    rows, columns = np.nonzero((sheet == color).all(axis=2))
    left, top = columns.min(), rows.min()
    return left, top, columns.max() - left + 1, rows.max() - top + 1


def test_tiles_fill_rows_in_order():
    sheet = contact_sheet([flat(c) for c in COLORS], [""] * 5, columns=3, tile_size=(40, 30))
    boxes = [extent(sheet, color) for color in COLORS]
    assert {box[2:] for box in boxes} == {(40, 30)}
    assert len({box[1] for box in boxes[:3]}) == 1
    assert boxes[0][0] < boxes[1][0] < boxes[2][0]
    assert boxes[3][0] == boxes[0][0]
    assert boxes[3][1] > boxes[0][1] + 30
    assert sheet.dtype == np.uint8


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((30, 40), (0, 0, 80, 60)), ((10, 80), (0, 25, 80, 10)), ((300, 100), (30, 0, 20, 60))],
)
def test_letterboxing_keeps_the_shape_and_centres(shape, expected):
    fitted = letterbox(flat((0, 0, 255), *shape), (80, 60))
    assert fitted.shape == (60, 80, 3)
    assert extent(fitted, (0, 0, 255)) == expected


SQUARE = [10.0, 5.0, 30.0, 5.0, 30.0, 25.0, 10.0, 25.0]


INSIDE = np.zeros((40, 60), dtype=bool)


INSIDE[5:25, 10:30] = True


def changed(drawn, plain):
    return (drawn != plain).any(axis=2)


def annotation(**fields):
    box = {"bbox": [10, 5, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    return {**box, "segmentation": [SQUARE], **fields}


def instances(masks):
    result = Instances((40, 60))
    result.gt_boxes = Boxes(torch.tensor([[10.0, 5.0, 30.0, 25.0]]))
    result.gt_classes = torch.tensor([0])
    if masks is not None:
        result.gt_masks = masks
    return result


def test_a_square_of_whole_pixels_is_rasterised_exactly():
    assert np.array_equal(segmentation_to_mask([SQUARE], 40, 60), INSIDE)


def test_run_length_codes_compressed_or_not_give_the_same_mask():
    code = pycocotools.mask.encode(np.asfortranarray(INSIDE.astype(np.uint8)))
    flat = INSIDE.flatten(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]]))).tolist()
    counts = np.diff([0, *edges, flat.size]).tolist()
    for segmentation in (code, {"size": [40, 60], "counts": counts}):
        assert np.array_equal(segmentation_to_mask(segmentation, 40, 60), INSIDE)


def test_a_dataset_dict_is_drawn_on_a_copy_inside_its_box():
    plain = np.full((40, 60, 3), 90, dtype=np.uint8)
    drawn = draw_dataset_dict(plain, {"annotations": [annotation()]})
    assert (plain == 90).all()
    rows, columns = np.nonzero(changed(drawn, plain))
    assert changed(drawn, plain)[INSIDE].all()
    assert rows.min() >= 3
    assert rows.max() <= 26
    assert columns.min() >= 8
    assert columns.max() <= 31


@pytest.mark.parametrize("kind", ["polygon", "bitmask", "none"])
@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_a_training_sample_looks_like_its_dataset_dict(kind, image_format):
    masks = {
        "polygon": lambda: PolygonMasks([[np.array(SQUARE)]]),
        "bitmask": lambda: BitMasks(torch.from_numpy(INSIDE[None].copy())),
        "none": lambda: None,
    }[kind]()
    plain = np.zeros((40, 60, 3), dtype=np.uint8)
    plain[:] = (10, 90, 200)
    pixels = plain if image_format == "BGR" else plain[:, :, ::-1]
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    sample = {"image": image, "instances": instances(masks)}
    drawn = draw_training_sample(sample, image_format=image_format)
    record = {"annotations": [annotation(segmentation=[] if kind == "none" else [SQUARE])]}
    assert np.array_equal(drawn, draw_dataset_dict(plain, record))


def write_image(path):
    cv2.imwrite(str(path), np.full((40, 60, 3), 90, dtype=np.uint8))
    return {"file_name": str(path), "height": 40, "width": 60, "annotations": [annotation()]}


def test_a_sheet_has_a_row_per_image_and_each_version_its_own_seed(tmp_path):
    seeds = []

    def mapper(record, seed):
        seeds.append(tuple(seed))
        if seed[2] == 1:
            return None  # nothing left of it
        return {"image": torch.zeros(3, 40, 60, dtype=torch.uint8), "instances": instances(None)}

    records = [write_image(tmp_path / f"{i}.png") for i in range(2)]
    sheet = ground_truth_sheet(records, mapper, versions=2, seed=7, tile_size=(120, 80))
    assert seeds == [(7, 0, 0), (7, 0, 1), (7, 1, 0), (7, 1, 1)]
    assert sheet.shape[1] > 3 * 120
    assert sheet.shape[0] > 2 * 80
    assert (sheet == PALETTE[0]).all(axis=2).any()


def colors_of(panel):
    codes = np.unique(panel.astype(np.int64) @ [1 << 16, 1 << 8, 1])
    return {(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in codes}


def test_what_is_wrong_has_its_colour_on_its_side_alone():
    image = np.full((480, 632, 3), 90, np.uint8)  # a panel's own size: nothing is scaled
    missed, known = Shown((20, 20, 60, 90), wrong=True), Shown((200, 20, 260, 90))
    sheet = draw_side_by_side(image, [missed, known], [known, Shown((1, 1, 9, 9), crowd=True)])
    left, right = sheet[26:, :632], sheet[26:, -632:]  # below the titles
    assert {WRONG, RIGHT} <= colors_of(left)
    assert CROWD not in colors_of(left)
    assert {RIGHT, CROWD} <= colors_of(right)
    assert WRONG not in colors_of(right)
    assert tuple(left[20, 40]) == WRONG  # the upper edge of the box


def test_a_cut_out_shows_its_neighbourhood_and_nothing_from_elsewhere():
    image = np.full((1000, 1000, 3), 90, np.uint8)
    near, far = Shown((500, 500, 520, 540), wrong=True), Shown((10, 10, 60, 60), label="far")
    sheet = draw_side_by_side(image, [near, far], [], around=near.box)
    left = sheet[26:, : sheet.shape[1] // 2 - 8]
    assert WRONG in colors_of(left)
    assert RIGHT not in colors_of(left)
    assert left.shape[0] > 200  # enlarged


IMAGE = np.zeros((60, 100, 3), np.uint8)


def test_a_box_that_leaves_the_image_is_seen_on_the_margin():
    margin = round(MARGIN * 100)
    bare = draw_annotations(IMAGE, [])
    assert bare.shape == (60 + 2 * margin, 100 + 2 * margin, 3)
    drawn = draw_annotations(IMAGE, [{"bbox": [-5, 10, 20, 20]}])
    changed = (drawn != bare).any(axis=2)
    assert changed[:, :margin].any()
    assert not changed[:, margin + 20 :].any()


@pytest.mark.parametrize(
    "annotation",
    [
        {},
        {"bbox": None, "segmentation": "x"},
        {"bbox": [math.nan] * 4, "segmentation": [[]]},
        {"bbox": [1, 2], "segmentation": [[1, 2, 3], None, 7]},
        {"bbox": ["a"] * 4, "segmentation": {"size": [60, 100]}},
        {"segmentation": {"size": [60, 100], "counts": [3, -1]}},
        {"segmentation": {"size": [9, 9], "counts": "!"}},
    ],
)
def test_what_cannot_be_drawn_is_left_out(annotation):
    assert np.array_equal(draw_annotations(IMAGE, [annotation]), draw_annotations(IMAGE, []))

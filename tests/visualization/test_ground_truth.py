"""Annotations drawn on their image, from a dataset dict and from a training sample."""

import cv2
import numpy as np
import pycocotools.mask
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks

from persondet.visualization.drawing import PALETTE
from persondet.visualization.sheets import (
    draw_dataset_dict,
    draw_training_sample,
    ground_truth_sheet,
    segmentation_to_mask,
)

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

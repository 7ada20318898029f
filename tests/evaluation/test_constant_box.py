"""The score of a detector that looks at no image."""

import json

import numpy as np
import pytest
from detectron2.structures import BoxMode

from persondet.evaluation.constant_box import constant_box_scores, median_boxes


def record(box, category=0, *, crowd=0):
    """An image of 200 x 100 pixels with one annotation, XYXY."""
    annotation = {
        "bbox": list(box),
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": category,
        "iscrowd": crowd,
    }
    return {"width": 200, "height": 100, "annotations": [annotation]}


def write_truth(path, boxes):
    """Write ground truth, one image of 200 x 100 per entry (category, x, y, width, height)."""
    coco = {
        "info": {},
        "images": [
            {"id": n, "file_name": f"{n}.jpg", "width": 200, "height": 100}
            for n in range(len(boxes))
        ],
        "categories": [{"id": 3, "name": "person"}, {"id": 7, "name": "rider"}],
        "annotations": [
            {
                "id": n + 1,
                "image_id": n,
                "category_id": category,
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": 0,
                "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
            }
            for n, (category, x, y, w, h) in enumerate(boxes)
        ],
    }
    path.write_text(json.dumps(coco))
    return path


def test_the_box_is_the_median_of_each_corner_relative_to_its_image():
    small = record((10, 10, 30, 60)) | {"width": 100, "height": 100}
    found = median_boxes(
        [small, record((20, 0, 100, 50)), record((60, 20, 180, 90)), record((0, 0, 9, 9), crowd=1)]
    )
    share, box = found[0]
    assert share == 1
    # corners as shares: (0.1, 0.1, 0.3, 0.6), (0.1, 0, 0.5, 0.5), (0.3, 0.2, 0.9, 0.9)
    np.testing.assert_allclose(box, [0.1, 0.1, 0.5, 0.6])


def test_half_of_the_images_hit_gives_the_precision_of_half(tmp_path):
    # All scores are equal, so pycocotools keeps the order of the images: hit, miss, hit, miss.
    away, there = (3, 150, 20, 40, 60), (3, 50, 20, 40, 60)
    truth = write_truth(tmp_path / "t.json", [there, away, there, away])
    scores = constant_box_scores([record((50, 20, 90, 80))], truth, (3, 7), masks=False)
    # recall 1/4 at precision 1 and 2/4 at 2/3: of 101 recall points 26 and 25.
    assert scores["bbox"]["AP50"] == pytest.approx(100 * (26 + 25 * 2 / 3) / 101)
    assert "segm" not in scores

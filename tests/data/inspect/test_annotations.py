"""Annotations turned with their image, judged by Pillow's own turning of the pixels."""

from __future__ import annotations

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image, ImageOps

from persondet.data.inspect.annotations import turned

SIZE = (60, 40)  # width and height as stored
POLYGON = [10.0, 5.0, 40.0, 8.0, 35.0, 30.0, 12.0, 25.0]


def _upright(mask: np.ndarray, orientation: int) -> np.ndarray:
    image = Image.fromarray(mask * 255)
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image)) > 0


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_box_polygon_rle_and_keypoints_turn_as_the_pixels_do(orientation: int) -> None:
    width, height = SIZE
    polygons = mask_util.frPyObjects([POLYGON], height, width)
    stored = np.asarray(mask_util.decode(polygons))[:, :, 0]
    truth = _upright(stored, orientation)
    assert truth.shape == (width, height)
    rle = {"size": [height, width], "counts": polygons[0]["counts"].decode()}
    annotation = {"bbox": [10, 5, 30, 25], "segmentation": [POLYGON], "keypoints": [10, 5, 2]}
    polygon = turned(annotation, orientation, width, height)
    mask = mask_util.decode(mask_util.frPyObjects(polygon["segmentation"], width, height))[:, :, 0]
    assert (np.asarray(mask) != truth).sum() <= 0.06 * truth.sum()  # the rasteriser's own bias
    raster = turned({**annotation, "segmentation": rle}, orientation, width, height)
    assert raster["segmentation"]["size"] == [width, height]
    assert np.array_equal(np.asarray(mask_util.decode(raster["segmentation"])) > 0, truth)
    x, y, w, h = polygon["bbox"]
    points = np.reshape(polygon["segmentation"][0], (-1, 2))
    assert [x, y] == points.min(axis=0).tolist()
    assert [x + w, y + h] == points.max(axis=0).tolist()
    assert polygon["keypoints"] == [*points[0], 2]

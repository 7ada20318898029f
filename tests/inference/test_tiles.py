"""Tiles: they cover the image, they find what is small, and each object counts once."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances, ROIMasks
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from persondet.config import check_cfg, get_cfg
from persondet.errors import ConfigError
from persondet.inference.masks import RegionMasks, region_masks_of
from persondet.inference.tiles import OVERLAP, TiledModel, merge_views, tile_rectangles

LEAST = 20  # pixels of the model's input: what the detector below cannot see is smaller


class BlobDetector(torch.nn.Module):
    """Finds bright blobs of at least `LEAST` pixels in its input; the score grows with the size."""

    def forward(self, batched_inputs):
        return [{"instances": self._blobs(asked)} for asked in batched_inputs]

    def _blobs(self, asked):
        image = asked["image"].numpy()[0]
        scale = asked["height"] / image.shape[0]
        slices = ndimage.find_objects(ndimage.label(image > 127)[0])
        boxes = np.array([(x.start, y.start, x.stop, y.stop) for y, x in slices], np.float32)
        boxes = boxes.reshape(-1, 4)
        height = boxes[:, 3] - boxes[:, 1]
        boxes, height = boxes[height >= LEAST], height[height >= LEAST]
        found = Instances((asked["height"], asked["width"]))
        found.pred_boxes = Boxes(torch.from_numpy(boxes * np.float32(scale)))
        found.scores = torch.from_numpy(1 - 1 / height)
        found.pred_classes = torch.zeros(len(boxes), dtype=torch.int64)
        found.roi_masks = ROIMasks(torch.ones(len(boxes), 28, 28))
        order = torch.argsort(found.scores, descending=True)
        return found[order]


def config(tiles=(2, 2)):
    cfg = get_cfg()
    cfg.TEST.TILES = tiles
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 360, 1000
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def scene(boxes, size=(720, 1280)):
    image = np.zeros((3, *size), np.uint8)
    for x0, y0, x1, y1 in boxes:
        image[:, y0:y1, x0:x1] = 255
    return {"image": torch.from_numpy(image), "height": size[0], "width": size[1]}


def found_boxes(instances):
    return sorted(map(tuple, instances.pred_boxes.tensor.round().int().tolist()))


@given(
    st.integers(40, 3000), st.integers(40, 3000), st.integers(1, 6), st.integers(1, 6), st.data()
)
def test_tiles_cover_the_image_and_hold_whole_what_the_overlap_can(height, width, cols, rows, data):
    tiles = tile_rectangles((height, width), (cols, rows))
    assert len(tiles) == cols * rows
    assert len({(x1 - x0, y1 - y0) for x0, y0, x1, y1 in tiles}) == 1
    assert (tiles[0][:2], tiles[-1][2:]) == ((0, 0), (width, height))
    side_x, side_y = tiles[0][2], tiles[0][3]
    w = data.draw(st.integers(1, max(1, int(OVERLAP * side_x) - 1)))
    h = data.draw(st.integers(1, max(1, int(OVERLAP * side_y) - 1)))
    x, y = data.draw(st.integers(0, width - w)), data.draw(st.integers(0, height - h))
    assert any(x0 <= x and y0 <= y and x + w <= x1 and y + h <= y1 for x0, y0, x1, y1 in tiles)


def test_tiles_find_small_objects_once_and_leave_large_ones_as_they_are():
    rng = np.random.default_rng(0)
    # 24 pixels are 12 in the whole image's input and 22 in a tile's.
    small = [(x, y, x + 12, y + 24) for x in range(20, 1260, 70) for y in (100, 352, 690)]
    small = [box for box in small if rng.random() < 0.8]
    large = [(500, 150, 780, 320), (30, 400, 200, 680)]  # both cut by tiles
    both = TiledModel(config(), BlobDetector())([scene(small + large)])[0]["instances"]
    assert found_boxes(both) == sorted(small + large)
    whole = TiledModel(config((1, 1)), BlobDetector())([scene(small + large)])[0]["instances"]
    assert found_boxes(whole) == sorted(large)
    masks = region_masks_of(both)
    for i, (x0, y0, x1, y1) in enumerate(both.pred_boxes.tensor.round().int().tolist()):
        expected = np.zeros((720, 1280), bool)
        expected[y0:y1, x0:x1] = True
        assert (masks.whole(i) != expected).sum() <= 2 * (x1 - x0 + y1 - y0)
    assert (both.scores.diff() <= 0).all()
    (nothing,) = TiledModel(config(), BlobDetector())([scene([])])
    assert len(nothing["instances"]) == 0


def view(*detections, size=(100, 100)):
    """Return the detections of one view from (box, score, class)."""
    boxes = [box for box, _, _ in detections]
    found = Instances(size)
    found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    found.scores = torch.tensor([score for _, score, _ in detections])
    found.pred_classes = torch.tensor([number for _, _, number in detections], dtype=torch.int64)
    found.region_masks = RegionMasks(
        [np.ones((y1 - y0, x1 - x0), bool) for x0, y0, x1, y1 in boxes],
        [(x0, y0) for x0, y0, _, _ in boxes],
        size,
    )
    return found


BODY, LEGS, NEXT = (10, 10, 40, 90), (12, 50, 38, 90), (35, 10, 65, 90)


@pytest.mark.parametrize(
    ("whole", "tile", "stay"),
    [
        ([(BODY, 0.8, 0)], [(BODY, 0.9, 0)], [0.9]),  # one object: the higher score
        ([(BODY, 0.8, 0)], [(LEGS, 0.9, 0)], [0.8]),  # a part, sure as it may be
        ([(BODY, 0.3, 0)], [(LEGS, 0.9, 0)], [0.9, 0.3]),  # but not of a guess
        ([(BODY, 0.9, 0)], [(NEXT, 0.8, 0)], [0.9, 0.8]),  # neighbours
        ([(BODY, 0.9, 0)], [(BODY, 0.8, 1)], [0.9, 0.8]),  # another class
        ([(BODY, 0.9, 0), (LEGS, 0.8, 0)], [], [0.9, 0.8]),  # one view: the detector's own matter
    ],
)
def test_detections_of_several_views_are_merged(whole, tile, stay):
    merged = merge_views([view(*whole), view(*tile)], limit=100)
    assert merged.scores.tolist() == pytest.approx(stay)
    assert len(merge_views([view(*whole), view(*tile)], limit=1)) == 1


def test_people_whose_boxes_overlap_and_whose_masks_do_not_are_two():
    one, two = view((BODY, 0.9, 0)), view((BODY, 0.8, 0))
    left, right = np.zeros((80, 30), bool), np.zeros((80, 30), bool)
    left[:, :15], right[:, 15:] = True, True
    one.region_masks = RegionMasks([left], [BODY[:2]], (100, 100))
    two.region_masks = RegionMasks([right], [BODY[:2]], (100, 100))
    assert len(merge_views([one, two], limit=100)) == 2


@pytest.mark.parametrize("tiles", [(2,), (0, 2), (2, 17), (1.5, 2)])
def test_tiles_that_are_no_columns_and_rows_are_refused(tiles):
    with pytest.raises(ConfigError, match=r"TEST\.TILES"):
        check_cfg(config(tiles))

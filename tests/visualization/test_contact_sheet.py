"""Tiles in a grid: places, shapes, captions."""

import numpy as np
import pytest

from persondet.visualization.sheets import BACKGROUND, contact_sheet, letterbox

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


def test_a_caption_is_written_below_its_own_tile_and_cut_to_it():
    captions = ["", "a caption that is far too long for such a small tile"]
    tiles = [flat(COLORS[0]), flat(COLORS[1])]
    sheet = contact_sheet(tiles, captions, columns=2, tile_size=(80, 60))
    ink = (sheet != BACKGROUND).any(axis=2)
    for color in COLORS[:2]:
        left, top, width, height = extent(sheet, color)
        ink[top : top + height, left : left + width] = False
    rows, columns = np.nonzero(ink)
    left, top, width, height = extent(sheet, COLORS[1])
    assert left - 1 <= columns.min()
    assert columns.max() <= left + width
    assert rows.min() >= top + height

"""Boxes, polygons and RLE: checked, measured and cut, against rasters and by properties."""

import math

import numpy as np
import pycocotools.mask as mask_util
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from persondet.data.inspect.annotations import outline_crosses, screen_polygons
from persondet.data.shapes import (
    compressed_rle,
    extent,
    inspect_segmentation,
    polygon_area,
    projective_matrix,
    rle_fault,
    split_polygon,
    transform_points,
)

SQUARE = [10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]
BOW_TIE = [10.0, 10.0, 30.0, 30.0, 30.0, 10.0, 10.0, 30.0]
COMB = [-5, 1, 10, 1, 10, 3, -2, 3, -2, 5, 10, 5, 10, 7, -5, 7]
NAN = math.nan
numbers = st.one_of(st.integers(-3, 103), st.floats(-3, 103), st.sampled_from([NAN, 10**400, "1"]))
parts = st.one_of(st.lists(numbers, max_size=9), st.sampled_from([SQUARE, BOW_TIE, None, 3]))


@settings(max_examples=30)
@given(st.lists(st.one_of(st.lists(parts, max_size=3), parts), min_size=1, max_size=6))
def test_the_fast_look_clears_nothing_that_the_close_look_faults(segmentations):
    screen = screen_polygons(segmentations, [(100, 80)] * len(segmentations))
    for index, segmentation in enumerate(segmentations):
        codes, usable = inspect_segmentation(segmentation, 100, 80)
        if screen.faultless[index]:
            assert not codes
            assert usable is segmentation
            assert screen.crosses[index] == outline_crosses(segmentation)
    assert outline_crosses([BOW_TIE])
    touching = [0, 0, 10, 0, 10, 10, 5, 0, 0, 10]  # comes back to its own edge in one point
    assert not outline_crosses([touching])


@settings(max_examples=20)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=40))
def test_compressed_runs_are_understood_as_pycocotools_writes_them(runs):
    counts = [*runs, 8000 - sum(runs)]
    lists = {"size": [80, 100], "counts": counts}
    rle = mask_util.frPyObjects(lists, 80, 100)
    texts = {"size": [80, 100], "counts": rle["counts"].decode()}
    assert rle_fault(texts, 100, 80) == rle_fault(lists, 100, 80) == ""
    assert compressed_rle(lists) == texts
    assert compressed_rle(texts) is texts
    shortened = {"size": [80, 100], "counts": texts["counts"][:-1]}
    assert rle_fault(shortened, 100, 80) == "rle-invalid"


def test_known_cuts_and_areas():
    comb = np.reshape(COMB, (-1, 2)).astype(float)
    teeth = split_polygon(comb, 100, 100)
    found = sorted(extent([tooth]).tolist() for tooth in teeth)
    assert found == [[0, 1, 10, 3], [0, 5, 10, 7]]
    assert split_polygon(comb - 50, 100, 100) == []
    inside = comb + 20
    assert split_polygon(inside, 100, 100)[0] is inside
    # What only touches the border from outside is nothing, not a sliver.
    assert split_polygon(np.array([[0.0, 0], [0, 9], [-9, 5]]), 100, 100) == []
    (octagon,) = split_polygon(np.array([[50.0, -40], [140, 50], [50, 140], [-40, 50]]), 100, 100)
    for polygon in (octagon, octagon[::-1], octagon + 1e6):
        assert polygon_area(polygon) == pytest.approx(10_000 - 4 * 50)


def _odd(polygon, x, y):
    """Whether an outline encloses each point an odd number of times, by rays to the right."""
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside


@settings(max_examples=30)
@given(arrays(np.int32, (7, 2), elements=st.integers(-3200, 9600)))
def test_the_pieces_hold_what_was_inside_crossing_outlines_too(points):
    polygon = points / 64.0
    x, y = np.meshgrid(np.arange(0, 100, 2) + 0.5137, np.arange(0, 80, 2) + 0.4871)
    pieces = split_polygon(polygon, 100, 80)
    found = np.zeros(x.shape, bool)
    for piece in pieces:
        assert len(piece) >= 3
        assert piece.min() >= 0
        assert (piece.max(axis=0) <= (100, 80)).all()
        found ^= _odd(piece, x, y)
    assert (found != _odd(polygon, x, y)).sum() <= 1  # a sliver may pass through a point


@settings(max_examples=30)
@given(
    arrays(np.float64, (2, 3), elements=st.floats(-2, 2, width=32)),
    arrays(np.float64, 2, elements=st.floats(-1e-4, 1e-4)),
)
def test_a_matrix_is_found_again_from_four_points(affine, tilt):
    matrix = np.vstack([affine, [*tilt, 1.0]])
    matrix[:2, :2] += 3 * np.eye(2)
    source = np.array([[0.5, 0.5], [639.5, 0.5], [639.5, 359.5], [0.5, 359.5]])
    target = transform_points(source, matrix).astype(np.float32).astype(np.float64)
    found = projective_matrix(source, target)
    inner = np.array([[100.0, 200.0], [400.0, 30.0], [0.0, 0.0]])
    np.testing.assert_allclose(
        transform_points(inner, found), transform_points(inner, matrix), rtol=1e-4, atol=0.02
    )

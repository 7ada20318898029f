"""Geometry of polygons, against rasters and by properties."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from persondet.data.polygons import (
    SLIVER,
    clip_polygon,
    extent,
    polygon_area,
    projective_matrix,
    split_polygon,
    transform_points,
)

# Multiples of 1/64: OpenCV, the independent path, is not robust against denormal differences.
polygons = arrays(
    np.int32, st.tuples(st.integers(3, 9), st.just(2)), elements=st.integers(-3200, 9600)
).map(lambda points: points / 64.0)


def test_area_of_known_shapes() -> None:
    triangle = np.array([[0.0, 0], [4, 0], [0, 3]])
    assert polygon_area(triangle) == 6
    assert polygon_area(triangle[::-1]) == 6
    assert polygon_area(triangle + 1e6) == pytest.approx(6)


def test_clip_of_known_shapes() -> None:
    square = np.array([[-5.0, -5], [5, -5], [5, 5], [-5, 5]])
    assert polygon_area(clip_polygon(square, 100, 100)) == 25
    assert clip_polygon(square - 50, 100, 100).shape == (0, 2)
    around = np.array([[-10.0, -10], [200, -10], [200, 200], [-10, 200]])
    assert polygon_area(clip_polygon(around, 100, 80)) == 8000


@given(polygons)
def test_clipping_stays_inside_and_equals_the_intersection(polygon: np.ndarray) -> None:
    clipped = clip_polygon(polygon, 100, 80)
    if len(clipped):
        assert clipped.min() >= 0
        assert clipped[:, 0].max() <= 100
        assert clipped[:, 1].max() <= 80
    hull = cv2.convexHull(polygon.astype(np.float32)).reshape(-1, 2)
    image = np.array([[0, 0], [100, 0], [100, 80], [0, 80]], np.float32)
    truth = cv2.intersectConvexConvex(hull, image)[0] if cv2.contourArea(hull) > 1 else 0.0
    part = clip_polygon(hull.astype(np.float64), 100, 80)
    assert (polygon_area(part) if len(part) else 0.0) == pytest.approx(truth, abs=1.0)


@given(polygons)
def test_clipping_again_changes_nothing(polygon: np.ndarray) -> None:
    once = clip_polygon(polygon, 100, 80)
    if len(once):
        np.testing.assert_array_equal(clip_polygon(once, 100, 80), once)


def test_a_cut_takes_a_comb_apart() -> None:
    comb = np.array([[-5.0, 1], [10, 1], [10, 3], [-2, 3], [-2, 5], [10, 5], [10, 7], [-5, 7]])
    teeth = split_polygon(comb, 100, 100)
    assert [extent([tooth]).tolist() for tooth in teeth] == [[0, 1, 10, 3], [0, 5, 10, 7]]
    assert [len(tooth) for tooth in teeth] == [4, 4]
    assert split_polygon(comb - 50, 100, 100) == []
    inside = comb + 20
    assert split_polygon(inside, 100, 100)[0] is inside
    # What only touches the border from outside is nothing, not a sliver.
    assert split_polygon(np.array([[0.0, 0], [0, 9], [-9, 5]]), 100, 100) == []
    corners = split_polygon(np.array([[50.0, -40], [140, 50], [50, 140], [-40, 50]]), 100, 100)
    assert polygon_area(corners[0]) == pytest.approx(10_000 - 4 * 50)


def _odd(polygon: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether an outline encloses each point an odd number of times, by rays to the right."""
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside


@given(polygons)
def test_the_pieces_hold_what_was_inside_crossing_outlines_too(polygon: np.ndarray) -> None:
    x, y = np.meshgrid(np.arange(0, 100, 2) + 0.5137, np.arange(0, 80, 2) + 0.4871)
    pieces = split_polygon(polygon, 100, 80)
    found = np.zeros(x.shape, bool)
    for piece in pieces:
        assert len(piece) >= 3
        assert piece.min() >= 0
        assert (piece.max(axis=0) <= (100, 80)).all()
        found ^= _odd(piece, x, y)
    assert (found != _odd(polygon, x, y)).sum() <= 1  # a sliver may pass through a point


@given(
    st.lists(st.floats(5, 90), min_size=4, max_size=12), st.floats(-30, 130), st.floats(-30, 110)
)
def test_the_pieces_of_a_simple_polygon_are_those_of_the_intersection(
    radii: list[float], x: float, y: float
) -> None:
    angles = np.arange(len(radii)) * 2 * np.pi / len(radii) + 0.1
    star = np.array([x, y]) + np.array(radii)[:, None] * np.stack(
        [np.cos(angles), np.sin(angles)], 1
    )
    pieces = split_polygon(star, 100, 80)
    common = shapely.intersection(shapely.Polygon(star), shapely.box(0, 0, 100, 80))
    truth = [part.area for part in getattr(common, "geoms", [common]) if part.area > SLIVER * 2]
    areas = sorted(polygon_area(piece) for piece in pieces)
    assert sum(areas) == pytest.approx(sum(truth), abs=0.1)
    assert len([area for area in areas if area > SLIVER * 2]) == len(truth)
    assert all(shapely.Polygon(piece).is_valid for piece in pieces if polygon_area(piece) > 0.1)


@given(
    arrays(np.float64, (2, 3), elements=st.floats(-2, 2, width=32)),
    arrays(np.float64, 2, elements=st.floats(-1e-4, 1e-4)),
)
def test_a_matrix_is_found_again_from_four_points(affine: np.ndarray, tilt: np.ndarray) -> None:
    matrix = np.vstack([affine, [*tilt, 1.0]])
    matrix[:2, :2] += 3 * np.eye(2)
    source = np.array([[0.5, 0.5], [639.5, 0.5], [639.5, 359.5], [0.5, 359.5]])
    target = transform_points(source, matrix).astype(np.float32).astype(np.float64)
    found = projective_matrix(source, target)
    inner = np.array([[100.0, 200.0], [400.0, 30.0], [0.0, 0.0]])
    np.testing.assert_allclose(
        transform_points(inner, found), transform_points(inner, matrix), rtol=1e-4, atol=0.02
    )


def test_extent() -> None:
    parts = [np.array([[1.0, 2], [3, 4], [2, 8]]), np.array([[0.0, 5], [1, 1], [1, 5]])]
    np.testing.assert_array_equal(extent(parts), [0, 1, 3, 8])

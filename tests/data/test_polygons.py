"""Geometry of polygons, against rasters and by properties."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from persondet.data.polygons import (
    clip_polygon,
    extent,
    polygon_area,
    projective_matrix,
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

"""Polygons in continuous pixel coordinates: area, clipping, and straight-line maps.

A polygon is float64, (N, 2), x and y in pixels; (0, 0) is the upper left corner of the upper left
pixel, so an image covers [0, width] x [0, height] and the centre of its first pixel is (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def polygon_area(polygon: FloatArray) -> float:
    """Return the area enclosed by a polygon (N, 2) in square pixels, whatever its direction.

    Source: the shoelace formula.
    """
    x, y = polygon[:, 0] - polygon[0, 0], polygon[:, 1] - polygon[0, 1]
    return 0.5 * abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1]))


def is_on_a_line(polygon: FloatArray, tolerance: float = 1e-6) -> bool:
    """Return whether all points of a polygon (N, 2) lie on one line, to `tolerance` pixels.

    The area says less: that of an outline which crosses itself can be 0 although it encloses some.
    """
    offsets = polygon - polygon[0]
    lengths = np.hypot(offsets[:, 0], offsets[:, 1])
    far = offsets[lengths.argmax()]
    across = np.abs(offsets[:, 0] * far[1] - offsets[:, 1] * far[0])
    return bool(across.max() <= tolerance * lengths.max())


def clip_polygon(polygon: FloatArray, width: float, height: float) -> FloatArray:
    """Return the part of a polygon (N, 2) inside [0, width] x [0, height], as (M, 2).

    M is 0 when nothing of it is inside. A concave polygon that an edge cuts into pieces stays one
    polygon whose pieces are joined along that edge, which adds no area.

    Source: Sutherland & Hodgman, "Reentrant Polygon Clipping", CACM 1974.
    """
    for axis, limit, sign in ((0, 0.0, 1.0), (1, 0.0, 1.0), (0, width, -1.0), (1, height, -1.0)):
        distance = sign * (polygon[:, axis] - limit)
        inside = distance >= 0
        if inside.all():
            continue
        if not inside.any():
            return np.zeros((0, 2))
        following = np.roll(polygon, -1, axis=0)
        following_distance = np.roll(distance, -1)
        crosses = inside != np.roll(inside, -1)
        gap = np.where(crosses, distance - following_distance, 1.0)
        crossing = polygon + (distance / gap)[:, None] * (following - polygon)
        crossing[:, axis] = limit
        polygon = np.stack([polygon, crossing], axis=1)[np.stack([inside, crosses], axis=1)]
    return polygon if len(polygon) >= 3 else np.zeros((0, 2))


def transform_points(points: FloatArray, matrix: FloatArray) -> FloatArray:
    """Map points (N, 2) by a 3 x 3 projective matrix (acting on columns (x, y, 1))."""
    mapped = points @ matrix[:2, :2].T + matrix[:2, 2]
    if matrix[2, 0] == 0 and matrix[2, 1] == 0:
        return mapped / matrix[2, 2]
    return mapped / (points @ matrix[2, :2] + matrix[2, 2])[:, None]


def projective_matrix(source: FloatArray, target: FloatArray) -> FloatArray:
    """Return the 3 x 3 matrix that maps four points `source` (4, 2) to `target` (4, 2).

    The last row is exactly (0, 0, 1) when the map is affine within float32 precision.

    Raises: numpy.linalg.LinAlgError: when three of the four points lie on a line.
    """
    x, y = source.T
    u, v = target.T
    zero, one = np.zeros(4), np.ones(4)
    system = np.concatenate(
        [
            np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], axis=1),
            np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], axis=1),
        ]
    )
    matrix = np.append(np.linalg.solve(system, np.concatenate([u, v])), 1.0).reshape(3, 3)
    # The points come back from Albumentations in float32: noise must not look like perspective.
    if np.abs(matrix[2, :2] @ np.abs(source).max(axis=0)).max() < 1e-5:
        basis = np.stack([x, y, one], axis=1)
        matrix[:2] = np.linalg.lstsq(basis, target, rcond=None)[0].T
        matrix[2] = (0.0, 0.0, 1.0)
    return matrix


def extent(polygons: Sequence[FloatArray]) -> FloatArray:
    """Return the box XYXY, (4,), that encloses all `polygons` (each (N, 2), at least one)."""
    points = np.concatenate(polygons)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])

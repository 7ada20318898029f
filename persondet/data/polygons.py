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


def split_polygon(polygon: FloatArray, width: float, height: float) -> list[FloatArray]:
    """Return the pieces of a polygon (N, 2) that lie inside [0, width] x [0, height].

    A piece is (M, 2) with M >= 3 and an area of more than `SLIVER`. A concave polygon that the
    border cuts gives several pieces, which nothing joins; the polygon itself when it is inside.
    An outline that crosses itself encloses what is inside an odd number of times, as in COCO.
    """
    pieces = [polygon]
    for axis, limit, sign in ((0, 0.0, 1.0), (1, 0.0, 1.0), (0, width, -1.0), (1, height, -1.0)):
        pieces = [part for piece in pieces for part in _on_one_side(piece, axis, limit, sign)]
    return pieces


SLIVER = 0.01
"""Square pixels: what is cut off by less is rounding, and no pixel would show it."""


def _on_one_side(polygon: FloatArray, axis: int, limit: float, sign: float) -> list[FloatArray]:
    """Cut a polygon (N, 2) along a line: the pieces where sign * (coordinate - limit) > 0.

    The outline falls into chains that begin and end on the line. Along the line, the first two of
    their ends enclose a stretch of the inside, so do the next two, and so on; a piece is a ring of
    chains and such stretches.
    """
    distance = sign * (polygon[:, axis] - limit)
    if distance.min() >= 0:
        return [polygon]
    inside = distance > 0
    if not inside.any():
        return []
    following = np.roll(inside, -1)
    enters, leaves = np.flatnonzero(~inside & following), np.flatnonzero(inside & ~following)
    if enters[0] > leaves[0]:
        leaves = np.roll(leaves, -1)  # the last chain runs over the array's end
    chains = []
    for enter, leave in zip(enters, leaves, strict=True):
        ends = [
            _crossing(polygon, distance, index, axis, limit) for index in (int(enter), int(leave))
        ]
        last = leave if leave > enter else leave + len(polygon)
        vertices = polygon[np.arange(enter + 1, last + 1) % len(polygon)]
        chains.append(np.concatenate([ends[:1], vertices, ends[1:]]))
    return [piece for piece in _rings(chains, 1 - axis) if _swept_area(piece) > SLIVER]


def _swept_area(polygon: FloatArray) -> float:
    """What a line from the first vertex sweeps over, counted once and again where it returns.

    At least the area, and not 0 as the signed one of an outline that crosses itself can be.
    """
    x, y = (polygon - polygon[0]).T
    return 0.5 * float(np.abs(x[:-1] * y[1:] - x[1:] * y[:-1]).sum())


def _crossing(
    polygon: FloatArray, distance: FloatArray, index: int, axis: int, limit: float
) -> FloatArray:
    """Where the edge from vertex `index` to the next, (2,), meets the line."""
    after = (index + 1) % len(polygon)
    share = distance[index] / (distance[index] - distance[after])
    point: FloatArray = polygon[index] + share * (polygon[after] - polygon[index])
    point[axis] = limit
    return point


def _rings(chains: list[FloatArray], along: int) -> list[FloatArray]:
    """Join chains, whose ends 2k and 2k + 1 belong to chain k, by pairs of ends along the line."""
    places = np.array([end[along] for chain in chains for end in (chain[0], chain[-1])])
    order = np.argsort(places, kind="stable")
    partner = np.empty(len(order), np.int64)
    partner[order] = order.reshape(-1, 2)[:, ::-1].reshape(-1)
    rings = []
    unused = set(range(len(chains)))
    while unused:
        start = end = 2 * min(unused)
        parts = []
        while True:
            unused.discard(end // 2)
            parts.append(chains[end // 2][:: -1 if end % 2 else 1])
            end = int(partner[end ^ 1])
            if end == start:
                break
        rings.append(np.concatenate(parts))
    return rings


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

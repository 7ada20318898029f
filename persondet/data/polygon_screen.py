"""A fast look at many segmentations at once: which of them need a closer look.

A json of 100,000 people holds millions of coordinates. Nearly all polygons are faultless, and numpy
and GEOS say so for thousands at a time; only the rest goes through `inspect_segmentation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from persondet.data.annotation_shapes import NOISE

_NUMBERS = {int, float}


@dataclass(frozen=True)
class Screen:
    """What the fast look says of N segmentations.

    Attributes:
        faultless: bool, (N,): polygons inside their image, with an area, of at least 3 points;
            False means "look closer", not "faulty".
        area: float64, (N,): area enclosed by the faultless ones in square pixels, each part by
            itself.
        extent: float64, (N, 4): XYXY of all parts of the faultless ones, pixels.
        crosses: bool, (N,): the outline of one of their parts crosses itself.
    """

    faultless: npt.NDArray[np.bool_]
    area: npt.NDArray[np.float64]
    extent: npt.NDArray[np.float64]
    crosses: npt.NDArray[np.bool_]


def screen_polygons(
    segmentations: Sequence[Any], sizes: Sequence[tuple[int, int]], *, crossings: bool = True
) -> Screen:
    """Look at N segmentations at once.

    Args:
        segmentations: whatever the json has.
        sizes: width and height in pixels of each one's image.
        crossings: look for outlines that cross themselves, a fifth of the work.
    """
    count = len(segmentations)
    owners: list[int] = []
    parts: list[list[float]] = []
    faultless = np.zeros(count, bool)
    for index, segmentation in enumerate(segmentations):
        if type(segmentation) is list and segmentation and all(map(_is_outline, segmentation)):
            owners += [index] * len(segmentation)
            parts += segmentation
            faultless[index] = True
    area, crosses = np.zeros(count), np.zeros(count, bool)
    extent = np.tile([np.inf, np.inf, -np.inf, -np.inf], (count, 1))
    if not parts:
        return Screen(faultless, area, extent, crosses)
    owner = np.array(owners)
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    try:
        values = np.fromiter(chain.from_iterable(parts), np.float64, int(lengths.sum()))
    except OverflowError:  # an integer beyond float64: everything gets the closer look
        return Screen(np.zeros(count, bool), area, extent, crosses)
    points = values.reshape(-1, 2)
    starts = np.concatenate(([0], np.cumsum(lengths[:-1] // 2)))
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinities fail the comparison
        low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
        beyond = np.maximum(-low, high - np.asarray(sizes, np.float64)[owner]).max(axis=1)
        areas = _areas(points, starts, lengths // 2)
        good = (beyond <= NOISE) & (areas > NOISE)
    np.logical_and.at(faultless, owner, good)
    kept = faultless[owner]
    np.add.at(area, owner[kept], areas[kept])
    np.minimum.at(extent[:, :2], owner[kept], low[kept])
    np.maximum.at(extent[:, 2:], owner[kept], high[kept])
    if not crossings:
        return Screen(faultless, area, extent, crosses)
    crossing = _crossing(points[np.repeat(kept, lengths // 2)], lengths[kept] // 2)
    crosses[owner[kept][crossing]] = True
    return Screen(faultless, area, extent, crosses)


def outline_crosses(parts: Sequence[Sequence[float]]) -> bool:
    """Return whether the outline of one of these polygons crosses itself."""
    arrays = [np.asarray(part, np.float64).reshape(-1, 2) for part in parts]
    counts = np.array([len(array) for array in arrays])
    return bool(len(arrays) and _crossing(np.concatenate(arrays), counts).any())


def _is_outline(part: Any) -> bool:
    return (
        type(part) is list
        and len(part) >= 6
        and len(part) % 2 == 0
        and set(map(type, part)) <= _NUMBERS
    )


def _areas(
    points: npt.NDArray[np.float64],
    starts: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Return the area of each outline; points is (P, 2), `starts` and `counts` are (parts,)."""
    following = np.arange(1, len(points) + 1)
    following[starts + counts - 1] = starts
    origin = np.repeat(points[starts], counts, axis=0)  # keeps the products small, so exact
    here, there = points - origin, points[following] - origin
    twice = here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]
    areas: npt.NDArray[np.float64] = 0.5 * np.abs(np.add.reduceat(twice, starts))
    return areas


def _crossing(
    points: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Return which outlines cross themselves; touching themselves in a point is no crossing."""
    if not len(points):
        return np.zeros(0, bool)
    rings = shapely.linearrings(points, indices=np.repeat(np.arange(len(counts)), counts))
    polygons = shapely.polygons(rings)
    crossing = ~shapely.is_valid(polygons)
    suspects = np.flatnonzero(crossing)
    for index, reason in zip(suspects, shapely.is_valid_reason(polygons[suspects]), strict=True):
        crossing[index] = reason.startswith("Self-intersection")
    return crossing

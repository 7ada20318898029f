"""Lines and zones drawn on frames, and the grid from which their points are read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from persondet.analysis.areas import Areas
from persondet.text import one_line
from persondet.visualization import drawing
from persondet.visualization.labels import draw_plate, plate_size

_LINE_COLOR: drawing.Color = (66, 228, 240)
_ZONE_COLOR: drawing.Color = (233, 180, 86)
_PLATE: drawing.Color = (32, 32, 32)
_STEPS = (10, 20, 25, 50, 100, 200, 250, 500, 1000)
_LONGEST = 24  # columns of a name


def draw_areas(
    image: np.ndarray,
    areas: Areas,
    counts: Sequence[Sequence[int]] | None = None,
    people: Sequence[int] | None = None,
) -> None:
    """Draw lines and zones, in place.

    Args:
        image: uint8, (H, W, 3), BGR, contiguous.
        areas: in this image's pixels.
        counts: how many people went (in, out) at each line; None: only names, and an arrow the way
            in.
        people: how many people are in each zone; None: only names.
    """
    width = max(1, round(drawing.stroke_width(image)))
    size = max(11, round(min(image.shape[:2]) / 45))
    for n, zone in enumerate(areas.zones):
        corners = np.round(zone.points).astype(np.int32)
        if people is None or people[n]:
            x0, y0 = np.maximum(corners.min(axis=0), 0)
            x1, y1 = np.minimum(corners.max(axis=0) + 1, image.shape[1::-1])
            region = np.zeros((y1 - y0, x1 - x0), np.uint8)
            cv2.fillPoly(region, [corners - (x0, y0)], 1)
            drawing.draw_region(image, region, (x0, y0), _ZONE_COLOR, alpha=0.15, outline=0)
        cv2.polylines(image, [corners], True, _ZONE_COLOR, width, cv2.LINE_AA)
    for line in areas.lines:
        points = np.round(line.points).astype(np.int32)
        cv2.polylines(image, [points], False, _PLATE, width + 2, cv2.LINE_AA)
        cv2.polylines(image, [points], False, _LINE_COLOR, width, cv2.LINE_AA)
        _draw_way_in(image, line.points, 2 * size, width)
    for n, zone in enumerate(areas.zones):
        name = one_line(zone.name, _LONGEST)
        text = name if people is None else f"{name}: {people[n]}"
        top = zone.points[zone.points[:, 1].argmin()]
        _draw_name(image, text, top, size, _ZONE_COLOR)
    for n, line in enumerate(areas.lines):
        name = one_line(line.name, _LONGEST)
        text = name if counts is None else f"{name}: {counts[n][0]} in, {counts[n][1]} out"
        _draw_name(image, text, line.points[0], size, _LINE_COLOR)


def _draw_way_in(image: np.ndarray, points: np.ndarray, length: int, width: int) -> None:
    """Draw an arrow across the middle of the longest segment, to its right hand: the way in."""
    along = np.diff(points, axis=0)
    longest = np.hypot(*along.T).argmax()
    dx, dy = along[longest] / np.hypot(*along[longest])
    middle = points[longest] + along[longest] / 2
    ends = middle - np.array([-dy, dx]) * length / 2, middle + np.array([-dy, dx]) * length / 2
    start, end = (tuple(int(round(float(value))) for value in point) for point in ends)
    cv2.arrowedLine(image, start, end, _PLATE, width + 2, cv2.LINE_AA, tipLength=0.35)
    cv2.arrowedLine(image, start, end, _LINE_COLOR, width, cv2.LINE_AA, tipLength=0.35)


def _draw_name(
    image: np.ndarray, text: str, place: np.ndarray, size: int, color: drawing.Color
) -> None:
    """Write a name beside a point, inside the image."""
    width, height = plate_size(text, size)
    x = min(max(0, round(float(place[0]))), max(0, image.shape[1] - width))
    y = min(max(0, round(float(place[1])) - height - 2), max(0, image.shape[0] - height))
    draw_plate(image, text, (x, y), size, color, 0.9)


def draw_grid(image: np.ndarray) -> None:
    """Draw a grid with its coordinates in pixels, in place; `image` as of `draw_areas`."""
    height, width = image.shape[:2]
    size = max(10, round(min(height, width) / 55))
    # Labels as wide as "1000" must stand beside each other.
    least = max(plate_size("00000", size)[0], min(height, width) / 12)
    step = next((step for step in _STEPS if step >= least), 1000 * math.ceil(least / 1000))
    shade = image.copy()
    for x in range(0, width, step):
        cv2.line(shade, (x, 0), (x, height), (255, 255, 255), 1)
    for y in range(0, height, step):
        cv2.line(shade, (0, y), (width, y), (255, 255, 255), 1)
    cv2.addWeighted(shade, 0.5, image, 0.5, 0, dst=image)
    for x in range(step, width, step):
        draw_plate(image, str(x), (x - plate_size(str(x), size)[0] // 2, 0), size, _PLATE, 0.75)
    for y in range(step, height, step):
        draw_plate(image, str(y), (0, y - plate_size("0", size)[1] // 2), size, _PLATE, 0.75)

"""The strokes that every image shares: masks, boxes and labels on a BGR array, with OpenCV.

All functions draw in place on `image: uint8, (H, W, 3), BGR, 0..255, contiguous`; coordinates are
absolute pixels (x to the right, y down), and what lies outside the image is cut off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

Color = tuple[int, int, int]

# The colours of Okabe and Ito (2008), which colour-blind readers can tell apart, as BGR.
# Their black is left out: it cannot be seen at night.
PALETTE: tuple[Color, ...] = (
    (0, 159, 230),  # orange
    (233, 180, 86),  # sky blue
    (115, 158, 0),  # bluish green
    (66, 228, 240),  # yellow
    (178, 114, 0),  # blue
    (0, 94, 213),  # vermilion
    (167, 121, 204),  # reddish purple
)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def palette_color(index: int) -> Color:
    """Return colour number `index` (BGR), which colour-blind readers can tell from the others."""
    return PALETTE[index % len(PALETTE)]


def stroke_width(image: np.ndarray) -> float:
    """Return the width in pixels of a box's line: 1.5 up to 540 lines, 2 at 720, 6 at 2160."""
    return max(1.5, min(image.shape[:2]) / 360)


def draw_region(
    image: np.ndarray,
    region: np.ndarray,
    corner: tuple[int, int],
    color: Color,
    *,
    alpha: float = 0.42,
    outline: int = 1,
) -> None:
    """Tint and outline a mask of which only a rectangle is given, at the cost of the rectangle.

    Args:
        region: bool or uint8, (h, w); lies inside the image.
        corner: (x, y), pixels, of the region's upper left corner.
        alpha: the share of the colour in the mix, 0 nothing to 1 opaque.
        outline: the width of the outline in pixels; 0: none.
    """
    if not region.size:
        return
    x, y = corner
    region = np.ascontiguousarray(region).view(np.uint8)
    part = image[y : y + region.shape[0], x : x + region.shape[1]]
    # Twice rounded, so one level off at most; several times faster than `addWeighted`.
    blue, green, red = (alpha * value for value in color)
    pale = cv2.convertScaleAbs(part, alpha=1 - alpha)
    tinted = cv2.add(pale, (blue, green, red, 0.0))  # type: ignore[call-overload]
    cv2.copyTo(tinted, region, part)
    if outline > 0:
        # Soft edges, and without the steps of the pixels.
        contours, _ = cv2.findContours(region, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_TC89_L1)
        cv2.drawContours(image, contours, -1, color, outline, cv2.LINE_AA, offset=(x, y))


def draw_box(
    image: np.ndarray, box: Sequence[float] | np.ndarray, color: Color, *, width: float = 1
) -> None:
    """Draw the frame of `box` (4 finite numbers, XYXY_ABS, pixels) with a line of `width` pixels.

    The line runs inside of the box, along its edges. A pixel that it covers in part takes on that
    part of the colour, so a box that moves by a tenth of a pixel moves by a tenth of a pixel.
    """
    x0, y0, x1, y1 = (float(value) for value in box)
    y, down, hollow_down = _covered(y0, max(y1, y0 + width), width, image.shape[0])
    x, across, hollow_across = _covered(x0, max(x1, x0 + width), width, image.shape[1])
    region = image[y : y + len(down), x : x + len(across)]
    # All of the rows of the upper and lower line, and of the others what the sides touch.
    for rows, columns in ((hollow_down < 1, across >= 0), (hollow_down == 1, hollow_across < 1)):
        share = np.outer(down[rows], across[columns])
        share -= np.outer(hollow_down[rows], hollow_across[columns])
        place = np.ix_(rows, columns)
        part = region[place].astype(np.float32)
        part += (np.array(color, np.float32) - part) * share[:, :, None] + np.float32(0.5)
        region[place] = part  # cut off, so the half has rounded it


def _covered(
    low: float, high: float, width: float, limit: int
) -> tuple[int, np.ndarray, np.ndarray]:
    """Return the first pixel of a box along one axis, and for it and the following ones, which
    share of them lies in the box, and in the hollow inside its line: float32, (n,).
    """
    start, end = (min(max(0, step), limit) for step in (math.floor(low), math.ceil(high)))
    edges = np.arange(start, end + 1, dtype=np.float32)
    box, hollow = (
        np.maximum(np.minimum(edges[1:], np.float32(b)) - np.maximum(edges[:-1], np.float32(a)), 0)
        for a, b in ((low, high), (low + width, high - width))
    )
    return start, box, hollow


def contrasting(color: Color) -> Color:
    """Return black or white (BGR), whichever can be read better on the BGR `color`.

    Source: relative luminance, ITU-R BT.709, without the gamma curve.
    """
    blue, green, red = color
    luminance = 0.0722 * blue + 0.7152 * green + 0.2126 * red
    return (0, 0, 0) if luminance > 110 else (255, 255, 255)

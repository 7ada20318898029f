"""The strokes that every picture shares: masks, boxes and labels on a BGR array, with OpenCV.

All functions draw in place on `image: uint8, (H, W, 3), BGR, 0..255, contiguous`; coordinates are
absolute pixels (x to the right, y down), and what lies outside the image is cut off.
"""

from __future__ import annotations

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


def line_width(image: np.ndarray) -> int:
    """Return the width in pixels of a line that is easy to see on `image`: 1 up to 500 pixels."""
    return max(1, round(min(image.shape[:2]) / 400))


def draw_mask(
    image: np.ndarray,
    mask: np.ndarray,
    color: Color,
    *,
    alpha: float = 0.4,
    outline: int = 1,
) -> None:
    """Tint the pixels of `mask` (bool or uint8, (H, W)) with `color`, and draw its outline.

    `alpha` is the share of the colour in the mix (0 nothing, 1 opaque), and `outline` the width of
    the outline in pixels (0: none). Only the mask's own rectangle is touched.

    Raises: ValueError: when the mask and the image differ in size.
    """
    if mask.shape != image.shape[:2]:
        raise ValueError(f"the mask is {mask.shape} and the image {image.shape[:2]}")
    mask = np.ascontiguousarray(mask, dtype=np.uint8)
    x, y, width, height = cv2.boundingRect(mask)
    if width == 0 or height == 0:
        return
    part = image[y : y + height, x : x + width]
    inside = mask[y : y + height, x : x + width]
    tinted = cv2.addWeighted(part, 1 - alpha, np.full_like(part, color), alpha, 0)
    cv2.copyTo(tinted, inside, part)
    if outline > 0:
        contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, contours, -1, color, outline, cv2.LINE_8, offset=(x, y))


def draw_box(
    image: np.ndarray, box: Sequence[float] | np.ndarray, color: Color, *, width: int = 1
) -> None:
    """Draw the frame of `box` (4 numbers, XYXY_ABS, pixels) with a line of `width` pixels.

    The box is in continuous coordinates (its right edge is the end of the last pixel), so the
    frame runs through the first and the last pixel that it covers.
    """
    x0, y0, x1, y1 = (float(value) for value in box)
    start = (int(np.floor(x0)), int(np.floor(y0)))
    end = (max(start[0], int(np.ceil(x1)) - 1), max(start[1], int(np.ceil(y1)) - 1))
    cv2.rectangle(image, start, end, color, width, cv2.LINE_8)


def label_size(text: str, *, scale: float = 0.45) -> tuple[int, int]:
    """Return the (width, height) in pixels of the plate that `draw_label` draws for `text`."""
    width = cv2.getTextSize(text, FONT, scale, 1)[0][0]
    ascent, descent = _line_extent(scale)
    return width + 6, ascent + descent + 4


def draw_label(
    image: np.ndarray,
    text: str,
    position: tuple[float, float],
    color: Color,
    *,
    scale: float = 0.45,
) -> None:
    """Write `text` on a plate of `color` whose lower left corner is at `position` (x, y), pixels.

    The plate is moved so that it stays inside the image where it fits, and the letters are black
    or white, whichever can be read on `color`. `scale` is OpenCV's font scale.
    """
    width, height = label_size(text, scale=scale)
    x = int(min(max(0.0, position[0]), max(0, image.shape[1] - width)))
    y = int(min(max(0.0, position[1] - height), max(0, image.shape[0] - height)))
    cv2.rectangle(image, (x, y), (x + width - 1, y + height - 1), color, cv2.FILLED)
    baseline = (x + 3, y + 2 + _line_extent(scale)[0])
    cv2.putText(image, text, baseline, FONT, scale, contrasting(color), 1, cv2.LINE_AA)


def _line_extent(scale: float) -> tuple[int, int]:
    """Return the pixels above and below the baseline, the same for every text."""
    (_, above), below = cv2.getTextSize("Ag", FONT, scale, 1)
    return above, below


def contrasting(color: Color) -> Color:
    """Return black or white (BGR), whichever can be read better on the BGR `color`.

    Source: relative luminance, ITU-R BT.709, without the gamma curve.
    """
    blue, green, red = color
    luminance = 0.0722 * blue + 0.7152 * green + 0.2126 * red
    return (0, 0, 0) if luminance > 110 else (255, 255, 255)

"""Texts on pictures: sharp at any size, on a plate that sets them off."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import ImageFont

from persondet.visualization.drawing import Color, contrasting


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font: no file to look for, the same on every machine."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


@lru_cache(maxsize=256)
def text_coverage(text: str, size: int) -> np.ndarray:
    """Return how much of each pixel the letters cover: uint8, (H, W), 0..255.

    All texts of one size have the same height, so that plates line up. `size` is in pixels.
    """
    font = _font(size)
    width = max(1, round(font.getlength(text)))
    ascent, descent = font.getmetrics()
    mask, (left, top) = font.getmask2(text, mode="L", anchor="ls")
    glyphs = np.array(mask, dtype=np.uint8).reshape(mask.size[::-1])
    coverage = np.zeros((ascent + descent, width), dtype=np.uint8)
    y, x = max(0, ascent + top), max(0, left)
    part = glyphs[: coverage.shape[0] - y, : coverage.shape[1] - x]
    coverage[y : y + part.shape[0], x : x + part.shape[1]] = part
    coverage.flags.writeable = False
    return coverage


def plate_size(text: str, size: int) -> tuple[int, int]:
    """Return the (width, height) in pixels of the plate that `draw_plate` draws."""
    height, width = text_coverage(text, size).shape
    return width + 2 * _margin(size), height


def _margin(size: int) -> int:
    """Return the pixels left and right of the text."""
    return max(2, size // 4)


def draw_plate(
    image: np.ndarray, text: str, corner: tuple[int, int], size: int, color: Color, alpha: float = 1
) -> None:
    """Write `text` on a plate, in place; what lies outside the image is cut off.

    Args:
        image: uint8, (H, W, 3), BGR.
        text: one line.
        corner: (x, y) of the plate's upper left corner, pixels.
        size: of the font, pixels.
        color: BGR of the plate; the letters are black or white.
        alpha: 1 opaque, 0 no plate at all.
    """
    plate, letters = _plate(text, size, color)
    height, width = letters.shape
    x, y = corner
    x0, y0 = max(0, x), max(0, y)
    x1, y1 = min(image.shape[1], x + width), min(image.shape[0], y + height)
    if x0 >= x1 or y0 >= y1:
        return
    seen = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
    if alpha < 1:
        below = image[y0:y1, x0:x1]
        share = alpha + (1 - alpha) * letters[seen][:, :, None]
        image[y0:y1, x0:x1] = np.round(below + share * (plate[seen] - below.astype(np.float32)))
    else:
        image[y0:y1, x0:x1] = plate[seen]


@lru_cache(maxsize=256)
def _plate(text: str, size: int, color: Color) -> tuple[np.ndarray, np.ndarray]:
    """Return an opaque plate, uint8 (H, W, 3), and how much of it letters are, float32 (H, W)."""
    width, height = plate_size(text, size)
    margin = _margin(size)
    letters = np.zeros((height, width), np.float32)
    letters[:, margin : width - margin] = text_coverage(text, size) / np.float32(255)
    ground, ink = (np.array(bgr, np.float32) for bgr in (color, contrasting(color)))
    return np.round(ground + letters[:, :, None] * (ink - ground)).astype(np.uint8), letters

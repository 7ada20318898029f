"""Texts on pictures: sharp at any size, inside the picture, and out of each other's way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import ImageFont

from persondet.visualization.drawing import Color, contrasting

Rectangle = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels; x1 and y1 are excluded

# A label that would lie on others by more than this share of its area is left out.
MOST_OVERLAP = 0.25


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font: no file to look for, the same on every machine."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


@lru_cache(maxsize=2048)
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
    width, height = plate_size(text, size)
    plate = np.zeros((height, width, 1), dtype=np.float32)
    margin = _margin(size)
    plate[:, margin : width - margin, 0] = text_coverage(text, size) / np.float32(255)
    x, y = corner
    x0, y0 = max(0, x), max(0, y)
    x1, y1 = min(image.shape[1], x + width), min(image.shape[0], y + height)
    if x0 >= x1 or y0 >= y1:
        return
    letters = plate[y0 - y : y1 - y, x0 - x : x1 - x]
    below = image[y0:y1, x0:x1].astype(np.float32)
    ground = below + (np.array(color, np.float32) - below) * np.float32(alpha)
    mixed = ground + (np.array(contrasting(color), np.float32) - ground) * letters
    image[y0:y1, x0:x1] = np.round(mixed).astype(np.uint8)


@dataclass(frozen=True)
class Placement:
    """Where a label goes: its number in the input, and its upper left corner in pixels."""

    number: int
    corner: tuple[int, int]


def place_labels(
    boxes: np.ndarray,
    sizes: Sequence[tuple[int, int]],
    picture: tuple[int, int],
    taken: Sequence[Rectangle] = (),
) -> list[Placement]:
    """Find places for labels near their boxes, inside the picture, that hide each other little.

    The first labels choose first, so hand them in order of importance. A label that finds no
    place with less than `MOST_OVERLAP` of it on others is left out.

    Args:
        boxes: (N, 4), XYXY_ABS, pixels.
        sizes: (width, height) of the N labels, pixels.
        picture: (width, height), pixels.
        taken: rectangles that are occupied already.
    """
    occupied = [np.asarray(taken, dtype=np.float64).reshape(-1, 4)]
    placements = []
    for number, (box, size) in enumerate(zip(boxes, sizes, strict=True)):
        others = np.concatenate(occupied)
        best, least = None, MOST_OVERLAP * size[0] * size[1]
        for corner in _candidates(box, size, picture):
            overlap = _overlap((*corner, corner[0] + size[0], corner[1] + size[1]), others)
            if overlap < least:
                best, least = corner, overlap
            if overlap == 0:
                break
        if best is not None:
            placements.append(Placement(number, best))
            x, y = best
            occupied.append(np.array([[x, y, x + size[0], y + size[1]]], dtype=np.float64))
    return placements


def _candidates(
    box: np.ndarray, size: tuple[int, int], picture: tuple[int, int]
) -> list[tuple[int, int]]:
    """Return corners to try, the best first, all inside the picture where the label fits."""
    x0, y0, x1, y1 = (float(v) for v in box)
    width, height = size
    corners = [
        (x0, y0 - height),  # above, on the box's edge
        (x1 - width, y0 - height),
        (x0, y0),  # inside, at the top
        (x0, y1),  # below
        (x1 - width, y1),
        (x1, y0),  # beside
        (x0 - width, y0),
        (x0, y0 - 2 * height),  # a line higher
        (x0, y1 - height),  # inside, at the bottom
        (x1, (y0 + y1 - height) / 2),
    ]
    right, bottom = max(0, picture[0] - width), max(0, picture[1] - height)
    return [(int(min(max(0, x), right)), int(min(max(0, y), bottom))) for x, y in corners]


def _overlap(rectangle: Rectangle, others: np.ndarray) -> float:
    """Return the area, pixels², that `rectangle` shares with the (N, 4) others, summed."""
    low = np.maximum(others[:, :2], rectangle[:2])
    high = np.minimum(others[:, 2:], rectangle[2:])
    return float(np.prod(np.clip(high - low, 0, None), axis=1).sum())

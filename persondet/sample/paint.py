"""Drawing primitives: shapes on a transparent canvas, sprites, noise, and colour maps.

All coordinates are continuous frame pixels: pixel (0, 0) covers [0, 1) x [0, 1). Colours are BGR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Colour = tuple[float, float, float]
Image = NDArray[Any]  # uint8; OpenCV's stubs forget the type of what they return
Points = NDArray[np.float64]
Box = tuple[int, int, int, int]

_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
_OVERSAMPLE = 2
# Bands that make a shape look round: width, offset towards the light, brightness.
_WIDTHS, _OFFSETS, _BRIGHTNESS = np.array([(1, 0, 0.7), (0.82, 0.16, 0.88), (0.5, 0.32, 1.06)]).T

_TURNS = np.linspace(0, 2 * np.pi, 25)[:-1]
_RING = np.stack([np.cos(_TURNS), np.sin(_TURNS)], axis=1)
_CAP = np.roll(_RING, 6, axis=0)[:13]
_HEADS = np.stack([width * _CAP + (1.0 - width, 0.0) for width in _WIDTHS])
# Outlines (3, 26, 2) of the bands of a bar: the round head, then the tail; along and across.
_BARS = np.concatenate([_HEADS, -_HEADS], axis=1)


def shade(colour: Colour, factor: float) -> Colour:
    """Return `colour` (BGR, 0..255) times `factor`, kept in range."""
    blue, green, red = (min(channel * factor, 255.0) for channel in colour)
    return blue, green, red


def palette(colours: str) -> tuple[Colour, ...]:
    """Return BGR colours from a list such as "F0CDB2 E2B696" (RRGGBB)."""
    rows = [[int(word[k : k + 2], 16) for k in (4, 2, 0)] for word in colours.split()]
    return tuple((float(blue), float(green), float(red)) for blue, green, red in rows)


def dye(rng: np.random.Generator, options: tuple[Colour, ...], worn: float = 0.8) -> Colour:
    """Return one of `options`, varied a little and greyed: `worn` 1 is as dyed."""
    base = np.array(options[int(rng.integers(len(options)))])
    varied = base.mean() + (base - base.mean()) * worn + rng.normal(0.0, 7.0, 3) + rng.normal(0, 8)
    blue, green, red = (float(channel) for channel in np.clip(varied, 12.0, 245.0))
    return blue, green, red


def ring(centre: ArrayLike, radii: ArrayLike, tilt: float = 0.0) -> Points:
    """Return 24 points (24, 2) on an ellipse with half axes `radii`, turned by `tilt` radians."""
    cos, sin = np.cos(tilt), np.sin(tilt)
    turned = (_RING * np.asarray(radii)) @ np.array([[cos, sin], [-sin, cos]])
    return np.asarray(turned + np.asarray(centre, np.float64))


def noise(rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int]) -> Image:
    """Return smooth noise, float32 (height, width), mean 0; `size` and `cells` are (w, h)."""
    grid = rng.standard_normal(cells[::-1], np.float32)
    return cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)


def fade(image: Image, share: float, colour: ArrayLike) -> Image:
    """Return `image` with this share of it replaced by `colour` (BGR).

    `image`: uint8 (h, w, 3), or premultiplied BGRA (h, w, 4): `colour` counts as far as it covers.
    """
    matrix = np.diag([1.0 - share] * 3 + [1.0])
    matrix[:3, 3] = share * np.asarray(colour) / (255.0 if image.shape[2] == 4 else 1.0)
    return cv2.transform(image, matrix if image.shape[2] == 4 else matrix[:3])


@dataclass(eq=False)
class Sprite:
    """A painted cut-out: premultiplied BGRA, uint8 (h, w, 4), with its place in the frame."""

    bgra: Image
    x: int
    y: int

    @property
    def box(self) -> Box:
        """The cut-out in the frame, XYXY pixels."""
        height, width = self.bgra.shape[:2]
        return self.x, self.y, self.x + width, self.y + height

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Where the sprite covers more than half of a pixel, bool (h, w)."""
        return np.asarray(self.bgra[:, :, 3] > 127)


class Canvas:
    """A transparent canvas over a rectangle of the frame, painted larger and reduced at the end."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """Open a canvas over `bounds` (XYXY frame pixels)."""
        left, top = int(np.floor(bounds[0])), int(np.floor(bounds[1]))
        right, bottom = int(np.ceil(bounds[2])), int(np.ceil(bounds[3]))
        self.size = (max(right - left, 1), max(bottom - top, 1))
        self.origin = np.array([left, top], np.float64)
        shape = (self.size[1] * _OVERSAMPLE, self.size[0] * _OVERSAMPLE, 4)
        self.pixels: Image = np.zeros(shape, np.uint8)

    def _fixed(self, points: ArrayLike) -> NDArray[np.int32]:
        inner = (np.asarray(points, np.float64) - self.origin) * (_OVERSAMPLE << _SHIFT)
        return np.rint((inner - (1 << _SHIFT) / 2).clip(-500000, 500000)).astype(np.int32)

    def polygon(self, points: ArrayLike, colour: Colour) -> None:
        """Fill the polygon `points` (N, 2)."""
        cv2.fillPoly(self.pixels, [self._fixed(points)], (*colour, 255.0), cv2.LINE_AA, _SHIFT)

    def _bands(self, outlines: Points, colour: Colour) -> None:
        """Fill the bands (3, N, 2) of a round shape, from its dark edge to its bright middle."""
        for outline, factor in zip(self._fixed(outlines), _BRIGHTNESS, strict=True):
            tone = (*shade(colour, factor), 255.0)
            cv2.fillPoly(self.pixels, [outline], tone, cv2.LINE_AA, _SHIFT)

    def capsule(
        self, start: Points, end: Points, radii: tuple[float, float], colour: Colour, light: float
    ) -> None:
        """Paint a tapered round bar, lit from the side: `light` -1 is left, 1 is right."""
        axis = end - start
        length = float(np.hypot(axis[0], axis[1]))
        along = axis / length if length > 1e-6 else np.array([1.0, 0.0])
        frame = np.array([along, [-along[1], along[0]]])
        outlines = _BARS.copy()
        # Light comes from one side and a little from above.
        lit = min(max(frame[1, 0] * light - 0.45 * frame[1, 1], -1.0), 1.0)
        outlines[:, :, 1] += lit * _OFFSETS[:, None]
        middles, sizes = np.repeat([end, start], 13, axis=0), np.repeat(radii[::-1], 13)
        self._bands(middles + sizes[:, None] * (outlines @ frame), colour)

    def column(self, centres: Points, halves: Points, colour: Colour, light: float) -> None:
        """Paint an upright round shape from its level sections: middles (N, 2) and half widths
        (N,).
        """
        outlines = np.tile(np.concatenate([centres, centres[::-1]]), (3, 1, 1))
        sides = np.repeat([-1.0, 1.0], len(halves)) * _WIDTHS[:, None] + light * _OFFSETS[:, None]
        outlines[:, :, 0] += sides * np.concatenate([halves, halves[::-1]])
        self._bands(outlines, colour)

    def finish(self) -> Sprite:
        """Return the painting at frame resolution, cut to what is painted."""
        pixels = cv2.resize(self.pixels, self.size, interpolation=cv2.INTER_AREA)
        x, y, width, height = cv2.boundingRect(np.ascontiguousarray(pixels[:, :, 3]))
        painted = np.ascontiguousarray(pixels[y : y + max(height, 1), x : x + max(width, 1)])
        return Sprite(painted, int(self.origin[0]) + x, int(self.origin[1]) + y)


def overlap(first: Box, second: Box) -> Box | None:
    """Return what two XYXY boxes share, or None when they are apart."""
    left, top = max(first[0], second[0]), max(first[1], second[1])
    right, bottom = min(first[2], second[2]), min(first[3], second[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def inside(box: Box, x: int = 0, y: int = 0) -> tuple[slice, slice]:
    """Return the index of an XYXY box in an array with its top left pixel at (`x`, `y`)."""
    return slice(box[1] - y, box[3] - y), slice(box[0] - x, box[2] - x)


def composite(image: Image, glow: Image, sprite: Sprite) -> None:
    """Paint `sprite` over `image`, and over the light that the background gives off.

    Both are uint8 (H, W, 3) BGR, and are changed in place.
    """
    part = overlap(sprite.box, (0, 0, image.shape[1], image.shape[0]))
    if part is None:
        return
    source = sprite.bgra[inside(part, sprite.x, sprite.y)]
    keep = cv2.merge([255 - source[:, :, 3]] * 3)
    for layer in (image, glow):
        layer[inside(part)] = cv2.multiply(layer[inside(part)], keep, scale=1.0 / 255.0)
    image[inside(part)] += cv2.cvtColor(source, cv2.COLOR_BGRA2BGR)

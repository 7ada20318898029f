"""Drawing primitives: shapes on a transparent canvas, sprites, noise, and colour maps.

All coordinates are continuous frame pixels: pixel (0, 0) covers [0, 1) x [0, 1). Colours are BGR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Colour = tuple[float, float, float]
Image = NDArray[Any]  # uint8; OpenCV's stubs forget the type of what they return
Points = NDArray[np.float64]
Box = tuple[int, int, int, int]

_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
_ROUND_SHADING = ((1.0, 0.0, 0.70), (0.82, 0.16, 0.88), (0.5, 0.32, 1.06))
"""Bands that make a shape look round: width, offset towards the light, brightness."""
_RING = np.array([(np.cos(turn), np.sin(turn)) for turn in np.linspace(0, 2 * np.pi, 25)[:-1]])
_GREY = np.tile((0.114, 0.587, 0.299), (3, 1))  # a BGR colour's grey level, on each channel
_HALF_RING = np.array(
    [(np.cos(turn), np.sin(turn)) for turn in np.linspace(-0.5 * np.pi, 0.5 * np.pi, 8)]
)


def shade(colour: Colour, factor: float) -> Colour:
    """Return `colour` (BGR, 0..255) times `factor`, kept in range."""
    blue, green, red = (min(channel * factor, 255.0) for channel in colour)
    return blue, green, red


def palette(colours: str) -> tuple[Colour, ...]:
    """Return BGR colours from a list such as "F0CDB2 E2B696" (RRGGBB)."""
    rows = [[int(word[k : k + 2], 16) for k in (4, 2, 0)] for word in colours.split()]
    return tuple((float(blue), float(green), float(red)) for blue, green, red in rows)


def pick_colour(rng: np.random.Generator, options: tuple[Colour, ...], worn: float = 0.8) -> Colour:
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


def recolour(image: Image, matrix: ArrayLike, add: ArrayLike = (0.0, 0.0, 0.0)) -> Image:
    """Return `matrix` (3, 3) times each BGR colour, plus `add`.

    `image`: uint8 (h, w, 3), or premultiplied BGRA (h, w, 4): `add` counts as far as it covers.
    """
    linear, constant = np.asarray(matrix, np.float64), np.asarray(add, np.float64)[:, None]
    if image.shape[2] == 3:
        return cv2.transform(image, np.hstack([linear, constant]))
    covered = np.hstack([linear, constant / 255.0])
    return cv2.transform(image, np.vstack([covered, [0.0, 0.0, 0.0, 1.0]]))


def quiet(image: Image, colour: float, contrast: float) -> Image:
    """Return an image (BGR, or premultiplied BGRA) with these shares of colour and contrast.

    An open aperture draws the street softly and pale, and people stand out from it.
    """
    matrix = contrast * (colour * np.eye(3) + (1.0 - colour) * _GREY)
    return recolour(image, matrix, np.full(3, (1.0 - contrast) * 128.0))


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

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Where the sprite covers more than half of a pixel, bool (h, w)."""
        return np.asarray(self.bgra[:, :, 3] > 127)


class Canvas:
    """A transparent canvas over a rectangle of the frame, painted larger and reduced at the end."""

    def __init__(self, bounds: Sequence[float], oversample: int = 2) -> None:
        """Open a canvas over `bounds` (XYXY frame pixels), painted `oversample` times larger."""
        left, top = int(np.floor(bounds[0])), int(np.floor(bounds[1]))
        self.size = (
            max(int(np.ceil(bounds[2])) - left, 1),
            max(int(np.ceil(bounds[3])) - top, 1),
        )
        self.origin = np.array([left, top], np.float64)
        self.oversample = oversample
        shape = (self.size[1] * oversample, self.size[0] * oversample, 4)
        self.pixels: Image = np.zeros(shape, np.uint8)

    def _fixed(self, points: ArrayLike) -> NDArray[np.int32]:
        scale = self.oversample << _SHIFT
        inner = (np.asarray(points, np.float64) - self.origin) * scale - (1 << _SHIFT) / 2
        return np.rint(inner.clip(-500000, 500000)).astype(np.int32)

    def polygon(self, points: ArrayLike, colour: Colour) -> None:
        """Fill the polygon `points` (N, 2)."""
        cv2.fillPoly(self.pixels, [self._fixed(points)], (*colour, 255.0), cv2.LINE_AA, _SHIFT)

    def line(self, points: ArrayLike, colour: Colour, width: float) -> None:
        """Draw an open line through `points` (N, 2), `width` frame pixels wide."""
        thick, fixed = max(int(round(width * self.oversample)), 1), [self._fixed(points)]
        cv2.polylines(self.pixels, fixed, False, (*colour, 255.0), thick, cv2.LINE_AA, _SHIFT)

    def capsule(
        self, start: Points, end: Points, radii: tuple[float, float], colour: Colour, light: float
    ) -> None:
        """Paint a tapered round bar, lit from the side: `light` -1 is left, 1 is right."""
        axis = end - start
        length = float(np.hypot(axis[0], axis[1]))
        along = np.array([1.0, 0.0]) if length < 1e-6 else axis / length
        frame = np.array([along, [-along[1], along[0]]])
        # Light comes from one side and a little from above.
        lit = frame[1] * np.clip(frame[1] @ np.array([light, -0.45]), -1.0, 1.0)
        for width, offset, factor in _ROUND_SHADING:
            # Narrower bands reach as far as the bar does: no dark ring where two bars meet.
            shift = [
                radius * (side * along * (1.0 - width) + lit * offset)
                for radius, side in zip(radii, (-1.0, 1.0), strict=True)
            ]
            tail = start + shift[0] - radii[0] * width * (_HALF_RING @ frame)
            head = end + shift[1] + radii[1] * width * (_HALF_RING @ frame)
            self.polygon(np.concatenate([head, tail]), shade(colour, factor))

    def column(self, centres: Points, halves: Points, colour: Colour, light: float) -> None:
        """Paint an upright round shape from its level sections: middles (N, 2), half widths
        (N,).
        """
        for width, offset, factor in _ROUND_SHADING:
            left, right = (
                centres + np.stack([halves * (side * width + offset * light), 0 * halves], axis=1)
                for side in (-1.0, 1.0)
            )
            self.polygon(np.concatenate([left, right[::-1]]), shade(colour, factor))

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


def composite(image: Image, sprite: Sprite, glow: Image | None = None) -> None:
    """Paint `sprite` over `image` (uint8 (H, W, 3) BGR, changed in place).

    `glow` is the light that the background emits; the sprite hides it where it covers.
    """
    part = overlap(sprite.box, (0, 0, image.shape[1], image.shape[0]))
    if part is None:
        return
    source = sprite.bgra[inside(part, sprite.x, sprite.y)]
    keep = cv2.merge([255 - source[:, :, 3]] * 3)
    target = image[inside(part)]
    kept = cv2.multiply(target, keep, scale=1.0 / 255.0)
    target[:] = cv2.add(kept, cv2.cvtColor(source, cv2.COLOR_BGRA2BGR))
    if glow is not None:
        glow[inside(part)] = cv2.multiply(glow[inside(part)], keep, scale=1.0 / 255.0)

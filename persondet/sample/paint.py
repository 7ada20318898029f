"""Painting with coverage: shapes on a transparent canvas, sprites, and how they are composited.

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

_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates


def shade(colour: Colour, factor: float) -> Colour:
    """Return `colour` (BGR, 0..255) times `factor`, kept in range."""
    return (
        min(colour[0] * factor, 255.0),
        min(colour[1] * factor, 255.0),
        min(colour[2] * factor, 255.0),
    )


def blend(first: Colour, second: Colour, share: float) -> Colour:
    """Return the mixture of two BGR colours; `share` 0 is `first`, 1 is `second`."""
    keep = 1.0 - share
    return (
        first[0] * keep + second[0] * share,
        first[1] * keep + second[1] * share,
        first[2] * keep + second[2] * share,
    )


@dataclass(eq=False)
class Sprite:
    """A painted cut-out: premultiplied BGRA, uint8 (h, w, 4), with its place in the frame.

    `glow` is light that it gives off (BGR, uint8 (h, w, 3)) or None.
    """

    bgra: Image
    x: int
    y: int
    glow: Image | None = None

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The canvas in the frame, XYXY pixels (larger than what is painted)."""
        height, width = self.bgra.shape[:2]
        return self.x, self.y, self.x + width, self.y + height

    def mask(self) -> NDArray[np.bool_]:
        """Return where the sprite covers more than half of a pixel, bool (h, w)."""
        return self.bgra[:, :, 3] > 127


class Canvas:
    """A transparent canvas over a rectangle of the frame, painted larger and reduced at the end."""

    def __init__(self, bounds: Sequence[float], oversample: int = 2) -> None:
        """Open a canvas over `bounds` (XYXY frame pixels), painted `oversample` times larger."""
        left, top = int(np.floor(bounds[0])), int(np.floor(bounds[1]))
        width = max(int(np.ceil(bounds[2])) - left, 1)
        height = max(int(np.ceil(bounds[3])) - top, 1)
        self.origin = np.array([left, top], np.float64)
        self.size = (width, height)
        self.oversample = oversample
        self.pixels: Image = np.zeros((height * oversample, width * oversample, 4), np.uint8)

    def _fixed(self, points: ArrayLike) -> NDArray[np.int32]:
        scale = self.oversample << _SHIFT
        inner = (np.asarray(points, np.float64) - self.origin) * scale - (1 << _SHIFT) / 2
        return np.rint(inner.clip(-500000, 500000)).astype(np.int32)

    def polygon(self, points: ArrayLike, colour: Colour) -> None:
        """Fill the polygon `points` (N, 2)."""
        cv2.fillPoly(self.pixels, [self._fixed(points)], (*colour, 255.0), cv2.LINE_AA, _SHIFT)

    def line(self, points: ArrayLike, colour: Colour, width: float) -> None:
        """Draw an open line through `points` (N, 2), `width` frame pixels wide."""
        thickness = max(int(round(width * self.oversample)), 1)
        cv2.polylines(
            self.pixels,
            [self._fixed(points)],
            False,
            (*colour, 255.0),
            thickness,
            cv2.LINE_AA,
            _SHIFT,
        )

    def ellipse(
        self, centre: ArrayLike, radii: tuple[float, float], colour: Colour, tilt: float = 0.0
    ) -> None:
        """Fill an ellipse with half axes `radii`, turned by `tilt` radians."""
        self.polygon(ellipse_points(centre, radii, tilt), colour)

    def limb(
        self,
        start: ArrayLike,
        start_radius: float,
        end: ArrayLike,
        end_radius: float,
        colour: Colour,
        light: float,
    ) -> None:
        """Paint a tapered round bar, lit from the side: `light` -1 is left, 1 is right."""
        first, last = np.asarray(start, np.float64), np.asarray(end, np.float64)
        axis = last - first
        length = float(np.hypot(axis[0], axis[1]))
        along = np.array([1.0, 0.0]) if length < 1e-6 else axis / length
        across = np.array([-along[1], along[0]])
        # Light comes from one side and a little from above.
        lit = across * np.clip(across @ np.array([light, -0.45]), -1.0, 1.0)
        for width, offset, factor in ((1.0, 0.0, 0.70), (0.82, 0.16, 0.88), (0.5, 0.32, 1.06)):
            # Narrower bands reach as far as the bar does: no dark ring where two bars meet.
            reach = along * (1.0 - width)
            outline = _tapered(
                first + lit * offset * start_radius - reach * start_radius,
                start_radius * width,
                last + lit * offset * end_radius + reach * end_radius,
                end_radius * width,
            )
            self.polygon(outline, shade(colour, factor))

    def finish(self) -> Sprite:
        """Return the painting at frame resolution, cut to what is painted."""
        pixels = self.pixels
        if self.oversample > 1:
            pixels = cv2.resize(pixels, self.size, interpolation=cv2.INTER_AREA)
        x, y, width, height = cv2.boundingRect(np.ascontiguousarray(pixels[:, :, 3]))
        if width == 0:
            width, height = 1, 1
        painted = np.ascontiguousarray(pixels[y : y + height, x : x + width])
        return Sprite(painted, int(self.origin[0]) + x, int(self.origin[1]) + y)


_TURN = np.linspace(0.0, 2.0 * np.pi, 25)[:-1]
_RING = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)
_HALF_TURN = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 8)
_HALF_COS, _HALF_SIN = np.cos(_HALF_TURN)[:, None], np.sin(_HALF_TURN)[:, None]


def ellipse_points(
    centre: ArrayLike, radii: tuple[float, float], tilt: float = 0.0
) -> NDArray[np.float64]:
    """Return 24 points (24, 2) on an ellipse with half axes `radii`, turned by `tilt` radians."""
    points = _RING * np.asarray(radii)
    if tilt:
        cos, sin = np.cos(tilt), np.sin(tilt)
        points = points @ np.array([[cos, sin], [-sin, cos]])
    return points + np.asarray(centre, np.float64)


def _tapered(
    first: NDArray[np.float64], first_radius: float, last: NDArray[np.float64], last_radius: float
) -> NDArray[np.float64]:
    """Return the outline of a bar with round ends."""
    axis = last - first
    length = float(np.hypot(axis[0], axis[1]))
    along = np.array([1.0, 0.0]) if length < 1e-6 else axis / length
    across = np.array([-along[1], along[0]])
    head = last + last_radius * (_HALF_COS * along + _HALF_SIN * across)
    tail = first - first_radius * (_HALF_COS * along + _HALF_SIN * across)
    return np.concatenate([head, tail])


def overlap(
    box: tuple[int, int, int, int], width: int, height: int
) -> tuple[int, int, int, int] | None:
    """Return the part of an XYXY `box` inside a frame, or None when there is none."""
    left, top = max(box[0], 0), max(box[1], 0)
    right, bottom = min(box[2], width), min(box[3], height)
    return (left, top, right, bottom) if left < right and top < bottom else None


def composite(image: Image, sprite: Sprite, glow: Image | None = None) -> None:
    """Paint `sprite` over `image` (uint8 (H, W, 3) BGR, changed in place).

    `glow` is the frame's emitted light: it is hidden by the sprite, then gets the sprite's own.
    """
    part = overlap(sprite.box, image.shape[1], image.shape[0])
    if part is None:
        return
    left, top, right, bottom = part
    rows = slice(top - sprite.y, bottom - sprite.y)
    columns = slice(left - sprite.x, right - sprite.x)
    source = sprite.bgra[rows, columns]
    keep = cv2.merge([255 - source[:, :, 3]] * 3)
    target = image[top:bottom, left:right]
    painted = cv2.multiply(target, keep, scale=1.0 / 255.0)
    target[:] = cv2.add(painted, cv2.cvtColor(source, cv2.COLOR_BGRA2BGR))
    if glow is not None:
        light = glow[top:bottom, left:right]
        light[:] = cv2.multiply(light, keep, scale=1.0 / 255.0)
        if sprite.glow is not None:
            light[:] = cv2.add(light, sprite.glow[rows, columns])

"""Signs, benches and bins, and the simple solids that street furniture is made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from persondet.sample.camera import Camera
from persondet.sample.paint import Canvas, Colour, Sprite, shade
from persondet.sample.weather import Light


def open_canvas(
    camera: Camera, x: float, z: float, half: float, tall: float
) -> tuple[Canvas, float, NDArray[np.float64]]:
    """Return a canvas for something at (x, z), the pixels per metre there, and its foot point.

    `half` and `tall` (metres) are its half width and height; what is outside the frame is cut.
    """
    scale = camera.pixels_per_metre(z)
    base = np.array(camera.point(x, 0.0, z))
    oversample = 3 if scale < 60 else 2
    bounds = (
        base[0] - half * scale - 2,
        base[1] - tall * scale - 2,
        base[0] + half * scale + 2,
        base[1] + 0.25 * scale + 2,
    )
    clipped = (
        max(bounds[0], -4),
        max(bounds[1], -4),
        min(bounds[2], camera.width + 4),
        min(bounds[3], camera.height + 4),
    )
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        clipped = (-3.0, -3.0, -2.0, -2.0)
    return Canvas(clipped, oversample), scale, base


def paint_tube(
    canvas: Canvas,
    base: NDArray[np.float64],
    scale: float,
    low: tuple[float, float],
    high: tuple[float, float],
    radius: float,
    colour: Colour,
    light: float,
    top_radius: float | None = None,
) -> None:
    """Paint a round bar between two points (metres right of and above the foot point)."""
    start = base + np.array([low[0], -low[1]]) * scale
    end = base + np.array([high[0], -high[1]]) * scale
    canvas.limb(
        start,
        radius * scale,
        end,
        (radius if top_radius is None else top_radius) * scale,
        colour,
        light,
    )


def paint_block(
    canvas: Canvas,
    base: NDArray[np.float64],
    scale: float,
    x0: float,
    y0: float,
    x1: float,
    y1: float,
    colour: Colour,
    light: float,
) -> None:
    """Paint an upright box with a lit and a dark side."""

    def quad(left: float, right: float, tone: float, low: float = y0, high: float = y1) -> None:
        points = np.array([[left, -low], [right, -low], [right, -high], [left, -high]]) * scale
        canvas.polygon(base + points, shade(colour, tone))

    quad(x0, x1, 0.9)
    width = x1 - x0
    for k, tone in enumerate((0.72, 0.85, 1.0, 1.08)):
        k = k if light > 0 else 3 - k
        quad(
            x0 + width * k / 4,
            x0 + width * (k + 1) / 4 + 0.01 * (k < 3),
            tone,
        )
    quad(x0 - 0.02, x1 + 0.02, 1.18, y1 - 0.05 * (y1 - y0), y1)


def trash_can(rng: np.random.Generator, camera: Camera, light: Light, x: float, z: float) -> Sprite:
    """A litter bin: round on the pavement, or a wheeled one."""
    canvas, scale, base = open_canvas(camera, x, z, 0.5, 1.3)
    colours: tuple[Colour, ...] = (
        (70, 92, 54),
        (110, 78, 40),
        (64, 64, 68),
        (44, 110, 190),
        (60, 60, 130),
    )
    colour = shade(colours[int(rng.integers(len(colours)))], rng.uniform(0.85, 1.2))
    if rng.random() < 0.5:
        paint_block(canvas, base, scale, -0.27, 0.06, 0.27, 0.88, colour, light.sun_side)
        lid = np.array([[-0.31, -0.86], [0.31, -0.86], [0.27, -1.0], [-0.25, -1.02]]) * scale
        canvas.polygon(base + lid, shade(colour, 0.75))
        for wheel in (-0.2, 0.2):
            canvas.ellipse(
                base + np.array([wheel, -0.07]) * scale, (0.07 * scale, 0.08 * scale), (30, 30, 30)
            )
        canvas.polygon(
            base + np.array([[-0.1, -0.5], [0.1, -0.5], [0.1, -0.66], [-0.1, -0.66]]) * scale,
            shade(colour, 1.7),
        )
    else:
        paint_block(canvas, base, scale, -0.25, 0.0, 0.25, 0.82, colour, light.sun_side)
        for rib in np.linspace(-0.2, 0.2, 6):
            canvas.line(
                base + np.array([[rib, -0.08], [rib, -0.74]]) * scale,
                shade(colour, 0.62),
                0.02 * scale,
            )
        canvas.ellipse(
            base + np.array([0, -0.82]) * scale, (0.28 * scale, 0.07 * scale), shade(colour, 1.25)
        )
        canvas.ellipse(
            base + np.array([0, -0.82]) * scale, (0.19 * scale, 0.045 * scale), (26, 26, 28)
        )
    return canvas.finish()


def traffic_sign(
    rng: np.random.Generator, camera: Camera, light: Light, x: float, z: float
) -> Sprite:
    """A sign on a pole: a disc, a triangle, a square or an octagon."""
    canvas, scale, base = open_canvas(camera, x, z, 0.5, 3.1)
    paint_tube(canvas, base, scale, (0, 0), (0, 2.9), 0.045, (150, 152, 154), light.sun_side)
    centre = base + np.array([0.0, -2.5]) * scale
    kind = int(rng.integers(4))
    red, white, blue = (44, 40, 200), (236, 236, 236), (180, 90, 30)
    size = 0.36 * scale
    if kind == 0:
        canvas.ellipse(centre, (size, size), red)
        canvas.ellipse(centre, (0.72 * size, 0.72 * size), white)
        canvas.polygon(
            centre + np.array([[-0.4, -0.12], [0.4, -0.12], [0.4, 0.12], [-0.4, 0.12]]) * size,
            (40, 40, 40),
        )
    elif kind == 1:
        canvas.polygon(centre + np.array([[0, -1.1], [1.05, 0.75], [-1.05, 0.75]]) * size, red)
        canvas.polygon(centre + np.array([[0, -0.62], [0.66, 0.52], [-0.66, 0.52]]) * size, white)
        canvas.line(
            [centre + (0, -0.2 * size), centre + (0, 0.2 * size)], (30, 30, 30), 0.18 * size
        )
    elif kind == 2:
        canvas.polygon(centre + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.9 * size, white)
        canvas.polygon(centre + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.8 * size, blue)
        canvas.polygon(centre + np.array([[-0.4, 0.5], [0.4, 0.5], [0, -0.5]]) * size, white)
    else:
        turn = np.arange(8) * np.pi / 4 + np.pi / 8
        octagon = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        canvas.polygon(centre + octagon * size * 1.05, white)
        canvas.polygon(centre + octagon * size * 0.95, red)
        canvas.polygon(
            centre + np.array([[-0.6, -0.16], [0.6, -0.16], [0.6, 0.16], [-0.6, 0.16]]) * size,
            white,
        )
    return canvas.finish()


def bench(rng: np.random.Generator, camera: Camera, light: Light, x: float, z: float) -> Sprite:
    """A wooden bench, seen from the front."""
    canvas, scale, base = open_canvas(camera, x, z, 1.05, 1.1)
    wood = shade((70, 110, 158), rng.uniform(0.6, 1.2))
    iron: Colour = (44, 44, 46)
    for side in (-0.75, 0.75):
        for leg in (-0.06, 0.06):
            paint_tube(
                canvas,
                base,
                scale,
                (side + leg, 0.0),
                (side + leg * 0.4, 0.45),
                0.03,
                iron,
                light.sun_side,
            )
        paint_tube(canvas, base, scale, (side, 0.4), (side, 0.86), 0.03, iron, light.sun_side)
    for low, tone in ((0.4, 1.0), (0.46, 1.15), (0.6, 0.85), (0.7, 0.95), (0.8, 1.0)):
        slat = (
            np.array([[-0.92, -low], [0.92, -low], [0.92, -low - 0.075], [-0.92, -low - 0.075]])
            * scale
        )
        canvas.polygon(base + slat, shade(wood, tone * rng.uniform(0.92, 1.06)))
    return canvas.finish()

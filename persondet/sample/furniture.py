"""Things that stand in a street and hide people: lamps, trees, bins, signs, benches, stands."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from persondet.sample.camera import Camera
from persondet.sample.facades import poster_picture
from persondet.sample.paint import Canvas, Colour, Sprite, blend, ellipse_points, shade
from persondet.sample.weather import Light

Painter = Callable[[np.random.Generator, Camera, Light, float, float], Sprite]
_METAL: tuple[Colour, ...] = ((58, 62, 58), (74, 74, 78), (48, 44, 40), (110, 112, 114), (60, 84, 52))


def _canvas(camera: Camera, x: float, z: float, half: float, tall: float) -> tuple[Canvas, float, np.ndarray]:
    scale = camera.pixels_per_metre(z)
    base = np.array(camera.point(x, 0.0, z))
    oversample = 3 if scale < 60 else 2
    bounds = (base[0] - half * scale - 2, base[1] - tall * scale - 2, base[0] + half * scale + 2, base[1] + 0.25 * scale + 2)
    # What lies outside the frame is never seen.
    clipped = (max(bounds[0], -4), max(bounds[1], -4), min(bounds[2], camera.width + 4), min(bounds[3], camera.height + 4))
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        clipped = (-3.0, -3.0, -2.0, -2.0)
    return Canvas(clipped, oversample), scale, base


def _tube(canvas: Canvas, base: np.ndarray, scale: float, low: tuple[float, float], high: tuple[float, float], radius: float, colour: Colour, light: float, top_radius: float | None = None) -> None:
    start = base + np.array([low[0], -low[1]]) * scale
    end = base + np.array([high[0], -high[1]]) * scale
    canvas.limb(start, radius * scale, end, (radius if top_radius is None else top_radius) * scale, colour, light)


def _block(canvas: Canvas, base: np.ndarray, scale: float, x0: float, y0: float, x1: float, y1: float, colour: Colour, light: float) -> None:
    """Paint an upright box with a lit and a dark side."""
    def quad(left: float, right: float, tone: float, low: float = y0, high: float = y1) -> None:
        points = np.array([[left, -low], [right, -low], [right, -high], [left, -high]]) * scale
        canvas.polygon(base + points, shade(colour, tone))
    quad(x0, x1, 0.9)
    width = x1 - x0
    for k, tone in enumerate((0.72, 0.85, 1.0, 1.08)):
        k = k if light > 0 else 3 - k
        quad(x0 + width * k / 4, x0 + width * (k + 1) / 4 + 0.01 * (k < 3), tone if light > 0 else tone)
    quad(x0 - 0.02, x1 + 0.02, 1.18, y1 - 0.05 * (y1 - y0), y1)


def lamp_post(rng: np.random.Generator, camera: Camera, light: Light, x: float, z: float) -> Sprite:
    """A lamp post; at dusk and at night its head shines."""
    canvas, scale, base = _canvas(camera, x, z, 1.0, 4.7)
    colour = _METAL[int(rng.integers(len(_METAL)))]
    side = light.sun_side
    _tube(canvas, base, scale, (0, 0), (0, 0.7), 0.11, colour, side)
    _tube(canvas, base, scale, (0, 0.6), (0, 4.1), 0.065, colour, side, 0.05)
    head = base + np.array([0.0, -4.2]) * scale
    bulb: Colour = (150, 216, 252) if light.lamps else (206, 214, 218)
    canvas.polygon(head + np.array([[-0.16, 0.05], [0.16, 0.05], [0.24, -0.38], [-0.24, -0.38]]) * scale, bulb)
    canvas.polygon(head + np.array([[-0.3, -0.36], [0.3, -0.36], [0.0, -0.56]]) * scale, shade(colour, 0.8))
    canvas.polygon(head + np.array([[-0.17, 0.1], [0.17, 0.1], [0.17, 0.03], [-0.17, 0.03]]) * scale, shade(colour, 0.9))
    sprite = canvas.finish()
    if light.lamps:
        glow = Canvas((sprite.x, sprite.y, sprite.box[2], sprite.box[3]), 1)
        glow.polygon(head + np.array([[-0.16, 0.05], [0.16, 0.05], [0.24, -0.38], [-0.24, -0.38]]) * scale, bulb)
        sprite.glow = np.ascontiguousarray(glow.pixels[:, :, :3])
    return sprite


def tree(rng: np.random.Generator, camera: Camera, light: Light, x: float, z: float) -> Sprite:
    """A street tree in its grate."""
    canvas, scale, base = _canvas(camera, x, z, 2.2, 6.2)
    canvas.polygon(ellipse_points(base, (0.55 * scale, 0.13 * scale)), (52, 56, 60))
    trunk: Colour = (62, 82, 100)
    _tube(canvas, base, scale, (0, 0), (rng.uniform(-0.1, 0.1), 2.9), 0.15, trunk, light.sun_side, 0.09)
    for reach in (-0.8, 0.7):
        _tube(canvas, base, scale, (0, 2.3), (reach, 3.6), 0.07, trunk, light.sun_side, 0.04)
    leaf = blend((44, 96, 62), (40, 110, 140), rng.uniform(0.0, 0.7))
    for tone, count, spread in ((0.5, 26, 1.0), (0.78, 26, 0.88), (1.1, 22, 0.74)):
        for _ in range(count):
            angle, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform())
            centre = np.array([np.cos(angle) * radius * 1.55 * spread, 4.3 + np.sin(angle) * radius * 1.3 * spread])
            centre += (0.25 * light.sun_side * (tone > 0.7), 0.25 * (tone - 0.5))
            size = rng.uniform(0.25, 0.45)
            canvas.ellipse(base + centre * (scale, -scale), (size * scale, size * 0.75 * scale), shade(leaf, tone * rng.uniform(0.85, 1.15)), rng.uniform(0, 3))
    return canvas.finish()


def trash_can(rng: np.random.Generator, camera: Camera, light: Light, x: float, z: float) -> Sprite:
    """A litter bin: round on the pavement, or a wheeled one."""
    canvas, scale, base = _canvas(camera, x, z, 0.5, 1.3)
    colours: tuple[Colour, ...] = ((70, 92, 54), (110, 78, 40), (64, 64, 68), (44, 110, 190), (60, 60, 130))
    colour = shade(colours[int(rng.integers(len(colours)))], rng.uniform(0.85, 1.2))
    if rng.random() < 0.5:
        _block(canvas, base, scale, -0.27, 0.06, 0.27, 0.88, colour, light.sun_side)
        lid = np.array([[-0.31, -0.86], [0.31, -0.86], [0.27, -1.0], [-0.25, -1.02]]) * scale
        canvas.polygon(base + lid, shade(colour, 0.75))
        for wheel in (-0.2, 0.2):
            canvas.ellipse(base + np.array([wheel, -0.07]) * scale, (0.07 * scale, 0.08 * scale), (30, 30, 30))
        canvas.polygon(base + np.array([[-0.1, -0.5], [0.1, -0.5], [0.1, -0.66], [-0.1, -0.66]]) * scale, shade(colour, 1.7))
    else:
        _block(canvas, base, scale, -0.25, 0.0, 0.25, 0.82, colour, light.sun_side)
        for rib in np.linspace(-0.2, 0.2, 6):
            canvas.line(base + np.array([[rib, -0.08], [rib, -0.74]]) * scale, shade(colour, 0.62), 0.02 * scale)
        canvas.ellipse(base + np.array([0, -0.82]) * scale, (0.28 * scale, 0.07 * scale), shade(colour, 1.25))
        canvas.ellipse(base + np.array([0, -0.82]) * scale, (0.19 * scale, 0.045 * scale), (26, 26, 28))
    return canvas.finish()


def traffic_sign(rng: np.random.Generator, camera: Camera, light: Light, x: float, z: float) -> Sprite:
    """A sign on a pole: a disc, a triangle, a square or an octagon."""
    canvas, scale, base = _canvas(camera, x, z, 0.5, 3.1)
    _tube(canvas, base, scale, (0, 0), (0, 2.9), 0.045, (150, 152, 154), light.sun_side)
    centre = base + np.array([0.0, -2.5]) * scale
    kind = int(rng.integers(4))
    red, white, blue = (44, 40, 200), (236, 236, 236), (180, 90, 30)
    size = 0.36 * scale
    if kind == 0:
        canvas.ellipse(centre, (size, size), red)
        canvas.ellipse(centre, (0.72 * size, 0.72 * size), white)
        canvas.polygon(centre + np.array([[-0.4, -0.12], [0.4, -0.12], [0.4, 0.12], [-0.4, 0.12]]) * size, (40, 40, 40))
    elif kind == 1:
        canvas.polygon(centre + np.array([[0, -1.1], [1.05, 0.75], [-1.05, 0.75]]) * size, red)
        canvas.polygon(centre + np.array([[0, -0.62], [0.66, 0.52], [-0.66, 0.52]]) * size, white)
        canvas.line([centre + (0, -0.2 * size), centre + (0, 0.2 * size)], (30, 30, 30), 0.18 * size)
    elif kind == 2:
        canvas.polygon(centre + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.9 * size, white)
        canvas.polygon(centre + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.8 * size, blue)
        canvas.polygon(centre + np.array([[-0.4, 0.5], [0.4, 0.5], [0, -0.5]]) * size, white)
    else:
        turn = np.arange(8) * np.pi / 4 + np.pi / 8
        octagon = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        canvas.polygon(centre + octagon * size * 1.05, white)
        canvas.polygon(centre + octagon * size * 0.95, red)
        canvas.polygon(centre + np.array([[-0.6, -0.16], [0.6, -0.16], [0.6, 0.16], [-0.6, 0.16]]) * size, white)
    return canvas.finish()


def bench(rng: np.random.Generator, camera: Camera, light: Light, x: float, z: float) -> Sprite:
    """A wooden bench, seen from the front."""
    canvas, scale, base = _canvas(camera, x, z, 1.05, 1.1)
    wood = shade((70, 110, 158), rng.uniform(0.6, 1.2))
    iron: Colour = (44, 44, 46)
    for side in (-0.75, 0.75):
        for leg in (-0.06, 0.06):
            _tube(canvas, base, scale, (side + leg, 0.0), (side + leg * 0.4, 0.45), 0.03, iron, light.sun_side)
        _tube(canvas, base, scale, (side, 0.4), (side, 0.86), 0.03, iron, light.sun_side)
    for low, tone in ((0.4, 1.0), (0.46, 1.15), (0.6, 0.85), (0.7, 0.95), (0.8, 1.0)):
        slat = np.array([[-0.92, -low], [0.92, -low], [0.92, -low - 0.075], [-0.92, -low - 0.075]]) * scale
        canvas.polygon(base + slat, shade(wood, tone * rng.uniform(0.92, 1.06)))
    return canvas.finish()


def planter(rng: np.random.Generator, camera: Camera, light: Light, x: float, z: float) -> Sprite:
    """A box of plants."""
    canvas, scale, base = _canvas(camera, x, z, 0.85, 1.4)
    for _ in range(34):
        centre = np.array([rng.uniform(-0.55, 0.55), rng.uniform(0.6, 1.08)])
        tone = 0.5 + 0.7 * centre[1] * rng.uniform(0.6, 1.1)
        leaf = shade((52, 120, 70), tone)
        canvas.ellipse(base + centre * (scale, -scale), (0.16 * scale, 0.07 * scale), leaf, rng.uniform(0, 3))
    for _ in range(int(rng.integers(0, 12))):
        spot = base + np.array([rng.uniform(-0.5, 0.5), -rng.uniform(0.7, 1.05)]) * scale
        canvas.ellipse(spot, (0.045 * scale, 0.045 * scale), ((90, 70, 210), (120, 200, 240), (200, 150, 200))[int(rng.integers(3))])
    pot: tuple[Colour, ...] = ((120, 124, 128), (66, 92, 142), (58, 60, 62))
    _block(canvas, base, scale, -0.6, 0.0, 0.6, 0.62, pot[int(rng.integers(3))], light.sun_side)
    return canvas.finish()


def bollard(rng: np.random.Generator, camera: Camera, light: Light, x: float, z: float) -> Sprite:
    """A bollard with a reflecting band."""
    canvas, scale, base = _canvas(camera, x, z, 0.2, 1.1)
    colour = _METAL[int(rng.integers(len(_METAL)))]
    _tube(canvas, base, scale, (0, 0), (0, 0.85), 0.085, colour, light.sun_side)
    band = np.array([[-0.088, -0.68], [0.088, -0.68], [0.088, -0.78], [-0.088, -0.78]]) * scale
    canvas.polygon(base + band, (210, 214, 216))
    return canvas.finish()


def poster_stand(rng: np.random.Generator, camera: Camera, light: Light, x: float, z: float) -> Sprite:
    """A framed poster of a person on two legs: flat and boxed, not a person."""
    canvas, scale, base = _canvas(camera, x, z, 0.8, 2.4)
    for side in (-0.5, 0.5):
        _tube(canvas, base, scale, (side, 0), (side, 2.1), 0.04, (70, 70, 72), light.sun_side)
    canvas.polygon(base + np.array([[-0.6, -0.42], [0.6, -0.42], [0.6, -2.2], [-0.6, -2.2]]) * scale, (54, 54, 56))
    inner = np.array([[-0.53, -2.13], [0.53, -2.13], [0.53, -0.49], [-0.53, -0.49]]) * scale + base
    canvas.polygon(inner, (120, 120, 120))
    picture = poster_picture(rng, 128, 192)
    place = (inner - canvas.origin) * canvas.oversample
    matrix = cv2.getAffineTransform(np.array([[0, 0], [128, 0], [128, 192]], np.float32), place[:3].astype(np.float32))
    size = (canvas.pixels.shape[1], canvas.pixels.shape[0])
    opaque = cv2.merge([*cv2.split(picture), np.full(picture.shape[:2], 255, np.uint8)])
    warped = cv2.warpAffine(opaque, matrix, size, flags=cv2.INTER_LINEAR)
    canvas.pixels = np.where(warped[:, :, 3:] > 200, warped, canvas.pixels)
    sprite = canvas.finish()
    if light.lamps:
        sprite.glow = cv2.convertScaleAbs(sprite.bgra[:, :, :3], alpha=0.25)
    return sprite


FURNITURE: dict[str, tuple[Painter, float]] = {
    "lamp_post": (lamp_post, 1.0),
    "tree": (tree, 0.9),
    "trash_can": (trash_can, 1.2),
    "traffic_sign": (traffic_sign, 1.0),
    "bench": (bench, 0.7),
    "planter": (planter, 0.9),
    "bollard": (bollard, 1.0),
    "poster_stand": (poster_stand, 0.9),
}
"""Painters by name, with how often each is drawn."""

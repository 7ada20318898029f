"""Things that stand in a street and hide people: lamps, trees, planters, bollards, posters."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from persondet.sample.camera import Camera
from persondet.sample.facades import poster_picture
from persondet.sample.fixtures import (
    bench,
    open_canvas,
    paint_block,
    paint_tube,
    traffic_sign,
    trash_can,
)
from persondet.sample.paint import Canvas, Colour, Sprite, blend, ellipse_points, shade
from persondet.sample.weather import Light

Painter = Callable[[np.random.Generator, Camera, Light, float, float], Sprite]
_METAL: tuple[Colour, ...] = (
    (58, 62, 58),
    (74, 74, 78),
    (48, 44, 40),
    (110, 112, 114),
    (60, 84, 52),
)


def lamp_post(rng: np.random.Generator, camera: Camera, light: Light, x: float, z: float) -> Sprite:
    """A lamp post; at dusk and at night its head shines."""
    canvas, scale, base = open_canvas(camera, x, z, 1.0, 4.7)
    colour = _METAL[int(rng.integers(len(_METAL)))]
    side = light.sun_side
    paint_tube(canvas, base, scale, (0, 0), (0, 0.7), 0.11, colour, side)
    paint_tube(canvas, base, scale, (0, 0.6), (0, 4.1), 0.065, colour, side, 0.05)
    head = base + np.array([0.0, -4.2]) * scale
    bulb: Colour = (150, 216, 252) if light.lamps else (206, 214, 218)
    canvas.polygon(
        head + np.array([[-0.16, 0.05], [0.16, 0.05], [0.24, -0.38], [-0.24, -0.38]]) * scale, bulb
    )
    canvas.polygon(
        head + np.array([[-0.3, -0.36], [0.3, -0.36], [0.0, -0.56]]) * scale, shade(colour, 0.8)
    )
    canvas.polygon(
        head + np.array([[-0.17, 0.1], [0.17, 0.1], [0.17, 0.03], [-0.17, 0.03]]) * scale,
        shade(colour, 0.9),
    )
    sprite = canvas.finish()
    if light.lamps:
        glow = Canvas((sprite.x, sprite.y, sprite.box[2], sprite.box[3]), 1)
        glow.polygon(
            head + np.array([[-0.16, 0.05], [0.16, 0.05], [0.24, -0.38], [-0.24, -0.38]]) * scale,
            bulb,
        )
        sprite.glow = np.ascontiguousarray(glow.pixels[:, :, :3])
    return sprite


def tree(rng: np.random.Generator, camera: Camera, light: Light, x: float, z: float) -> Sprite:
    """A street tree in its grate."""
    canvas, scale, base = open_canvas(camera, x, z, 2.2, 6.2)
    canvas.polygon(ellipse_points(base, (0.55 * scale, 0.13 * scale)), (52, 56, 60))
    trunk: Colour = (62, 82, 100)
    paint_tube(
        canvas,
        base,
        scale,
        (0, 0),
        (rng.uniform(-0.1, 0.1), 2.9),
        0.15,
        trunk,
        light.sun_side,
        0.09,
    )
    for reach in (-0.8, 0.7):
        paint_tube(canvas, base, scale, (0, 2.3), (reach, 3.6), 0.07, trunk, light.sun_side, 0.04)
    leaf = blend((44, 96, 62), (40, 110, 140), rng.uniform(0.0, 0.7))
    for tone, count, spread in ((0.5, 26, 1.0), (0.78, 26, 0.88), (1.1, 22, 0.74)):
        for _ in range(count):
            angle, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform())
            centre = np.array(
                [
                    np.cos(angle) * radius * 1.55 * spread,
                    4.3 + np.sin(angle) * radius * 1.3 * spread,
                ]
            )
            centre += (0.25 * light.sun_side * (tone > 0.7), 0.25 * (tone - 0.5))
            size = rng.uniform(0.25, 0.45)
            canvas.ellipse(
                base + centre * (scale, -scale),
                (size * scale, size * 0.75 * scale),
                shade(leaf, tone * rng.uniform(0.85, 1.15)),
                rng.uniform(0, 3),
            )
    return canvas.finish()


def planter(rng: np.random.Generator, camera: Camera, light: Light, x: float, z: float) -> Sprite:
    """A box of plants."""
    canvas, scale, base = open_canvas(camera, x, z, 0.85, 1.4)
    for _ in range(80):
        centre = np.array([rng.uniform(-0.55, 0.55), rng.uniform(0.6, 1.08)])
        tone = 0.5 + 0.7 * centre[1] * rng.uniform(0.6, 1.1)
        leaf = shade((52, 120, 70), tone)
        canvas.ellipse(
            base + centre * (scale, -scale), (0.1 * scale, 0.045 * scale), leaf, rng.uniform(0, 3)
        )
    for _ in range(int(rng.integers(0, 12))):
        spot = base + np.array([rng.uniform(-0.5, 0.5), -rng.uniform(0.7, 1.05)]) * scale
        canvas.ellipse(
            spot,
            (0.045 * scale, 0.045 * scale),
            ((90, 70, 210), (120, 200, 240), (200, 150, 200))[int(rng.integers(3))],
        )
    pot: tuple[Colour, ...] = ((120, 124, 128), (66, 92, 142), (58, 60, 62))
    paint_block(
        canvas, base, scale, -0.6, 0.0, 0.6, 0.62, pot[int(rng.integers(3))], light.sun_side
    )
    return canvas.finish()


def bollard(rng: np.random.Generator, camera: Camera, light: Light, x: float, z: float) -> Sprite:
    """A bollard with a reflecting band."""
    canvas, scale, base = open_canvas(camera, x, z, 0.2, 1.1)
    colour = _METAL[int(rng.integers(len(_METAL)))]
    paint_tube(canvas, base, scale, (0, 0), (0, 0.85), 0.085, colour, light.sun_side)
    band = np.array([[-0.088, -0.68], [0.088, -0.68], [0.088, -0.78], [-0.088, -0.78]]) * scale
    canvas.polygon(base + band, (210, 214, 216))
    return canvas.finish()


def poster_stand(
    rng: np.random.Generator, camera: Camera, light: Light, x: float, z: float
) -> Sprite:
    """A framed poster of a person on two legs: flat and boxed, not a person."""
    canvas, scale, base = open_canvas(camera, x, z, 0.8, 2.4)
    for side in (-0.5, 0.5):
        paint_tube(canvas, base, scale, (side, 0), (side, 2.1), 0.04, (70, 70, 72), light.sun_side)
    canvas.polygon(
        base + np.array([[-0.6, -0.42], [0.6, -0.42], [0.6, -2.2], [-0.6, -2.2]]) * scale,
        (54, 54, 56),
    )
    inner = np.array([[-0.53, -2.13], [0.53, -2.13], [0.53, -0.49], [-0.53, -0.49]]) * scale + base
    canvas.polygon(inner, (120, 120, 120))
    picture = poster_picture(rng, 128, 192)
    place = (inner - canvas.origin) * canvas.oversample
    matrix = cv2.getAffineTransform(
        np.array([[0, 0], [128, 0], [128, 192]], np.float32), place[:3].astype(np.float32)
    )
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

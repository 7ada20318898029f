"""The ground of a street: paving tiles, asphalt, kerbs and paint, in perspective."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from persondet.sample.camera import Camera
from persondet.sample.paint import Image
from persondet.sample.weather import Light


def _joints(
    place: NDArray[np.float32], step: float, width: float, blur: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the anti-aliased share of joint lines every `step` metres; `blur` is a pixel's size."""
    distance = np.abs((place / step) % 1.0 - 0.5)
    distance = (0.5 - distance) * step
    reach = width + blur
    return np.clip(1.0 - distance / reach, 0.0, 1.0) * np.minimum(width / reach * 1.6, 1.0)


def paint_ground(
    rng: np.random.Generator, camera: Camera, light: Light, image: Image, glow: Image,
    layout: str, road: tuple[float, float] | None, walls: tuple[float, float],
) -> Image:  # fmt: skip
    """Paint the ground onto `image`, dark into `glow`, and return where it is (255) or not (0).

    `road` and `walls` are extents across the street, as in `street.Street`.
    """
    end = 60.0 if layout == "along" else walls[1]
    first = max(int(np.ceil(camera.horizon + camera.focal * camera.eye / end)), 0)
    ground: Image = np.zeros((camera.height, camera.width), np.uint8)
    if first >= camera.height:
        return ground
    rows = np.arange(first, camera.height, dtype=np.float32) + 0.5
    z_row = camera.focal * camera.eye / np.maximum(rows - np.float32(camera.horizon), 0.5)
    z = z_row[:, None].astype(np.float32)  # (rows, 1): depth is the same along a row
    x = (
        (np.arange(camera.width, dtype=np.float32)[None] + 0.5 - np.float32(camera.centre))
        * z
        / np.float32(camera.focal)
    )
    side_pixel = z / np.float32(camera.focal)
    deep_pixel = z * z / np.float32(camera.focal * camera.eye)
    u, v, u_pixel, v_pixel = (
        (x, z, side_pixel, deep_pixel) if layout == "along" else (z, x, deep_pixel, side_pixel)
    )

    tiles = float(rng.choice((0.4, 0.6, 0.9)))
    joint = np.maximum(
        _joints(u, tiles, 0.014, u_pixel),
        _joints(v, tiles * float(rng.choice((1.0, 2.0))), 0.014, v_pixel),
    )
    cells = rng.normal(1.0, 0.045, (64, 64)).astype(np.float32)
    index_u, index_v = (
        np.floor(u / tiles).astype(np.int32) & 63,
        np.floor(v / tiles).astype(np.int32) & 63,
    )
    fade = np.clip(tiles / (deep_pixel * 2.0), 0.0, 1.0)
    tone = np.float32(1.0) + (cells[index_u, index_v] - 1.0) * fade - np.float32(0.28) * joint
    paving = np.array(
        rng.choice([(150, 156, 164), (132, 146, 162), (160, 160, 160), (126, 134, 150)]), np.float32
    )
    colour = tone[:, :, None] * paving
    if road is not None:
        asphalt = np.array((92, 90, 90), np.float32) * np.float32(rng.uniform(0.75, 1.15))
        inside = np.clip((u - road[0]) / u_pixel + 0.5, 0, 1) * np.clip(
            (road[1] - u) / u_pixel + 0.5, 0, 1
        )
        lines = _markings(rng, u, v, u_pixel, v_pixel, road)
        surface = asphalt + (np.array((214, 218, 222), np.float32) - asphalt) * lines[:, :, None]
        colour += (surface - colour) * inside[:, :, None]
        for edge, out in ((road[0], -1.0), (road[1], 1.0)):
            kerb = np.clip(1.2 - np.abs(u - edge - out * 0.08) / (0.08 + u_pixel), 0, 1)
            gutter = np.clip(1.0 - np.abs(u - edge + out * 0.06) / (0.05 + u_pixel), 0, 1)
            colour += (np.float32(186) - colour) * (0.8 * kerb)[:, :, None]
            colour *= (1.0 - 0.45 * gutter)[:, :, None]
    speckle = rng.standard_normal((camera.height - first, camera.width), np.float32)
    speckle = cv2.GaussianBlur(speckle, (0, 0), 0.8) * 9.0
    patches = cv2.resize(
        rng.normal(1.0, 0.07, (7, 12)).astype(np.float32),
        (camera.width, camera.height - first),
        interpolation=cv2.INTER_CUBIC,
    )
    colour = (colour + speckle[:, :, None]) * patches[:, :, None]
    if light.wet:
        colour *= 0.72
    share = (1.0 - np.exp(-z / np.float32(light.fog_range)))[:, :, None]
    fog = np.array(light.fog_colour, np.float32) / np.maximum(
        np.array(light.ambient, np.float32), 0.35
    )
    colour *= 1.0 - share
    colour += np.minimum(fog, 255.0) * share
    picture = np.clip(colour, 0, 255).astype(np.uint8)
    # Houses stand on the ground: paint it only where it is in front of them.
    if layout == "along":
        seen = (x > walls[0]) & (x < walls[1])
        image[first:][seen] = picture[seen]
        glow[first:][seen] = 0
        ground[first:][seen] = 255
    else:
        image[first:] = picture
        glow[first:] = 0
        ground[first:] = 255
    return ground


def _markings(
    rng: np.random.Generator, u: NDArray[np.float32], v: NDArray[np.float32],
    u_pixel: NDArray[np.float32], v_pixel: NDArray[np.float32], road: tuple[float, float],
) -> NDArray[np.float32]:  # fmt: skip
    """Return the share of white paint: a dashed middle line and a zebra crossing."""
    middle = 0.5 * (road[0] + road[1])
    dash = np.clip((0.75 - np.abs((v / 4.0) % 1.0 - 0.5) * 4.0) / v_pixel + 0.5, 0, 1)
    lines = np.clip((0.07 - np.abs(u - middle)) / u_pixel + 0.5, 0, 1) * dash
    start = float(rng.uniform(5.0, 13.0)) if road[0] < 0 else float(rng.uniform(-4.0, 2.0))
    crossing = np.clip((1.5 - np.abs(v - start - 1.5)) / v_pixel + 0.5, 0, 1)
    bars = np.clip((0.26 - np.abs((u / 1.0) % 1.0 - 0.5)) / u_pixel + 0.5, 0, 1)
    return np.maximum(lines * (1 - crossing), crossing * bars) * np.float32(rng.uniform(0.6, 0.9))

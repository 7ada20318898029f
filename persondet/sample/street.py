"""The street: its camera, its light, house fronts, ground, and the things that stand in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from persondet.sample.paint import (
    Canvas,
    Colour,
    Image,
    Points,
    Sprite,
    dye,
    fade,
    inside,
    noise,
    overlap,
    palette,
    ring,
    shade,
)


@dataclass(frozen=True)
class Camera:
    """A pinhole at eye height that looks along a level street.

    World: metres, X to the right, Y up, Z away from the camera; frame: pixels. `focal` in pixels;
    `centre` is the x of the vanishing point, `horizon` its y; `eye` is the height in metres.
    """

    width: int
    height: int
    focal: float
    centre: float
    horizon: float
    eye: float

    def halved(self) -> Camera:
        """Return the same view at half of the resolution; an odd size is rounded up."""
        lengths = {"focal": self.focal / 2, "centre": self.centre / 2, "horizon": self.horizon / 2}
        width, height = (self.width + 1) // 2, (self.height + 1) // 2
        return replace(self, width=width, height=height, **lengths)

    def project(self, x: ArrayLike, y: ArrayLike, z: ArrayLike) -> Points:
        """Return frame points (..., 2) of world points; Z must be positive."""
        x, y, z = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in (x, y, z)))
        place = (self.centre + self.focal * x / z, self.horizon + self.focal * (self.eye - y) / z)
        return np.stack(place, axis=-1)

    def pixels_per_metre(self, z: float) -> float:
        """Return the scale at depth `z`."""
        return self.focal / z

    def depth_for(self, metres: float, pixels: float) -> float:
        """Return the depth at which something `metres` tall covers `pixels`."""
        return self.focal * metres / pixels

    def across(self, pixel_x: float, z: float) -> float:
        """Return the world X seen at frame column `pixel_x` and depth `z`."""
        return (pixel_x - self.centre) * z / self.focal


# Sky above, sky at the horizon and ambient light (BGR), noise of the sensor.
_TIMES: dict[str, tuple[Colour, Colour, Colour, float]] = {
    "day": ((206, 164, 122), (232, 216, 196), (0.96, 1.0, 1.05), 2.0),
    "overcast": ((196, 186, 176), (222, 218, 212), (0.93, 0.92, 0.90), 2.5),
    "dusk": ((120, 70, 66), (90, 150, 238), (0.62, 0.60, 0.74), 4.0),
    "night": ((44, 26, 18), (76, 52, 44), (0.46, 0.37, 0.34), 5.5),
}
LAMP = (170.0, 226.0, 255.0)
"""The colour of a lamp after dark."""
_FOG_RANGE = {"clear": 160.0, "fog": 36.0}


class Light:
    """The light of a scene at a `time` (a key of `_TIMES`) and in a `weather` (of `_FOG_RANGE`).

    `sky` (above, at the horizon) in BGR; `ambient` multiplies colours; `sun` is the strength of
    cast shadows (0..1) and `side` where the light comes from, -1 left to 1 right; `fog_range`
    metres of air hide 63 % of a colour; `noise` in grey levels.
    """

    def __init__(self, rng: np.random.Generator, time: str, weather: str) -> None:
        """Draw the details of the light."""
        top, low, ambient, grain = _TIMES[time]
        sunny = time == "day" and weather == "clear"
        self.lamps = time in ("dusk", "night")
        self.sky = np.array((top if weather == "clear" else low, low), np.float32)
        self.ambient = np.array(ambient, np.float32)
        self.sun = float(rng.uniform(0.35, 0.55)) if sunny else 0.0
        self.side = float(rng.choice((-1, 1)) * rng.uniform(0.4, 0.9)) * (1.0 if sunny else 0.35)
        self.fog_range = _FOG_RANGE[weather] * float(rng.uniform(0.8, 1.2))
        self.noise = grain * float(rng.uniform(0.6, 1.3))

    def through_air(self, image: Image, depth: float) -> Image:
        """Return an image (BGR, or premultiplied BGRA) seen through `depth` metres of air."""
        return fade(image, float(1.0 - np.exp(-depth / self.fog_range)), self.sky[1])


@dataclass
class Street:
    """A painted background and where things may stand on it.

    `layout`: "along" looks down a street between two rows of houses, "mall" down one without a
    road, "across" over a street at one row.
    `image` and `glow` (light given off): BGR uint8 (H, W, 3); `ground` is 255 where the ground is
    seen. `road` and `walls` are extents, in X for "along" and in Z for "across".
    """

    layout: str
    camera: Camera
    image: Image
    glow: Image
    ground: Image
    road: tuple[float, float] | None
    walls: tuple[float, float]

    def walkable(self, x: Any, z: Any) -> Any:
        """Whether a person can stand at (x, z): numbers, or arrays of a shape."""
        place = z if self.layout == "across" else x
        return (self.walls[0] + 0.45 < place) & (place < self.walls[1] - 0.45)


def build_street(rng: np.random.Generator, camera: Camera, light: Light, layout: str) -> Street:
    """Paint an empty street without the scene's light.

    The background is painted at half of the frame's resolution, and then enlarged: people stand
    out from a street that is a little out of focus.
    """
    depth = camera.depth_for(1.7, 30.0 * camera.height / 360.0) * float(rng.uniform(1.0, 1.12))
    road: tuple[float, float] | None = (float(rng.uniform(3.2, 5.5)), depth - rng.uniform(3, 4.5))
    walls = (1.0, depth)
    if layout != "across":
        depth *= float(rng.uniform(1.4, 2.0))
        walls = (-float(rng.uniform(4.6, 7.5)), float(rng.uniform(4.6, 7.5)))
        half = min(walls[1], -walls[0]) - float(rng.uniform(2.6, 3.0))
        shift = float(rng.uniform(-0.8, 0.8))
        road = None if layout == "mall" or half < 1.5 else (shift - half, shift + half)
    small = camera.halved()
    image = _sky(rng, small, light)
    street = Street(layout, small, image, np.zeros_like(image), image[:, :, 0] * 0, road, walls)
    x, right = small.across(0.0, depth), small.across(small.width, depth)
    for left in np.arange(x - rng.uniform(0.0, 4.0), right, 8.5):
        _put_front(rng, street, light, ((left, depth), (left + 8.5, depth)))
    for wall in walls if layout != "across" else ():
        for near in np.arange(1.2, depth, rng.uniform(7.0, 10.0))[::-1]:
            ends = ((wall, near), (wall, near + 9.0))
            _put_front(rng, street, light, ends if wall < 0 else ends[::-1])
    _paint_ground(rng, street, light, depth)
    soft = cv2.GaussianBlur(street.image, (0, 0), camera.height / 360.0)
    image, glow, ground = (
        np.ascontiguousarray(cv2.resize(layer, None, fx=2, fy=2)[: camera.height, : camera.width])
        for layer in (fade(soft, 0.48, _HAZE), street.glow, street.ground)
    )
    return Street(layout, camera, image, glow, ground, road, walls)


def _sky(rng: np.random.Generator, camera: Camera, light: Light) -> Image:
    """Return a gradient with clouds; below the horizon its lowest colour goes on."""
    size = (camera.width, camera.height)
    share = np.arange(camera.height, dtype=np.float32)[:, None, None] / np.float32(camera.horizon)
    cloud = noise(rng, size, (9, 12))
    sky = light.sky[0] + (light.sky[1] - light.sky[0]) * np.minimum(share, 1.0)
    sky = sky * (1.0 + 0.15 * np.clip(cloud, 0.0, 1.0)[:, :, None])
    # The light map will darken the sky once more: undo that beforehand.
    return np.clip(sky / light.ambient, 0, 255).astype(np.uint8)


_WALLS = palette("A8705C 8C6054 D4BA96 D0C4B0 ACA08C B4B0AA D6AC80 868078 D6CEC4 96AA96")
_SIGNS = palette("96283C 1E4678 286E3C C88228 363232 643278 C4BEBE")
_LIT = palette("FAC878 FAD696 F6E0B4 D6DEE6")
_PALE, _GLASS, _HAZE = palette("C4C0BC 505C68 808080")


def _front(
    rng: np.random.Generator, width: float, height: float, scale: float, lamps: bool
) -> tuple[Image, Image]:
    """Return a house front seen straight on, and what of it shines: BGR uint8 (h, w, 3).

    The front is `width` x `height` metres large, with `scale` pixels per metre.
    """
    size = (int(width * scale), int(height * scale))
    x = (np.arange(size[0]) + 0.5) / scale
    y = (size[1] - 0.5 - np.arange(size[1])[:, None]) / scale
    rough = 1.0 + 0.07 * noise(rng, size, (16, 20))
    rough[:: max(int(0.28 * scale), 3)] *= rng.uniform(0.86, 1.0)  # courses of brick
    wall, sign, lit = (dye(rng, options, 0.3) for options in (_WALLS, _SIGNS, _LIT))
    image = np.clip(rough[:, :, None] * np.array(wall, np.float32), 0, 255).astype(np.uint8)
    # Windows in rows and columns, each in a pale frame; some are lit after dark.
    step = rng.uniform(1.7, 2.6)
    column, across = np.divmod(x - 0.6, step)
    floor, up = np.divmod(y - 4.1, 3.0)
    upstairs = (floor >= 0) & (y - up < height - 2.3) & (column >= 0) & (x - across < width - 1.2)
    image[upstairs & (across < 1.1) & (up < 1.75)] = _PALE
    panes = upstairs & (np.abs(across - 0.55) < 0.47) & (np.abs(up - 0.87) < 0.77)
    image[panes & (np.abs(across - 0.55) > 0.06)] = _GLASS
    shining = panes & (rng.random((9, 40)) < 0.4)[floor.astype(int), column.astype(int)]
    # The shop: a window, a door, and a sign or an awning above them.
    shop = np.abs(x - width / 2) < width / 2 - 0.2
    image[(y < 3.4) & shop] = shade(sign, 0.6)
    window = (x > 0.5) & (x < 0.5 + 0.6 * width) & (y > 0.5)
    window = (window | (np.abs(x - 0.7 * width - 0.55) < 0.55)) & (y > 0.1) & (y < 2.5)
    image[window] = _GLASS
    low = 2.1 if rng.random() < 0.5 else 2.6
    awning = (y > low) & (y < 3.4) & shop
    image[awning] = sign
    image[awning & (y < 2.7) & (x % 0.8 > 0.4)] = _PALE
    glow = np.zeros_like(image)
    glow[(shining | window & ~awning) & lamps] = lit
    return image, glow


def _lay(street: Street, corners: Points, *flats: Image) -> None:
    """Lay flat images onto the street's layers, with their corners, clockwise, at `corners`."""
    camera, (height, width) = street.camera, flats[0].shape[:2]
    low, high = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int)
    part = overlap((*low, *high), (0, 0, camera.width, camera.height))
    if part is None:
        return
    corners = corners - part[:2]
    source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(source, corners.astype(np.float32))
    size = (part[2] - part[0], part[3] - part[1])
    cover = np.zeros(size[::-1], np.uint8)
    cv2.fillConvexPoly(cover, np.rint(corners * 16).astype(np.int32), 255, cv2.LINE_8, 4)
    for layer, flat in zip((street.image, street.glow, street.ground), flats, strict=False):
        warped = cv2.warpPerspective(flat, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        cv2.copyTo(warped, cover, layer[inside(part)])


def _put_front(
    rng: np.random.Generator, street: Street, light: Light, ends: tuple[tuple[float, float], ...]
) -> None:
    """Paint a house between two ground points (x, z), from left to right on screen."""
    camera, tall = street.camera, float(rng.uniform(7.0, 15.5))
    (x0, z0), (x1, z1) = ends
    scale = 0.75 * camera.pixels_per_metre(min(z0, z1) + 2.0)
    scale = float(np.clip(scale, 8.0, 18.0 * camera.height / 180.0))
    image, glow = _front(rng, float(np.hypot(x1 - x0, z1 - z0)), tall, scale, light.lamps)
    corners = camera.project((x0, x1, x1, x0), (tall, tall, 0.0, 0.0), (z0, z1, z1, z0))
    _lay(street, corners, light.through_air(image, 0.5 * (z0 + z1)), glow)


_PAVING = palette("A49C96 A29284 A0A0A0 96867E")


def _paint_ground(rng: np.random.Generator, street: Street, light: Light, depth: float) -> None:
    """Lay paving, and a road with kerbs and markings, in front of the houses."""
    camera, road, along = street.camera, street.road, street.layout != "across"
    left, right = (
        street.walls if along else (camera.across(k * camera.width, depth) for k in (0, 1))
    )
    step = 15.0 / camera.height  # metres per pixel of the flat image
    x, z = np.arange(left, right, step)[None], np.arange(depth, 1.5, -step)[:, None]
    u, v = (x, z) if along else (z, x)  # across and along the road
    size, tile = (x.size, z.size), float(rng.choice((0.4, 0.6, 0.9)))
    tones = rng.normal(0.0, 0.045, (64, 64))
    tone = tones[(u / tile).astype(int) % 64, (v / tile).astype(int) % 64]
    tone = tone - 0.28 * ((u % tile < 0.05) | (v % (2.0 * tile) < 0.05))
    tone = 1.0 + tone * np.minimum(6.0 / z, 1.0)
    colour = tone[:, :, None] * dye(rng, _PAVING, 0.3)
    if road is not None:
        aside = np.abs(u - 0.5 * (road[0] + road[1]))
        edge, start = aside - 0.5 * (road[1] - road[0]), rng.uniform(6.5, 14.5)
        crossing = np.abs(v - (start if along else start - 10.0)) < 1.5
        white = crossing & (u % 1.0 < 0.52) | ~crossing & (aside < 0.07) & (v % 4.0 < 1.5)
        for grey, place in (
            (91.0 * rng.uniform(0.75, 1.15), edge < 0.0),
            (rng.uniform(165.0, 205.0), white & (edge < 0.0)),
            (170.0, np.abs(edge - 0.08) < 0.1),
        ):
            colour[np.broadcast_to(place, size[::-1])] = grey
    mottled = 0.07 * noise(rng, size, (12, 7)) + 0.05 * noise(rng, size, (size[0] // 3, 200))
    colour *= 1.0 + mottled[:, :, None]
    share = 1.0 - np.exp(-z / light.fog_range)[:, :, None]
    colour += (light.sky[1] - colour) * share
    image = colour.clip(0, 255).astype(np.uint8)
    corners = camera.project((left, right, right, left), 0.0, (depth, depth, 1.5, 1.5))
    _lay(street, corners, image, image * 0, np.full(size[::-1], 255, np.uint8))


# ---- things: flat drawings in metres, x from the middle and y up from the ground ----

_THINGS = """
lamp_post 4.8 0.6 1.0 0.3 3A3E3A 4E4A4A 282C30 34543C
  bar 1.0 0 0 0 0.7 0.11 0.11
  bar 1.0 0 0.6 0 4.1 0.065 0.05
  lamp DAD6CE -0.16 4.15 0.16 4.15 0.24 4.55 -0.24 4.55
  poly 0.8 -0.3 4.53 0.3 4.53 0 4.7
tree 6.1 2.4 0 1.1 64523E 5A4A3C
  bar 1.0 0 0 0.05 2.9 0.15 0.09
  bar2 1.0 0 2.3 0.75 3.6 0.07 0.04
  leaves 51604A 0 4.3 1.6 1.35
trash_can 1.1 0.5 1.2 0.6 3A5A3C 2A4A78 782E2E 4A4A4C
  poly 0.85 -0.27 0.05 0.27 0.05 0.31 0.88 -0.31 0.88
  poly 1.0 -0.2 0.05 0.1 0.05 0.12 0.88 -0.24 0.88
  poly 0.65 -0.35 0.88 0.35 0.88 0.3 1.0 -0.3 1.0
traffic_sign 3 0.5 1.0 0.3 A83230 2C5A96
  bar 9A9896 0 0 0 2.6 0.035 0.035
  disc 1.0 0 2.5 0.38 0.38
  disc E0DEDA 0 2.5 0.29 0.29
  poly 1E1E20 -0.2 2.44 0.2 2.44 0.2 2.56 -0.2 2.56
bench 1 1.1 0.7 1.9 86664A 6A4A34 9A7E5A
  bar2 1E1E20 0.7 0 0.7 0.8 0.035 0.035
  poly 1.0 -0.9 0.36 0.9 0.36 0.9 0.47 -0.9 0.47
  poly 1.0 -0.9 0.55 0.9 0.55 0.9 0.65 -0.9 0.65
  poly 0.9 -0.9 0.7 0.9 0.7 0.9 0.8 -0.9 0.8
planter 1.25 0.9 0.9 1.3 807C78 8E5C42 3E3C3A
  leaves 56684C 0 0.8 0.55 0.25
  poly 0.8 -0.6 0 0.6 0 0.6 0.62 -0.6 0.62
  poly 1.0 -0.6 0 0.2 0 0.2 0.56 -0.6 0.56
bollard 1.05 0.3 1.0 0.3 3A3E3A 4E4A4A 72706E
  bar 1.0 0 0 0 0.85 0.085 0.085
  poly E0DEDA -0.085 0.66 0.085 0.66 0.085 0.76 -0.085 0.76
hydrant 0.95 0.4 0.5 0.4 A83230 C8A032
  bar 1.0 0 0 0 0.6 0.13 0.12
  disc 0.85 0 0.66 0.15 0.12
  bar 0.8 -0.2 0.45 0.2 0.45 0.06 0.06
poster_stand 2.3 0.8 0.9 1.2 D2C8B4 C8D2D8 3C6E46 8C6496
  bar2 464446 0.5 0 0.5 2.1 0.04 0.04
  poly 363636 -0.6 0.42 0.6 0.42 0.6 2.2 -0.6 2.2
  poly 1.0 -0.53 0.49 0.53 0.49 0.53 2.13 -0.53 2.13
  poly 3A3E44 -0.4 0.8 0.4 0.8 0.34 1.2 0.15 1.32 -0.15 1.32 -0.34 1.2
  disc 1E1E20 0 1.62 0.21 0.23
  disc BA8662 0 1.55 0.17 0.23
cone 0.85 0.4 0.8 0.4 D8642C C8503C
  poly 0.7 -0.22 0 0.22 0 0.22 0.06 -0.22 0.06
  poly 1.0 -0.16 0.06 0.16 0.06 0.04 0.75 -0.04 0.75
  poly E0DEDA -0.12 0.28 0.12 0.28 0.08 0.48 -0.08 0.48
car_side 1.55 2.4 0 3.0 CCCAC8 343436 727476 962C3C 24508C 3C6E60 BE7832
  poly 0.9 -2.2 0.3 -2.2 0.68 -1.3 0.86 -0.6 1.36 0 1.45 0.9 1.42 1.5 0.98 2.15 0.9 2.2 0.3
  poly 5A666E -1.0 0.9 -0.5 1.3 0.05 1.36 0.05 0.9
  poly 5A666E 0.15 0.9 0.15 1.36 0.8 1.33 1.25 0.94
  poly 0.7 -2.2 0.3 2.2 0.3 2.2 0.48 -2.2 0.48
  poly E6E2C8 -2.18 0.6 -2.05 0.6 -2.05 0.72 -2.18 0.7
  disc2 1E1E20 1.4 0.31 0.31 0.31
  disc2 9A9896 1.4 0.31 0.18 0.18
car_end 1.55 1.1 0 1.4 CCCAC8 343436 727476 962C3C 24508C 3C6E60 BE7832
  poly 1E1E20 -0.8 0 -0.55 0 -0.55 0.4 0.55 0.4 0.55 0 0.8 0 0.8 0.4 -0.8 0.4
  poly 0.95 -0.87 0.25 0.87 0.25 0.87 0.85 0.68 1.42 -0.68 1.42 -0.87 0.85
  poly 5A666E -0.72 0.88 0.72 0.88 0.6 1.34 -0.6 1.34
  poly2 A83230 0.84 0.6 0.6 0.6 0.6 0.76 0.84 0.76
"""
# A line that is not indented: name, height, half width, how often it is drawn among the small
# things, width of its contact shadow, and the paints to choose from (RRGGBB). Below it, what is
# painted in order: a shape, its colour (a share of the paint, or RRGGBB), and
#   poly x y x y …; lamp, the same, shines after dark; bar x y x y radius radius;
#   disc x y radius-x radius-y; leaves x y radius-x radius-y.
# A 2 after the shape: on both sides of the middle.
# A poster shows a person and is none.


class Thing:
    """One kind of thing that stands in a street, from a block of the table `_THINGS`; metres."""

    def __init__(self, head: str, *lines: str) -> None:
        """Read the numbers and the parts: shape, share of the paint or colour, pairs of numbers."""
        self.name, *numbers = head.split(maxsplit=5)
        self.height, self.half, self.often, self.foot = map(float, numbers[:4])
        self.paints = palette(numbers[4])
        self.parts: list[tuple[str, float | Colour, NDArray[np.float64]]] = []
        for shape, tone, *rest in map(str.split, lines):
            colour = palette(tone)[0] if len(tone) == 6 else float(tone)
            for mirror in (1.0, -1.0)[: 1 + shape.endswith("2")]:
                pairs = np.array(rest, np.float64).reshape(-1, 2) * (mirror, 1.0)
                self.parts.append((shape.rstrip("2"), colour, pairs))


_BLOCKS = re.split(r"\n(?=\w)", _THINGS.strip())
THINGS = {thing.name: thing for thing in (Thing(*block.splitlines()) for block in _BLOCKS)}
"""The kinds of things, by name."""


def paint_thing(
    rng: np.random.Generator, camera: Camera, light: Light, name: str, x: float, z: float
) -> Sprite:
    """Return the sprite of one of `THINGS` that stands at (x, z), seen through the air."""
    thing, scale = THINGS[name], camera.pixels_per_metre(z)
    paint, base = dye(rng, thing.paints, 0.3), camera.project(x, 0.0, z)
    flip = np.array([float(rng.choice((-1.0, 1.0))), -1.0]) * scale
    low, high = base - np.array([thing.half, thing.height]) * scale, base + thing.half * scale
    frame = (camera.width + 4.0, camera.height + 4.0)
    canvas = Canvas((*np.clip(low, -4.0, frame), *np.clip(high, -4.0, frame)))
    for shape, tone, pairs in thing.parts:
        colour = shade(paint, tone) if isinstance(tone, float) else tone
        points, (wide, tall) = base + pairs * flip, np.abs(pairs[-1]) * scale
        if shape == "bar":
            canvas.capsule(points[0], points[1], (wide, tall), colour, light.side)
        elif shape == "disc":
            canvas.polygon(ring(points[0], (wide, tall)), colour)
        elif shape == "leaves":
            _paint_leaves(rng, canvas, points[0], (wide, tall), colour)
        else:
            canvas.polygon(points, LAMP if shape == "lamp" and light.lamps else colour)
    sprite = canvas.finish()
    sprite.bgra = fade(light.through_air(sprite.bgra, z), 0.38, _HAZE)
    return sprite


def _paint_leaves(
    rng: np.random.Generator, canvas: Canvas, centre: Points, radii: ArrayLike, colour: Colour
) -> None:
    """Paint a bush of ellipses: dark and wide first, light and narrow last."""
    for share in np.linspace(0.0, 1.0, 60):
        turn, size = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.16, 0.28) * np.max(radii)
        away = np.sqrt(rng.uniform()) * (1.0 - 0.3 * share)
        middle = centre + np.multiply(
            radii, (away * np.cos(turn), away * np.sin(turn) - 0.2 * share)
        )
        leaf = ring(middle, (size, 0.7 * size), turn)
        canvas.polygon(leaf, shade(colour, (0.5 + 0.65 * share) * rng.uniform(0.85, 1.15)))

"""The street: its camera, its light, house fronts, ground, and the things that stand in it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from persondet.sample.paint import (
    Canvas,
    Colour,
    Image,
    Points,
    Sprite,
    inside,
    noise,
    overlap,
    palette,
    pick_colour,
    quiet,
    recolour,
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
    "day": ((214, 150, 84), (236, 214, 186), (0.96, 1.0, 1.05), 2.0),
    "overcast": ((196, 186, 176), (222, 218, 212), (0.93, 0.92, 0.90), 2.5),
    "dusk": ((120, 70, 66), (90, 150, 238), (0.62, 0.60, 0.74), 4.0),
    "night": ((44, 26, 18), (76, 52, 44), (0.46, 0.37, 0.34), 5.5),
}
_FOG_RANGE = {"clear": 160.0, "rain": 75.0, "fog": 34.0}


class Light:
    """The light of a scene at a `time` (a key of `_TIMES`) and in a `weather` (of `_FOG_RANGE`).

    `sky` (above, at the horizon) in BGR; `ambient` multiplies colours; `sun` is the strength of
    cast shadows (0..1) and `side` where the light comes from, -1 left to 1 right; `fog_range`
    metres of air hide 63 % of a colour; `noise` in grey levels; `blur` is the sigma of the lens in
    pixels at a frame height of 360.
    """

    def __init__(self, rng: np.random.Generator, time: str, weather: str) -> None:
        """Draw the details of the light."""
        top, low, ambient, grain = _TIMES[time]
        sunny, self.rain = time == "day" and weather == "clear", weather == "rain"
        self.lamps, self.strong = time in ("dusk", "night"), time == "night"
        self.sky = np.array((top if weather == "clear" else low, low), np.float32)
        self.ambient = np.array(ambient, np.float32) * (1.0 if weather == "clear" else 0.92)
        self.sun = float(rng.uniform(0.35, 0.55)) if sunny else 0.0
        self.side = float(rng.choice((-1, 1)) * rng.uniform(0.4, 0.9)) * (1.0 if sunny else 0.35)
        self.fog_range = _FOG_RANGE[weather] * float(rng.uniform(0.8, 1.2))
        self.noise, self.blur = grain * float(rng.uniform(0.6, 1.3)), float(rng.uniform(0.25, 0.6))

    def through_air(self, image: Image, depth: float) -> Image:
        """Return an image (BGR, or premultiplied BGRA) seen through `depth` metres of air."""
        share = float(1.0 - np.exp(-depth / self.fog_range))
        return recolour(image, (1.0 - share) * np.eye(3), share * self.sky[1])


@dataclass
class Street:
    """A painted background and where things may stand on it.

    `layout`: "along" looks down a street between two rows of houses, "across" over it at one row.
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

    def walkable(self, x: float, z: float) -> bool:
        """Whether a person can stand at (x, z)."""
        place = x if self.layout == "along" else z
        return self.walls[0] + 0.45 < place < self.walls[1] - 0.45

    def on_road(self, x: float, z: float) -> bool:
        """Whether (x, z) is on the carriageway."""
        place = x if self.layout == "along" else z
        return self.road is not None and self.road[0] < place < self.road[1]


def build_street(
    rng: np.random.Generator, camera: Camera, light: Light, layout: str, *, pedestrian: bool = False
) -> Street:
    """Paint an empty street without the scene's light; `pedestrian` leaves out the road."""
    depth = camera.depth_for(1.7, 30.0 * camera.height / 360.0) * float(rng.uniform(1.0, 1.12))
    road: tuple[float, float] | None = (float(rng.uniform(3.2, 5.5)), depth - rng.uniform(3, 4.5))
    walls = (1.0, depth)
    if layout == "along":
        depth *= float(rng.uniform(1.4, 2.0))
        walls = (-float(rng.uniform(4.6, 7.5)), float(rng.uniform(4.6, 7.5)))
        half = min(walls[1], -walls[0]) - float(rng.uniform(2.6, 3.0))
        shift = float(rng.uniform(-0.8, 0.8))
        paved = pedestrian or half < 1.5 or rng.random() < 0.25
        road = None if paved else (shift - half, shift + half)
    image = _sky(rng, camera, light)
    street = Street(layout, camera, image, np.zeros_like(image), image[:, :, 0] * 0, road, walls)
    x, right = camera.across(0.0, depth), camera.across(camera.width, depth)
    for left in np.arange(x - rng.uniform(0.0, 4.0), right, 8.5):
        _put_front(rng, street, light, ((left, depth), (left + 8.5, depth)))
    for wall in walls if layout == "along" else ():
        for near in np.arange(1.2, depth, rng.uniform(7.0, 10.0))[::-1]:
            ends = ((wall, near), (wall, near + 9.0))
            _put_front(rng, street, light, ends if wall < 0 else ends[::-1])
    _paint_ground(rng, street, light, depth)
    street.image = cv2.GaussianBlur(street.image, (0, 0), 2.0 * camera.height / 360.0)
    street.image = quiet(street.image, 0.38, 0.52)
    return street


def _sky(rng: np.random.Generator, camera: Camera, light: Light) -> Image:
    """Return a gradient with clouds; below the horizon its lowest colour goes on."""
    size = (camera.width, camera.height)
    share = np.arange(camera.height, dtype=np.float32)[:, None, None] / np.float32(camera.horizon)
    cloud = noise(rng, size, (6, 8)) + 0.6 * noise(rng, size, (14, 18))
    sky = light.sky[0] + (light.sky[1] - light.sky[0]) * np.minimum(share, 1.0)
    sky = sky * (1.0 + 0.15 * np.clip(cloud, 0.0, 1.0)[:, :, None])
    # The light map will darken the sky once more: undo that beforehand.
    return np.clip(sky / light.ambient, 0, 255).astype(np.uint8)


_WALLS = palette("A8705C 8C6054 D4BA96 D0C4B0 ACA08C B4B0AA D6AC80 868078 D6CEC4 96AA96")
_SIGNS = palette("96283C 1E4678 286E3C C88228 363232 643278 C4BEBE")
_LIT = palette("FAC878 FAD696 F6E0B4 D6DEE6")
_PALE, _GLASS, _DARK = palette("C4C0BC 505C68 000000")


def _front(
    rng: np.random.Generator, width: float, height: float, scale: float, lamps: bool
) -> tuple[Image, Image]:
    """Return a house front seen straight on, and what of it shines: BGR uint8 (h, w, 3).

    The front is `width` x `height` metres large, with `scale` pixels per metre.
    """
    size = (int(width * scale), int(height * scale))
    rough = 1.0 + 0.05 * noise(rng, size, (size[0] // 3 + 2, size[1] // 3 + 2))
    rough += 0.06 * noise(rng, size, (5, 6))
    if rng.random() < 0.45:  # courses of brick
        rough[:: max(int(0.28 * scale), 3)] *= 0.86
    wall, sign = pick_colour(rng, _WALLS), pick_colour(rng, _SIGNS)
    image = np.clip(rough[:, :, None] * np.array(wall, np.float32), 0, 255).astype(np.uint8)
    glow = np.zeros_like(image)

    def box(
        x: float, y: float, wide: float, tall: float, colour: Colour, lit: bool = False
    ) -> None:
        rows = slice(size[1] - round((y + tall) * scale), size[1] - round(y * scale))
        part = (rows, slice(round(x * scale), round((x + wide) * scale)))
        image[part], glow[part] = colour, pick_colour(rng, _LIT) if lit else _DARK

    for low in np.arange(4.2, height - 2.2, 3.0):
        for x in np.arange(0.6, width - 1.2, rng.uniform(1.7, 2.6)):
            box(x, low - 0.1, 1.1, 1.75, _PALE)
            box(x + 0.08, low, 0.94, 1.55, _GLASS, lamps and rng.random() < 0.4)
            box(x + 0.5, low, 0.1, 1.55, _PALE)
    box(0.2, 0.0, width - 0.4, 3.4, shade(sign, 0.6))
    box(0.5, 0.5, 0.6 * width, 2.0, _GLASS, lamps)
    box(0.7 * width, 0.1, 1.1, 2.4, _GLASS, lamps)
    for x in np.arange(0.9, 0.55 * width, 0.7):  # goods in the window
        box(x, 0.5, 0.35, rng.uniform(0.3, 1.1), pick_colour(rng, _SIGNS))
    box(0.2, 2.6, width - 0.4, 0.8, sign)
    for x in np.arange(1.0, width - 2.0, 0.3)[: int(rng.integers(5, 14))]:
        box(x, 2.85, 0.2, 0.3, _PALE)
    for x in np.arange(0.2, width - 0.5, 0.8) if rng.random() < 0.5 else ():  # an awning
        box(x, 2.1, 0.4, 0.6, sign)
        box(x + 0.4, 2.1, 0.4, 0.6, _PALE)
    return image, glow


def _put_front(
    rng: np.random.Generator, street: Street, light: Light, ends: tuple[tuple[float, float], ...]
) -> None:
    """Paint a house between two ground points (x, z), from left to right on screen."""
    camera, tall = street.camera, float(rng.uniform(7.0, 15.5))
    (x0, z0), (x1, z1) = ends
    scale = float(np.clip(0.75 * camera.pixels_per_metre(min(z0, z1) + 2.0), 8.0, 46.0))
    image, glow = _front(rng, float(np.hypot(x1 - x0, z1 - z0)), tall, scale, light.lamps)
    if x0 == x1:  # one side of the street lies in the shade
        image = cv2.convertScaleAbs(image, alpha=0.86 if x0 * light.side > 0 else 1.04)
    corners = camera.project((x0, x1, x1, x0), (tall, tall, 0.0, 0.0), (z0, z1, z1, z0))
    height, width = image.shape[:2]
    source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    low, high = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int)
    part = overlap((*low, *high), (0, 0, camera.width, camera.height))
    if part is None:
        return
    corners = corners - part[:2]
    matrix = cv2.getPerspectiveTransform(source, corners.astype(np.float32))
    size = (part[2] - part[0], part[3] - part[1])
    cover = np.zeros(size[::-1], np.uint8)
    cv2.fillConvexPoly(cover, np.rint(corners * 16).astype(np.int32), 255, cv2.LINE_8, 4)
    image = light.through_air(image, 0.5 * (z0 + z1))
    for layer, flat in ((street.image, image), (street.glow, glow)):
        warped = cv2.warpPerspective(flat, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        np.copyto(layer[inside(part)], warped, where=cover[:, :, None] > 0)


_PAVING = palette("A49C96 A29284 A0A0A0 96867E")
_Field = NDArray[np.float32]


def _stripes(place: _Field, step: float, half: float, pixel: _Field) -> _Field:
    """Return the anti-aliased share of lines, 2 `half` wide, every `step` metres."""
    distance = np.abs((place / step) % 1.0 - 0.5) * step
    return np.asarray(np.clip((half - distance) / pixel + 0.5, 0.0, 1.0), np.float32)


def _paint_ground(rng: np.random.Generator, street: Street, light: Light, depth: float) -> None:
    """Paint paving, road, kerbs and markings where the ground lies in front of the houses."""
    camera, walls, road = street.camera, street.walls, street.road
    first = int(np.ceil(camera.horizon + camera.focal * camera.eye / depth))
    rows = np.arange(first, camera.height, dtype=np.float32)[:, None] + 0.5
    z = (camera.focal * camera.eye / (rows - camera.horizon)).astype(np.float32)
    columns = np.arange(camera.width, dtype=np.float32)[None] + 0.5
    x = ((columns - camera.centre) * z / camera.focal).astype(np.float32)
    wide, deep = z / camera.focal, z * z / (camera.focal * camera.eye)  # metres per pixel
    u, v, u_pixel, v_pixel = (x, z, wide, deep) if street.layout == "along" else (z, x, deep, wide)
    tile = float(rng.choice((0.4, 0.6, 0.9)))
    tones = rng.normal(1.0, 0.045, (64, 64)).astype(np.float32)
    cell = [np.floor(place / tile).astype(np.int32) & 63 for place in (u, v)]
    fade = np.clip(tile / (2.0 * deep), 0.0, 1.0)
    joints = np.maximum(_stripes(u, tile, 0.012, u_pixel), _stripes(v, 2 * tile, 0.012, v_pixel))
    tone = 1.0 + fade * (tones[cell[0], cell[1]] - 1.0 - 0.28 * joints)
    colour = tone[:, :, None] * np.array(pick_colour(rng, _PAVING), np.float32)
    if road is not None:
        _paint_road(rng, colour, (u, v, u_pixel, v_pixel), road)
    size = (camera.width, camera.height - first)
    colour *= (1.0 + 0.07 * noise(rng, size, (12, 7)))[:, :, None]
    colour += 9.0 * noise(rng, size, (size[0] // 2, size[1] // 2))[:, :, None]
    if light.rain:
        colour *= 0.72
    share = (1.0 - np.exp(-z / light.fog_range))[:, :, None].astype(np.float32)
    colour += (light.sky[1] - colour) * share
    seen = (u > walls[0]) & (u < walls[1]) & (x == x)
    street.image[first:][seen] = np.clip(colour, 0, 255).astype(np.uint8)[seen]
    street.glow[first:][seen] = 0
    street.ground[first:][seen] = 255


def _paint_road(
    rng: np.random.Generator,
    colour: _Field,
    place: tuple[_Field, _Field, _Field, _Field],
    road: tuple[float, float],
) -> None:
    """Paint asphalt with a dashed middle line, a zebra crossing and kerbs into `colour`."""
    u, v, u_pixel, v_pixel = place
    middle, half = 0.5 * (road[0] + road[1]), 0.5 * (road[1] - road[0])
    start = float(rng.uniform(6.5, 14.5)) if road[0] < 0 else float(rng.uniform(-2.5, 3.5))
    crossing = np.clip((1.5 - np.abs(v - start)) / v_pixel + 0.5, 0.0, 1.0)
    dashes = np.clip((0.07 - np.abs(u - middle)) / u_pixel + 0.5, 0.0, 1.0)
    dashes = dashes * _stripes(v, 4.0, 0.75, v_pixel) * (1.0 - crossing)
    white = np.maximum(dashes, crossing * _stripes(u, 1.0, 0.26, u_pixel)) * rng.uniform(0.6, 0.9)
    asphalt = np.float32(91.0 * rng.uniform(0.75, 1.15))
    surface = (asphalt + (218.0 - asphalt) * white)[:, :, None]
    edge = np.abs(u - middle) - half
    share = np.clip(0.5 - edge / u_pixel, 0.0, 1.0)[:, :, None]
    colour += (surface - colour) * share
    kerb = np.clip(1.2 - np.abs(edge - 0.08) / (0.08 + u_pixel), 0.0, 1.0)[:, :, None]
    colour += (186.0 - colour) * (0.8 * kerb)


# ---- things: flat drawings in metres, x from the middle and y up from the ground ----

_THINGS = """
lamp_post 4.7 1.0 0.3 0 3A3E3A 4E4A4A 282C30 34543C
  bar 1.0 0 0 0 0.7 0.11 0.11
  bar 1.0 0 0.6 0 4.1 0.065 0.05
  lamp DAD6CE -0.16 4.15 0.16 4.15 0.24 4.55 -0.24 4.55
  poly 0.8 -0.3 4.53 0.3 4.53 0 4.7
tree 6.0 0 1.1 0 64523E 5A4A3C
  disc 3C3834 0 0.05 0.55 0.1
  bar 1.0 0 0 0.05 2.9 0.15 0.09
  bar2 1.0 0 2.3 0.75 3.6 0.07 0.04
  leaves 3E602C 70 0 4.3 1.6 1.35
trash_can 1.0 1.2 0.6 0 3A5A3C 2A4A78 782E2E 4A4A4C
  poly 0.85 -0.27 0.05 0.27 0.05 0.31 0.88 -0.31 0.88
  poly 1.0 -0.2 0.05 0.1 0.05 0.12 0.88 -0.24 0.88
  poly 0.65 -0.35 0.88 0.35 0.88 0.3 1.0 -0.3 1.0
  poly E0DEDA -0.09 0.45 0.09 0.45 0.09 0.62 -0.09 0.62
traffic_sign 2.9 1.0 0.3 0 A83230 2C5A96
  bar 9A9896 0 0 0 2.6 0.035 0.035
  disc 1.0 0 2.5 0.38 0.38
  disc E0DEDA 0 2.5 0.29 0.29
  poly 1E1E20 -0.2 2.44 0.2 2.44 0.2 2.56 -0.2 2.56
bench 0.9 0.7 1.9 0 86664A 6A4A34 9A7E5A
  bar2 1E1E20 0.7 0 0.7 0.8 0.035 0.035
  poly 1.0 -0.9 0.36 0.9 0.36 0.9 0.47 -0.9 0.47
  poly 1.0 -0.9 0.55 0.9 0.55 0.9 0.65 -0.9 0.65
  poly 0.9 -0.9 0.7 0.9 0.7 0.9 0.8 -0.9 0.8
planter 1.15 0.9 1.3 0.5 807C78 8E5C42 3E3C3A
  leaves 467834 60 0 0.8 0.55 0.25
  poly 0.8 -0.6 0 0.6 0 0.6 0.62 -0.6 0.62
  poly 1.0 -0.6 0 0.2 0 0.2 0.56 -0.6 0.56
bollard 0.95 1.0 0.3 0 3A3E3A 4E4A4A 72706E
  bar 1.0 0 0 0 0.85 0.085 0.085
  poly E0DEDA -0.085 0.66 0.085 0.66 0.085 0.76 -0.085 0.76
hydrant 0.85 0.5 0.4 0 A83230 C8A032
  bar 1.0 0 0 0 0.6 0.13 0.12
  disc 0.85 0 0.66 0.15 0.12
  bar 0.8 -0.2 0.45 0.2 0.45 0.06 0.06
poster_stand 2.2 0.9 1.2 0 D2C8B4 C8D2D8 3C6E46 8C6496
  bar2 464446 0.5 0 0.5 2.1 0.04 0.04
  poly 363636 -0.6 0.42 0.6 0.42 0.6 2.2 -0.6 2.2
  poly 1.0 -0.53 0.49 0.53 0.49 0.53 2.13 -0.53 2.13
  poly 3A3E44 -0.4 0.8 0.4 0.8 0.34 1.2 0.15 1.32 -0.15 1.32 -0.34 1.2
  disc 1E1E20 0 1.62 0.21 0.23
  disc BA8662 0 1.55 0.17 0.23
  poly E0DEDA -0.53 0.49 0.53 0.49 0.53 0.76 -0.53 0.76
bicycle 1.05 0 1.4 0 CCCAC8 343436 962C3C 24508C 3C6E60 BE7832
  hoop2 1E1E20 0.05 0.52 0.34 0.33
  line 1.0 0.045 -0.52 0.34 -0.06 0.34 0.36 0.84 -0.2 0.82 -0.06 0.34 -0.2 0.82 -0.52 0.34
  line 1.0 0.045 0.52 0.34 0.36 0.78 0.33 1.0
  line 1E1E20 0.05 0.24 1.04 0.4 1.02
  poly 1E1E20 -0.38 0.94 -0.1 0.94 -0.12 0.88 -0.34 0.88
car_side 1.45 0 0 0 CCCAC8 343436 727476 962C3C 24508C 3C6E60 BE7832
  poly 0.9 -2.2 0.3 -2.2 0.68 -1.3 0.86 -0.6 1.36 0 1.45 0.9 1.42 1.5 0.98 2.15 0.9 2.2 0.3
  poly 5A666E -1.0 0.9 -0.5 1.3 0.05 1.36 0.05 0.9
  poly 5A666E 0.15 0.9 0.15 1.36 0.8 1.33 1.25 0.94
  poly 0.7 -2.2 0.3 2.2 0.3 2.2 0.48 -2.2 0.48
  poly E6E2C8 -2.18 0.6 -2.05 0.6 -2.05 0.72 -2.18 0.7
  poly A83230 2.18 0.6 2.05 0.6 2.05 0.74 2.18 0.74
  disc2 1E1E20 1.4 0.31 0.31 0.31
  disc2 9A9896 1.4 0.31 0.18 0.18
car_end 1.45 0 0 4.0 CCCAC8 343436 727476 962C3C 24508C 3C6E60 BE7832
  poly 1E1E20 -0.8 0 -0.55 0 -0.55 0.4 0.55 0.4 0.55 0 0.8 0 0.8 0.4 -0.8 0.4
  poly 0.95 -0.87 0.25 0.87 0.25 0.87 0.85 0.68 1.42 -0.68 1.42 -0.87 0.85
  poly 5A666E -0.72 0.88 0.72 0.88 0.6 1.34 -0.6 1.34
  poly 0.7 -0.87 0.25 0.87 0.25 0.87 0.45 -0.87 0.45
  poly2 A83230 0.84 0.6 0.6 0.6 0.6 0.76 0.84 0.76
  poly E0DEDA -0.25 0.45 0.25 0.45 0.25 0.56 -0.25 0.56
"""
# A line that is not indented: name, height, how often it is drawn among the small things, width of
# its contact shadow, depth of a solid thing, and the paints to choose from (RRGGBB). Below it, what
# is painted in order: a shape, its colour (a share of the paint, or RRGGBB), and
#   poly x y x y …; lamp, the same, shines after dark; line width x y x y …;
#   bar x y x y radius radius; disc x y radius-x radius-y; hoop width x y radius;
#   leaves count x y radius-x radius-y. A 2 after the shape: on both sides of the middle.
# A poster shows a person and is none.


class Thing:
    """One kind of thing that stands in a street, from a block of the table `_THINGS`; metres."""

    def __init__(self, head: str, *lines: str) -> None:
        """Read the numbers and the parts: shape, share of the paint or colour, numbers."""
        self.name, *numbers = head.split(maxsplit=5)
        self.height, self.often, self.foot, self.depth = map(float, numbers[:4])
        self.paints = palette(numbers[4])
        self.parts: list[tuple[str, float | Colour, NDArray[np.float64]]] = []
        for shape, tone, *rest in map(str.split, lines):
            colour = palette(tone)[0] if len(tone) == 6 else float(tone)
            self.parts.append((shape, colour, np.array(rest, np.float64)))


_BLOCKS = re.split(r"\n(?=\w)", _THINGS.strip())
THINGS = {thing.name: thing for thing in (Thing(*block.splitlines()) for block in _BLOCKS)}
"""The kinds of things, by name."""


def paint_thing(
    rng: np.random.Generator, camera: Camera, light: Light, name: str, x: float, z: float
) -> Sprite:
    """Return the sprite of one of `THINGS` that stands at (x, z), seen through the air."""
    thing, scale = THINGS[name], camera.pixels_per_metre(z)
    paint, base = pick_colour(rng, thing.paints), camera.project(x, 0.0, z)
    flip = np.array([float(rng.choice((-1.0, 1.0))), -1.0]) * scale
    reach = np.array([2.6, thing.height + 0.6]) * scale
    bounds = [*(base - reach), *(base + (reach[0], 0.2 * scale))]
    solid: Image = np.empty((0, 2))
    if thing.depth:  # the same outline farther away, joined to the near one
        flat = [part[2].reshape(-1, 2) for part in thing.parts if part[0].startswith("poly")]
        near, vanishing = base + np.concatenate(flat) * flip, (camera.centre, camera.horizon)
        far = vanishing + (near - vanishing) * (z / (z + thing.depth))
        solid = cv2.convexHull(np.concatenate([near, far]).astype(np.float32))[:, 0]
        bounds[0] = min(bounds[0], float(far[:, 0].min()))
        bounds[2] = max(bounds[2], float(far[:, 0].max()))
    frame = (camera.width + 4.0, camera.height + 4.0)
    canvas = Canvas([float(np.clip(v, -4.0, frame[k % 2])) for k, v in enumerate(bounds)])
    if thing.depth:
        canvas.polygon(solid, shade(paint, 0.62))
    for shape, tone, numbers in thing.parts:
        colour = shade(paint, tone) if isinstance(tone, float) else tone
        if shape == "lamp" and light.lamps:
            colour = (170.0, 226.0, 255.0)
        for mirror in (1.0, -1.0)[: 1 + shape.endswith("2")]:
            place = (base, flip * (mirror, 1.0), light.side)
            _paint_part(rng, canvas, shape.rstrip("2"), numbers, colour, place)
    sprite = canvas.finish()
    return Sprite(quiet(light.through_air(sprite.bgra, z), 0.4, 0.62), sprite.x, sprite.y)


def _paint_part(
    rng: np.random.Generator,
    canvas: Canvas,
    shape: str,
    numbers: NDArray[np.float64],
    colour: Colour,
    place: tuple[Points, Points, float],
) -> None:
    """Paint one line of the table; `place`: the foot, pixels per metre (x, y), side of the
    light.
    """
    base, flip, side = place
    scale = -float(flip[1])
    lead = shape in ("line", "hoop", "leaves")  # these begin with a width or a count
    pairs = numbers[lead : lead + 2 * ((len(numbers) - lead) // 2)]
    points = base + pairs.reshape(-1, 2) * flip
    if shape in ("poly", "lamp"):
        canvas.polygon(points, colour)
    elif shape == "bar":
        canvas.capsule(points[0], points[1], (numbers[4] * scale, numbers[5] * scale), colour, side)
    elif shape == "disc":
        canvas.polygon(ring(points[0], numbers[2:] * scale), colour)
    elif shape == "line":
        canvas.line(points, colour, numbers[0] * scale)
    elif shape == "hoop":
        circle = ring(points[0], numbers[[3, 3]] * scale)
        canvas.line(np.concatenate([circle, circle[:1]]), colour, numbers[0] * scale)
    else:  # a bush of ellipses: dark and wide first, light and narrow last
        radii = numbers[3:] * scale
        for share in np.linspace(0.0, 1.0, int(numbers[0])):
            angle, away = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform()) * (1.0 - 0.3 * share)
            middle = points[0] + radii * (away * np.cos(angle), away * np.sin(angle) - 0.2 * share)
            leaf = ring(middle, rng.uniform(0.16, 0.28) * radii.max() * np.array([1.0, 0.7]), angle)
            canvas.polygon(leaf, shade(colour, (0.5 + 0.65 * share) * rng.uniform(0.85, 1.15)))

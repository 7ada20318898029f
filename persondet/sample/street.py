"""The empty street: sky, rows of houses, road and pavement, in two layouts.

`along` looks down a street between two rows of houses; `across` looks over it at one row.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from persondet.sample.camera import Camera
from persondet.sample.facades import Facade, paint_facade
from persondet.sample.paint import Colour, Image, blend, shade
from persondet.sample.weather import Light, haze


@dataclass
class Street:
    """A painted background and where things may stand on it.

    `road` is the road's extent, in X for `along` and in Z for `across` (None: no road);
    `walls` the same for what encloses the street.
    """

    layout: str
    camera: Camera
    image: Image
    glow: Image
    road: tuple[float, float] | None
    walls: tuple[float, float]
    pictures_of_people: int

    def walkable(self, x: float, z: float) -> bool:
        """Whether a person can stand at (x, z)."""
        place = x if self.layout == "along" else z
        return self.walls[0] + 0.45 < place < self.walls[1] - 0.45

    def on_road(self, x: float, z: float) -> bool:
        """Whether (x, z) is on the carriageway."""
        place = x if self.layout == "along" else z
        return self.road is not None and self.road[0] < place < self.road[1]


def build_street(
    rng: np.random.Generator, camera: Camera, light: Light, layout: str, *, people_pictures: bool = True
) -> Street:
    """Paint an empty street without the scene's light (see `weather.relight`)."""
    image = _sky(rng, camera, light)
    glow = np.zeros_like(image)
    far = camera.depth_for(1.7, 30.0 * camera.height / 360.0)
    road: tuple[float, float] | None
    if layout == "along":
        left, right = -rng.uniform(4.6, 7.5), rng.uniform(4.6, 7.5)
        middle = rng.uniform(-0.8, 0.8)
        half = min(right, -left) - rng.uniform(2.6, 3.0)
        road = (middle - half, middle + half) if half > 1.5 and rng.random() < 0.75 else None
        walls = (left, right)
        depth = far * rng.uniform(1.4, 2.2)
    else:
        near = rng.uniform(3.2, 5.5)
        depth = far * rng.uniform(1.0, 1.12)
        road = (near, depth - rng.uniform(3.0, 4.5))
        walls = (1.0, depth)
    lights = light.lamps
    pictures = 0
    if layout == "along":
        pictures += _front_row(rng, camera, light, image, glow, depth, lights, False)
        for wall in walls:
            pictures += _side_row(rng, camera, light, image, glow, wall, depth, lights, people_pictures)
    else:
        pictures += _front_row(rng, camera, light, image, glow, depth, lights, people_pictures)
    _ground(rng, camera, light, image, glow, layout, road, walls)
    return Street(layout, camera, image, glow, road, walls, pictures)


def _sky(rng: np.random.Generator, camera: Camera, light: Light) -> Image:
    height, width = camera.height, camera.width
    share = np.clip(np.linspace(0.0, height / max(camera.horizon, 1.0), height), 0.0, 1.0) ** 1.2
    top, low = np.array(light.sky_top), np.array(light.sky_low)
    # The sky is painted before the light map, which would darken it a second time.
    column = (top + (low - top) * share[:, None]) / np.array(light.ambient)
    sky = np.repeat(np.clip(column, 0, 255)[:, None], width, axis=1).astype(np.float32)
    noise = np.zeros((height, width), np.float32)
    for cells, weight in ((4, 1.0), (9, 0.6), (20, 0.35)):
        grid = rng.standard_normal((max(cells // 2, 2), cells)).astype(np.float32)
        noise += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    cloud = np.clip(noise - 0.2, 0.0, 1.2)[:, :, None] * (0.5 if light.time in ("day", "dusk") else 0.2)
    tint = np.array((236, 236, 240) if light.time != "dusk" else (150, 170, 244), np.float32) / np.array(light.ambient)
    tint = tint * (0.35 if light.time == "night" else 1.0)
    sky += (tint - sky) * np.minimum(cloud, 1.0)
    image = np.clip(sky, 0, 255).astype(np.uint8)
    if light.time == "night" and light.weather == "clear":
        for x, y in rng.uniform((0, 0), (width, camera.horizon), (40, 2)):
            cv2.circle(image, (int(x), int(y)), 1, (190, 190, 190), -1, cv2.LINE_AA)
    return image


def _hazed(picture: Image, light: Light, depth: float) -> Image:
    share = float(haze(light, depth))
    fog = np.array(light.fog_colour) / np.maximum(np.array(light.ambient), 0.35)
    return cv2.transform(picture, np.hstack([np.eye(3) * (1 - share), share * np.minimum(fog, 255)[:, None]]))


def _put(image: Image, glow: Image, facade: Facade, corners: NDArray[np.float64]) -> None:
    """Warp a front onto the quad `corners` (top left, top right, bottom right, bottom left)."""
    height, width = facade.picture.shape[:2]
    source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    low = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0)), (image.shape[1], image.shape[0])).astype(int)
    if (high <= low).any():
        return
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    matrix = cv2.getPerspectiveTransform(source, (corners - low).astype(np.float32))
    part = (slice(low[1], high[1]), slice(low[0], high[0]))
    inside = np.zeros((size[1], size[0]), np.uint8)
    cv2.fillConvexPoly(inside, np.rint((corners - low) * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
    cover = cv2.merge([inside] * 3)
    for layer, picture in ((image, facade.picture), (glow, facade.glow)):
        warped = cv2.warpPerspective(picture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        kept = cv2.multiply(layer[part], 255 - cover, scale=1 / 255)
        layer[part] = cv2.add(kept, cv2.multiply(warped, cover, scale=1 / 255))


def _front_row(
    rng: np.random.Generator, camera: Camera, light: Light, image: Image, glow: Image,
    depth: float, lit: bool, people_pictures: bool,
) -> int:  # fmt: skip
    scale = camera.pixels_per_metre(depth)
    x = camera.across(0.0, depth) - rng.uniform(0.0, 4.0)
    end = camera.across(camera.width, depth)
    pictures = 0
    while x < end:
        width, tall = rng.uniform(6.5, 11.0), rng.uniform(7.0, 15.0)
        facade = paint_facade(rng, width, tall, max(scale, 10.0), lit=lit, people_pictures=people_pictures)
        facade.picture = _hazed(facade.picture, light, depth)
        xs, ys = np.array([x, x + width, x + width, x]), np.array([tall, tall, 0.0, 0.0])
        _put(image, glow, facade, camera.project(xs, ys, np.full(4, depth)))
        pictures += facade.pictures_of_people
        x += width
    return pictures


def _side_row(
    rng: np.random.Generator, camera: Camera, light: Light, image: Image, glow: Image,
    wall: float, depth: float, lit: bool, people_pictures: bool,
) -> int:  # fmt: skip
    starts = [1.2]
    while starts[-1] < depth:
        starts.append(starts[-1] + rng.uniform(6.0, 11.0))
    pictures = 0
    outward = 9.0 if wall > 0 else -9.0
    side = 0.86 if (wall > 0) == (light.sun_side > 0) and light.sun > 0 else 1.04
    for near, beyond in reversed(list(zip(starts[:-1], starts[1:], strict=True))):
        tall = rng.uniform(7.5, 16.0)
        # Detail where it can be seen: the front's resolution follows its distance.
        scale = float(np.clip(camera.pixels_per_metre(near + 2.0) * 0.75, 8.0, 46.0 * camera.height / 360))
        facade = paint_facade(rng, beyond - near, tall, scale, lit=lit, people_pictures=people_pictures)
        facade.picture = _hazed(cv2.convertScaleAbs(facade.picture, alpha=side), light, 0.5 * (near + beyond))
        gable = camera.project(np.array([wall, wall + outward, wall + outward, wall]), np.array([tall, tall, 0, 0]), near)
        tone = shade(blend((120, 124, 130), light.fog_colour, float(haze(light, near))), 0.8)
        cv2.fillConvexPoly(image, np.rint(np.clip(gable, -9e3, 9e3) * 16).astype(np.int32), tone, cv2.LINE_AA, 4)
        cv2.fillConvexPoly(glow, np.rint(np.clip(gable, -9e3, 9e3) * 16).astype(np.int32), (0, 0, 0), cv2.LINE_AA, 4)
        zs = np.array([near, beyond, beyond, near])
        corners = camera.project(np.full(4, wall), np.array([tall, tall, 0.0, 0.0]), zs)
        if wall > 0:  # read from left to right on screen
            corners = corners[[1, 0, 3, 2]]
        _put(image, glow, facade, corners)
        pictures += facade.pictures_of_people
    return pictures


def _joints(
    place: NDArray[np.float32], step: float, width: float, blur: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the anti-aliased share of joint lines every `step` metres; `blur` is a pixel's size."""
    distance = np.abs((place / step) % 1.0 - 0.5)
    distance = (0.5 - distance) * step
    reach = width + blur
    return np.clip(1.0 - distance / reach, 0.0, 1.0) * np.minimum(width / reach * 1.6, 1.0)


def _ground(
    rng: np.random.Generator, camera: Camera, light: Light, image: Image, glow: Image,
    layout: str, road: tuple[float, float] | None, walls: tuple[float, float],
) -> None:  # fmt: skip
    end = 60.0 if layout == "along" else walls[1]
    first = max(int(np.ceil(camera.horizon + camera.focal * camera.eye / end)), 0)
    if first >= camera.height:
        return
    rows = np.arange(first, camera.height, dtype=np.float32) + 0.5
    z_row = camera.focal * camera.eye / np.maximum(rows - np.float32(camera.horizon), 0.5)
    z = np.repeat(z_row[:, None], camera.width, axis=1)
    x = (np.arange(camera.width, dtype=np.float32)[None] + 0.5 - np.float32(camera.centre)) * z / np.float32(camera.focal)
    side_pixel = z / np.float32(camera.focal)
    deep_pixel = z * z / np.float32(camera.focal * camera.eye)
    u, v, u_pixel, v_pixel = (x, z, side_pixel, deep_pixel) if layout == "along" else (z, x, deep_pixel, side_pixel)

    tiles = float(rng.choice((0.4, 0.6, 0.9)))
    joint = np.maximum(_joints(u, tiles, 0.014, u_pixel), _joints(v, tiles * float(rng.choice((1.0, 2.0))), 0.014, v_pixel))
    cells = rng.normal(1.0, 0.045, (64, 64)).astype(np.float32)
    index_u, index_v = np.floor(u / tiles).astype(np.int32) & 63, np.floor(v / tiles).astype(np.int32) & 63
    fade = np.clip(tiles / (deep_pixel * 2.0), 0.0, 1.0)
    tone = 1.0 + (cells[index_u, index_v] - 1.0) * fade - 0.28 * joint
    paving = np.array(rng.choice([(150, 156, 164), (132, 146, 162), (160, 160, 160), (126, 134, 150)]), np.float32)
    colour = tone[:, :, None] * paving
    if road is not None:
        asphalt = np.array((92, 90, 90), np.float32) * np.float32(rng.uniform(0.75, 1.15))
        inside = np.clip((u - road[0]) / u_pixel + 0.5, 0, 1) * np.clip((road[1] - u) / u_pixel + 0.5, 0, 1)
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
    patches = cv2.resize(rng.normal(1.0, 0.07, (7, 12)).astype(np.float32), (camera.width, camera.height - first), interpolation=cv2.INTER_CUBIC)
    colour = (colour + speckle[:, :, None]) * patches[:, :, None]
    if light.wet:
        colour *= 0.72
    share = haze(light, z).astype(np.float32)[:, :, None]
    fog = np.array(light.fog_colour, np.float32) / np.maximum(np.array(light.ambient, np.float32), 0.35)
    colour += (np.minimum(fog, 255.0) - colour) * share
    picture = np.clip(colour, 0, 255).astype(np.uint8)
    # Houses stand on the ground: paint it only where it is in front of them.
    if layout == "along":
        seen = (x > walls[0]) & (x < walls[1])
        image[first:][seen] = picture[seen]
        glow[first:][seen] = 0
    else:
        image[first:] = picture
        glow[first:] = 0


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

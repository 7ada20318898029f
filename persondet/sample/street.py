"""The empty street: sky, rows of houses, road and pavement, in two layouts.

`along` looks down a street between two rows of houses; `across` looks over it at one row.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from persondet.sample.camera import Camera
from persondet.sample.facades import Facade, paint_facade
from persondet.sample.ground import paint_ground
from persondet.sample.paint import Image, blend, shade
from persondet.sample.weather import Light, haze


@dataclass
class Street:
    """A painted background and where things may stand on it.

    `road` is the road's extent, in X for `along` and in Z for `across` (None: no road);
    `walls` the same for what encloses the street. `ground` is 255 where the ground is seen.
    """

    layout: str
    camera: Camera
    image: Image
    glow: Image
    ground: Image
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
    rng: np.random.Generator,
    camera: Camera,
    light: Light,
    layout: str,
    *,
    people_pictures: bool = True,
    pedestrian: bool = False,
) -> Street:
    """Paint an empty street without the scene's light (see `weather.relight`).

    `people_pictures` allows posters and mannequins; `pedestrian` leaves out the road (`along`).
    """
    image = _sky(rng, camera, light)
    glow = np.zeros_like(image)
    far = camera.depth_for(1.7, 30.0 * camera.height / 360.0)
    road: tuple[float, float] | None
    if layout == "along":
        left, right = -rng.uniform(4.6, 7.5), rng.uniform(4.6, 7.5)
        middle = rng.uniform(-0.8, 0.8)
        half = min(right, -left) - rng.uniform(2.6, 3.0)
        road = (
            (middle - half, middle + half)
            if half > 1.5 and not pedestrian and rng.random() < 0.75
            else None
        )
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
            pictures += _side_row(
                rng, camera, light, image, glow, wall, depth, lights, people_pictures
            )
    else:
        pictures += _front_row(rng, camera, light, image, glow, depth, lights, people_pictures)
    ground = paint_ground(rng, camera, light, image, glow, layout, road, walls)
    return Street(layout, camera, image, glow, ground, road, walls, pictures)


def _sky(rng: np.random.Generator, camera: Camera, light: Light) -> Image:
    """Paint a gradient with clouds; below the horizon its lowest colour goes on."""
    height, width = camera.height, camera.width
    image = np.empty((height, width, 3), np.uint8)
    rows = int(np.clip(camera.horizon * 1.1, 8, height))
    share = np.linspace(0.0, 1.0, rows // 2, dtype=np.float32)[:, None, None] ** 1.2
    # The sky is painted before the light map, which would darken it a second time.
    ambient = np.array(light.ambient, np.float32)
    top, low = (
        np.array(light.sky_top, np.float32) / ambient,
        np.array(light.sky_low, np.float32) / ambient,
    )
    noise = np.zeros((rows // 2, width // 2), np.float32)
    for cells, weight in ((5, 1.0), (11, 0.6), (26, 0.4)):
        grid = rng.standard_normal((max(cells // 2, 2), cells), np.float32)
        noise += weight * cv2.resize(grid, (width // 2, rows // 2), interpolation=cv2.INTER_CUBIC)
    strength = {"day": 0.75, "overcast": 0.35, "dusk": 0.6, "night": 0.2}[light.time]
    cloud = np.clip(noise * 0.8, 0.0, 1.0)[:, :, None] * np.float32(strength)
    tint = (
        np.array((170, 180, 246) if light.time == "dusk" else (244, 244, 246), np.float32) / ambient
    )
    tint *= 0.35 if light.time == "night" else 1.0
    sky = top + (low - top) * share
    sky = sky + (tint - sky) * cloud
    half = np.clip(sky, 0, 255).astype(np.uint8)
    image[:rows] = cv2.resize(half, (width, rows), interpolation=cv2.INTER_LINEAR)
    image[rows:] = image[rows - 1].mean(axis=0).astype(np.uint8)
    if light.time == "night" and light.weather == "clear":
        for x, y in rng.uniform((0, 0), (width, camera.horizon), (40, 2)):
            cv2.circle(image, (int(x), int(y)), 1, (190, 190, 190), -1, cv2.LINE_AA)
    return image


def _hazed(picture: Image, light: Light, depth: float) -> Image:
    share = haze(light, depth)
    fog = np.array(light.fog_colour) / np.maximum(np.array(light.ambient), 0.35)
    return cv2.transform(
        picture, np.hstack([np.eye(3) * (1 - share), share * np.minimum(fog, 255)[:, None]])
    )


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
        warped = cv2.warpPerspective(
            picture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
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
        facade = paint_facade(
            rng, width, tall, max(scale, 10.0), lit=lit, people_pictures=people_pictures
        )
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
    for near, beyond in reversed(list(itertools.pairwise(starts))):
        tall = rng.uniform(7.5, 16.0)
        # Detail where it can be seen: the front's resolution follows its distance.
        scale = float(
            np.clip(camera.pixels_per_metre(near + 2.0) * 0.75, 8.0, 46.0 * camera.height / 360)
        )
        facade = paint_facade(
            rng, beyond - near, tall, scale, lit=lit, people_pictures=people_pictures
        )
        facade.picture = _hazed(
            cv2.convertScaleAbs(facade.picture, alpha=side), light, 0.5 * (near + beyond)
        )
        gable = camera.project(
            np.array([wall, wall + outward, wall + outward, wall]),
            np.array([tall, tall, 0, 0]),
            near,
        )
        tone = shade(blend((120, 124, 130), light.fog_colour, haze(light, near)), 0.8)
        cv2.fillConvexPoly(
            image, np.rint(np.clip(gable, -9e3, 9e3) * 16).astype(np.int32), tone, cv2.LINE_AA, 4
        )
        cv2.fillConvexPoly(
            glow,
            np.rint(np.clip(gable, -9e3, 9e3) * 16).astype(np.int32),
            (0, 0, 0),
            cv2.LINE_AA,
            4,
        )
        zs = np.array([near, beyond, beyond, near])
        corners = camera.project(np.full(4, wall), np.array([tall, tall, 0.0, 0.0]), zs)
        if wall > 0:  # read from left to right on screen
            corners = corners[[1, 0, 3, 2]]
        _put(image, glow, facade, corners)
        pictures += facade.pictures_of_people
    return pictures

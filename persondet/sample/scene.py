"""A scene: a street, what stands and walks in it, who hides whom, and how it is rendered.

Everything that stands up is an `Item`: a sprite at a depth. Items are painted from far to near,
so what is visible of a person is their own cover minus the cover of everything nearer.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from persondet.sample.paint import Box, Image, Sprite, composite, inside, overlap, ring, shade
from persondet.sample.person import Looks, Pose, choose, paint_person, random_looks, random_pose
from persondet.sample.street import LAMP, THINGS, Camera, Light, Street, build_street, paint_thing

SMALL_SHARE, HIDDEN_SHARE = 0.18, 0.44
"""Planned shares: people under 48 pixels, and people hidden by a quarter or more."""
SMALL_HEIGHT = 48.0
"""A person is small below this height in pixels, in a frame 360 pixels tall."""
MIN_SEEN = 60.0
"""Visible pixels of the least visible person, in a frame 360 pixels tall."""

_HIDDEN = (0.45, 0.74)  # visible share of the people that are planned to be hidden
_TIMES = {"day": 0.50, "overcast": 0.26, "dusk": 0.14, "night": 0.10}
_WEATHERS = {"clear": 0.86, "fog": 0.14}
_LAYOUTS = {"along": 0.46, "mall": 0.16, "across": 0.38}
_SMALL_THINGS = {name: kind.often for name, kind in THINGS.items() if kind.often}


@dataclass(eq=False)
class Item:
    """Something that stands in the scene at ground point (x, z), in metres.

    `name` is "person" or one of `street.THINGS`; nearer items (smaller z) hide farther ones.
    """

    name: str
    sprite: Sprite
    x: float
    z: float
    foot: float = 0.5  # width of the contact shadow, metres


@dataclass
class Scene:
    """A street with its light and items (in any order)."""

    street: Street
    light: Light
    items: list[Item] = field(default_factory=list)

    @property
    def camera(self) -> Camera:
        """The camera of the street."""
        return self.street.camera


@dataclass(frozen=True)
class Seen:
    """What is seen of one item.

    `mask`: bool (h, w), the visible part, at `x`, `y`, inside the frame. `share`: visible
    pixels over the pixels that the item would cover inside the frame if nothing stood before it.
    """

    mask: NDArray[np.bool_]
    x: int
    y: int
    area: int
    share: float


def visible_part(item: Item, others: list[Item], frame: Box) -> Seen:
    """Return what is seen of `item` in `frame` (XYXY pixels) when `others` stand there too."""
    part = overlap(item.sprite.box, frame)
    if part is None:
        return Seen(np.zeros((1, 1), bool), 0, 0, 0, 0.0)
    own = item.sprite.mask[inside(part, item.sprite.x, item.sprite.y)]
    seen = own.copy()
    for other in others:
        common = overlap(part, other.sprite.box) if other.z < item.z else None
        if common is not None:
            hidden = other.sprite.mask[inside(common, other.sprite.x, other.sprite.y)]
            seen[inside(common, part[0], part[1])] &= ~hidden
    whole, area = int(np.count_nonzero(own)), int(np.count_nonzero(seen))
    return Seen(seen, part[0], part[1], area, area / whole if whole else 0.0)


def scene_rng(seed: int, *path: str | int) -> np.random.Generator:
    """Return the generator of one image: the same for the same seed and path, on any machine."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in path]
    return np.random.default_rng([seed, *words])


# ---- rendering ----


def _paint_shadows(image: Image, scene: Scene) -> None:
    """Darken the ground below the items: a soft spot at the foot, and a cast shadow in the sun."""
    height, width = image.shape[:2]
    light, dark = scene.light, np.zeros((height // 2, width // 2), np.uint8)
    for item in scene.items:
        scale = 0.5 * scene.camera.pixels_per_metre(item.z)
        foot, wide = 0.5 * scene.camera.project(item.x, 0.0, item.z), item.foot * scale
        if light.sun > 0.0:  # away from the sun, and away from the camera
            tall = foot[1] - 0.5 * item.sprite.y
            tip = foot + tall * np.array([-0.9 * light.side, -0.22])
            a, b = np.rint(16 * np.array([foot, tip]).clip(-2000, 2000)).astype(int).tolist()
            cv2.line(dark, a, b, 255 * light.sun, max(round(0.3 * wide), 1), cv2.LINE_AA, 4)
        spot = ring(foot, (0.75 * wide, min(0.2 * wide, 0.15 * scale))).clip(-2000, 2000)
        cv2.fillPoly(dark, [np.rint(spot * 16).astype(np.int32)], 120, cv2.LINE_AA, 4)
    dark = cv2.GaussianBlur(dark, (0, 0), 1.1 * height / 360)
    dark = cv2.min(cv2.resize(dark, (width, height)), scene.street.ground)
    image[:] = cv2.multiply(image, cv2.merge([255 - dark] * 3), scale=1 / 255)


def _relight(image: Image, scene: Scene, glow: Image) -> Image:
    """Return `image` in the scene's light: ambient, and after dark that of lamps and windows."""
    camera, light = scene.camera, scene.light
    if not light.lamps:
        return cv2.transform(image, np.diag(light.ambient))
    # The shops light the pavement; each lamp has a pool on the ground and a bright head.
    spots = cv2.resize(glow, (camera.width // 4, camera.height // 4), interpolation=cv2.INTER_AREA)
    for item in [item for item in scene.items if item.name == "lamp_post"]:
        scale = 0.25 * camera.pixels_per_metre(item.z)
        for up, radius, bright in ((0.3, 2.0, 1.0), (4.3, 1.0, 1.0)):
            x, y = np.rint(0.25 * camera.project(item.x, up, item.z)).clip(-2000, 2000).astype(int)
            cv2.circle(spots, (x, y), round(radius * scale), shade(LAMP, bright), -1)
    spots = cv2.GaussianBlur(spots, (0, 0), camera.width / 90)
    factor = cv2.resize(light.ambient + spots / np.float32(200), (camera.width, camera.height))
    return cv2.add(cv2.multiply(image, factor, dtype=cv2.CV_8U), glow)


def _sense(image: Image, light: Light, rng: np.random.Generator) -> Image:
    """Return `image` (uint8 (H, W, 3)) as a small camera sees it: a soft lens, and noise."""
    height, width = image.shape[:2]
    grey, colour = (rng.standard_normal((256, 256, k), np.float32) for k in (1, 3))
    grain = light.noise * (grey + 0.4 * colour)
    tiles = (-(-height // 256), -(-width // 256), 1)
    field = np.tile(np.rint(grain).astype(np.int16), tiles)[:height, :width]
    return cv2.add(image, np.ascontiguousarray(field), dtype=cv2.CV_8U)


def render(scene: Scene, rng: np.random.Generator) -> Image:
    """Return the image of a scene, uint8 (H, W, 3) BGR; `rng` gives the noise."""
    image, glow = scene.street.image.copy(), scene.street.glow.copy()
    _paint_shadows(image, scene)
    for item in sorted(scene.items, key=lambda item: -item.z):
        composite(image, glow, item.sprite)
    return _sense(_relight(image, scene, glow), scene.light, rng)


# ---- what stands where ----


def empty_scene(
    rng: np.random.Generator,
    size: tuple[int, int],
    setting: tuple[str, str, str],
    view: float = 1.0,
) -> Scene:
    """Return a scene without items, from a camera at or above eye height.

    `setting`: time, weather and layout. `view` widens the frame of `size` (width, height) sideways
    without changing the scale: a panorama.
    """
    width, height = size
    eye = float(rng.uniform(1.5, 2.3))
    camera = Camera(
        width=int(width * view),
        height=height,
        focal=float(rng.uniform(400, 500)) * height / 360.0,
        centre=width * (0.5 * view + float(rng.uniform(-0.12, 0.12))),
        horizon=height * float(np.interp(eye, (1.5, 2.3), (0.36, 0.26)) + rng.uniform(-0.02, 0.03)),
        eye=eye,
    )
    light = Light(rng, setting[0], setting[1])
    return Scene(build_street(rng, camera, light, setting[2]), light)


def person_item(scene: Scene, looks: Looks, pose: Pose, x: float, z: float) -> Item:
    """Return a person who stands at (x, z)."""
    height = looks.height_m * scene.camera.pixels_per_metre(z)
    foot = scene.camera.project(x, 0.0, z)
    sprite = paint_person(looks, pose, height, (foot[0], foot[1]), scene.light.side)
    hazy = replace(sprite, bgra=scene.light.through_air(sprite.bgra, z))
    return Item("person", hazy, x, z, 0.26 * looks.height_m)


def thing_item(scene: Scene, rng: np.random.Generator, name: str, x: float, z: float) -> Item:
    """Return one of `street.THINGS` at (x, z)."""
    sprite = paint_thing(rng, scene.camera, scene.light, name, x, z)
    return Item(name, sprite, x, z, THINGS[name].foot)


def _is_free(scene: Scene, x: float, z: float, distance: float) -> bool:
    """Whether nothing stands within `distance` metres of (x, z)."""
    return all(
        abs(x - item.x) > max(distance, 0.8 * item.foot) or abs(z - item.z) > distance
        for item in scene.items
    )


def furnish(scene: Scene, rng: np.random.Generator) -> None:
    """Put cars, lamps, trees and smaller things into a scene."""
    street, camera = scene.street, scene.camera
    if street.layout != "across":
        edges = street.road or (street.walls[0] + 0.55, street.walls[1] - 0.55)
        cars = [
            ("car_end", x, z)
            for x in (edges[0] + 1.0, edges[1] - 1.0)
            for z in np.arange(rng.uniform(6.0, 12.0), 26.0, rng.uniform(5.3, 9.0))
        ]
        lanes, near = (edges[0] - 0.45, edges[1] + 0.45), rng.uniform(4.5, 8.0)
        rows = [(lane, z) for lane in lanes for z in np.arange(near, 30.0, 9.0)]
    else:
        far = street.road[1] if street.road else street.walls[1]
        left, right = camera.across(0.0, far), camera.across(camera.width, far)
        first, second = left - rng.uniform(0, 5), left + rng.uniform(0, 5)
        cars = [("car_side", x, far - 1.85) for x in np.arange(first, right, 6.0)]
        rows = [(x, far + 0.4) for x in np.arange(second, right, 6.5)]
    places = [car for car in cars if street.road and rng.random() < 0.42]
    places += [("lamp_post" if rng.random() < 0.55 else "tree", *place) for place in rows]
    scene.items += [thing_item(scene, rng, *place) for place in places]
    for _ in range(int(rng.poisson(7))):
        z = float(np.exp(rng.uniform(np.log(4.2), np.log(16.0))))
        x = camera.across(rng.uniform(0.03, 0.97) * camera.width, z)
        if street.walkable(x, z) and _is_free(scene, x, z, 1.0):
            scene.items.append(thing_item(scene, rng, choose(rng, _SMALL_THINGS), x, z))


def _place_person(
    scene: Scene, rng: np.random.Generator, person: tuple[Looks, Pose, float], hidden: bool
) -> bool:
    """Place one person (looks, pose, height in pixels); return False when there is no place."""
    camera, (looks, pose, pixels) = scene.camera, person
    frame = (0, 0, camera.width, camera.height)
    z = camera.depth_for(looks.height_m, pixels)
    middle = person_item(scene, looks, pose, 0.0, z)
    whole, (low, high) = middle.sprite.mask.sum(), _HIDDEN if hidden else (0.88, 1.0)
    for _ in range(200 if hidden else 40):
        shift = round(rng.uniform(0.04, 0.96) * camera.width - camera.centre)
        x = camera.across(camera.centre + shift, z)
        if not scene.street.walkable(x, z) or not _is_free(scene, x, z, 0.55):
            continue
        item = replace(middle, sprite=replace(middle.sprite, x=middle.sprite.x + shift), x=x)
        seen = visible_part(item, scene.items, frame)
        enough = seen.area >= 1.6 * MIN_SEEN * (camera.height / 360.0) ** 2
        # Most of the body is in the frame.
        if enough and low <= seen.share <= high and seen.area >= 0.8 * whole * seen.share:
            scene.items.append(item)
            return True
    return False


def compose(
    seed: int, split: str, index: int, size: tuple[int, int]
) -> tuple[Scene, np.random.Generator]:
    """Return the scene of an image of a split, and the generator for what follows (noise)."""
    rng = scene_rng(seed, "people", split, index)
    time, weather, layout = (choose(rng, options) for options in (_TIMES, _WEATHERS, _LAYOUTS))
    scene = empty_scene(rng, size, (time, weather, layout))
    furnish(scene, rng)
    wanted = []
    for _ in range(2 + index % 6 if index % 16 != 7 else 0):  # now and then there is nobody
        small, hidden = rng.random(2) < (SMALL_SHARE, HIDDEN_SHARE)
        logs = rng.uniform(*np.log((41.0, 45.5) if small else (80.0, 205.0)))
        pixels = float(np.exp(logs)) * size[1] / 360.0
        wanted.append(((random_looks(rng), random_pose(rng), pixels), hidden))
    # From near to far, so that nobody hides an earlier one; a child is nearer than an adult of the
    # same size in the image.
    for person, hidden in sorted(wanted, key=lambda one: one[0][0].height_m / one[0][2]):
        if not _place_person(scene, rng, person, hidden) and hidden:
            _place_person(scene, rng, person, False)
    return scene, rng

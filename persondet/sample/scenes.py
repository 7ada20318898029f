"""A scene: an empty street, what stands and walks in it, and who hides whom.

Everything that stands up is an `Item`: a sprite at a depth. Items are painted from far to near,
so what is visible of a person is their own cover minus the cover of everything nearer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from persondet.sample.camera import Camera
from persondet.sample.carried import paint_umbrella
from persondet.sample.figure import paint_person
from persondet.sample.furniture import FURNITURE
from persondet.sample.lens import out_of_focus, pale
from persondet.sample.paint import Image, Sprite, composite, ellipse_points, overlap
from persondet.sample.people import Looks, Pose
from persondet.sample.street import Street, build_street
from persondet.sample.vehicles import bicycle, car
from persondet.sample.weather import (
    Light,
    Sensor,
    haze_sprite,
    light_map,
    mirror_ground,
    rain,
    random_light,
    relight,
)  # fmt: skip

Mask = NDArray[np.bool_]


@dataclass(eq=False)
class Item:
    """Something that stands in the scene at ground point (x, z), in metres.

    `name` is "person", "umbrella" or a kind of furniture; `depth` orders the painting.
    """

    name: str
    sprite: Sprite
    x: float
    z: float
    depth: float
    mask: Mask
    foot_width: float = 0.5  # metres, for the contact shadow


def make_item(
    name: str,
    sprite: Sprite,
    x: float,
    z: float,
    *,
    depth: float | None = None,
    foot_width: float = 0.5,
) -> Item:
    """Return an item with its mask."""
    return Item(name, sprite, x, z, z if depth is None else depth, sprite.mask(), foot_width)


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

    `mask`: bool (h, w), the visible part, at `x`, `y` in the frame (inside it). `share`: visible
    pixels over the pixels that the item would cover inside the frame if nothing stood before it.
    """

    mask: Mask
    x: int
    y: int
    area: int
    share: float


def visible_part(item: Item, others: list[Item], width: int, height: int) -> Seen:
    """Return what is seen of `item` in a frame when `others` stand in the scene with it."""
    part = overlap(item.sprite.box, width, height)
    if part is None:
        return Seen(np.zeros((1, 1), bool), 0, 0, 0, 0.0)
    left, top, right, bottom = part
    own = item.mask[
        top - item.sprite.y : bottom - item.sprite.y, left - item.sprite.x : right - item.sprite.x
    ]
    seen = own.copy()
    for other in others:
        if other is item or other.depth >= item.depth:
            continue
        x0, y0, x1, y1 = other.sprite.box
        a, b, c, d = max(left, x0), max(top, y0), min(right, x1), min(bottom, y1)
        if a < c and b < d:
            seen[b - top : d - top, a - left : c - left] &= ~other.mask[
                b - y0 : d - y0, a - x0 : c - x0
            ]
    whole, area = int(np.count_nonzero(own)), int(np.count_nonzero(seen))
    return Seen(seen, left, top, area, area / whole if whole else 0.0)


def random_camera(rng: np.random.Generator, size: tuple[int, int], *, view: float = 1.0) -> Camera:
    """Return a camera at or above eye height; `size` is (width, height).

    `view` widens the frame sideways without changing the scale: a panorama.
    """
    width, height = size
    scale = height / 360.0
    eye = float(rng.uniform(1.5, 2.3))
    return Camera(
        width=int(width * view),
        height=height,
        focal=float(rng.uniform(400, 500)) * scale,
        centre=width * view * 0.5 + float(rng.uniform(-0.12, 0.12)) * width,
        horizon=height * float(np.interp(eye, (1.5, 2.3), (0.36, 0.26)) + rng.uniform(-0.02, 0.03)),
        eye=eye,
    )


def empty_scene(
    rng: np.random.Generator, size: tuple[int, int], time: str, weather: str, layout: str,
    *, people_pictures: bool = True, pedestrian: bool = False, view: float = 1.0,
) -> Scene:  # fmt: skip
    """Return a scene without furniture and people."""
    camera = random_camera(rng, size, view=view)
    light = random_light(rng, time, weather)
    street = build_street(
        rng, camera, light, layout, people_pictures=people_pictures, pedestrian=pedestrian
    )
    street.image = out_of_focus(street.image)
    return Scene(street, light)


def person_item(scene: Scene, looks: Looks, pose: Pose, x: float, z: float) -> Item:
    """Return a person who stands at (x, z)."""
    camera, light = scene.camera, scene.light
    side = light.sun_side if light.sun > 0 else 0.35 * light.sun_side
    height = looks.height_m * camera.pixels_per_metre(z)
    sprite = paint_person(looks, pose, height, camera.point(x, 0.0, z), side)
    return make_item(
        "person", haze_sprite(sprite, light, z), x, z, foot_width=0.26 * looks.height_m
    )


def umbrella_item(scene: Scene, looks: Looks, pose: Pose, x: float, z: float) -> Item | None:
    """Return the umbrella of a person who stands at (x, z), or None."""
    camera = scene.camera
    height = looks.height_m * camera.pixels_per_metre(z)
    sprite = paint_umbrella(looks, pose, height, camera.point(x, 0.0, z))
    if sprite is None:
        return None
    return make_item(
        "umbrella", haze_sprite(sprite, scene.light, z), x, z, depth=z - 0.01, foot_width=0.0
    )


def furniture_item(
    scene: Scene, rng: np.random.Generator, name: str, x: float, z: float
) -> Item | None:
    """Return a piece of furniture, "car" or "bicycle" at (x, z), or None when it does not fit."""
    camera, light = scene.camera, scene.light
    if name == "car":
        along = scene.street.layout == "along"
        sprite = car(rng, camera, light, x, z, along=along)
        if sprite is None:
            return None
        return make_item(name, pale(haze_sprite(sprite, light, z + 1.0)), x, z, foot_width=0.0)
    if name == "bicycle":
        sprite = pale(haze_sprite(bicycle(rng, camera, light, x, z), light, z))
        return make_item(name, sprite, x, z, foot_width=1.4)
    painter, _ = FURNITURE[name]
    widths = {"bench": 1.9, "planter": 1.3, "trash_can": 0.6, "tree": 1.1, "poster_stand": 1.2}
    sprite = painter(rng, camera, light, x, z)
    sprite = pale(haze_sprite(sprite, light, z))
    return make_item(name, sprite, x, z, foot_width=widths.get(name, 0.3))


def paint_shadows(image: Image, scene: Scene, items: list[Item]) -> None:
    """Darken the ground below the items: a soft spot at the foot, and a cast shadow in the sun."""
    camera, light = scene.camera, scene.light
    height, width = image.shape[:2]
    small = np.zeros((height // 2, width // 2), np.uint8)
    for item in items:
        if item.foot_width <= 0.0:
            continue
        scale = camera.pixels_per_metre(item.z)
        foot = np.array(camera.point(item.x, 0.0, item.z))
        spot = ellipse_points(
            foot / 2,
            (0.75 * item.foot_width * scale / 2, min(0.2 * item.foot_width, 0.15) * scale / 2),
        )
        cv2.fillPoly(
            small, [np.rint(np.clip(spot, -4000, 4000) * 16).astype(np.int32)], 120, cv2.LINE_AA, 4
        )
        if light.sun > 0.0 and item.name != "poster_stand":
            # The figure's own outline, laid on the ground away from the sun.
            lean, flat = -light.sun_side * 0.9, 0.22
            alpha = item.sprite.bgra[::2, ::2, 3]
            x0, y0 = (item.sprite.x - foot[0]) / 2, (item.sprite.y - foot[1]) / 2
            matrix = np.array(
                [[1.0, -lean, x0 - lean * y0 + foot[0] / 2], [0.0, flat, flat * y0 + foot[1] / 2]]
            )
            box = cv2.transform(
                np.array(
                    [
                        [
                            [0, 0],
                            [alpha.shape[1], 0],
                            [0, alpha.shape[0]],
                            [alpha.shape[1], alpha.shape[0]],
                        ]
                    ],
                    np.float64,
                ),
                matrix,
            )[0]
            part = overlap(
                (*np.floor(box.min(axis=0)).astype(int), *np.ceil(box.max(axis=0)).astype(int)),
                width // 2,
                height // 2,
            )
            if part is None:
                continue
            left, top, right, bottom = part
            matrix[:, 2] -= (left, top)
            cast = cv2.warpAffine(
                alpha, matrix, (right - left, bottom - top), flags=cv2.INTER_LINEAR
            )
            cast = cv2.convertScaleAbs(cast, alpha=light.sun)
            small[top:bottom, left:right] = cv2.max(small[top:bottom, left:right], cast)
    small = cv2.GaussianBlur(small, (0, 0), 1.1 * height / 360)
    dark = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    keep = 255 - cv2.min(dark, scene.street.ground)
    image[:] = cv2.multiply(image, cv2.merge([keep] * 3), scale=1 / 255)


def lamp_pools(scene: Scene) -> list[tuple[float, float, float]]:
    """Return (x, y, radius) of the light below each lamp, in frame pixels."""
    camera = scene.camera
    pools = []
    for item in scene.items:
        if item.name == "lamp_post":
            x, y = camera.point(item.x, 0.0, item.z)
            pools.append((x, y, 3.0 * camera.pixels_per_metre(item.z)))
    # The shops light the pavement too.
    pools.append((camera.centre, camera.horizon + 0.25 * camera.height, 0.5 * camera.width))
    return pools


def render(scene: Scene, rng: np.random.Generator) -> Image:
    """Return the picture of a scene, uint8 (H, W, 3) BGR; `rng` gives rain and noise."""
    camera, light = scene.camera, scene.light
    image, glow = scene.street.image.copy(), scene.street.glow.copy()
    if light.wet:
        mirror_ground(
            image, glow, camera.horizon + 0.06 * camera.height, 0.8 if light.lamps else 0.25
        )
    paint_shadows(image, scene, scene.items)
    for item in sorted(scene.items, key=lambda item: -item.depth):
        composite(image, item.sprite, glow)
    factor = light_map(light, (camera.width, camera.height), lamp_pools(scene))
    image = relight(image, factor, glow if light.lamps else None)
    if light.weather == "rain":
        image = rain(image, rng)
    return Sensor(rng, (camera.width, camera.height), light)(image, rng)

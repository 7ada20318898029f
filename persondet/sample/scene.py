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

from persondet.sample.paint import Image, Sprite, composite, inside, overlap, ring
from persondet.sample.person import Looks, Pose, choose, paint_person, random_looks, random_pose
from persondet.sample.street import THINGS, Camera, Light, Street, build_street, paint_thing

SMALL_SHARE, HIDDEN_SHARE, EMPTY_SHARE = 0.18, 0.36, 0.06
"""Planned shares: people under 48 pixels, people hidden by a quarter or more, empty images."""
SMALL_HEIGHT = 48.0
"""A person is small below this height in pixels, in a frame 360 pixels tall."""
MIN_SEEN = 60.0
"""Visible pixels of the least visible person, in a frame 360 pixels tall."""
"""Classes of the street objects; a car is painted as "car_side" or "car_end"."""

_HIDDEN = (0.6, 0.74)  # visible share of the people that are planned to be hidden
_TIMES = {"day": 0.50, "overcast": 0.26, "dusk": 0.14, "night": 0.10}
_WEATHERS = {"clear": 0.76, "rain": 0.14, "fog": 0.10}
_LAYOUTS = {"along": 0.62, "across": 0.38}
_COVERS = ("trash_can", "planter", "bollard", "poster_stand", "traffic_sign", "hydrant")
_ROOM = {"car_end": (1.6, 5.0), "car_side": (2.9, 2.2)}  # metres kept free: beside, behind
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
    mask: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        """Keep the mask: the placement asks for it often."""
        self.mask = self.sprite.mask


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

    mask: NDArray[np.bool_]
    x: int
    y: int
    area: int
    share: float


def visible_part(item: Item, others: list[Item], size: tuple[int, int]) -> Seen:
    """Return what is seen of `item` in a frame of `size` (w, h) when `others` stand there too."""
    part = overlap(item.sprite.box, (0, 0, *size))
    if part is None:
        return Seen(np.zeros((1, 1), bool), 0, 0, 0, 0.0)
    own = item.mask[inside(part, item.sprite.x, item.sprite.y)]
    seen = own.copy()
    for other in others:
        common = overlap(part, other.sprite.box) if other.z < item.z else None
        if common is not None:
            hidden = other.mask[inside(common, other.sprite.x, other.sprite.y)]
            seen[inside(common, part[0], part[1])] &= ~hidden
    whole, area = int(np.count_nonzero(own)), int(np.count_nonzero(seen))
    return Seen(seen, part[0], part[1], area, area / whole if whole else 0.0)


def scene_rng(seed: int, *path: str | int) -> np.random.Generator:
    """Return the generator of one image: the same for the same seed and path, on any machine."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in path]
    return np.random.default_rng([seed, *words])


# ---- rendering ----


def paint_shadows(image: Image, scene: Scene, items: list[Item]) -> None:
    """Darken the ground below the items: a soft spot at the foot, and a cast shadow in the sun."""
    height, width = image.shape[:2]
    size, light = (width // 2, height // 2), scene.light
    dark: Image = np.zeros(size[::-1], np.uint8)
    for item in [item for item in items if item.foot > 0.0]:
        scale = 0.5 * scene.camera.pixels_per_metre(item.z)
        x, y = 0.5 * scene.camera.project(item.x, 0.0, item.z)
        radii = (0.75 * item.foot * scale, min(0.2 * item.foot, 0.15) * scale)
        spot = ring((x, y), radii).clip(-4000, 4000)
        cv2.fillPoly(dark, [np.rint(spot * 16).astype(np.int32)], 120, cv2.LINE_AA, 4)
        if light.sun > 0.0:  # the item's own outline, laid on the ground away from the sun
            left, up, lean = item.sprite.x / 2 - x, item.sprite.y / 2 - y, -0.9 * light.side
            matrix = np.array([[1.0, -lean, left - lean * up + x], [0.0, 0.22, 0.22 * up + y]])
            cast = cv2.warpAffine(item.sprite.bgra[::2, ::2, 3], matrix, size)
            dark = cv2.max(dark, cv2.convertScaleAbs(cast, alpha=light.sun))
    dark = cv2.GaussianBlur(dark, (0, 0), 1.1 * height / 360)
    dark = cv2.min(cv2.resize(dark, (width, height)), scene.street.ground)
    image[:] = cv2.multiply(image, cv2.merge([255 - dark] * 3), scale=1 / 255)


def light_map(scene: Scene) -> NDArray[np.float32]:
    """Return the factor (h/4, w/4, 3) that lights the scene: ambient light, and lamps after
    dark.
    """
    camera, light = scene.camera, scene.light
    width, height = camera.width // 4, camera.height // 4
    factor = np.full((height, width, 3), light.ambient, np.float32)
    if not light.lamps:
        return factor
    # The shops light the pavement; each lamp has a pool on the ground and a bright head.
    spots = [(camera.centre, 0.4 * camera.height, 0.5 * camera.width, 1.0)]
    for item in scene.items:
        if item.name == "lamp_post":
            scale = camera.pixels_per_metre(item.z)
            x, y = camera.project(item.x, 0.0, item.z)
            heads = ((1.35, 3.0, 1.0), (4.3, 0.5, 2.0))
            spots += [(x, y - up * scale, radius * scale, bright) for up, radius, bright in heads]
    ys, xs = 4.0 * np.mgrid[0:height, 0:width].astype(np.float32)
    total = np.zeros((height, width), np.float32)
    for x, y, radius, strength in spots:
        total += strength * np.exp(-((xs - x) ** 2 + ((ys - y) / 0.8) ** 2) / radius**2)
    warm = np.array((0.36, 0.50, 0.62), np.float32) * (1.0 if light.strong else 0.5)
    return np.asarray(factor + np.minimum(total, 2.0)[:, :, None] * warm, np.float32)


def relight(image: Image, factor: NDArray[np.float32], glow: Image | None = None) -> Image:
    """Return `image` times the light map, plus emitted light with its halo."""
    height, width = image.shape[:2]
    lit = cv2.multiply(image, cv2.resize(factor, (width, height)), dtype=cv2.CV_8U)
    if glow is not None:
        halo = cv2.resize(glow, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
        halo = cv2.resize(cv2.GaussianBlur(halo, (0, 0), width / 80), (width, height))
        lit = cv2.add(cv2.add(lit, glow), cv2.convertScaleAbs(halo, alpha=0.5))
    return lit


def _rain(image: Image, rng: np.random.Generator) -> Image:
    """Return `image` behind streaks of rain."""
    height, width = image.shape[:2]
    scale, slant = height / 360.0, float(rng.uniform(-0.12, 0.12))
    layer: Image = np.zeros((height, width), np.uint8)
    for x, y, length, bright in rng.uniform((0, -40, 8, 40), (width, height, 26, 120), (190, 4)):
        end = (int(x + slant * length * scale), int(y + length * scale))
        cv2.line(layer, (int(x), int(y)), end, bright, max(int(round(scale)), 1), cv2.LINE_AA)
    layer = cv2.GaussianBlur(layer, (0, 0), 0.6 * scale)
    return cv2.add(image, cv2.cvtColor(layer, cv2.COLOR_GRAY2BGR))


def sense(image: Image, light: Light, rng: np.random.Generator) -> Image:
    """Return `image` (uint8 (H, W, 3)) as a small camera sees it: a soft lens, and noise."""
    height, width = image.shape[:2]
    if light.blur * height > 0.3 * 360.0:
        image = cv2.GaussianBlur(image, (0, 0), light.blur * height / 360.0)
    grain = rng.standard_normal((height, width, 1), np.float32)
    colour = rng.standard_normal((height // 2, width // 2, 3), np.float32)
    field = light.noise * (grain + 0.8 * cv2.resize(colour, (width, height)))
    return cv2.add(image, np.rint(field).astype(np.int16), dtype=cv2.CV_8U)


def render(scene: Scene, rng: np.random.Generator) -> Image:
    """Return the image of a scene, uint8 (H, W, 3) BGR; `rng` gives rain and noise."""
    light, image, glow = scene.light, scene.street.image.copy(), scene.street.glow.copy()
    paint_shadows(image, scene, scene.items)
    for item in sorted(scene.items, key=lambda item: -item.z):
        composite(image, item.sprite, glow)
    image = relight(image, light_map(scene), glow if light.lamps else None)
    return sense(_rain(image, rng) if light.rain else image, light, rng)


# ---- what stands where ----


@dataclass(frozen=True)
class Plan:
    """What one image shall show: one entry of `small` and `hidden` per person."""

    index: int
    time: str
    weather: str
    layout: str
    small: tuple[bool, ...]
    hidden: tuple[bool, ...]


def _spread(rng: np.random.Generator, options: dict[str, float], count: int) -> list[str]:
    """Return `count` options in their shares, shuffled."""
    places = (np.arange(count) + 0.5) / count * sum(options.values())
    picks = np.searchsorted(np.cumsum(list(options.values())), places)
    return [list(options)[k] for k in rng.permutation(picks)]


def plan_split(seed: int, split: str, count: int) -> list[Plan]:
    """Return the plans of a split, with the shares of `SMALL_SHARE` and so on met exactly."""
    rng = scene_rng(seed, "people", split, "plan")
    times, weathers, layouts = (_spread(rng, each, count) for each in (_TIMES, _WEATHERS, _LAYOUTS))
    empty = int(round(EMPTY_SHARE * count))
    people = rng.permutation([0] * empty + [2 + k % 6 for k in range(count - empty)])
    ends = np.cumsum(people)
    total = int(ends[-1])
    flags = [
        np.split(rng.permutation(np.arange(total) < round(share * total)), ends[:-1])
        for share in (SMALL_SHARE, HIDDEN_SHARE)
    ]
    small, hidden = ([tuple(part.tolist()) for part in parts] for parts in flags)
    return [
        Plan(*each)
        for each in zip(range(count), times, weathers, layouts, small, hidden, strict=True)
    ]


def empty_scene(
    rng: np.random.Generator,
    size: tuple[int, int],
    plan: tuple[str, str, str],
    *,
    pedestrian: bool = False,
    view: float = 1.0,
) -> Scene:
    """Return a scene without items, from a camera at or above eye height.

    `plan`: time, weather and layout. `view` widens the frame of `size` (width, height) sideways
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
    light = Light(rng, plan[0], plan[1])
    return Scene(build_street(rng, camera, light, plan[2], pedestrian=pedestrian), light)


def person_item(scene: Scene, looks: Looks, pose: Pose, x: float, z: float) -> Item:
    """Return a person who stands at (x, z)."""
    height = looks.height_m * scene.camera.pixels_per_metre(z)
    foot = scene.camera.project(x, 0.0, z)
    sprite = paint_person(looks, pose, height, (foot[0], foot[1]), scene.light.side)
    hazy = replace(sprite, bgra=scene.light.through_air(sprite.bgra, z))
    return Item("person", hazy, x, z, 0.26 * looks.height_m)


def thing_item(scene: Scene, rng: np.random.Generator, name: str, x: float, z: float) -> Item:
    """Return one of `street.THINGS` at (x, z); a "car" shows the side that the street asks for."""
    if name == "car":
        name = "car_end" if scene.street.layout == "along" else "car_side"
    sprite = paint_thing(rng, scene.camera, scene.light, name, x, z)
    return Item(name, sprite, x, z, THINGS[name].foot)


def is_free(scene: Scene, x: float, z: float, distance: float) -> bool:
    """Whether nothing stands within `distance` metres of (x, z), parked cars included.

    Nobody stands beside a car: the order of painting by depth would be wrong there.
    """
    for item in scene.items:
        wide, deep = _ROOM.get(item.name, (distance, distance))
        if abs(x - item.x) < wide and -min(distance, deep) < z - item.z < deep:
            return False
    return True


def furnish(scene: Scene, rng: np.random.Generator) -> None:
    """Put cars, lamps, trees and smaller things into a scene."""
    street, camera = scene.street, scene.camera
    lanes: list[float] = []
    if street.layout == "along":
        edges = street.road or (street.walls[0] + 0.55, street.walls[1] - 0.55)
        lanes = [edges[0] - 0.45, edges[1] + 0.45]
        cars = [
            (edge + inward, float(z))
            for edge, inward in zip(edges, (1.0, -1.0), strict=True)
            for z in np.arange(rng.uniform(6.0, 12.0), 26.0, rng.uniform(5.3, 9.0))
        ]
        rows = [(lane, float(z)) for lane in lanes for z in np.arange(rng.uniform(4.5, 8), 30, 9)]
    else:
        far = street.road[1] if street.road else street.walls[1]
        left, right = camera.across(0.0, far), camera.across(camera.width, far)
        cars = [(float(x), far - 1.85) for x in np.arange(left - rng.uniform(0, 5), right, 6.0)]
        rows = [(float(x), far + 0.4) for x in np.arange(left + rng.uniform(0, 5), right, 6.5)]
    places = [("car", *place) for place in cars if street.road and rng.random() < 0.42]
    places += [("lamp_post" if rng.random() < 0.55 else "tree", *place) for place in rows]
    scene.items += [thing_item(scene, rng, *place) for place in places]
    for _ in range(8 * int(rng.integers(3, 6))):
        z = float(np.exp(rng.uniform(np.log(4.2), np.log(16.0))))
        x = camera.across(rng.uniform(0.03, 0.97) * camera.width, z)
        if lanes and rng.random() < 0.6:
            x = float(rng.choice(lanes)) + rng.uniform(-0.3, 0.3)
        fits = street.walkable(x, z) and not street.on_road(x, z) and is_free(scene, x, z, 1.0)
        if fits and rng.random() < 0.3:
            scene.items.append(thing_item(scene, rng, choose(rng, _SMALL_THINGS), x, z))


class _Crowd:
    """Places people from near to far, so that a new one never hides an earlier one."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        self.scene, self.rng, self.people = scene, rng, list[Item]()
        self.size = (scene.camera.width, scene.camera.height)

    def column(self, z: float, spread: float) -> float:
        """Return a frame column at the edge of something nearer, or anywhere without such."""
        nearer = [item for item in self.scene.items if item.z < z - 0.2 and item.name != "tree"]
        # Mostly things hide people; now and then somebody who walks by.
        things = [item for item in nearer if item.name != "person"]
        choices = things if things and self.rng.random() < 0.75 else nearer
        if not choices:
            return float(self.rng.uniform(0.04, 0.96) * self.size[0])
        box = choices[int(self.rng.integers(len(choices)))].sprite.box
        return float(box[self.rng.choice((0, 2))] + self.rng.normal(0.0, spread))

    def place(self, looks: Looks, pose: Pose, pixels: float, hidden: bool) -> bool:
        """Place one person `pixels` tall; False when no place was found."""
        scene, camera = self.scene, self.scene.camera
        z = camera.depth_for(looks.height_m, pixels)
        middle = person_item(scene, looks, pose, 0.0, z)
        whole, low, high = np.count_nonzero(middle.mask), *(_HIDDEN if hidden else (0.88, 1.0))
        for _ in range(36):
            anywhere = float(self.rng.uniform(0.04, 0.96) * self.size[0])
            shift = round((self.column(z, 0.1 * pixels) if hidden else anywhere) - camera.centre)
            x = camera.across(camera.centre + shift, z)
            if not scene.street.walkable(x, z) or not is_free(scene, x, z, 0.55):
                continue
            sprite = replace(middle.sprite, x=middle.sprite.x + shift)
            item = Item("person", sprite, x, z, middle.foot)
            seen = visible_part(item, scene.items, self.size)
            enough = seen.area >= 1.6 * MIN_SEEN * (self.size[1] / 360.0) ** 2
            # Most of the body is in the frame.
            if enough and low <= seen.share <= high and seen.area >= 0.8 * whole * seen.share:
                scene.items.append(item)
                self.people.append(item)
                return True
        return False

    def cover(self) -> None:
        """Put something small right in front of the last person, where it hides nobody else."""
        person, rng = self.people[-1], self.rng

        def shares(items: list[Item]) -> NDArray[np.float64]:
            return np.array([visible_part(one, items, self.size).share for one in self.people])

        before = shares(self.scene.items)
        for _ in range(14):
            x, z = person.x + rng.uniform(-0.35, 0.35), person.z - rng.uniform(0.5, 1.2)
            if z < 2.6:
                continue
            item = thing_item(self.scene, rng, str(rng.choice(_COVERS)), x, z)
            after = shares([*self.scene.items, item])
            others = (before - after)[:-1].max(initial=0.0)
            if _HIDDEN[0] <= after[-1] <= _HIDDEN[1] and others < 0.04:
                self.scene.items.append(item)
                return


def compose(
    seed: int, split: str, plan: Plan, size: tuple[int, int]
) -> tuple[Scene, np.random.Generator]:
    """Return the scene of a plan, and the generator for what follows (rain, noise)."""
    rng = scene_rng(seed, "people", split, plan.index)
    scene = empty_scene(rng, size, (plan.time, plan.weather, plan.layout))
    furnish(scene, rng)
    crowd = _Crowd(scene, rng)
    wanted = []
    for small, hidden in zip(plan.small, plan.hidden, strict=True):
        logs = rng.uniform(*np.log((41.0, 45.5) if small else (80.0, 205.0)))
        pixels = float(np.exp(logs)) * size[1] / 360.0
        looks = random_looks(rng, cold=plan.weather == "rain" or rng.random() < 0.3)
        wanted.append((looks, random_pose(rng), pixels, hidden))
    # From near to far: a child is nearer than an adult of the same size in the image.
    for looks, pose, pixels, hidden in sorted(wanted, key=lambda one: one[0].height_m / one[2]):
        placed = crowd.place(looks, pose, pixels, hidden)
        if hidden and not placed and crowd.place(looks, pose, pixels, False):
            crowd.cover()
    return scene, rng

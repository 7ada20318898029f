"""Where things go: plans with exact shares of small and of hidden people, and how they are met."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np

from persondet.sample.furniture import FURNITURE
from persondet.sample.people import Looks, Pose, random_looks, random_pose
from persondet.sample.scenes import (
    Item,
    Scene,
    empty_scene,
    furniture_item,
    person_item,
    umbrella_item,
    visible_part,
)  # fmt: skip

SMALL_SHARE, HIDDEN_SHARE, EMPTY_SHARE = 0.18, 0.36, 0.06
"""Planned shares: people under 48 pixels, people hidden by a quarter or more, empty images."""

SMALL_HEIGHT = 48.0
"""A person is small below this height in pixels, in a frame 360 pixels tall."""

_HIDDEN = (0.6, 0.74)  # visible share of the people that are planned to be hidden

MIN_SEEN = 60.0
"""Visible pixels of the least visible person, in a frame 360 pixels tall."""

_TIMES = (("day", 0.50), ("overcast", 0.26), ("dusk", 0.14), ("night", 0.10))
_WEATHERS = (("clear", 0.76), ("rain", 0.14), ("fog", 0.10))


@dataclass(frozen=True)
class Plan:
    """What one image shall show: one entry of `small` and `hidden` per person."""

    index: int
    time: str
    weather: str
    layout: str
    small: tuple[bool, ...]
    hidden: tuple[bool, ...]


def scene_rng(seed: int, *path: str | int) -> np.random.Generator:
    """Return the generator of one image: the same for the same seed and path, on any machine."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in path]
    return np.random.default_rng([seed, *words])


def _spread(
    rng: np.random.Generator, options: tuple[tuple[str, float], ...], count: int
) -> list[str]:
    """Return `count` options in their shares, shuffled."""
    edges = np.cumsum([share for _, share in options])
    places = (np.arange(count) + 0.5) / count * edges[-1]
    names = [options[int(np.searchsorted(edges, place))][0] for place in places]
    return [names[k] for k in rng.permutation(count)]


def plan_split(seed: int, kind: str, split: str, count: int) -> list[Plan]:
    """Return the plans of a split, with the shares of `SMALL_SHARE` and so on met exactly."""
    rng = scene_rng(seed, kind, split, "plan")
    times, weathers = _spread(rng, _TIMES, count), _spread(rng, _WEATHERS, count)
    layouts = _spread(rng, (("along", 0.62), ("across", 0.38)), count)
    empty = int(round(EMPTY_SHARE * count)) if kind == "people" else 0
    people = np.array([0] * empty + [2 + k % 6 for k in range(count - empty)])
    people = people[rng.permutation(count)]
    total = int(people.sum())
    small = np.arange(total) < round(SMALL_SHARE * total)
    hidden = np.arange(total) < round(HIDDEN_SHARE * total)
    small, hidden = small[rng.permutation(total)], hidden[rng.permutation(total)]
    ends = np.cumsum(people)
    return [
        Plan(
            k, times[k], weathers[k], layouts[k],
            tuple(bool(v) for v in small[ends[k] - people[k] : ends[k]]),
            tuple(bool(v) for v in hidden[ends[k] - people[k] : ends[k]]),
        )
        for k in range(count)
    ]  # fmt: skip


def furnish(scene: Scene, rng: np.random.Generator, *, without: tuple[str, ...] = ()) -> None:
    """Put cars, lamps, trees and smaller furniture into a scene."""
    street, camera = scene.street, scene.camera
    if street.layout == "along":
        lanes = [street.walls[0] + 1.0, street.walls[1] - 1.0]
        if street.road is not None:
            lanes = [street.road[0] - 0.45, street.road[1] + 0.45]
        if street.road is not None and "car" not in without:
            for kerb, inward in ((street.road[0], 1.0), (street.road[1], -1.0)):
                z = rng.uniform(5.0, 12.0)
                while z < 26.0 and rng.random() < 0.62:
                    # The face towards the middle of the road; the body reaches to the kerb.
                    _add(
                        scene,
                        furniture_item(scene, rng, "car", kerb + inward * 1.9, z)
                        if kerb * inward < 0
                        else None,
                    )
                    z += rng.uniform(5.3, 9.0)
        start = rng.uniform(4.5, 8.0)
        for lane in lanes:
            for z in np.arange(start, 30.0, 9.0):
                name = "lamp_post" if rng.random() < 0.6 else "tree"
                _add(scene, furniture_item(scene, rng, name, lane, float(z)))
    else:
        lanes = []
        if street.road is not None:
            far = street.road[1]
            if "car" not in without:
                x = camera.across(0.0, far) - 2.0
                while x < camera.across(camera.width, far):
                    if rng.random() < 0.4:
                        _add(scene, furniture_item(scene, rng, "car", x, far - 1.85))
                    x += rng.uniform(5.0, 7.0)
            for x in np.arange(
                camera.across(0.0, far) + rng.uniform(0, 5), camera.across(camera.width, far), 6.5
            ):
                name = "lamp_post" if rng.random() < 0.5 else "tree"
                _add(scene, furniture_item(scene, rng, name, float(x), far + 0.4))
    names = [name for name in FURNITURE if name not in ("tree", *without)]
    weights = np.array([FURNITURE[name][1] for name in names])
    for _ in range(int(rng.integers(3, 6))):
        name = str(rng.choice(names, p=weights / weights.sum()))
        for _ in range(8):
            z = float(np.exp(rng.uniform(np.log(4.2), np.log(16.0))))
            x = camera.across(rng.uniform(0.03, 0.97) * camera.width, z)
            if lanes and rng.random() < 0.6:
                x = float(rng.choice(lanes)) + rng.uniform(-0.3, 0.3)
            if street.walkable(x, z) and not street.on_road(x, z) and is_free(scene, x, z, 1.0):
                _add(scene, furniture_item(scene, rng, name, x, z))
                break


def _add(scene: Scene, item: Item | None) -> None:
    if item is not None and item.mask.any():
        scene.items.append(item)


def is_free(scene: Scene, x: float, z: float, distance: float) -> bool:
    """Whether nothing stands within `distance` metres of (x, z), parked cars included."""
    for item in scene.items:
        if item.name == "umbrella":
            continue
        if item.name == "car":
            if scene.street.layout == "along":
                inner, outer = sorted((item.x, item.x + (1.9 if item.x > 0 else -1.9)))
                # Nobody walks beside a car on the side of the road: the order of painting
                # by depth alone would be wrong there.
                low, high = (inner - 2.2, outer + 0.3) if item.x > 0 else (inner - 0.3, outer + 2.2)
                if low < x < high and item.z - 0.4 < z < item.z + 5.0:
                    return False
            elif abs(x - item.x) < 2.9 and item.z - 0.4 < z < item.z + 2.2:
                return False
        elif np.hypot(item.x - x, item.z - z) < distance:
            return False
    return True


def _shifted(item: Item, x: float, z: float, dx: int, dy: int) -> Item:
    sprite = replace(item.sprite, x=item.sprite.x + dx, y=item.sprite.y + dy)
    return replace(item, sprite=sprite, x=x, z=z, depth=z if item.name != "umbrella" else z - 0.01)


class _Crowd:
    """Places people from near to far, so that a new one never hides an earlier one."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        self.scene, self.rng = scene, rng
        self.unit = scene.camera.height / 360.0
        self.people: list[Item] = []

    def column(self, hidden: bool, z: float, width: float) -> float:
        """Return a frame column to try: anywhere, or at the edge of something nearer."""
        camera, rng = self.scene.camera, self.rng
        nearer = [
            item
            for item in self.scene.items
            if item.depth < z - 0.2 and item.name not in ("umbrella", "tree")
        ]
        # Mostly things hide people; now and then somebody who walks by.
        things = [item for item in nearer if item.name != "person"]
        if things and rng.random() < 0.75:
            nearer = things
        if hidden and nearer:
            item = nearer[int(rng.integers(len(nearer)))]
            columns = np.flatnonzero(item.mask.any(axis=0))
            if len(columns):
                edge = item.sprite.x + columns[0 if rng.random() < 0.5 else -1]
                return float(edge + rng.normal(0.0, 0.35) * width)
        return float(rng.uniform(0.04, 0.96) * camera.width)

    def place(self, looks: Looks, pose: Pose, pixels: float, hidden: bool) -> bool:
        """Place one person `pixels` tall; False when no place was found."""
        scene, camera = self.scene, self.scene.camera
        z = camera.depth_for(looks.height_m, pixels)
        at = person_item(scene, looks, pose, 0.0, z)
        above = umbrella_item(scene, looks, pose, 0.0, z)
        whole = int(np.count_nonzero(at.mask))
        for attempt in range(36):
            column = self.column(hidden and attempt < 30, z, 0.3 * pixels)
            dx = int(round(column - camera.centre))
            x = camera.across(camera.centre + dx, z)
            if not scene.street.walkable(x, z) or not is_free(scene, x, z, 0.55):
                continue
            item = _shifted(at, x, z, dx, 0)
            # Their own umbrella can hide them too.
            umbrella = [_shifted(above, x, z, dx, 0)] if above is not None else []
            seen = visible_part(item, [*scene.items, *umbrella], camera.width, camera.height)
            if whole == 0 or seen.area < 1.6 * MIN_SEEN * self.unit**2:
                continue
            inside = seen.area / seen.share / whole
            good = _HIDDEN[0] <= seen.share <= _HIDDEN[1] if hidden else seen.share >= 0.88
            if good and inside >= 0.8:
                scene.items += [item, *umbrella]
                self.people.append(item)
                return True
        return False

    def cover(self, looks: Looks, pose: Pose, pixels: float) -> bool:
        """Place a person in the open, then something small right in front; False when it fails."""
        scene, camera, rng = self.scene, self.scene.camera, self.rng
        if not self.place(looks, pose, pixels, False):
            return False
        person = self.people[-1]
        others = [item for item in self.people if item is not person]
        before = [
            visible_part(item, scene.items, camera.width, camera.height).share for item in others
        ]
        for _ in range(14):
            name = str(
                rng.choice(
                    ("trash_can", "planter", "bollard", "poster_stand", "traffic_sign", "trash_can")
                )
            )
            z = person.z - rng.uniform(0.5, 1.2)
            if z < 2.6:
                continue
            item = furniture_item(scene, rng, name, person.x + rng.uniform(-0.35, 0.35), z)
            if item is None:
                continue
            items = [*scene.items, item]
            seen = visible_part(person, items, camera.width, camera.height)
            after = [
                visible_part(other, items, camera.width, camera.height).share for other in others
            ]
            if _HIDDEN[0] <= seen.share <= _HIDDEN[1] and all(
                b - a < 0.04 for a, b in zip(after, before, strict=True)
            ):
                scene.items.append(item)
                return True
        return True


def compose(
    seed: int, kind: str, split: str, plan: Plan, size: tuple[int, int]
) -> tuple[Scene, np.random.Generator]:
    """Return the scene of a plan, and the generator for what follows (rain, noise)."""
    rng = scene_rng(seed, kind, split, plan.index)
    scene = empty_scene(rng, size, plan.time, plan.weather, plan.layout)
    furnish(scene, rng)
    crowd = _Crowd(scene, rng)
    unit = size[1] / 360.0
    wanted: list[tuple[float, float, bool, Looks, Pose]] = []
    for small, hidden in zip(plan.small, plan.hidden, strict=True):
        low, high = (41.0, 45.5) if small else (80.0, 205.0)
        pixels = float(np.exp(rng.uniform(np.log(low), np.log(high)))) * unit
        looks = random_looks(rng, rain=plan.weather == "rain", cold=rng.random() < 0.3)
        z = scene.camera.depth_for(looks.height_m, pixels)
        wanted.append((z, pixels, hidden, looks, random_pose(rng, looks)))
    # From near to far: a child is nearer than an adult of the same size in the picture.
    for _, pixels, hidden, looks, pose in sorted(wanted, key=lambda one: one[0]):
        if not crowd.place(looks, pose, pixels, hidden) and hidden:
            crowd.cover(looks, pose, pixels)
    return scene, rng

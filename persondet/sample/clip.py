"""The sample's clip: a slow pan over a street where people walk, cross and hide each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persondet.files import write_text
from persondet.inference.masks import encode_region, mask_extent
from persondet.sample.paint import Image, composite
from persondet.sample.person import STRIDE, Looks, Pose, random_looks
from persondet.sample.scene import (
    MIN_SEEN,
    Item,
    Scene,
    Seen,
    empty_scene,
    furnish,
    light_map,
    paint_shadows,
    person_item,
    relight,
    scene_rng,
    sense,
    thing_item,
    visible_part,
)
from persondet.video.writer import VideoWriter

FPS = 25
_VIEW = 1.42  # width of the painted street over the width of the frame
_PAN_SECONDS = 10.4  # from the left end to the right; shorter clips see the middle of it


@dataclass(frozen=True)
class _Track:
    """One person's walk: start (metres), velocity (metres per second), looks and first phase."""

    looks: Looks
    start: NDArray[np.float64]
    velocity: NDArray[np.float64]
    phase: float
    arms: str

    def item(self, scene: Scene, seconds: float) -> Item | None:
        """Return the person at a moment, or None when they are too near to the camera."""
        x, z = self.start + self.velocity * seconds
        if z <= 1.8:
            return None
        # Steps follow the ground covered, so feet do not slide.
        walked = float(np.hypot(*self.velocity)) * seconds / (STRIDE * self.looks.height_m)
        heading = float(np.arctan2(self.velocity[1], self.velocity[0]))
        pose = Pose(heading, self.phase + 2.0 * np.pi * walked, 1.0, self.arms)
        return person_item(scene, self.looks, pose, float(x), float(z))


def _walk(rng: np.random.Generator, scene: Scene, looks: Looks, across: bool) -> _Track:
    """Return a proposal for a walk: across the view near the camera, or along the street."""
    camera = scene.camera
    pixels = float(np.exp(rng.uniform(*np.log((150.0, 330.0 if across else 260.0)))))
    z = camera.depth_for(looks.height_m, pixels * camera.height / 720.0)
    angle = float(
        rng.uniform(-0.08, 0.08) if across else rng.choice((-1, 1)) * rng.uniform(0.9, 1.45)
    )
    direction = np.array([np.cos(angle) * rng.choice((-1.0, 1.0)), np.sin(angle)])
    velocity = direction * rng.uniform(1.05, 1.45)
    # Somewhere in the clip each of them is well inside the panorama.
    x = camera.across(camera.width * float(rng.uniform(0.2, 0.8)), z)
    start = np.array([x, z]) - velocity * rng.uniform(0.1, 0.9) * _PAN_SECONDS
    arms = str(rng.choice(("swing", "swing", "swing", "phone", "pockets")))
    return _Track(looks, start, velocity, float(rng.uniform(0.0, 2.0 * np.pi)), arms)


def _plan_tracks(rng: np.random.Generator, scene: Scene, count: int = 11) -> list[_Track]:
    """Return `count` walks that keep clear of walls, things and each other."""
    camera = scene.camera
    times = np.linspace(0.0, _PAN_SECONDS, 40)[:, None]
    farthest = camera.depth_for(1.7, 34.0 * camera.height / 360.0)
    still = np.array([(item.x, item.z) for item in scene.items])
    tracks: list[_Track] = []
    paths: list[NDArray[np.float64]] = []
    while len(tracks) < count:
        looks = random_looks(rng)
        for _ in range(400):
            track = _walk(rng, scene, looks, len(tracks) % 5 < 2)
            path = track.start + times * track.velocity
            if path[:, 1].min() < 3.4 or path[:, 1].max() > farthest:
                continue
            column = camera.centre + camera.focal * path[:, 0] / path[:, 1]
            seen = (column > 0) & (column < camera.width)
            between_walls = all(scene.street.walkable(x, z) for x, z in path[seen])
            near = min((np.hypot(*(path - other).T).min() for other in paths), default=9.0)
            clear = np.hypot(*(path[:, None] - still).reshape(-1, 2).T).min()
            if between_walls and seen.mean() > 0.55 and near > 0.5 and clear > 0.6:
                break
        tracks.append(track)
        paths.append(path)
    return tracks


class _Panorama:
    """A painted street with its things, seen through a frame that moves by whole pixels."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        self.size = size
        plan = ("day", "clear", "along")
        self.scene = scene = empty_scene(rng, size, plan, pedestrian=True, view=_VIEW)
        furnish(scene, rng)
        # What hides people from near is placed by hand: it decides how hard they are to follow.
        scene.items = [item for item in scene.items if item.z > 9.0 or item.name == "tree"]
        near = scene.camera.depth_for(1.7, 330.0 * size[1] / 720.0)
        for column, name in ((0.36, "lamp_post"), (0.66, "traffic_sign"), (0.53, "planter")):
            x = scene.camera.across(column * scene.camera.width, near)
            scene.items.append(thing_item(scene, rng, name, x, near))
        self.ground = scene.street.image.copy()
        paint_shadows(self.ground, scene, scene.items)

    def frame(self, share: float) -> Scene:
        """Return the street and its things as seen at `share` (0..1) of the pan."""
        camera, street = self.scene.camera, self.scene.street
        ease = 0.5 - 0.42 * float(np.cos(np.pi * min(max(share, 0.0), 1.0)))
        left = round((camera.width - self.size[0]) * ease)
        part = slice(left, left + self.size[0])
        moved = replace(camera, width=self.size[0], centre=camera.centre - left)
        image, ground = self.ground[:, part].copy(), street.ground[:, part]
        items = [
            Item(item.name, replace(item.sprite, x=item.sprite.x - left), item.x, item.z, item.foot)
            for item in self.scene.items
        ]
        shown = replace(street, camera=moved, image=image, ground=np.ascontiguousarray(ground))
        return Scene(shown, self.scene.light, items)


def _frame(
    panorama: _Panorama, tracks: list[_Track], seconds: float
) -> tuple[Image, list[tuple[int, Seen]]]:
    """Return the frame at a moment without the sensor's noise, and what is seen of each track."""
    scene = panorama.frame(seconds / _PAN_SECONDS)
    walkers = [(k, track.item(scene, seconds)) for k, track in enumerate(tracks, 1)]
    people = [(k, item) for k, item in walkers if item is not None]
    image = scene.street.image
    paint_shadows(image, scene, [item for _, item in people])
    scene.items += [item for _, item in people]
    for item in sorted(scene.items, key=lambda item: -item.z):
        composite(image, item.sprite)
    seen = [(k, visible_part(item, scene.items, panorama.size)) for k, item in people]
    return relight(image, light_map(scene)), seen


def _record(number: int, seen: Seen, size: tuple[int, int]) -> dict[str, Any]:
    full = np.zeros(size[::-1], bool)
    full[seen.y : seen.y + seen.mask.shape[0], seen.x : seen.x + seen.mask.shape[1]] = seen.mask
    return {
        "track_id": number,
        "box": [float(value) for value in mask_extent(full)],
        "visible_share": round(seen.share, 4),
        "mask": encode_region(seen.mask, seen.x, seen.y, *full.shape),
    }


def write_clip(
    path: str | Path,
    groundtruth_path: str | Path,
    seed: int,
    *,
    frames: int = 260,
    size: tuple[int, int] = (1280, 720),
    progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, Any]:
    """Write the clip (H.264, 25 frames per second) and its ground truth, and return a summary.

    The ground truth is json: `version`, `fps`, `width`, `height`, `classes` and `frames`; each
    frame has its `index` and `people`: `track_id` (from 1), `box` of the visible part (XYXY
    pixels), `visible_share` and `mask` (COCO run lengths, compressed). A frame does not list
    people of whom less than a tenth or hardly a pixel is visible. `progress(done, total)` is
    called after each frame.
    """
    rng = scene_rng(seed, "city_walk")
    panorama = _Panorama(rng, size)
    tracks = _plan_tracks(rng, panorama.scene)
    records: list[dict[str, Any]] = []
    smallest = MIN_SEEN * (size[1] / 360.0) ** 2 / 4
    width, height = size
    with VideoWriter(
        Path(path), width=width, height=height, fps=Fraction(FPS), threads=1
    ) as writer:
        for index in range(frames):
            # A clip shorter than the pan shows the middle of it.
            seconds = 0.5 * (_PAN_SECONDS - frames / FPS) + index / FPS
            image, people = _frame(panorama, tracks, seconds)
            listed = [
                _record(number, seen, size)
                for number, seen in people
                if seen.area >= smallest and seen.share >= 0.1
            ]
            records.append({"index": index, "people": listed})
            writer.write(sense(image, panorama.scene.light, rng))
            if progress is not None:
                progress(index + 1, frames)
    head = {"version": 1, "fps": FPS, "width": width, "height": height, "classes": ["person"]}
    content = json.dumps({**head, "frames": records}, separators=(",", ":"))
    write_text(groundtruth_path, content + "\n")
    numbers = {person["track_id"] for record in records for person in record["people"]}
    return {"frames": frames, "fps": FPS, "people": len(numbers)}

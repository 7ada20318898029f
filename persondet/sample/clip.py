"""The sample's clip: a slow pan over a street where people walk, cross and hide each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from persondet.files import write_text
from persondet.inference.masks import encode_mask
from persondet.sample.paint import Image, Sprite, composite
from persondet.sample.people import STRIDE, Looks, Pose, random_looks
from persondet.sample.placement import MIN_SEEN, furnish, scene_rng
from persondet.sample.scenes import (
    Item,
    Scene,
    Seen,
    empty_scene,
    furniture_item,
    lamp_pools,
    paint_shadows,
    person_item,
    visible_part,
)  # fmt: skip
from persondet.sample.weather import Sensor, light_map, mirror_ground, relight
from persondet.video.writer import VideoWriter

FPS = 25
_VIEW = 1.42  # width of the painted street over the width of the frame
_PAN_SECONDS = 10.4  # from the left end to the right; shorter clips see the middle of it


@dataclass(frozen=True)
class Track:
    """One person's walk: start (metres), velocity (metres per second), looks and first phase."""

    looks: Looks
    start: tuple[float, float]
    velocity: tuple[float, float]
    phase: float
    arms: str

    def at(self, seconds: float) -> tuple[float, float, Pose]:
        """Return X, Z and the pose; steps follow the ground covered, so feet do not slide."""
        x = self.start[0] + self.velocity[0] * seconds
        z = self.start[1] + self.velocity[1] * seconds
        walked = float(np.hypot(*self.velocity)) * seconds
        phase = self.phase + 2.0 * np.pi * walked / (STRIDE * self.looks.height_m)
        heading = float(np.arctan2(self.velocity[1], self.velocity[0]))
        return x, z, Pose(heading, phase, 1.0, self.arms)


def _walk(rng: np.random.Generator, scene: Scene, looks: Looks, kind: str, seconds: float) -> Track:
    """Return one proposal for a walk: "across" the view near the camera, or "along" the street."""
    camera = scene.camera
    speed = float(rng.uniform(1.05, 1.45))
    pixels = np.exp(
        rng.uniform(np.log(150.0), np.log(330.0) if kind == "across" else np.log(260.0))
    )
    z = camera.depth_for(looks.height_m, float(pixels) * camera.height / 720.0)
    if kind == "across":
        direction = float(rng.choice((-1.0, 1.0)))
        velocity = (direction * speed, float(rng.uniform(-0.1, 0.1)))
    else:
        angle = float(rng.choice((-1.0, 1.0)) * rng.uniform(0.9, 1.45))
        velocity = (speed * np.cos(angle) * float(rng.choice((-1.0, 1.0))), speed * np.sin(angle))
    # Somewhere in the clip each of them is well inside the panorama.
    moment = float(rng.uniform(0.1, 0.9)) * seconds
    x = camera.across(camera.width * float(rng.uniform(0.2, 0.8)), z)
    start = (float(x - velocity[0] * moment), float(z - velocity[1] * moment))
    arms = str(rng.choice(("swing", "swing", "swing", "phone", "pockets")))
    return Track(looks, start, velocity, float(rng.uniform(0.0, 2.0 * np.pi)), arms)


def plan_tracks(
    rng: np.random.Generator, scene: Scene, seconds: float, count: int = 11
) -> list[Track]:
    """Return `count` walks that keep clear of walls, furniture and each other."""
    camera = scene.camera
    times = np.linspace(0.0, seconds, 40)
    tracks: list[Track] = []
    paths: list[NDArray[np.float64]] = []
    still = np.array([(item.x, item.z) for item in scene.items])
    for k in range(count):
        looks = random_looks(rng)
        for attempt in range(400):
            track = _walk(rng, scene, looks, "across" if k % 5 < 2 else "along", seconds)
            path = np.array(track.start) + times[:, None] * np.array(track.velocity)
            if path[:, 1].min() < 3.4 or path[:, 1].max() > camera.depth_for(
                1.7, 34.0 * camera.height / 360.0
            ):
                continue
            column = camera.centre + camera.focal * path[:, 0] / path[:, 1]
            inside = (column > 0) & (column < camera.width)
            walls = [scene.street.walkable(x, z) for x, z in path[inside]]
            near = min((float(np.hypot(*(path - other).T).min()) for other in paths), default=9.0)
            clear = float(np.hypot(*(path[:, None] - still[None]).reshape(-1, 2).T).min())
            if (
                all(walls) and inside.mean() > 0.55 and near > 0.5 and clear > 0.6
            ) or attempt == 399:
                tracks.append(track)
                paths.append(path)
                break
    return tracks


class _Panorama:
    """The painted street, seen through a frame that moves by fractions of a pixel."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        self.size = size
        self.scene = empty_scene(rng, size, "day", "clear", "along", pedestrian=True, view=_VIEW)
        furnish(self.scene, rng, without=("car",))
        camera = self.scene.camera
        near = camera.depth_for(1.7, 330.0 * size[1] / 720.0)
        for column, name in ((0.36, "lamp_post"), (0.66, "traffic_sign"), (0.53, "planter")):
            item = furniture_item(
                self.scene, rng, name, camera.across(column * camera.width, near), near
            )
            if item is not None:
                self.scene.items.append(item)
        self.factor = light_map(
            self.scene.light, (camera.width, camera.height), lamp_pools(self.scene)
        )
        self.ground = self.scene.street.image.copy()
        if self.scene.light.wet:
            mirror_ground(self.ground, self.scene.street.glow, camera.horizon, 0.4)
        paint_shadows(self.ground, self.scene, self.scene.items)

    def offset(self, share: float) -> float:
        """Return the left edge of the frame at `share` (0..1) of the pan, in panorama pixels."""
        slack = self.scene.camera.width - self.size[0]
        return slack * (0.5 - 0.42 * float(np.cos(np.pi * min(max(share, 0.0), 1.0))))

    def window(self, picture: Image, offset: float) -> Image:
        """Return the frame's part of a panorama."""
        matrix = np.array([[1.0, 0.0, -offset], [0.0, 1.0, 0.0]])
        return cv2.warpAffine(
            picture, matrix, self.size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )

    def frame_scene(self, offset: float) -> Scene:
        """Return the scene seen by the frame's own camera, without items."""
        camera = replace(
            self.scene.camera, width=self.size[0], centre=self.scene.camera.centre - offset
        )
        ground = self.window(self.scene.street.ground, offset)
        street = replace(self.scene.street, camera=camera, ground=ground)
        return Scene(street, self.scene.light)

    def still_items(self, offset: float) -> list[Item]:
        """Return the furniture, moved by the pan."""
        whole = int(np.floor(-offset))
        part = -offset - whole
        matrix = np.array([[1.0, 0.0, part], [0.0, 1.0, 0.0]])
        moved = []
        for item in self.scene.items:
            x0, y0, x1, y1 = item.sprite.box
            if x1 + whole < 0 or x0 + whole > self.size[0]:
                continue
            pixels = cv2.warpAffine(
                item.sprite.bgra, matrix, (x1 - x0 + 1, y1 - y0), flags=cv2.INTER_LINEAR
            )
            moved.append(
                replace(item, sprite=Sprite(pixels, x0 + whole, y0), mask=pixels[:, :, 3] > 127)
            )
        return moved


def _record(number: int, item: Item, seen: Seen, size: tuple[int, int]) -> dict[str, Any]:
    width, height = size
    rows, columns = np.flatnonzero(seen.mask.any(axis=1)), np.flatnonzero(seen.mask.any(axis=0))
    box = [seen.x + columns[0], seen.y + rows[0], seen.x + columns[-1] + 1, seen.y + rows[-1] + 1]
    full = np.zeros((height, width), bool)
    full[seen.y : seen.y + seen.mask.shape[0], seen.x : seen.x + seen.mask.shape[1]] = seen.mask
    return {
        "track_id": number,
        "box": [float(value) for value in box],
        "visible_share": round(seen.share, 4),
        "mask": encode_mask(full, np.array(box)),
    }


def write_clip(
    path: str | Path,
    groundtruth_path: str | Path,
    seed: int,
    *,
    frames: int = 260,
    size: tuple[int, int] = (1280, 720),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the clip (H.264, 25 frames per second) and its ground truth, and return a summary.

    The ground truth is json: `version`, `fps`, `width`, `height`, `classes` and `frames`; each
    frame has its `index` and `people`: `track_id` (from 1), `box` of the visible part (XYXY
    pixels), `visible_share` and `mask` (COCO run lengths, compressed). A person of whom less
    than a tenth or hardly a pixel is visible is not listed in that frame.
    """
    rng = scene_rng(seed, "city_walk")
    panorama = _Panorama(rng, size)
    tracks = plan_tracks(rng, panorama.scene, _PAN_SECONDS)
    # A clip shorter than the pan shows the middle of it.
    first = 0.5 * (_PAN_SECONDS - frames / FPS)
    lens = Sensor(rng, size, panorama.scene.light, fields=6)
    records: list[dict[str, Any]] = []
    smallest = MIN_SEEN * (size[1] / 360.0) ** 2 / 4
    with VideoWriter(
        Path(path), width=size[0], height=size[1], fps=Fraction(FPS), threads=1
    ) as writer:
        for index in range(frames):
            seconds = first + index / FPS
            offset = panorama.offset(seconds / _PAN_SECONDS)
            image, people = _frame(panorama, tracks, offset, seconds)
            listed = []
            for number, item, seen in people:
                if seen.area >= smallest and seen.share >= 0.1:
                    listed.append(_record(number, item, seen, size))
            records.append({"index": index, "people": listed})
            writer.write(lens(image, rng))
            if progress is not None:
                progress(index + 1, frames)
    content = {
        "version": 1, "fps": FPS, "width": size[0], "height": size[1], "classes": ["person"], "frames": records,
    }  # fmt: skip
    write_text(groundtruth_path, json.dumps(content, separators=(",", ":")) + "\n")
    seen_tracks = {person["track_id"] for record in records for person in record["people"]}
    return {"frames": frames, "fps": FPS, "people": len(seen_tracks)}


def _frame(
    panorama: _Panorama, tracks: list[Track], offset: float, seconds: float
) -> tuple[Image, list[tuple[int, Item, Seen]]]:
    scene = panorama.frame_scene(offset)
    people: list[tuple[int, Item]] = []
    for number, track in enumerate(tracks, 1):
        x, z, pose = track.at(seconds)
        if z > 1.8:
            people.append((number, person_item(scene, track.looks, pose, x, z)))
    still = panorama.still_items(offset)
    scene.items = [*still, *(item for _, item in people)]
    image = panorama.window(panorama.ground, offset)
    paint_shadows(image, scene, [item for _, item in people])
    for item in sorted(scene.items, key=lambda item: -item.depth):
        composite(image, item.sprite)
    factor = panorama.factor
    low = int(round(offset / 4))
    image = relight(image, factor[:, low : low + panorama.size[0] // 4], None)
    seen = [
        (number, item, visible_part(item, scene.items, *panorama.size)) for number, item in people
    ]
    return image, [entry for entry in seen if entry[2].area > 0]

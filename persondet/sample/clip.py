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
from pycocotools import mask as coco_mask

from persondet.files import write_text
from persondet.sample.paint import Image, Sprite, composite
from persondet.sample.people import STRIDE, Looks, Pose, random_looks
from persondet.sample.placement import MIN_SEEN, furnish, scene_rng
from persondet.sample.scenes import (
    Item, Scene, Seen, empty_scene, furniture_item, lamp_pools, make_item, paint_shadows, person_item, visible_part,
)  # fmt: skip
from persondet.sample.weather import light_map, mirror_ground, relight, sensor
from persondet.video.io import VideoWriter

FPS = 25
_VIEW = 1.42  # width of the painted street over the width of the frame


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


def plan_tracks(rng: np.random.Generator, scene: Scene, seconds: float) -> list[Track]:
    """Return nine walks: across the view in both directions, and along it."""
    camera = scene.camera
    tracks = []
    depths = (4.6, 6.0, 5.2, 7.6, 9.5, 6.8, 11.5, 8.4, 13.5)
    unit = camera.focal / (camera.height / 360.0) / 450.0  # so that sizes follow the frame
    for k, base in enumerate(depths):
        looks = random_looks(rng)
        z = base * unit * rng.uniform(0.95, 1.06)
        speed = rng.uniform(1.0, 1.45)
        arms = str(rng.choice(("swing", "swing", "swing", "phone", "pockets")))
        if k in (4, 6, 8):  # towards the camera or away from it
            column = camera.width * rng.uniform(0.3, 0.7)
            away = k == 6
            z = z if away else z + 1.5
            vx, vz = rng.uniform(-0.25, 0.25), speed * (0.6 if away else -0.5)
            x = camera.across(column, z + 0.5 * seconds * vz) - 0.5 * seconds * vx
        else:
            direction = 1.0 if k % 2 == 0 else -1.0
            # In the middle of the clip they pass the middle of the street, one after the other.
            meet = camera.across(camera.width * (0.5 + 0.07 * (k - 3.5)), z)
            vx, vz = direction * speed * float(np.clip(z / (6.0 * unit), 0.75, 1.3)), rng.uniform(-0.08, 0.08)
            x = meet - vx * seconds * rng.uniform(0.4, 0.6)
        tracks.append(Track(looks, (float(x), float(z)), (float(vx), float(vz)), float(rng.uniform(0, 6.28)), arms))
    return tracks


class _Panorama:
    """The painted street, seen through a frame that moves by fractions of a pixel."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        self.size = size
        self.scene = empty_scene(rng, size, "day", "clear", "along", view=_VIEW)
        furnish(self.scene, rng, without=("car",))
        camera = self.scene.camera
        near = camera.depth_for(1.7, 330.0 * size[1] / 720.0)
        for column, name in ((0.36, "lamp_post"), (0.66, "traffic_sign"), (0.52, "trash_can")):
            item = furniture_item(self.scene, rng, name, camera.across(column * camera.width, near), near)
            if item is not None:
                self.scene.items.append(item)
        self.factor = light_map(self.scene.light, (camera.width, camera.height), lamp_pools(self.scene))
        self.ground = self.scene.street.image.copy()
        if self.scene.light.wet:
            mirror_ground(self.ground, self.scene.street.glow, camera.horizon, 0.4)
        still = [item for item in self.scene.items]
        paint_shadows(self.ground, self.scene, still)

    def offset(self, share: float) -> float:
        """Return the left edge of the frame at `share` (0..1) of the clip, in panorama pixels."""
        slack = self.scene.camera.width - self.size[0]
        return slack * (0.5 - 0.42 * np.cos(np.pi * share))

    def window(self, picture: Image, offset: float) -> Image:
        """Return the frame's part of a panorama."""
        matrix = np.array([[1.0, 0.0, -offset], [0.0, 1.0, 0.0]])
        return cv2.warpAffine(picture, matrix, self.size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def frame_scene(self, offset: float) -> Scene:
        """Return the scene seen by the frame's own camera, without items."""
        camera = replace(self.scene.camera, width=self.size[0], centre=self.scene.camera.centre - offset)
        street = replace(self.scene.street, camera=camera)
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
            pixels = cv2.warpAffine(item.sprite.bgra, matrix, (x1 - x0 + 1, y1 - y0), flags=cv2.INTER_LINEAR)
            moved.append(replace(item, sprite=Sprite(pixels, x0 + whole, y0), mask=pixels[:, :, 3] > 127))
        return moved


def _record(number: int, item: Item, seen: Seen, size: tuple[int, int]) -> dict[str, Any]:
    width, height = size
    rows, columns = np.flatnonzero(seen.mask.any(axis=1)), np.flatnonzero(seen.mask.any(axis=0))
    box = [seen.x + columns[0], seen.y + rows[0], seen.x + columns[-1] + 1, seen.y + rows[-1] + 1]
    full = np.zeros((height, width), np.uint8, order="F")
    full[seen.y : seen.y + seen.mask.shape[0], seen.x : seen.x + seen.mask.shape[1]] = seen.mask
    rle = coco_mask.encode(full)
    return {
        "track_id": number,
        "box": [float(value) for value in box],
        "visible_share": round(seen.share, 4),
        "mask": {"size": [height, width], "counts": rle["counts"].decode("ascii")},
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
    tracks = plan_tracks(rng, panorama.scene, frames / FPS)
    records: list[dict[str, Any]] = []
    smallest = MIN_SEEN * (size[1] / 360.0) ** 2 / 4
    with VideoWriter(Path(path), width=size[0], height=size[1], fps=Fraction(FPS)) as writer:
        for index in range(frames):
            offset = float(panorama.offset(index / max(frames - 1, 1)))
            image, people = _frame(panorama, tracks, offset, index / FPS)
            listed = []
            for number, item, seen in people:
                if seen.area >= smallest and seen.share >= 0.1:
                    listed.append(_record(number, item, seen, size))
            records.append({"index": index, "people": listed})
            writer.write(sensor(image, scene_rng(seed, "city_walk", "frame", index), panorama.scene.light))
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
    seen = [(number, item, visible_part(item, scene.items, *panorama.size)) for number, item in people]
    return image, [entry for entry in seen if entry[2].area > 0]


_ = (NDArray, make_item)

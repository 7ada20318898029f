"""The sample's clip: a slow pan over a street where people walk, cross and hide each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persondet.files import write_text
from persondet.inference.masks import encode_region, mask_extent
from persondet.sample.paint import Image
from persondet.sample.person import STRIDE, Looks, Pose, random_looks, random_pose
from persondet.sample.scene import (
    MIN_SEEN,
    Item,
    Scene,
    empty_scene,
    furnish,
    person_item,
    render,
    scene_rng,
    thing_item,
    visible_part,
)
from persondet.video.writer import VideoWriter

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""`map`, or another that gives the results in order."""
FPS = 25
_BLOCK = 64  # frames that are drawn before the next ones are begun: they fill the memory
_VIEW = 1.42  # width of the painted street over the width of the frame
_STILL = 0.5  # where a frame that does not pan stands
_AWAY = (3.0, 10.0)  # seconds for which people who leave are away
_PAN_SECONDS = 10.4  # from the left end to the right; shorter clips see the middle of it


@dataclass(frozen=True)
class _Track:
    """One person's walk: looks, start (metres), velocity (metres per second) and first pose.

    turn: when the person turns round and walks back, seconds.
    """

    looks: Looks
    start: NDArray[np.float64]
    velocity: NDArray[np.float64]
    pose: Pose
    turn: float = np.inf

    def item(self, scene: Scene, left: int, right: int, seconds: float) -> Item | None:
        """Return the person at a moment, or None when they are not between two columns."""
        turned = seconds > self.turn
        x, z = self.start + self.velocity * (2.0 * self.turn - seconds if turned else seconds)
        edges = scene.camera.across(left, z) - 1.0, scene.camera.across(right, z) + 1.0
        if z <= 1.8 or not edges[0] < x < edges[1]:
            return None
        # Steps follow the ground covered, so feet do not slide.
        walked = float(np.hypot(*self.velocity)) * seconds / (STRIDE * self.looks.height_m)
        pose = replace(
            self.pose,
            phase=self.pose.phase + 2.0 * np.pi * walked,
            heading=self.pose.heading + np.pi * turned,
        )
        return person_item(scene, self.looks, pose, float(x), float(z))


def _propose_track(rng: np.random.Generator, scene: Scene, looks: Looks, across: bool) -> _Track:
    """Return a walk across the view near the camera, or along the street."""
    camera = scene.camera
    pixels = float(np.exp(rng.uniform(*np.log((150.0, 330.0 if across else 260.0)))))
    z = camera.depth_for(looks.height_m, pixels * camera.height / 720.0)
    angle = rng.choice((-1, 1)) * (rng.uniform(0.0, 0.08) if across else rng.uniform(0.9, 1.45))
    direction = np.array([np.cos(angle) * rng.choice((-1.0, 1.0)), np.sin(angle)])
    # Somewhere in the clip each of them is well inside the panorama.
    x, velocity = camera.across(camera.width * rng.uniform(0.2, 0.8), z), rng.uniform(1.05, 1.45)
    start = np.array([x, z]) - direction * velocity * rng.uniform(0.1, 0.9) * _PAN_SECONDS
    heading = float(np.arctan2(direction[1], direction[0]))
    pose = replace(random_pose(rng), heading=heading, gait=1.0)
    return _Track(looks, start, direction * velocity, pose)


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
            track = _propose_track(rng, scene, looks, len(tracks) % 5 < 2)
            path = track.start + times * track.velocity
            if path[:, 1].min() < 3.4 or path[:, 1].max() > farthest:
                continue
            column = camera.centre + camera.focal * path[:, 0] / path[:, 1]
            seen = (column > 0) & (column < camera.width)
            between_walls = np.all(scene.street.walkable(*path[seen].T))
            near = min((np.hypot(*(path - other).T).min() for other in paths), default=9.0)
            clear = np.hypot(*(path[:, None] - still).reshape(-1, 2).T).min()
            if between_walls and seen.mean() > 0.55 and near > 0.5 and clear > 0.6:
                break
        tracks.append(track)
        paths.append(path)
    return tracks


def _plan_absences(
    rng: np.random.Generator, scene: Scene, size: tuple[int, int], count: int = 8
) -> list[_Track]:
    """Return walks out of a frame that stands still, each at a depth of its own, and back."""
    camera, width = scene.camera, size[0]
    left = round((camera.width - width) * _STILL)
    tracks = []
    for pixels in np.exp(rng.permutation(np.linspace(np.log(90.0), np.log(300.0), count))):
        looks, side = random_looks(rng), int(rng.choice((-1, 1)))
        z = camera.depth_for(looks.height_m, pixels * camera.height / 720.0)
        speed, leaves, away = rng.uniform(1.05, 1.45), rng.uniform(2.0, 7.0), rng.uniform(*_AWAY)
        edge = camera.across(left + width * (side > 0), z) + 0.6 * side
        start = np.array([edge - side * speed * leaves, z])
        pose = replace(random_pose(rng), heading=np.pi * (side < 0), gait=1.0)
        velocity = np.array([side * speed, 0.0])
        tracks.append(_Track(looks, start, velocity, pose, leaves + 0.5 * away))
    return tracks


@dataclass
class _Walk:
    """A painted street with its things and walkers, seen through a frame that pans over it."""

    scene: Scene
    tracks: list[_Track]
    size: tuple[int, int]
    seed: int
    still: bool = False

    def frame(self, seconds: float) -> tuple[Image, list[dict[str, Any]]]:
        """Return the frame at a moment, and the people in its ground truth."""
        width, height = self.size
        # The frame moves by whole pixels.
        pan = -0.42 * float(np.cos(np.pi * seconds / _PAN_SECONDS))
        share = _STILL if self.still else 0.5 + pan
        left = round((self.scene.camera.width - width) * share)
        seen_by = (self.scene, left, left + width)
        walkers = {k: track.item(*seen_by, seconds) for k, track in enumerate(self.tracks, 1)}
        standing = [item for item in walkers.values() if item is not None]
        scene = replace(self.scene, items=[*self.scene.items, *standing])
        people = []
        for number, item in walkers.items():
            seen = item and visible_part(item, scene.items, (left, 0, left + width, height))
            if seen and seen.area >= MIN_SEEN * (height / 720.0) ** 2 and seen.share >= 0.1:
                x, y = seen.x - left, seen.y
                box = np.array(mask_extent(seen.mask)) + [x, y, x, y]
                people.append(
                    {
                        "track_id": number,
                        "box": box.astype(float).tolist(),
                        "visible_share": round(seen.share, 4),
                        "mask": encode_region(seen.mask, x, y, height, width),
                    }
                )
        rng = scene_rng(self.seed, "city_walk", round(1000 * seconds))
        return render(scene, rng)[:, left : left + width], people


def _plan_walk(seed: int, size: tuple[int, int], absences: bool) -> _Walk:
    rng = scene_rng(seed, "city_walk")
    scene = empty_scene(rng, size, ("day", "clear", "mall"), _VIEW)
    furnish(scene, rng)
    # What hides people from near is placed by hand: it decides how hard they are to follow.
    scene.items = [item for item in scene.items if item.z > 9.0 or item.name == "tree"]
    near = scene.camera.depth_for(1.7, 330.0 * size[1] / 720.0)
    for column, name in ((0.36, "lamp_post"), (0.66, "traffic_sign"), (0.53, "planter")):
        x = scene.camera.across(column * scene.camera.width, near)
        scene.items.append(thing_item(scene, rng, name, x, near))
    plan = _plan_absences(rng, scene, size) if absences else _plan_tracks(rng, scene)
    return _Walk(scene, plan, size, seed, absences)


def write_clip(
    path: str | Path,
    groundtruth_path: str | Path,
    seed: int,
    *,
    frames: int = 260,
    size: tuple[int, int] = (1280, 720),
    fps: int = FPS,
    absences: bool = False,
    run: Map = map,
) -> dict[str, Any]:
    """Write the clip (H.264) and its ground truth, and return a summary.

    The ground truth is json: `version`, `fps`, `width`, `height`, `classes` and `frames`; each
    frame has its `index` and `people`: `track_id` (from 1), `box` of the visible part (XYXY
    pixels), `visible_share` and `mask` (COCO run lengths, compressed). A frame does not list
    people of whom less than a tenth or hardly a pixel is visible. `run` maps a function over the
    moments of the frames, in order. With `absences`, the frame does not pan, and each person leaves
    it at its side and comes back after 3 to 10 seconds; 20 seconds show that of all.
    """
    walk = _plan_walk(seed, size, absences)
    # A clip shorter than the pan shows the middle of it.
    first_moment = 0.0 if absences else 0.5 * (_PAN_SECONDS - frames / fps)
    moments = first_moment + np.arange(frames) / fps
    records: list[dict[str, Any]] = []
    width, height = size
    rate = Fraction(fps)
    with VideoWriter(Path(path), width=width, height=height, fps=rate, threads=1) as writer:
        for first in range(0, frames, _BLOCK):
            for image, people in run(walk.frame, moments[first : first + _BLOCK].tolist()):
                records.append({"index": len(records), "people": people})
                writer.write(image)
    head = {"version": 1, "fps": fps, "width": width, "height": height, "classes": ["person"]}
    content = json.dumps({**head, "frames": records}, separators=(",", ":"))
    write_text(groundtruth_path, content + "\n")
    numbers = {person["track_id"] for record in records for person in record["people"]}
    return {"frames": frames, "fps": fps, "people": len(numbers)}

"""Counting at lines and in zones, on three drawn streets where it is known who went where.

A walker's way is a row of places (second, column of the feet, height in pixels), with straight ways
at constant speed between them. The camera stands still, so a height is a depth, and the feet lie in
the row of that depth.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from bm_pairs import Progress, Row, in_own_process, memory_mb

from persondet.analysis.clip import ClipAnalysis, analyze_clip
from persondet.inference.masks import encode_region, mask_extent
from persondet.records import FrameRecord, PersonRecord, RecordsHeader, RecordsWriter
from persondet.sample.person import STRIDE, Pose, random_looks
from persondet.sample.scene import (
    Item,
    Scene,
    empty_scene,
    person_item,
    render,
    scene_rng,
    thing_item,
    visible_part,
)
from persondet.video.writer import VideoWriter

SIZE = (1280, 720)
_TALL = 1.7  # metres of every walker, so that a height in pixels is a depth
Way = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Street:
    """What happens in one clip.

    ways: of the walkers. things: (name, column, height in pixels of somebody beside it). lines,
    zones: points as (column, height). counts: (in, out) of each line, as a person would count.
    """

    name: str
    seconds: float
    ways: tuple[Way, ...]
    lines: dict[str, list[tuple[float, float]]]
    counts: dict[str, tuple[int, int]]
    zones: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    things: tuple[tuple[str, float, float], ...] = ()


STREETS = (
    Street(
        "gate",  # turning back, coming in from the side
        10.0,
        (
            ((0, -150, 300), (7, 1300, 300)),
            ((1.5, 1400, 250), (9.5, 150, 250)),
            ((0, 150, 210), (4.8, 622, 210), (9.5, 150, 210)),  # turns back before the line
            ((0, 1000, 230), (2.4, 630, 230), (6, 1150, 230)),  # turns back on the line
            ((4, -100, 330), (10, 1150, 330)),
            ((0, 450, 190), (0.8, 610, 190), (1.6, 660, 190), (6, 1200, 190)),
        ),
        {"gate": [(640, 20), (640, 400)]},
        {"gate": (1, 3)},
        {"left": [(100, 180), (540, 180), (540, 350), (100, 350)]},
    ),
    Street(
        "threshold",  # standing on the line, hidden at the line
        9.0,
        (
            ((0, 300, 300), (2, 600, 300), (6, 606, 300), (9, 1050, 300)),  # stands, goes on
            ((0, 1000, 240), (2, 606, 240), (5, 598, 240), (9, 1100, 240)),  # stands, goes back
            ((0, 100, 200), (7, 1150, 200)),  # hidden by the planter
            ((1, 1150, 190), (8.5, 150, 190)),
            ((0, 1250, 330), (6.5, 100, 330)),
        ),
        {"step": [(600, 20), (600, 400)]},
        {"step": (2, 2)},
        {"waiting": [(500, 260), (720, 260), (720, 340), (500, 340)]},
        (("planter", 600, 262),),
    ),
    Street(
        "crossing",  # towards the camera and away, from the sides, over a bent line
        8.0,
        (
            ((0, 500, 150), (8, 380, 330)),
            ((0, 800, 320), (8, 700, 150)),
            ((0, -100, 200), (3, 300, 200), (8, 560, 330)),
            ((0, 1380, 310), (4, 900, 310), (8, 1000, 160)),
            ((0, 1000, 150), (4, 1060, 205), (8, 1000, 150)),  # turns back before the line
            ((1, 200, 320), (8, 130, 160)),
        ),
        {"kerb": [(40, 235), (640, 225), (1240, 235)]},
        {"kerb": (2, 3)},
        {"far side": [(200, 150), (1000, 150), (1000, 210), (200, 210)]},
    ),
)
RATE = Fraction(15)
SEEDS = (31, 51, 52, 53)  # of the looks; with all but the first, walkers come up to _LATE later
_LATE = 2.0  # seconds
_FRAMES, _CROWD = 90_000, 20  # of a long clip: an hour


@dataclass(frozen=True)
class Drawn:
    """A street that can be drawn: its scene, and its walkers' looks."""

    street: Street
    scene: Scene
    looks: tuple[Any, ...]

    def row(self, pixels: Any) -> Any:
        """Return in which row the feet of somebody of that height are."""
        return self.scene.camera.horizon + self.scene.camera.eye * pixels / _TALL

    def points(self, places: Sequence[tuple[float, float]]) -> list[list[float]]:
        """Return (column, height) as (x, y), pixels."""
        return [[float(x), min(float(self.row(h)), SIZE[1] - 1.0)] for x, h in places]

    def place(self, way: Way, seconds: Any) -> tuple[Any, Any]:
        """Return the column and the height at a moment; NaN before and after the way."""
        t, x, h = np.array(way, float).T
        outside = {"left": np.nan, "right": np.nan}
        return np.interp(seconds, t, x, **outside), np.interp(seconds, t, h, **outside)

    def people(self, seconds: float) -> dict[int, tuple[Item, float, float]]:
        """Return the walkers who are there: number → item, column, height."""
        camera, found = self.scene.camera, {}
        for number, way in enumerate(self.street.ways):
            x, h = (float(v) for v in self.place(way, seconds))
            if np.isnan(x):
                continue
            z = camera.depth_for(_TALL, h)
            before, after = (self._ground(way, s) for s in (seconds - 0.05, seconds + 0.05))
            steps = np.array([self._ground(way, s) for s in np.arange(way[0][0], seconds, 0.05)])
            walked = np.hypot(*np.diff(steps.reshape(-1, 2), axis=0).T).sum()
            dx, dz = np.nan_to_num(np.subtract(after, before))
            speed = np.hypot(dx, dz) / 0.1
            pose = Pose(
                float(np.arctan2(dz, dx)) if speed > 0.05 else 0.0,
                2 * np.pi * float(walked) / (STRIDE * _TALL),
                gait=float(min(1.0, speed)),
            )
            looks = self.looks[number]
            item = person_item(self.scene, looks, pose, camera.across(x, z), z)
            found[number + 1] = (item, x, h)
        return found

    def _ground(self, way: Way, seconds: float) -> tuple[float, float]:
        x, h = (float(v) for v in self.place(way, seconds))
        z = self.scene.camera.depth_for(_TALL, h)
        return self.scene.camera.across(x, z), z

    def image(self, seconds: float) -> np.ndarray:
        """Return the frame at a moment, uint8, (H, W, 3), BGR."""
        items = [item for item, _, _ in self.people(seconds).values()]
        scene = Scene(self.scene.street, self.scene.light, [*self.scene.items, *items])
        return render(scene, scene_rng(7, round(1000 * seconds)))

    def upright(self, seconds: float) -> Iterator[PersonRecord]:
        """Yield an ideal detection of each walker in view: a box around the feet's column."""
        for number, way in enumerate(self.street.ways):
            x, h = (float(v) for v in self.place(way, seconds))
            if 0 <= x <= SIZE[0]:
                y = float(self.row(h))
                box = (x - 0.2 * h, y - h, x + 0.2 * h, y)
                yield PersonRecord(box, 0.9, "person", None, number + 1)

    def visible(self, seconds: float) -> Iterator[PersonRecord]:
        """Yield what is seen of each walker: its box and its mask."""
        people = self.people(seconds)
        others = [*self.scene.items, *(item for item, _, _ in people.values())]
        for number, (item, _, _) in people.items():
            seen = visible_part(item, others, (0, 0, *SIZE))
            if seen.share >= 0.1 and seen.area >= 200:
                x0, y0, x1, y1 = mask_extent(seen.mask)
                left, top, right, bottom = x0 + seen.x, y0 + seen.y, x1 + seen.x, y1 + seen.y
                box = (float(left), float(top), float(right), float(bottom))
                mask = encode_region(seen.mask, seen.x, seen.y, SIZE[1], SIZE[0])["counts"]
                yield PersonRecord(box, 0.9, "person", mask, number)

    def write_areas(self, path: Path) -> Path:
        """Write the lines and zones."""
        kinds = {"lines": self.street.lines, "zones": self.street.zones}
        document = {
            kind: {name: self.points(places) for name, places in shapes.items()}
            for kind, shapes in kinds.items()
        }
        path.write_text(yaml.safe_dump(document))
        return path

    def dwell(self, zone: str) -> list[tuple[int, float, float]]:
        """Return the true visits: walker, enter and leave, by the way in steps of a millisecond."""
        from shapely import Polygon, contains_xy

        polygon = Polygon(self.points(self.street.zones[zone]))
        seconds = np.arange(0, self.street.seconds, 0.001)
        found = []
        for number, way in enumerate(self.street.ways, start=1):
            x, h = self.place(way, seconds)
            there = contains_xy(polygon, np.nan_to_num(x, nan=-1e6), self.row(np.nan_to_num(h)))
            edges = np.flatnonzero(np.diff(np.concatenate([[0], there.astype(int), [0]])))
            for enter, leave in edges.reshape(-1, 2):
                found.append((number, seconds[enter], seconds[leave - 1] + 0.001))
        return sorted(found, key=lambda visit: visit[1])


def drawn(street: Street, seed: int = 31) -> Drawn:
    """Return a street with its things and the looks of its walkers."""
    rng = scene_rng(seed, street.name)
    scene = empty_scene(rng, SIZE, ("day", "clear", "mall"))
    for name, column, pixels in street.things:
        z = scene.camera.depth_for(_TALL, pixels)
        scene.items.append(thing_item(scene, rng, name, scene.camera.across(column, z), z))
    looks: list[Any] = []
    while len(looks) < len(street.ways):
        one = random_looks(rng)
        if one.height_m > 1.55:
            looks.append(one)
    return Drawn(street, scene, tuple(looks))


def delayed(street: Street, seed: int) -> Street:
    """Return a street whose walkers come later, each by as much as the seed says."""
    delays = scene_rng(seed, f"{street.name} later").uniform(0, _LATE, len(street.ways))
    ways = tuple(
        tuple((t + delay, x, h) for t, x, h in way)
        for way, delay in zip(street.ways, delays.tolist(), strict=True)
    )
    return replace(street, seconds=street.seconds + _LATE, ways=ways)


def write_records(
    path: Path, times: Sequence[float], people: Callable[[float], Iterator[PersonRecord]]
) -> Path:
    """Write the records of frames at these moments."""
    header = RecordsHeader(
        "street.mp4", "ground truth", ("person",), 0.5, *SIZE, Fraction(25), tracker="ground truth"
    )
    with RecordsWriter(path, header, overwrite=True) as writer:
        for index, moment in enumerate(times):
            writer.write(FrameRecord(index, moment, tuple(people(moment))))
    return path


def main(
    pairs: int,
    progress: Progress | None = None,
    run: Path | None = None,
    images: int = _FRAMES,
) -> dict[str, Row]:
    """Count on the streets, by the ground truth of what is seen and by the model of a run.

    And analyse the records of a long clip: `images` frames. `pairs`: times the streets are drawn,
    with other people who come at other times, at most four.
    """
    predictor = None
    if run is not None:
        from persondet.inference.predictor import Predictor

        predictor = Predictor.from_run(run)
    found = {}
    seeds = SEEDS[:pairs]
    for n, (seed, street) in enumerate(itertools.product(seeds, STREETS), start=1):
        scene = drawn(street if seed == SEEDS[0] else delayed(street, seed), seed)
        with tempfile.TemporaryDirectory() as scratch:
            for by, records in _records(scene, Path(scratch), predictor).items():
                counted = analyze_clip(records, scene.write_areas(Path(scratch) / "areas.yaml"))
                found[f"{street.name} {seed}, {by}"] = _row(street, seed, by, counted)
        if progress is not None:
            progress(n, len(seeds) * len(STREETS) + 1)
    with tempfile.TemporaryDirectory() as scratch:
        _write_long(Path(scratch), images)
        seconds, memory = in_own_process(_analyse_long, Path(scratch))
    what = f"{images:,} frames with {_CROWD} people, tables and figures"
    details = f"{seconds:.1f} s of one core, at most {memory:.0f} MB"
    found["long"] = {"what": what, "details": details, "seconds": seconds, "memory": memory}
    return found


def _write_long(folder: Path, frames: int) -> None:
    """Write the records of people who go to and fro through a line and a zone, with masks."""
    rng = np.random.default_rng(0)
    heights = rng.integers(100, 150, (8, 60))  # of the columns of a person: as many runs
    masks = [np.arange(150)[:, None] < columns for columns in heights]
    counts = [encode_region(mask, 300, 200, SIZE[1], SIZE[0])["counts"] for mask in masks]
    slots = np.arange(_CROWD)

    def people(moment: float) -> Iterator[PersonRecord]:
        x = 640 + 500 * np.sin(moment / 9 + slots)
        y = 400 + 200 * np.sin(moment / 7 + 2 * slots)
        rows = np.stack([x - 30, y - 150, x + 30, y], axis=1).tolist()
        for slot, box in enumerate(rows):
            number = slot + 1 + _CROWD * int(moment // 60)
            yield PersonRecord(tuple(box), 0.9, "person", counts[slot % 8], number)

    write_records(folder / "long.jsonl", [k / 25 for k in range(frames)], people)
    lines, zones = "door: [[0.1, 0.5], [0.9, 0.6]]", "hall: [[0.2, 0.4], [0.6, 0.4], [0.4, 0.9]]"
    (folder / "areas.yaml").write_text(f"lines: {{{lines}}}\nzones: {{{zones}}}\n")


def _analyse_long(folder: Path) -> tuple[float, float]:
    from persondet.report.plots.areas import write_analysis

    analysis = analyze_clip(folder / "long.jsonl", folder / "areas.yaml")
    write_analysis(analysis, folder / "analysis", None)
    return time.process_time(), memory_mb(peak=True)


def _records(scene: Drawn, folder: Path, predictor: Any) -> dict[str, Path]:
    """Write the records of a street by the ground truth, and by a model if there is one."""
    times = [float(k / RATE) for k in range(int(scene.street.seconds * RATE))]
    records = {"ground truth": write_records(folder / "truth.jsonl", times, scene.visible)}
    if predictor is not None:
        from persondet.video.pipeline import annotate_video

        clip = folder / "street.mp4"
        with VideoWriter(clip, width=SIZE[0], height=SIZE[1], fps=RATE) as writer:
            for moment in times:
                writer.write(scene.image(moment))
        records["model"] = annotate_video(clip, folder / "annotated.mp4", predictor).records
    return records


def _row(street: Street, seed: int, by: str, found: ClipAnalysis) -> Row:
    true, counted, stock = (
        [sum(both) for both in zip(*counts, strict=True)]
        for counts in (street.counts.values(), (c.counts for c in found.crossings), found.stock)
    )
    numbers = {"true": true, "counted": counted, "box_centres": stock}
    details = (
        f"{counted[0]} in, {counted[1]} out; stock {stock[0]} in, {stock[1]} out; "
        f"true {true[0]} in, {true[1]} out"
    )
    what = f"{street.name} {seed}, by the {by}"
    return {"what": what, "details": details, **numbers}

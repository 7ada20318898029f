"""`areas.yaml`: the lines and zones of a clip that its user asks about.

    clip: walk.mp4                  # optional: the areas hold for this clip alone
    size: [1280, 720]               # optional: the frame in which the points were read
    lines:
      door: [[400, 500], [900, 520]]
    zones:
      queue: [[0.1, 0.5], [0.4, 0.5], [0.4, 0.9], [0.1, 0.9]]
    grace: 0.5                      # optional: seconds for which a visitor may be lost
    homography:                     # optional: for metres and speeds
      image: [[400, 500], [900, 520], [1200, 700], [100, 700]]
      metres: [[0, 0], [4, 0], [4, 6], [0, 6]]

A shape whose numbers all lie from 0 to 1 is in shares of the frame's width and height, any other in
pixels. A line has two points or more. `in` is across it to the right hand of one who walks from its
first point to its last; the other way is `out`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from persondet.errors import ConfigError
from persondet.text import listed, printable

FloatArray = npt.NDArray[np.float64]
FootArray = npt.NDArray[np.float32]
GRACE = 0.5  # seconds
_KEYS = ("clip", "size", "lines", "zones", "grace", "homography")
_MOST = 1_000_000  # bytes of a file
_MOST_AREAS, _MOST_POINTS, _LONGEST_NAME = 100, 1000, 60


@dataclass(frozen=True)
class Line:
    """A line that people cross: its name, and its points, (P, 2), x and y in pixels, P ≥ 2."""

    name: str
    points: FloatArray


@dataclass(frozen=True)
class Zone:
    """A zone that people visit: its name, and the corners of its polygon, (P, 2), pixels, P ≥ 3."""

    name: str
    points: FloatArray


@dataclass(frozen=True)
class Areas:
    """What is asked about a clip.

    Attributes:
        lines, zones: in the order of the file.
        grace: seconds for which a visitor may be lost, or outside, without ending the visit.
        homography: takes (x, y, 1) in pixels to the ground in metres, (3, 3); None: not given.
    """

    lines: tuple[Line, ...] = ()
    zones: tuple[Zone, ...] = ()
    grace: float = GRACE
    homography: FloatArray | None = None

    def near(self, boxes: FootArray) -> npt.NDArray[np.bool_]:
        """Return whose feet may be on either side of a line or a border: (N,).

        Args:
            boxes: (N, 4), XYXY, pixels; feet are somewhere near the lower edge.
        """
        feet = np.stack([(boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3]], axis=1)
        width, height = (boxes[:, 2:] - boxes[:, :2]).T
        reach = np.maximum(0.6 * width, 0.15 * height)
        near = np.zeros(len(boxes), bool)
        for line in self.lines:
            near |= distance(feet, line.points) <= reach
        for zone in self.zones:
            near |= distance(feet, np.append(zone.points, zone.points[:1], axis=0)) <= reach
        return near


def read_areas(path: str | Path, width: int, height: int, clip: str = "") -> Areas:
    """Read the areas for frames of `width` × `height` pixels.

    Args:
        path: a YAML file, see above; nothing in it runs.
        width, height: of the clip's upright frames.
        clip: the file name of the clip; empty: unknown.

    Raises: ConfigError: when the file is no such file, or a shape in it is none, lies outside the
        frame, or belongs to another clip.
    """
    return _Reader(Path(path), width, height).areas(clip)


def distance(feet: FootArray, points: FloatArray) -> FootArray:
    """Return how far each place, (N, 2), is from a line through `points`, (P, 2): (N,), pixels."""
    nearest = np.full(len(feet), np.inf, np.float32)
    for a, b in pairwise(points.astype(np.float32)):
        share = np.clip((feet - a) @ (b - a) / np.sum((b - a) ** 2), 0, 1)
        off = feet - (a + share[:, None] * (b - a))
        np.minimum(nearest, np.hypot(off[:, 0], off[:, 1]), out=nearest)
    return nearest


def template(clip: str, width: int, height: int) -> list[str]:
    """Return the lines of a file of areas to begin with."""
    x, y = width // 4, height // 2
    corners = [[x, y], [3 * x, y], [3 * x, height], [x, height]]
    return [
        "# Without this line, the areas hold for all clips of this camera.",
        f"clip: {json.dumps(clip, ensure_ascii=False)}",
        f"size: [{width}, {height}]",
        "lines:",
        f"  door: [[{x}, {y}], [{3 * x}, {y}]]",
        "zones:",
        f"  queue: {corners}",
    ]


class _UniqueKeys(yaml.SafeLoader):
    """YAML's safe loader, which also refuses a name that stands twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"{key!r} stands there twice")
        return super().construct_mapping(node, deep)


class _Reader:
    """Reads one file; every complaint names it."""

    def __init__(self, path: Path, width: int, height: int) -> None:
        self.path, self.size = path, np.array([width, height], np.float64)

    def error(self, text: str) -> ConfigError:
        return ConfigError(f"{self.path}: {text}.")

    def areas(self, clip: str) -> Areas:
        document = self.document()
        self.check_clip(document, clip)
        lines = [Line(*shape) for shape in self.shapes(document, "line", 2)]
        zones = [Zone(*shape) for shape in self.shapes(document, "zone", 3)]
        if not lines and not zones:
            raise self.error("it has neither lines nor zones; give one at least")
        for line in lines:
            if (np.hypot(*np.diff(line.points, axis=0).T) < 1).any():
                raise self.error(
                    f"two neighbouring points of the line {line.name!r} are less than a pixel "
                    "apart; leave one out"
                )
        for zone in zones:
            self.check_polygon(zone)
        grace = document.get("grace", GRACE)
        if not _is_number(grace) or not 0 <= grace <= 3600:
            raise self.error("grace is seconds from 0 to 3600")
        ground = document.get("homography")
        return Areas(
            tuple(lines),
            tuple(zones),
            float(grace),
            None if ground is None else self.homography(ground),
        )

    def document(self) -> dict[str, Any]:
        try:
            with open(self.path, "rb") as file:
                text = file.read(_MOST + 1)
            if len(text) > _MOST:
                raise self.error("it is too large for a file of areas")
            document = _UniqueKeys(text).get_single_data()
        except OSError as error:
            raise self.error(f"the areas cannot be read ({error.strerror})") from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            why = printable(" ".join(str(error).split()), 200).rstrip(".")
            raise self.error(f"no plain YAML file ({why})") from error
        if not isinstance(document, dict):
            raise self.error("it has no keys; write lines: and zones: with their points")
        unknown = [key for key in document if key not in _KEYS]
        if unknown:
            raise self.error(
                f"there is no key {printable(unknown[0], 40)!r}; the keys are {listed(_KEYS)}"
            )
        return document

    def check_clip(self, document: dict[str, Any], clip: str) -> None:
        own, size = document.get("clip"), document.get("size")
        if own is not None and clip and own != clip:
            raise self.error(
                f"its areas are of the clip {printable(own, 60)!r}, and this is "
                f"{printable(clip, 60)!r}; give the areas of this clip, or take out the line "
                "clip: if the camera stood still"
            )
        if size is not None:
            whole = isinstance(size, list) and len(size) == 2 and all(map(_is_number, size))
            if not whole:
                raise self.error("size is the width and height of a frame, such as [1280, 720]")
            if tuple(size) != tuple(self.size):
                raise self.error(
                    f"its areas are of frames of {size[0]} × {size[1]} pixels, and these frames "
                    f"have {self.frame}; give the areas of this clip"
                )

    @property
    def frame(self) -> str:
        return f"{self.size[0]:.0f} × {self.size[1]:.0f}"

    def shapes(self, document: dict[str, Any], kind: str, least: int) -> list[tuple[str, Any]]:
        shapes = document.get(f"{kind}s") or {}
        if not isinstance(shapes, dict) or len(shapes) > _MOST_AREAS:
            raise self.error(f"{kind}s: is a name and points for each, {_MOST_AREAS} at most")
        found = []
        for key, value in shapes.items():
            name = str(key)
            if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
                raise self.error(
                    f"a {kind} has the name {printable(name, 40)!r}; give it one of up to "
                    f"{_LONGEST_NAME} printable characters"
                )
            found.append((name, self.points(value, f"the {kind} {name!r}", least)))
        return found

    def points(self, value: Any, what: str, least: int) -> FloatArray:
        """Return points in pixels, (P, 2), all inside the frame."""
        points = _pairs(value)
        if points is None:
            raise self.error(f"{what} is a list of points such as [[400, 500], [900, 520]]")
        if not least <= len(points) <= _MOST_POINTS:
            count = f"{len(points)} point{'' if len(points) == 1 else 's'}"
            raise self.error(f"{what} has {count}; it needs {least} or more")
        if (points >= 0).all() and (points <= 1).all():
            points = points * self.size
        outside = (points < 0).any(axis=1) | (points > self.size).any(axis=1)
        if outside.any():
            x, y = points[outside][0]
            raise self.error(
                f"{what} has a point at ({x:g}, {y:g}), outside the frame of {self.frame} pixels; "
                "move it inside"
            )
        return points

    def check_polygon(self, zone: Zone) -> None:
        from shapely import Polygon
        from shapely.validation import explain_validity

        polygon = Polygon(zone.points)
        if not polygon.is_valid or polygon.area < 1:
            why = explain_validity(polygon) if not polygon.is_valid else "it has no area"
            raise self.error(
                f"the zone {zone.name!r} is no polygon ({why}); give its corners in their order "
                "along the border"
            )

    def homography(self, value: Any) -> FloatArray:
        """Return the matrix that takes four points of the image to their places on the ground."""
        keys = {"image", "metres"}
        if not isinstance(value, dict) or set(value) != keys:
            raise self.error("homography has the keys image and metres, with four points each")
        image, metres = _pairs(value["image"]), _pairs(value["metres"])
        if image is None or metres is None or len(image) != 4 or len(metres) != 4:
            raise self.error("homography has image and metres, four points each")
        if (image >= 0).all() and (image <= 1).all():
            image = image * self.size
        # Source: Hartley and Zisserman, "Multiple View Geometry", 2nd ed., section 4.1.
        rows = []
        unit = image / self.size
        for (x, y), (u, v) in zip(unit, metres, strict=True):
            rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y, -u])
            rows.append([0, 0, 0, x, y, 1, -v * x, -v * y, -v])
        matrix = np.linalg.svd(np.array(rows))[2][-1].reshape(3, 3)
        scale = unit @ matrix[2, :2] + matrix[2, 2]
        flat = min(_least_triangle(unit), _least_triangle(metres) / max(np.ptp(metres), 1e-9) ** 2)
        if not flat > 1e-4 or len(set(np.sign(scale))) > 1:
            raise self.error(
                "the four points of homography are no corners of a quadrilateral on the ground; "
                "give both lists in the same order, no three on one straight line"
            )
        return matrix * np.sign(scale[0]) @ np.diag([*(1 / self.size), 1.0])


def _least_triangle(points: FloatArray) -> float:
    """Return twice the area of the smallest triangle of four points."""
    corners = [np.delete(points, i, axis=0) for i in range(4)]
    edges = [(b - a, c - a) for a, b, c in corners]
    return min(abs(float(p[0] * q[1] - p[1] * q[0])) for p, q in edges)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and abs(value) < 1e9
    )


def _pairs(value: Any) -> FloatArray | None:
    """Return a list of pairs of numbers as (P, 2); None for anything else."""
    if not isinstance(value, list):
        return None
    for point in value:
        if not isinstance(point, list) or len(point) != 2 or not all(map(_is_number, point)):
            return None
    return np.array(value, np.float64).reshape(-1, 2)

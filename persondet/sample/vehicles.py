"""Parked cars and bicycles: solids cut from a side profile, seen in the scene's perspective."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from persondet.sample.camera import Camera
from persondet.sample.paint import Canvas, Colour, Sprite, blend, shade
from persondet.sample.weather import Light

_Points = NDArray[np.float64]
# From metres (along, up) and the share of the width (0 near side, 1 far side) to the frame.
_Place = Callable[[_Points, _Points, float], _Points]

# Side profile of a car from the front bumper over the roof to the rear: metres (along, up).
_HATCH = (
    (0.0, 0.35),
    (0.05, 0.66),
    (0.9, 0.86),
    (1.55, 1.36),
    (2.0, 1.46),
    (3.1, 1.44),
    (3.75, 1.0),
    (3.9, 0.85),
    (3.92, 0.35),
)
_SEDAN = (
    (0.0, 0.35),
    (0.06, 0.64),
    (1.1, 0.84),
    (1.8, 1.32),
    (2.3, 1.42),
    (3.1, 1.38),
    (3.7, 0.98),
    (4.4, 0.92),
    (4.45, 0.35),
)
_VAN = (
    (0.0, 0.4),
    (0.05, 0.9),
    (0.7, 1.15),
    (1.2, 1.85),
    (1.5, 1.98),
    (4.3, 1.98),
    (4.5, 1.9),
    (4.6, 0.4),
)
_PANES = ((2, 5), (2, 5), (2,))  # which steps of the profile are glass
_PAINT: tuple[Colour, ...] = (
    (200, 202, 204), (54, 52, 52), (118, 116, 114), (60, 44, 150), (140, 80, 36), (96, 110, 60), (190, 190, 170), (50, 120, 190),
)  # fmt: skip


def _circle(centre: tuple[float, float], radius: float) -> NDArray[np.float64]:
    turn = np.linspace(0, 2 * np.pi, 21)[:-1]
    return np.stack([centre[0] + radius * np.cos(turn), centre[1] + radius * np.sin(turn)], axis=1)


def car(
    rng: np.random.Generator, camera: Camera, light: Light, x: float, z: float, *, along: bool
) -> Sprite | None:
    """Return a parked car whose nearest lower corner towards the road is near (x, z), or None.

    `along`: it stands in the street's direction (Z) and shows its rear or front; otherwise it
    stands across the view and shows its side. None when it would reach behind the camera.
    """
    shape = int(rng.integers(3))
    profile = np.array((_HATCH, _SEDAN, _VAN)[shape])
    paint = shade(_PAINT[int(rng.integers(len(_PAINT)))], rng.uniform(0.8, 1.15))
    glass: Colour = (70, 62, 54) if not light.lamps else (54, 46, 42)
    turned = rng.random() < 0.5
    length = profile[-1, 0]
    run = length - profile[:, 0] if turned else profile[:, 0]
    width = 1.72
    if along and z < 2.0:
        return None
    # The face seen from the side: for a car on the right that is its left side, and so on.
    if along:
        inner, outer = (x, x + width) if x > 0 else (x, x - width)

        def place(s: _Points, y: _Points, face: float) -> _Points:
            return camera.project(inner + (outer - inner) * face, y, z + s)
    else:

        def place(s: _Points, y: _Points, face: float) -> _Points:
            return camera.project(x - 0.5 * length + s, y, z + width * face)

    corners = np.concatenate(
        [place(run, profile[:, 1], face) for face in (0.0, 1.0)]
        + [place(run, 0 * run, face) for face in (0.0, 1.0)]
    )
    low, high = corners.min(axis=0) - 3, corners.max(axis=0) + 3
    low, high = np.maximum(low, -4), np.minimum(high, (camera.width + 4, camera.height + 4))
    if (high - low < 2).any():
        return None
    canvas = Canvas((*low, *high), 2)
    dark: Colour = (26, 26, 28)
    tucked = 0.04  # windows lie a little inside the body
    sill = np.array([run[0], run[-1]])
    # Underside in shadow, then the far side, the skin between the two sides, and the near side.
    under = np.concatenate(
        [place(sill, np.array([0.12, 0.12]), 0.08), place(sill[::-1], np.array([0.12, 0.12]), 0.92)]
    )
    canvas.polygon(under, (20, 20, 20))
    for wheel in (0.78, length - 0.8):
        centre = length - wheel if turned else wheel
        ring = _circle((centre, 0.31), 0.31)
        canvas.polygon(place(ring[:, 0], ring[:, 1], 0.97), dark)
    canvas.polygon(place(run, profile[:, 1], 1.0), shade(paint, 0.7))
    panels = list(range(len(profile) - 1))
    far_first = sorted(panels, key=lambda k: -(run[k] + run[k + 1]) if along else 0.0)
    for k in far_first:
        ends = np.array([k, k + 1])
        quad = np.concatenate(
            [
                place(run[ends], profile[ends, 1], 0.0),
                place(run[ends[::-1]], profile[ends[::-1], 1], 1.0),
            ]
        )
        rise = profile[k + 1, 1] - profile[k, 1]
        flat = 1.0 - abs(rise) / (abs(rise) + abs(profile[k + 1, 0] - profile[k, 0]))
        canvas.polygon(quad, shade(paint, 0.72 + 0.5 * flat))
        if k in _PANES[shape]:
            a, b = run[k], run[k + 1]
            s = np.array([a + tucked * (b - a), b - 2 * tucked * (b - a)])
            y = np.interp([tucked, 1 - 2 * tucked], [0, 1], profile[ends, 1])
            pane = np.concatenate([place(s, y, 0.08), place(s[::-1], y[::-1], 0.92)])
            canvas.polygon(pane, blend(glass, (220, 200, 180), 0.35))
    canvas.polygon(place(run, profile[:, 1], 0.0), shade(paint, 0.95))
    belt = place(
        np.array([run[0], run[-1], run[-1], run[0]]), np.array([0.35, 0.35, 0.5, 0.5]), 0.0
    )
    canvas.polygon(belt, shade(paint, 0.72))
    _side_windows(canvas, place, profile, run, glass, paint)
    for wheel in (0.78, length - 0.8):
        centre = length - wheel if turned else wheel
        for radius, colour in (
            (0.37, shade(paint, 0.35)),
            (0.31, dark),
            (0.18, (150, 150, 154)),
            (0.06, (70, 70, 72)),
        ):
            ring = _circle((centre, 0.31), radius)
            canvas.polygon(place(ring[:, 0], np.maximum(ring[:, 1], 0.0), 0.0), colour)
    _ends(canvas, place, run, turned, along)
    return canvas.finish()


def _side_windows(
    canvas: Canvas, place: _Place, profile: _Points, run: _Points, glass: Colour, paint: Colour
) -> None:
    roof = profile[:, 1].max()
    if roof > 1.7:  # a van has a window for the driver only
        spans = [((0.95, 1.15), (1.3, roof - 0.18), (2.1, roof - 0.18), (2.1, 1.15))]
    else:
        spans = [
            ((1.35, 0.92), (1.85, roof - 0.14), (2.4, roof - 0.1), (2.4, 0.92)),
            ((2.48, 0.92), (2.48, roof - 0.1), (3.05, roof - 0.13), (3.55, 0.94)),
        ]
    mirrored = run[0] > run[-1]
    length = profile[-1, 0]
    for span in spans:
        points = np.array(span)
        s = length - points[:, 0] if mirrored else points[:, 0]
        canvas.polygon(place(s, points[:, 1], 0.0), blend(glass, (200, 190, 176), 0.2))
    for door in (1.4, 2.44, 3.3):
        s = np.full(2, length - door if mirrored else door)
        canvas.line(place(s, np.array([0.4, 0.9]), 0.0), shade(paint, 0.6), 1.0)


def _ends(canvas: Canvas, place: _Place, run: _Points, turned: bool, along: bool) -> None:
    """Lights and plate on the end that faces the camera."""
    if not along:
        lamps: tuple[tuple[float, Colour], ...] = (
            (float(run[0]), (200, 226, 236)),
            (float(run[-1]), (50, 40, 190)),
        )
        for end, lamp in lamps:
            inward = 0.14 if end < 1 else -0.14
            s = np.array([end, end + inward, end + inward, end])
            canvas.polygon(place(s, np.array([0.6, 0.6, 0.74, 0.74]), 0.0), lamp)
        return
    near = float(run.min())
    colour: Colour = (50, 40, 200) if turned else (214, 230, 236)
    s = np.full(4, near)
    for face in (0.06, 0.78):
        quad = [
            place(s[:1], np.array([y]), f)[0]
            for f, y in ((face, 0.58), (face + 0.16, 0.58), (face + 0.16, 0.74), (face, 0.74))
        ]
        canvas.polygon(np.array(quad), colour)
    plate = [
        place(s[:1], np.array([y]), f)[0]
        for f, y in ((0.36, 0.42), (0.64, 0.42), (0.64, 0.54), (0.36, 0.54))
    ]
    canvas.polygon(np.array(plate), (226, 226, 226))


def bicycle(rng: np.random.Generator, camera: Camera, light: Light, x: float, z: float) -> Sprite:
    """A bicycle on its stand, seen from the side."""
    scale = camera.pixels_per_metre(z)
    base = np.array(camera.point(x, 0.0, z))
    canvas = Canvas(
        (
            base[0] - 1.0 * scale,
            base[1] - 1.2 * scale,
            base[0] + 1.0 * scale,
            base[1] + 0.1 * scale + 2,
        ),
        3,
    )
    flip = 1.0 if rng.random() < 0.5 else -1.0
    paint = shade(_PAINT[int(rng.integers(len(_PAINT)))], rng.uniform(0.8, 1.2))

    def at(*points: tuple[float, float]) -> NDArray[np.float64]:
        return base + np.array(points) * (flip * scale, -scale)

    for hub in (-0.52, 0.52):
        ring = _circle((hub, 0.34), 0.33)
        canvas.line(at(*map(tuple, np.vstack([ring, ring[:1]]))), (34, 34, 36), 0.05 * scale)
        for turn in np.linspace(0, np.pi, 6)[:-1]:
            spoke = np.array([np.cos(turn), np.sin(turn)]) * 0.3
            canvas.line(
                at((hub - spoke[0], 0.34 - spoke[1]), (hub + spoke[0], 0.34 + spoke[1])),
                (150, 152, 154),
                0.012 * scale,
            )
    tube = 0.045 * scale
    seat, crank, front = (-0.2, 0.82), (-0.06, 0.34), (0.36, 0.84)
    canvas.line(at((-0.52, 0.34), crank, front, seat, crank), paint, tube)
    canvas.line(at((-0.52, 0.34), (-0.17, 0.72)), paint, tube)
    canvas.line(at((0.52, 0.34), (0.36, 0.78), (0.33, 1.0)), paint, tube)
    canvas.line(at((0.24, 1.04), (0.4, 1.02)), (40, 40, 42), 0.05 * scale)
    canvas.line(at((-0.22, 0.8), (-0.23, 0.9)), (120, 120, 122), tube)
    canvas.polygon(at((-0.38, 0.94), (-0.1, 0.94), (-0.12, 0.88), (-0.34, 0.88)), (36, 38, 44))
    canvas.ellipse(at(crank)[0], (0.09 * scale, 0.09 * scale), (90, 92, 94))
    return canvas.finish()

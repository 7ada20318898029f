"""Paint the head of a person: hair, face and hat, seen from the heading of the body."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from persondet.sample.body import Body
from persondet.sample.paint import ellipse_points, shade

_UP = 0.935  # middle of the skull, body heights
_HALF_UP = 0.066


def paint_back_hair(body: Body) -> None:
    """Paint hair that falls behind the neck (over the back when the person walks away)."""
    looks = body.looks
    if looks.hair_style != "long" or looks.hat == "hood":
        return
    half = body.pose.half_width(0.058, 0.036)
    centre = [body.at(-0.025, 0.0, up) for up in (0.95, 0.88, 0.79)]
    widths = np.array([half * 0.95, half * 1.05, half * 0.85]) * body.height
    left = [point - (width, 0.0) for point, width in zip(centre, widths, strict=True)]
    right = [point + (width, 0.0) for point, width in zip(centre, widths, strict=True)]
    body.canvas.polygon(np.array(left + right[::-1]), shade(looks.hair, 0.85))
    body.canvas.ellipse(centre[2], (widths[2], 0.022 * body.height), shade(looks.hair, 0.85))


def _cap(
    centre: NDArray[np.float64], radii: tuple[float, float], forward: float, cut: float
) -> NDArray[np.float64] | None:
    """Return the part of an ellipse above and behind a slanted line.

    `forward` is where the face looks on screen (-1 left, 0 at or away from us, 1 right); `cut`
    is the line's height, -1 takes the whole ellipse and 1 nothing.
    """
    ring = ellipse_points((0.0, 0.0), (1.0, 1.0))
    normal = np.array([-forward * 0.85, -1.0])
    normal /= np.hypot(*normal)
    kept = ring @ normal > cut
    if kept.sum() < 3:
        return None
    start = int(np.flatnonzero(kept & ~np.roll(kept, 1))[0]) if not kept.all() else 0
    order = (start + np.arange(int(kept.sum()))) % len(ring)
    return centre + ring[order] * np.asarray(radii)


def paint_head(body: Body) -> None:
    """Paint skull, face, hair and hat."""
    looks, canvas, height = body.looks, body.canvas, body.height
    front = body.pose.facing  # 1 looks at the camera, -1 away from it
    side = body.pose.cos
    half = body.pose.half_width(0.049, 0.060) * height
    tall = _HALF_UP * height
    centre = body.at(0.012, 0.0, _UP)
    light = body.light
    hairy = looks.hair_style != "bald"
    volume = {"curly": 1.2, "long": 1.08, "bun": 1.03, "short": 1.05, "bald": 1.0}[looks.hair_style]

    if looks.hair_style == "bun" and looks.hat == "":
        bun = body.at(-0.055, 0.0, 0.985)
        canvas.ellipse(bun, (0.032 * height, 0.03 * height), shade(looks.hair, 0.9))
    back = looks.hair if hairy else looks.skin
    canvas.ellipse(
        centre - (0, 0.004 * height), (half * volume, tall * (0.5 + 0.5 * volume)), shade(back, 0.8)
    )
    if front > -0.72:
        _face(body, centre, half, tall)
    if hairy:
        # Seen from the front only the top is hair; from behind everything is.
        cut = float(np.interp(front, (-0.75, -0.25, 0.3, 1.0), (-1.2, 0.0, 0.34, 0.5)))
        for scale, factor, shift in ((1.0, 0.82, 0.0), (0.8, 1.08, 0.14)):
            ring = _cap(
                centre + (light * shift * half, -0.05 * tall),
                (half * volume * scale, tall * volume * scale),
                side,
                cut,
            )
            if ring is not None:
                canvas.polygon(ring, shade(looks.hair, factor))
    if looks.hat:
        _hat(body, centre, half, tall, side, front)


def _face(body: Body, centre: NDArray[np.float64], half: float, tall: float) -> None:
    looks, canvas, height = body.looks, body.canvas, body.height
    front, side = body.pose.facing, body.pose.cos
    width = 0.80 * half if abs(side) > 0.5 else 0.86 * half
    middle = centre + np.array([side * 0.019, 0.006]) * height
    canvas.ellipse(middle, (width, tall * 0.93), shade(looks.skin, 0.8))
    lit = middle + np.array([body.light * 0.12 * half, -0.002 * height])
    canvas.ellipse(lit, (width * 0.84, tall * 0.86), shade(looks.skin, 1.03))
    if abs(side) > 0.45:  # a nose in profile
        nose = [
            body.at(0.066, 0.0, 0.94),
            body.at(0.084, 0.0, 0.921),
            body.at(0.064, 0.0, 0.914),
        ]
        canvas.polygon(np.array(nose), looks.skin)
    if looks.beard:
        jaw = ellipse_points(middle, (width, tall * 0.93))
        jaw = jaw[jaw[:, 1] > middle[1] + 0.25 * tall]
        if len(jaw) > 2:
            canvas.polygon(jaw, shade(looks.hair, 0.95))
    if height < 80 or front < -0.25:
        return
    ink = shade(looks.skin, 0.38)
    for lateral in (-0.019, 0.019):
        if lateral * side > 0.012 and front < 0.5:
            continue  # the far eye, hidden by the nose
        eye = body.at(0.052, lateral, 0.936)
        canvas.ellipse(eye, (0.0062 * height, 0.0062 * height), (34, 30, 30))
        brow = body.at(0.052, lateral, 0.951)
        canvas.line(
            [brow - (0.009 * height, 0), brow + (0.009 * height, 0)],
            shade(looks.hair, 0.7),
            0.005 * height,
        )
        if looks.glasses:
            canvas.line(
                ellipse_points(eye, (0.014 * height, 0.011 * height)), (40, 36, 36), 0.0045 * height
            )
    if front > 0.2:
        bridge = [body.at(0.06, 0.0, 0.93), body.at(0.068, 0.006, 0.915)]
        canvas.line(bridge, shade(looks.skin, 0.72), 0.006 * height)
    mouth = body.at(0.055, 0.0, 0.896)
    reach = 0.012 * max(front, 0.35) * height
    canvas.line(
        [mouth - (reach, 0), mouth + (reach, 0)],
        (60, 50, 120) if ink[2] > 40 else (50, 44, 90),
        0.007 * height,
    )


def _hat(
    body: Body,
    centre: NDArray[np.float64],
    half: float,
    tall: float,
    side: float,
    front: float,
) -> None:
    looks, canvas, height = body.looks, body.canvas, body.height
    colour = looks.hat_colour
    if looks.hat == "hood":
        colour = looks.top_colour
        ring = _cap(
            centre,
            (half * 1.2, tall * 1.14),
            side * 0.9,
            float(np.interp(front, (-0.5, 1.0), (-1.2, 0.28))),
        )
        if ring is not None:
            canvas.polygon(ring, shade(colour, 0.85))
        if front > 0.2:
            for flank in (-1.0, 1.0):
                points = np.array(
                    [
                        [flank * 1.18, -0.3],
                        [flank * 0.86, -0.2],
                        [flank * 0.8, 0.75],
                        [flank * 1.0, 1.0],
                    ]
                )
                canvas.polygon(centre + points * (half, tall), shade(colour, 0.8))
        return
    depth = 0.3 if looks.hat == "beanie" else 0.42
    for scale, factor in ((1.12, 0.8), (0.86, 1.05)):
        ring = _cap(
            centre - (0, 0.08 * tall), (half * scale, tall * scale * 1.08), 0.12 * side, depth
        )
        if ring is not None:
            canvas.polygon(ring, shade(colour, factor))
    edge = centre - np.array([0.0, 0.5 * tall])
    if looks.hat == "cap" and front > -0.6:
        reach = np.array([side * 0.062, 0.012 * max(front, 0.0)]) * height
        canvas.ellipse(
            edge + reach * 0.9,
            (half * (0.55 + 0.3 * max(front, 0.0)), 0.013 * height),
            shade(colour, 0.7),
        )
    elif looks.hat == "brim":
        canvas.ellipse(edge, (half * 1.75, 0.017 * height), shade(colour, 0.72))
    elif looks.hat == "beanie":
        canvas.line(
            [edge - (half * 0.98, 0), edge + (half * 0.98, 0)], shade(colour, 0.68), 0.022 * height
        )

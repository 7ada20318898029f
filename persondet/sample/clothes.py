"""Clothes on the torso: garments from cross sections, their patterns, straps of bags."""

from __future__ import annotations

import numpy as np

from persondet.sample.body import Body
from persondet.sample.paint import Colour, shade

_Sections = tuple[tuple[float, float, float], ...]

# Torso sections from hem to neck: height, half width, half depth (body heights).
_SHIRT = (
    (0.475, 0.086, 0.064), (0.54, 0.091, 0.066), (0.63, 0.086, 0.058), (0.72, 0.101, 0.066),
    (0.785, 0.112, 0.064), (0.825, 0.106, 0.05), (0.845, 0.07, 0.042), (0.866, 0.036, 0.034),
)  # fmt: skip
_JACKET = ((0.45, 0.094, 0.074), (0.56, 0.096, 0.072), *_SHIRT[2:])
_COAT = ((0.30, 0.112, 0.094), (0.42, 0.102, 0.086), (0.54, 0.097, 0.074), *_SHIRT[2:])
_DRESS = ((0.29, 0.126, 0.108), (0.42, 0.105, 0.086), (0.54, 0.094, 0.070), *_SHIRT[2:])
_SKIRT = ((0.31, 0.118, 0.10), (0.42, 0.102, 0.08), (0.53, 0.092, 0.068), (0.60, 0.08, 0.058))
_TORSO = {"tshirt": _SHIRT, "shirt": _SHIRT, "jacket": _JACKET, "coat": _COAT, "dress": _DRESS}


def _garment(body: Body, sections: _Sections, colour: Colour, stretch: float = 0.0) -> None:
    """Paint a garment from its cross sections, shaded as a round body."""
    for width, offset, factor in ((1.0, 0.0, 0.70), (0.84, 0.13, 0.87), (0.55, 0.26, 1.03)):
        left, right = [], []
        for up, lateral, sagittal in sections:
            half = body.pose.half_width(lateral, sagittal) * (1.0 if up > 0.86 else body.girth)
            half += stretch * abs(body.pose.cos) * max(0.52 - up, 0.0)
            centre = body.at(0.0, 0.0, up)
            shift = half * offset * body.light
            left.append(centre + body.height * np.array([shift - half * width, 0.0]))
            right.append(centre + body.height * np.array([shift + half * width, 0.0]))
        body.canvas.polygon(np.array(left + right[::-1]), shade(colour, factor))


def paint_torso(body: Body) -> None:
    """Paint neck, skirt and top, and the straps of a bag."""
    looks, pose = body.looks, body.pose
    stretch = 0.34 if looks.top in ("coat", "dress") else 0.0
    if looks.bottom == "skirt":
        _garment(body, _SKIRT, looks.bottom_colour, 0.36)
    sections = _TORSO[looks.top]
    body.canvas.limb(
        body.at(0.0, 0.0, 0.84), 0.031 * body.height, body.at(0.006, 0.0, 0.89), 0.027 * body.height,
        shade(looks.skin, 0.86), body.light,
    )  # fmt: skip
    _garment(body, sections, looks.top_colour, stretch)
    _pattern(body, sections)
    if looks.top in ("jacket", "coat") and pose.facing > 0.15:
        low = sections[0][0] + 0.01
        line = [body.at(0.066, 0.0, up) for up in (0.845, 0.72, 0.6, low)]
        body.canvas.line(np.array(line), shade(looks.top_colour, 0.5), 0.012 * body.height)
        for side in (-1.0, 1.0):
            lapel = [
                body.at(0.05, side * 0.012, 0.862),
                body.at(0.05, side * 0.05, 0.845),
                body.at(0.066, 0.0, 0.75),
            ]
            body.canvas.polygon(np.array(lapel), shade(looks.top_colour, 0.74))
    elif looks.top == "shirt" and pose.facing > 0.3:
        collar = [
            body.at(0.04, 0.03, 0.868),
            body.at(0.05, 0.0, 0.835),
            body.at(0.04, -0.03, 0.868),
        ]
        body.canvas.polygon(np.array(collar), shade(looks.skin, 0.9))
    if looks.bag == "shoulder":
        strap = [
            body.at(0.055 * np.sign(pose.facing), lat, up)
            for lat, up in ((0.07, 0.85), (0.0, 0.68), (-0.085, 0.53))
        ]
        body.canvas.line(np.array(strap), shade(looks.bag_colour, 0.55), 0.016 * body.height)
    if looks.bag == "backpack" and pose.facing > -0.1:
        for side in (-0.068, 0.068):
            strap = [body.at(0.045, side, up) for up in (0.845, 0.76, 0.66)]
            body.canvas.line(np.array(strap), shade(looks.bag_colour, 0.7), 0.017 * body.height)


def _pattern(body: Body, sections: _Sections) -> None:
    looks = body.looks
    heights = np.array([section[0] for section in sections])
    if looks.pattern == "stripes":
        bands = [(up, up + 0.022) for up in np.arange(0.52, 0.82, 0.046)]
    elif looks.pattern == "band":
        bands = [(0.66, 0.735)]
    elif looks.pattern == "print" and looks.top == "tshirt" and body.pose.facing > 0.2:
        corners = [
            body.at(0.06, side, up)
            for side, up in ((-0.05, 0.78), (0.05, 0.78), (0.042, 0.69), (-0.042, 0.69))
        ]
        body.canvas.polygon(np.array(corners), looks.pattern_colour)
        return
    else:
        return
    for low, high in bands:
        left, right = [], []
        for up in (low, high):
            lateral, sagittal = (
                np.interp(up, heights, [section[k] for section in sections]) for k in (1, 2)
            )
            half = 0.9 * body.pose.half_width(lateral, sagittal) * body.girth
            centre = body.at(0.0, 0.0, up)
            left.append(centre - (half * body.height, 0.0))
            right.append(centre + (half * body.height, 0.0))
        body.canvas.polygon(np.array(left + right[::-1]), looks.pattern_colour)

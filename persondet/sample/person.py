"""People: their looks, a walking skeleton, and how it is painted as a dressed figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from persondet.sample.paint import (
    Canvas,
    Colour,
    Points,
    Sprite,
    noise,
    palette,
    pick_colour,
    ring,
    shade,
)

STRIDE = 0.7
"""Ground covered by one full gait cycle, in body heights (follows from the leg swing below)."""
HIP, THIGH, SHANK = 0.525, 0.245, 0.240
SHOULDER, UPPER_ARM, FOREARM = 0.803, 0.165, 0.150
"""Heights above the ground and lengths of limbs, in body heights."""

_CLOTH = (
    "282A2E 404246 6A6C6E A6A8AA E4E2E1 224278 366EA8 6EA0BE 962C3C C43C32 D8823C E0B042 3C6E46"
    " 549660 6E3C82 BE7896 A0785C 7C5840 CDB48C 282878"
)
_COLOURS = {
    "skin": palette("F0CDB2 E2B696 D0A07E BA8662 9E6A4A 80523A 623C2A 4A2E22"),
    "hair": palette("1A1818 36261E 5C3A24 96623C CE9E68 989696 D2D0CE 783422"),
    "bottom": palette("28282C 3A3A3E 345478 2A4260 4C7096 968068 B0A08C 565454 42483C C43C32"),
    "shoes": palette("222022 563E32 DEDEDE 963C3C 585C60"),
    **dict.fromkeys(("top", "pattern", "hat", "bag"), palette(_CLOTH)),
}
"""What each part of a person may be coloured in."""
_WEAR: Mapping[str, Mapping[str, float]] = {
    "hair": {"short": 5.0, "long": 3.0, "bald": 0.6, "curly": 1.0},
    "hat": {"": 6.0, "cap": 1.0, "beanie": 1.0, "brim": 0.5},
    "top": {"tshirt": 3.0, "shirt": 2.5, "jacket": 2.5, "coat": 1.4, "dress": 0.9},
    "bottom": {"trousers": 5.0, "shorts": 0.8, "skirt": 1.0},
    "pattern": {"": 5.0, "stripes": 1.2, "band": 1.0},
    "bag": {"": 6.0, "backpack": 2.2, "handbag": 2.0},
    "beard": {"": 5.0, "beard": 1.0},
}
"""What people wear and how often."""
_COLD = {"tshirt": "jacket", "dress": "coat", "shorts": "trousers"}
"""What they wear instead in the cold."""
_ARMS = {"swing": 5.0, "phone": 1.2, "pockets": 0.8}

_SHIRT = (
    *((0.475, 0.086, 0.064), (0.54, 0.091, 0.066), (0.63, 0.086, 0.058), (0.72, 0.101, 0.066)),
    *((0.785, 0.112, 0.064), (0.825, 0.106, 0.05), (0.845, 0.07, 0.042), (0.866, 0.036, 0.034)),
)
_GARMENTS = {
    "tshirt": _SHIRT,
    "shirt": _SHIRT,
    "jacket": ((0.45, 0.094, 0.074), (0.56, 0.096, 0.072), *_SHIRT[2:]),
    "coat": ((0.30, 0.112, 0.094), (0.42, 0.102, 0.086), (0.54, 0.097, 0.074), *_SHIRT[2:]),
    "dress": ((0.29, 0.126, 0.108), (0.42, 0.105, 0.086), (0.54, 0.094, 0.070), *_SHIRT[2:]),
    "skirt": ((0.31, 0.118, 0.10), (0.42, 0.102, 0.08), (0.53, 0.092, 0.068), (0.60, 0.08, 0.058)),
}
"""Sections from hem to neck: height, half width, half depth, in body heights."""


@dataclass(frozen=True)
class Looks:
    """Everything about a person that stays the same while they walk.

    `build` is the width of the body relative to a slim adult. `wear` and `colours` (BGR) name
    each part as in the tables `_WEAR` and `_COLOURS`.
    """

    height_m: float
    build: float
    wear: Mapping[str, str]
    colours: Mapping[str, Colour]
    texture_seed: int


@dataclass(frozen=True)
class Pose:
    """How a person stands at one moment.

    `heading` (radians): 0 walks to the right, pi/2 away from the camera, -pi/2 towards it.
    `phase` (radians) is the left leg's place in the gait cycle, 0 at heel strike. `gait` is the
    size of the steps: 0 stands still. `arms`: swing, phone or pockets.
    """

    heading: float
    phase: float
    gait: float = 1.0
    arms: str = "swing"


def choose(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """Return one of the names, drawn by weight."""
    shares = np.array(list(weights.values()))
    return str(rng.choice(list(weights), p=shares / shares.sum()))


def random_looks(rng: np.random.Generator, *, cold: bool = False) -> Looks:
    """Return a random person, dressed for the weather."""
    child = rng.random() < 0.08
    height = rng.uniform(1.2, 1.5) if child else np.clip(rng.normal(1.71, 0.09), 1.5, 1.95)
    wear = {part: choose(rng, options) for part, options in _WEAR.items()}
    if cold:
        wear = {part: _COLD.get(name, name) for part, name in wear.items()}
    if child:
        wear["beard"] = ""
    if wear["top"] == "dress":
        wear["bottom"] = ""
    colours = {part: pick_colour(rng, options) for part, options in _COLOURS.items()}
    build, seed = float(rng.uniform(0.94, 1.28)), int(rng.integers(1 << 30))
    return Looks(float(height), build, wear, colours, seed)


def random_pose(rng: np.random.Generator) -> Pose:
    """Return a random moment of a walk (now and then of standing), seen from any side."""
    sides = (0.0, np.pi, np.pi / 2, -np.pi / 2)
    heading = float(rng.choice(sides, p=(0.27, 0.27, 0.2, 0.26)) + rng.normal(0.0, 0.38))
    gait = 0.12 if rng.random() < 0.14 else 1.0
    return Pose(heading, float(rng.uniform(0.0, 2.0 * np.pi)), gait, choose(rng, _ARMS))


def _bump(turn: float, middle: float, width: float) -> float:
    """Return a bell in the gait cycle: 1 at `middle`, both in units of pi."""
    return float(np.exp(-(((turn / np.pi - middle) / width) ** 2)))


def _hinge(start: Points, length: float, angle: float) -> Points:
    """Return the end of a limb that hangs from `start`, swung forward by `angle` radians."""
    return start + length * np.array([np.sin(angle), 0.0, -np.cos(angle)])


class Skeleton:
    """Joints of a posed body: `joints` maps a name to (forward, left, up) in body heights.

    The lowest foot stands on the ground, at height 0.
    """

    def __init__(self, pose: Pose) -> None:
        """Pose the body: legs and arms from the gait cycle."""
        self.cos, self.sin = float(np.cos(pose.heading)), float(np.sin(pose.heading))
        self.lean = 0.035 * pose.gait
        self.joints: dict[str, Points] = {}
        for side, offset, phase in (("left", 1.0, pose.phase), ("right", -1.0, pose.phase + np.pi)):
            self._leg(side, offset, phase % (2.0 * np.pi), pose.gait)
            self._arm(side, offset, -np.cos(phase) * pose.gait, pose.arms)
        soles = [joint[2] for name, joint in self.joints.items() if name[-4:] in ("heel", "_toe")]
        self.sink = min(soles) - 0.018
        for joint in self.joints.values():
            joint[2] -= self.sink

    def _leg(self, side: str, offset: float, turn: float, gait: float) -> None:
        thigh = gait * (np.radians(20.0) * np.cos(turn) + np.radians(4.0))
        bend = 46.0 * _bump(turn, 1.36, 0.27) + 10.0 * _bump(turn, 0.25, 0.2)
        shank = thigh - np.radians(4.0 + gait * bend)
        hip = np.array([0.0, offset * 0.048, HIP])
        knee = _hinge(hip, THIGH, thigh)
        ankle = _hinge(knee, SHANK, shank)
        ankle[1] = offset * 0.04
        # Toes up before heel strike, heel up at push-off.
        strike = _bump((turn + 0.05 * np.pi) % (2 * np.pi), 0.05, 0.16)
        pitch = gait * np.radians(20.0 * strike - 42.0 * _bump(turn, 1.08, 0.24))
        along, down = (np.array([np.cos(a), 0.0, np.sin(a)]) for a in (pitch, pitch - np.pi / 2))
        self.joints |= {
            f"{side}_hip": hip,
            f"{side}_knee": knee,
            f"{side}_ankle": ankle,
            f"{side}_heel": ankle - 0.028 * along + 0.024 * down,
            f"{side}_toe": ankle + 0.092 * along + 0.026 * down + (0.0, offset * 0.012, 0.0),
        }

    def _arm(self, side: str, offset: float, swing: float, arms: str) -> None:
        raised, bend, spread = -3.0 + 15.0 * swing, 16.0 + 12.0 * max(swing, 0.0), 0.018
        if arms == "pockets":
            raised, bend, spread = -14.0, 34.0, 0.045
        elif arms == "phone" and side == "right":
            raised, bend, spread = 22.0, 96.0, -0.01
        shoulder = np.array([self.lean, offset * 0.1, SHOULDER])
        elbow = _hinge(shoulder, UPPER_ARM, np.radians(raised)) + (0.0, offset * spread, 0.0)
        hand = _hinge(elbow, FOREARM, np.radians(raised + bend))
        hand[1] += offset * (0.004 if arms == "swing" else -0.03)
        self.joints |= {f"{side}_shoulder": shoulder, f"{side}_elbow": elbow, f"{side}_hand": hand}

    def depth(self, *names: str) -> float:
        """Return how far joints lie behind the body's middle, seen from the camera, summed."""
        return float(
            sum(self.joints[n][0] * self.sin + self.joints[n][1] * self.cos for n in names)
        )


class _Figure:
    """A person on a canvas; lengths are body heights until they reach it."""

    def __init__(self, looks: Looks, pose: Pose, height: float, foot: Points, light: float) -> None:
        self.wear, self.colours, self.build = looks.wear, looks.colours, looks.build
        self.height, self.foot, self.light = height, foot, light
        self.body = Skeleton(pose)
        self.front = -self.body.sin  # 1 looks at the camera, -1 away from it
        low, high = foot - (0.46 * height, 1.1 * height), foot + (0.46 * height, 0.06 * height)
        self.canvas = Canvas((*low, *high), 4 if height < 64 else 3 if height < 140 else 2)

    def at(self, forward: float, left: float, up: float) -> Points:
        """Return frame pixels of a body point; `up` is counted on the upright body."""
        forward += self.body.lean * max(up - 0.5, 0.0) / 0.35
        across = forward * self.body.cos - left * self.body.sin
        return self.foot + self.height * np.array([across, self.body.sink - up])

    def joint(self, name: str) -> Points:
        forward, left, up = self.body.joints[name]
        across = forward * self.body.cos - left * self.body.sin
        return self.foot + self.height * np.array([across, -up])

    def half(self, lateral: float, sagittal: float) -> float:
        """Return the half width on screen, in pixels, of an elliptic section of the body."""
        return self.height * float(np.hypot(lateral * self.body.sin, sagittal * self.body.cos))

    def limb(self, start: str, end: str, radii: tuple[float, float], colour: Colour) -> None:
        """Paint a limb between two joints."""
        # Wider people have thicker limbs, less than in proportion.
        thick = self.height * (0.63 + 0.45 * self.build)
        ends = (radii[0] * thick, radii[1] * thick)
        self.canvas.capsule(self.joint(start), self.joint(end), ends, colour, self.light)

    def blob(self, centre: Points, radii: tuple[float, float], colour: Colour) -> None:
        """Paint an ellipse; radii in body heights."""
        self.canvas.polygon(ring(centre, np.array(radii) * self.height), colour)

    def leg(self, side: str) -> None:
        tone = 0.86 if self.body.depth(f"{side}_hip") > 0.01 else 1.0
        cloth, skin = shade(self.colours["bottom"], tone), shade(self.colours["skin"], tone)
        self.limb(f"{side}_heel", f"{side}_toe", (0.021, 0.019), shade(self.colours["shoes"], tone))
        long, wear = self.wear["bottom"] == "trousers", self.wear["bottom"]
        shin = (0.043, 0.033) if long else (0.036, 0.021)
        self.limb(f"{side}_knee", f"{side}_ankle", shin, cloth if long else skin)
        thigh = cloth if wear in ("trousers", "shorts") else skin
        self.limb(f"{side}_hip", f"{side}_knee", (0.064, 0.045), thigh)

    def arm(self, side: str) -> None:
        tone = 0.84 if self.body.depth(f"{side}_shoulder") > 0.05 else 1.0
        sleeve, skin = shade(self.colours["top"], tone), shade(self.colours["skin"], tone)
        bare = self.wear["top"] in ("tshirt", "dress")
        wide = 1.16 if self.wear["top"] in ("jacket", "coat") else 1.0
        lower = (0.029 * wide, 0.021 * wide)
        self.limb(f"{side}_elbow", f"{side}_hand", lower, skin if bare else sleeve)
        self.limb(f"{side}_shoulder", f"{side}_elbow", (0.037 * wide, 0.031 * wide), sleeve)
        hand = self.joint(f"{side}_hand") + (0.0, 0.016 * self.height)
        self.blob(hand, (0.021, 0.026), skin)
        if side == "right" and self.wear["bag"] == "handbag":
            corners = np.array([(-0.8, 0.05), (0.8, 0.05), (1.0, 0.17), (-1.0, 0.17)])
            corners = hand + corners * (self.half(0.035, 0.06), self.height)
            handle = [corners[0], hand, corners[1]]
            self.canvas.line(handle, shade(self.colours["bag"], 0.6), 0.01 * self.height)
            self.canvas.polygon(corners, self.colours["bag"])

    def garment(self, name: str, colour: Colour) -> None:
        """Paint a garment from its sections; a long hem gives way to the stride."""
        up, lateral, sagittal = np.array(_GARMENTS[name]).T
        stretch = 0.35 * abs(self.body.cos) * np.maximum(0.52 - up, 0.0) * (up[0] < 0.4)
        halves = np.array([self.half(a, b) for a, b in zip(lateral, sagittal, strict=True)])
        halves = halves * np.where(up > 0.86, 1.0, self.build) + stretch * self.height
        centres = np.array([self.at(0.0, 0.0, level) for level in up])
        self.canvas.column(centres, halves, colour, self.light)
        bands: Mapping[str, Sequence[float]] = {
            "band": [0.66, 0.69],
            "stripes": [0.52, 0.57, 0.62, 0.67, 0.72, 0.77],
        }
        for low in bands.get(self.wear["pattern"], []) if name == self.wear["top"] else []:
            band = (low, low + 0.03)
            middles = np.array([self.at(0.0, 0.0, level) for level in band])
            widths = 0.9 * np.interp(band, up, halves)
            self.canvas.column(middles, widths, self.colours["pattern"], self.light)

    def torso(self) -> None:
        if self.wear["bottom"] == "skirt":
            self.garment("skirt", self.colours["bottom"])
        neck, ends = 0.03 * self.height, (self.at(0.0, 0.0, 0.84), self.at(0.006, 0.0, 0.89))
        self.canvas.capsule(*ends, (neck, neck), shade(self.colours["skin"], 0.86), self.light)
        self.garment(self.wear["top"], self.colours["top"])
        if self.wear["top"] in ("jacket", "coat") and self.front > 0.15:
            low = _GARMENTS[self.wear["top"]][0][0] + 0.01
            seam = [self.at(0.066, 0.0, up) for up in (0.845, 0.72, 0.6, low)]
            self.canvas.line(seam, shade(self.colours["top"], 0.5), 0.012 * self.height)
        straps = self.wear["bag"] == "backpack" and self.front > -0.1
        for side in (-0.068, 0.068) if straps else ():
            strap = [self.at(0.05, side, 0.845), self.at(0.05, side, 0.66)]
            self.canvas.line(strap, shade(self.colours["bag"], 0.6), 0.017 * self.height)

    def backpack(self) -> None:
        levels = np.array([-1.0, -0.9, 0.0, 0.9, 1.0])
        down = np.stack([0 * levels, 0.125 * self.height * levels], axis=1)
        widths = self.half(0.086, 0.052) * np.array([0.7, 0.95, 1.0, 0.95, 0.7])
        centres = self.at(-0.108, 0.0, 0.715) + down
        self.canvas.column(centres, widths, self.colours["bag"], self.light)

    def cap(self, centre: Points, radii: tuple[float, float], cut: float, colour: Colour) -> None:
        """Paint the part of an ellipse above and behind a line; `cut` -1 is all, 1 is nothing."""
        normal = np.array([-0.85 * self.body.cos, -1.0]) / np.hypot(0.85 * self.body.cos, 1.0)
        unit = ring((0.0, 0.0), (1.0, 1.0))
        kept = unit @ normal > cut
        first = int(np.flatnonzero(kept & ~np.roll(kept, 1))[0]) if not kept.all() else 0
        unit = np.roll(unit, -first, axis=0)[: kept.sum()]
        for scale, tone in ((1.0, 0.82), (0.8, 1.08)):
            shift = (self.light * (1.0 - scale) * 0.7 * radii[0], 0.0)
            self.canvas.polygon(centre + shift + unit * radii * scale, shade(colour, tone))

    def back_hair(self) -> None:
        """Paint hair that falls behind the neck."""
        if self.wear["hair"] == "long":
            centres = np.array([self.at(-0.025, 0.0, up) for up in (0.95, 0.88, 0.79, 0.77)])
            widths = self.half(0.058, 0.036) * np.array([0.95, 1.05, 0.85, 0.5])
            self.canvas.column(centres, widths, shade(self.colours["hair"], 0.95), self.light)

    def head(self) -> None:
        half, tall, hat = self.half(0.049, 0.060), 0.066 * self.height, self.wear["hat"]
        centre = self.at(0.012, 0.0, 0.935)
        volume = {"curly": 1.2, "bald": 1.0}.get(self.wear["hair"], 1.06)
        hair = self.colours["skin" if self.wear["hair"] == "bald" else "hair"]
        self.canvas.polygon(ring(centre, (half * volume, tall * volume)), shade(hair, 0.8))
        if self.front > -0.72:
            self.face(centre, half, tall)
        # Seen from the front only the top is hair; from behind everything is.
        cut = float(np.interp(self.front, (-0.75, -0.25, 0.3, 1.0), (-1.2, 0.0, 0.34, 0.5)))
        self.cap(centre - (0.0, 0.05 * tall), (half * volume, tall * volume), cut, hair)
        if hat:
            crown = centre - (0.0, 0.08 * tall)
            self.cap(crown, (1.12 * half, 1.2 * tall), 0.4, self.colours["hat"])
            peak = 0.06 * self.body.cos * self.height if hat == "cap" else 0.0
            wide = half * {"brim": 1.75, "beanie": 1.0, "cap": 0.65}[hat]
            rim = ring(centre + (peak, -0.5 * tall), (wide, 0.016 * self.height))
            self.canvas.polygon(rim, shade(self.colours["hat"], 0.72))

    def face(self, centre: Points, half: float, tall: float) -> None:
        skin, side = self.colours["skin"], self.body.cos
        middle = centre + np.array([0.019 * side, 0.006]) * self.height
        oval = ring(middle, (0.84 * half, 0.93 * tall))
        self.canvas.polygon(oval, shade(skin, 0.8))
        lit = ring(middle + (0.12 * self.light * half, 0.0), (0.7 * half, 0.82 * tall))
        self.canvas.polygon(lit, shade(skin, 1.03))
        if abs(side) > 0.45:  # a nose in profile
            self.canvas.polygon(
                [self.at(0.08 - 0.4 * abs(up - 0.92), 0, up) for up in (0.95, 0.92, 0.91)], skin
            )
        if self.wear["beard"]:
            self.canvas.polygon(oval[oval[:, 1] > middle[1] + 0.25 * tall], self.colours["hair"])
        if self.height < 80 or self.front < -0.25:
            return
        for left in (-0.019, 0.019):
            if left * side <= 0.012 or self.front >= 0.5:  # else the nose hides it
                self.blob(self.at(0.052, left, 0.936), (0.0065, 0.0065), (34, 30, 30))
        self.blob(
            self.at(0.055, 0.0, 0.896), (0.012 * max(self.front, 0.35), 0.0035), (56, 48, 110)
        )

    def paint(self) -> None:
        """Paint from back to front."""
        depth = self.body.depth
        steps: list[tuple[float, Callable[[], None]]] = [(0.0, self.torso), (-1e-6, self.head)]
        for side in ("left", "right"):
            # An arm beside the body goes over it; one that is behind, or reaches behind, under it.
            steps.append(
                (depth(f"{side}_shoulder", f"{side}_hand") - 0.03, partial(self.arm, side))
            )
            behind = 1e-3 * (1.0 + depth(f"{side}_hip", f"{side}_knee"))
            steps.append((behind, partial(self.leg, side)))
        if self.wear["bag"] == "backpack":
            steps.append((0.4 * self.front - 0.01, self.backpack))
        steps.append((2.0 if self.front > -0.35 else -2.0, self.back_hair))
        for _, step in sorted(steps, key=lambda step: -step[0]):
            step()


def paint_person(
    looks: Looks, pose: Pose, height: float, foot: tuple[float, float], light: float = -0.6
) -> Sprite:
    """Return the sprite of a person `height` pixels tall who stands at `foot` (x, y) in the frame.

    `light` is the side that the light comes from, -1 left to 1 right. Positions may be
    fractions of a pixel.
    """
    figure = _Figure(looks, pose, height, np.array(foot, np.float64), light)
    figure.paint()
    sprite = figure.canvas.finish()
    rows, columns = sprite.bgra.shape[:2]
    # Folds of cloth: a soft random brightness, and less light towards the ground.
    folds = 0.99 + 0.045 * noise(
        np.random.default_rng(looks.texture_seed), (columns, rows), (8, 20)
    )
    folds = (folds * np.linspace(1.04, 0.9, rows, dtype=np.float32)[:, None]).clip(0.8, 1.15)
    factor = cv2.merge([folds, folds, folds, np.ones_like(folds)])
    bgra = np.minimum(cv2.multiply(sprite.bgra, factor, dtype=cv2.CV_8U), sprite.bgra[:, :, 3:])
    return Sprite(bgra, sprite.x, sprite.y)

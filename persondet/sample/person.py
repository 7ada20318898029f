"""People: their looks, a walking skeleton, and how it is painted as a dressed figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import ArrayLike

from persondet.sample.paint import Canvas, Colour, Points, Sprite, dye, palette, ring, shade

STRIDE = 0.7
"""Ground covered by one full gait cycle, in body heights (follows from the leg swing below)."""
HIP, THIGH, SHANK = 0.525, 0.245, 0.240
SHOULDER, UPPER_ARM, FOREARM = 0.803, 0.165, 0.150
"""Heights above the ground and lengths of limbs, in body heights."""

_CLOTH = (
    "282A2E 404246 6A6C6E A6A8AA E4E2E1 224278 366EA8 6EA0BE 962C3C C43C32 D8823C E0B042 3C6E46"
    " 549660 6E3C82 BE7896 A0785C 7C5840 CDB48C 282878"
)
# What each part of a person may be coloured in.
_COLOURS = {
    "skin": palette("F0CDB2 E2B696 D0A07E BA8662 9E6A4A 80523A 623C2A 4A2E22"),
    "hair": palette("1A1818 36261E 5C3A24 96623C CE9E68 989696 D2D0CE 783422"),
    "bottom": palette("28282C 3A3A3E 345478 2A4260 4C7096 968068 B0A08C 565454 42483C C43C32"),
    "shoes": palette("222022 563E32 DEDEDE 963C3C 585C60"),
    **dict.fromkeys(("top", "pattern", "hat", "bag"), palette(_CLOTH)),
}
# What people wear and how often.
_WEAR: Mapping[str, Mapping[str, float]] = {
    "hair": {"short": 6.0, "long": 3.0, "bald": 0.6},
    "hat": {"": 6.0, "cap": 1.6, "brim": 0.8},
    "top": {"tshirt": 3.0, "shirt": 2.5, "jacket": 2.5, "coat": 1.4, "dress": 0.9},
    "bottom": {"trousers": 5.0, "shorts": 0.8, "skirt": 1.0},
    "pattern": {"": 5.0, "stripes": 2.2},
    "bag": {"": 6.0, "backpack": 3.0},
}
_ARMS = {"swing": 5.0, "phone": 1.2}

_SHIRT = (
    *((0.475, 0.086, 0.064), (0.54, 0.091, 0.066), (0.63, 0.086, 0.058), (0.72, 0.101, 0.066)),
    *((0.785, 0.112, 0.064), (0.825, 0.106, 0.05), (0.845, 0.07, 0.042), (0.866, 0.036, 0.034)),
)
# Sections from hem to neck: height, half width, half depth, in body heights.
_GARMENTS = {
    **dict.fromkeys(("tshirt", "shirt"), _SHIRT),
    "jacket": ((0.45, 0.094, 0.074), (0.56, 0.096, 0.072), *_SHIRT[2:]),
    "coat": ((0.30, 0.112, 0.094), (0.42, 0.102, 0.086), (0.54, 0.097, 0.074), *_SHIRT[2:]),
    "dress": ((0.29, 0.126, 0.108), (0.42, 0.105, 0.086), (0.54, 0.094, 0.070), *_SHIRT[2:]),
    "skirt": ((0.31, 0.118, 0.10), (0.42, 0.102, 0.08), (0.53, 0.092, 0.068), (0.60, 0.08, 0.058)),
}


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
    size of the steps: 0 stands still. `arms`: swing or phone.
    """

    heading: float
    phase: float
    gait: float = 1.0
    arms: str = "swing"


def choose(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """Return one of the names, drawn by weight."""
    shares = np.array(list(weights.values()))
    return str(rng.choice(list(weights), p=shares / shares.sum()))


def random_looks(rng: np.random.Generator) -> Looks:
    """Return a random person."""
    child = rng.random() < 0.08
    height = rng.uniform(1.2, 1.5) if child else np.clip(rng.normal(1.71, 0.09), 1.5, 1.95)
    wear = {part: choose(rng, options) for part, options in _WEAR.items()}
    if wear["top"] == "dress":
        wear["bottom"] = ""
    colours = {part: dye(rng, options) for part, options in _COLOURS.items()}
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
        sole = _hinge(ankle, 0.025, pitch)
        along = np.array([np.cos(pitch), offset * 0.12, np.sin(pitch)])
        self.joints |= {
            f"{side}_hip": hip,
            f"{side}_knee": knee,
            f"{side}_ankle": ankle,
            f"{side}_heel": sole - 0.028 * along,
            f"{side}_toe": sole + 0.092 * along,
        }

    def _arm(self, side: str, offset: float, swing: float, arms: str) -> None:
        raised, bend, spread = -3.0 + 15.0 * swing, 16.0 + 12.0 * max(swing, 0.0), 0.018
        if arms == "phone" and side == "right":
            raised, bend, spread = 22.0, 96.0, -0.01
        shoulder = np.array([self.lean, offset * 0.1, SHOULDER])
        elbow = _hinge(shoulder, UPPER_ARM, np.radians(raised)) + (0.0, offset * spread, 0.0)
        hand = _hinge(elbow, FOREARM, np.radians(raised + bend))
        hand[1] += offset * (0.004 if arms == "swing" else -0.03)
        self.joints |= {f"{side}_shoulder": shoulder, f"{side}_elbow": elbow, f"{side}_hand": hand}

    def depth(self, *names: str) -> float:
        """Return how far joints lie behind the body's middle, seen from the camera, summed."""
        places = [self.joints[name] for name in names]
        return float(sum(place[0] * self.sin + place[1] * self.cos for place in places))


class _Figure:
    """A person on a canvas; lengths are body heights until they reach it."""

    def __init__(self, looks: Looks, pose: Pose, height: float, foot: Points, light: float) -> None:
        self.wear, self.colours, self.build = looks.wear, looks.colours, looks.build
        self.height, self.foot, self.light = height, foot, light
        self.body = Skeleton(pose)
        self.front = -self.body.sin  # 1 looks at the camera, -1 away from it
        places = self.project(*np.transpose([*self.body.joints.values()]))
        self.joints = dict(zip(self.body.joints, places, strict=True))
        low, high = foot - (0.46 * height, 1.1 * height), foot + (0.46 * height, 0.06 * height)
        self.canvas = Canvas((*low, *high))

    def project(self, forward: ArrayLike, left: ArrayLike, up: ArrayLike) -> Points:
        """Return frame pixels (..., 2) of body points."""
        forward, left, up = np.broadcast_arrays(forward, left, up)
        across = forward * self.body.cos - left * self.body.sin
        return self.foot + self.height * np.stack([across, -up], axis=-1)

    def at(self, forward: float, left: float, up: ArrayLike) -> Points:
        """Return frame pixels (..., 2) of points of the trunk; `up` counts on an upright body."""
        up = np.asarray(up, np.float64)
        lean = self.body.lean * np.maximum(up - 0.5, 0.0) / 0.35
        return self.project(forward + lean, left, up - self.body.sink)

    def half(self, lateral: ArrayLike, sagittal: ArrayLike) -> Points:
        """Return the half width on screen, in pixels, of elliptic sections of the body."""
        shares = self.body.sin * np.asarray(lateral), self.body.cos * np.asarray(sagittal)
        return np.asarray(self.height * np.hypot(*shares))

    def limb(self, side: str, bone: str, radii: tuple[float, float], colour: Colour) -> None:
        """Paint the limb between two joints, such as "hip knee"."""
        start, end = (self.joints[f"{side}_{joint}"] for joint in bone.split())
        # Wider people have thicker limbs, less than in proportion.
        thick = self.height * (0.63 + 0.45 * self.build)
        self.canvas.capsule(start, end, (radii[0] * thick, radii[1] * thick), colour, self.light)

    def blob(self, centre: Points, radii: ArrayLike, colour: Colour) -> None:
        """Paint an ellipse; `radii` in body heights."""
        self.canvas.polygon(ring(centre, np.asarray(radii) * self.height), colour)

    def leg(self, side: str) -> None:
        tone, wear = 0.86 if self.body.depth(f"{side}_hip") > 0.01 else 1.0, self.wear["bottom"]
        cloth, skin, shoes = (shade(self.colours[k], tone) for k in ("bottom", "skin", "shoes"))
        self.limb(side, "heel toe", (0.021, 0.019), shoes)
        shin = ((0.043, 0.033), cloth) if wear == "trousers" else ((0.036, 0.021), skin)
        self.limb(side, "knee ankle", *shin)
        thigh = cloth if wear in ("trousers", "shorts") else skin
        self.limb(side, "hip knee", (0.064, 0.045), thigh)

    def arm(self, side: str) -> None:
        tone = 0.84 if self.body.depth(f"{side}_shoulder") > 0.05 else 1.0
        sleeve, skin = shade(self.colours["top"], tone), shade(self.colours["skin"], tone)
        bare = self.wear["top"] in ("tshirt", "dress")
        self.limb(side, "elbow hand", (0.031, 0.022), skin if bare else sleeve)
        self.limb(side, "shoulder elbow", (0.039, 0.033), sleeve)
        hand = self.joints[f"{side}_hand"] + (0.0, 0.016 * self.height)
        self.blob(hand, (0.021, 0.026), skin)

    def garment(self, part: str) -> None:
        """Paint a garment from its sections; a long hem gives way to the stride."""
        up, lateral, sagittal = np.array(_GARMENTS[self.wear[part]]).T
        stretch = 0.35 * abs(self.body.cos) * np.maximum(0.52 - up, 0.0) * (up[0] < 0.4)
        halves = self.half(lateral, sagittal) * np.where(up > 0.86, 1.0, self.build)
        halves += stretch * self.height
        self.canvas.column(self.at(0.0, 0.0, up), halves, self.colours[part], self.light)
        if part == "top" and self.wear["pattern"]:
            for low in np.arange(0.52, 0.8, 0.05):
                band = (low, low + 0.03)
                middles, widths = self.at(0.0, 0.0, band), 0.9 * np.interp(band, up, halves)
                self.canvas.column(middles, widths, self.colours["pattern"], self.light)

    def torso(self) -> None:
        if self.wear["bottom"] == "skirt":
            self.garment("bottom")
        neck, ends = 0.03 * self.height, (self.at(0.0, 0.0, 0.84), self.at(0.006, 0.0, 0.89))
        self.canvas.capsule(*ends, (neck, neck), shade(self.colours["skin"], 0.86), self.light)
        self.garment("top")

    def backpack(self) -> None:
        centres = self.at(-0.108, 0.0, (0.84, 0.8275, 0.715, 0.6025, 0.59))
        widths = self.half(0.086, 0.052) * np.array([0.7, 0.95, 1.0, 0.95, 0.7])
        self.canvas.column(centres, widths, self.colours["bag"], self.light)

    def back_hair(self) -> None:
        """Paint hair that falls behind the neck."""
        centres = self.at(-0.025, 0.0, (0.95, 0.88, 0.79, 0.77))
        widths = self.half(0.058, 0.036) * np.array([0.95, 1.05, 0.85, 0.5])
        self.canvas.column(centres, widths, shade(self.colours["hair"], 0.95), self.light)

    def cap(self, centre: Points, radii: Points, cut: float, colour: Colour) -> None:
        """Paint the part of an ellipse above and behind a line; `cut` -1 is all, 1 is nothing."""
        normal = np.array([-0.85 * self.body.cos, -1.0]) / np.hypot(0.85 * self.body.cos, 1.0)
        turns = np.arccos(max(cut, -1.0)) * np.linspace(-1.0, 1.0, 20)[:, None]
        unit = np.cos(turns) * normal + np.sin(turns) * (-normal[1], normal[0])
        for scale, tone in ((1.0, 0.82), (0.8, 1.08)):
            shift = (self.light * (1.0 - scale) * 0.7 * radii[0], 0.0)
            self.canvas.polygon(centre + shift + unit * radii * scale, shade(colour, tone))

    def head(self) -> None:
        half, tall, hat = float(self.half(0.049, 0.060)), 0.066 * self.height, self.wear["hat"]
        centre, radii = self.at(0.012, 0.0, 0.935), np.array([half, tall])
        hair = self.colours["skin" if self.wear["hair"] == "bald" else "hair"]
        self.canvas.polygon(ring(centre, 1.06 * radii), shade(hair, 0.8))
        if self.front > -0.72:
            self.face(centre, radii)
        # Seen from the front only the top is hair; from behind everything is.
        cut = float(np.interp(self.front, (-0.75, -0.25, 0.3, 1.0), (-1.2, 0.0, 0.34, 0.5)))
        self.cap(centre - (0.0, 0.05 * tall), 1.06 * radii, cut, hair)
        if hat:
            self.cap(centre - (0.0, 0.08 * tall), radii * (1.12, 1.2), 0.4, self.colours["hat"])
            peak, wide = (0.06 * self.body.cos, 0.65) if hat == "cap" else (0.0, 1.75)
            rim = centre + (peak * self.height, -0.5 * tall)
            self.blob(rim, (wide * half / self.height, 0.016), shade(self.colours["hat"], 0.72))

    def face(self, centre: Points, radii: Points) -> None:
        middle = centre + np.array([0.019 * self.body.cos, 0.006]) * self.height
        self.canvas.polygon(ring(middle, radii * (0.84, 0.93)), self.colours["skin"])
        if self.height < 80 or self.front < -0.25:
            return
        for left in (-0.019, 0.019):
            if left * self.body.cos <= 0.012 or self.front >= 0.5:  # else the nose hides it
                self.blob(self.at(0.052, left, 0.936), (0.0065, 0.0065), (34, 30, 30))

    def paint(self) -> None:
        """Paint from back to front."""
        depth = self.body.depth
        steps: list[tuple[float, Callable[[], None]]] = [(0.0, self.torso), (-1e-6, self.head)]
        for side in ("left", "right"):
            # An arm beside the body goes over it; one that is behind, or reaches behind, under it.
            reach = depth(f"{side}_shoulder", f"{side}_hand") - 0.03
            behind = 1e-3 * (1.0 + depth(f"{side}_hip", f"{side}_knee"))
            steps += [(reach, partial(self.arm, side)), (behind, partial(self.leg, side))]
        if self.wear["bag"] == "backpack":
            steps.append((0.4 * self.front - 0.01, self.backpack))
        if self.wear["hair"] == "long":
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
    # Folds of cloth: a soft random brightness, and less light towards the ground.
    folds = 0.94 + 0.045 * np.random.default_rng(looks.texture_seed).standard_normal((20, 8))
    folds = (folds * np.linspace(1.04, 0.9, 20)[:, None]).clip(0.75, 1.0)
    factor = cv2.resize(np.rint(255 * folds).astype(np.uint8), sprite.bgra.shape[1::-1])
    factor = cv2.merge([factor, factor, factor, np.full_like(factor, 255)])
    sprite.bgra = cv2.multiply(sprite.bgra, factor, scale=1 / 255)
    return sprite

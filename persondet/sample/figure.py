"""Paint a person: a posed skeleton, dressed, as an anti-aliased sprite."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from persondet.sample.head import paint_back_hair, paint_head
from persondet.sample.paint import Canvas, Colour, Sprite, shade
from persondet.sample.people import Looks, Pose
from persondet.sample.skeleton import Skeleton

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


class _Painter:
    """One person on one canvas; lengths are body heights until they reach the canvas."""

    def __init__(
        self, canvas: Canvas, looks: Looks, pose: Pose, height: float, foot: NDArray[np.float64], light: float
    ) -> None:
        self.canvas, self.looks, self.light = canvas, looks, light
        self.body = Skeleton(pose)
        self.height, self.foot = height, foot
        self.girth = looks.build

    def place(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return frame pixels of (right, up) in body heights."""
        return self.foot + self.height * np.stack([point[..., 0], -point[..., 1]], axis=-1)

    def at(self, forward: float, left: float, up: float) -> NDArray[np.float64]:
        """Return frame pixels of a body point; `up` is counted on the upright body."""
        return self.place(self.body.screen(forward + self.body.lean * max(up - 0.5, 0.0) / 0.35, left, up - self.body.sink))

    def limb(self, start: str, start_radius: float, end: str, end_radius: float, colour: Colour) -> None:
        scale = self.height * (0.55 + 0.45 * self.girth)
        self.canvas.limb(
            self.place(self.body.of(start)), start_radius * scale,
            self.place(self.body.of(end)), end_radius * scale, colour, self.light,
        )  # fmt: skip

    def sections(self, sections: tuple[tuple[float, float, float], ...], colour: Colour, stretch: float = 0.0) -> None:
        """Paint a garment from its cross sections, shaded as a round body."""
        for width, offset, factor in ((1.0, 0.0, 0.70), (0.84, 0.13, 0.87), (0.55, 0.26, 1.03)):
            left, right = [], []
            for up, lateral, sagittal in sections:
                half = self.body.half_width(lateral, sagittal) * (1.0 if up > 0.86 else self.girth)
                half += stretch * abs(self.body.cos) * max(0.52 - up, 0.0)
                centre = self.at(0.0, 0.0, up)
                shift = half * offset * self.light
                left.append(centre + self.height * np.array([shift - half * width, 0.0]))
                right.append(centre + self.height * np.array([shift + half * width, 0.0]))
            self.canvas.polygon(np.array(left + right[::-1]), shade(colour, factor))

    def leg(self, side: str) -> None:
        looks = self.looks
        bare = looks.bottom in ("shorts", "skirt", "dress")
        skin = looks.skin
        factor = 0.86 if self.body.depth(f"{side}_hip") > 0.01 else 1.0
        colour = shade(skin if bare else looks.bottom_colour, factor)
        self.limb(f"{side}_heel", 0.021, f"{side}_toe", 0.019, shade(looks.shoes, factor))
        if bare:
            self.limb(f"{side}_knee", 0.036, f"{side}_ankle", 0.021, colour)
        else:
            self.limb(f"{side}_knee", 0.043, f"{side}_ankle", 0.033, colour)
        thigh = shade(looks.bottom_colour, factor) if looks.bottom == "shorts" else colour
        self.limb(f"{side}_hip", 0.064, f"{side}_knee", 0.052 if looks.bottom == "shorts" else 0.045, thigh)

    def arm(self, side: str) -> None:
        looks = self.looks
        factor = 0.84 if self.body.depth(f"{side}_shoulder") > 0.05 else 1.0
        sleeve, skin = shade(looks.top_colour, factor), shade(looks.skin, factor)
        wide = 1.16 if looks.top in ("jacket", "coat") else 1.0
        short = looks.top in ("tshirt", "dress")
        self.limb(f"{side}_elbow", 0.028 * wide, f"{side}_hand", 0.021 * wide, skin if short else sleeve)
        if short:
            self.limb(f"{side}_shoulder", 0.034, f"{side}_elbow", 0.028, skin)
            start, end = self.body.of(f"{side}_shoulder"), self.body.of(f"{side}_elbow")
            middle = start + 0.55 * (end - start)
            scale = self.height * (0.55 + 0.45 * self.girth)
            self.canvas.limb(self.place(start), 0.04 * scale, self.place(middle), 0.037 * scale, sleeve, self.light)
        else:
            self.limb(f"{side}_shoulder", 0.038 * wide, f"{side}_elbow", 0.031 * wide, sleeve)
        hand = self.body.of(f"{side}_hand")
        self.canvas.ellipse(self.place(hand - np.array([0.0, 0.016])), (0.021 * self.height, 0.026 * self.height), skin)
        if side == "right" and looks.bag in ("handbag", "shopping"):
            self._carried_bag(hand)

    def _carried_bag(self, hand: NDArray[np.float64]) -> None:
        drop, half, tall = (0.06, 0.058, 0.085) if self.looks.bag == "handbag" else (0.05, 0.068, 0.15)
        half = max(half * abs(self.body.cos), 0.5 * half)
        corners = [(-0.8 * half, -drop), (0.8 * half, -drop), (half, -drop - tall), (-half, -drop - tall)]
        for side in (-0.6, 0.6):
            ends = np.array([hand + (0.0, -0.015), hand + (side * half, -drop)])
            self.canvas.line(self.place(ends), shade(self.looks.bag_colour, 0.6), 0.01 * self.height)
        self.canvas.polygon(self.place(hand + np.array(corners)), shade(self.looks.bag_colour, 0.85))
        inner = np.array(corners) * (0.86, 1.0) + (0.0, -0.006)
        self.canvas.polygon(self.place(hand + inner * (0.8, 0.92)), self.looks.bag_colour)

    def backpack(self) -> None:
        half = self.body.half_width(0.086, 0.052)
        centre = self.at(-0.108, 0.0, 0.715)
        for scale, factor in ((1.0, 0.68), (0.84, 0.9), (0.5, 1.06)):
            shift = np.array([self.light * 0.2 * half * (1 - scale), -0.02 * (1 - scale)]) * self.height
            turn = np.linspace(0, 2 * np.pi, 29)[:-1]
            shape = np.stack([np.cos(turn), np.sin(turn)], axis=1)
            shape = np.sign(shape) * np.abs(shape) ** 0.55  # a rounded rectangle
            points = centre + shift + shape * self.height * scale * np.array([half, 0.125])
            self.canvas.polygon(points, shade(self.looks.bag_colour, factor))
        if self.body.facing < -0.3:
            pocket = np.array([[-0.7, 0.02], [0.7, 0.02], [0.7, 0.09], [-0.7, 0.09]]) * (half, 1.0)
            self.canvas.polygon(centre + pocket * self.height, shade(self.looks.bag_colour, 0.8))

    def torso(self) -> None:
        looks, body = self.looks, self.body
        stretch = 0.34 if looks.top in ("coat", "dress") else 0.0
        if looks.bottom == "skirt":
            self.sections(_SKIRT, looks.bottom_colour, 0.36)
        sections = _TORSO[looks.top]
        self.canvas.limb(
            self.at(0.0, 0.0, 0.84), 0.031 * self.height, self.at(0.006, 0.0, 0.89), 0.027 * self.height,
            shade(looks.skin, 0.86), self.light,
        )  # fmt: skip
        self.sections(sections, looks.top_colour, stretch)
        self._pattern(sections)
        if looks.top in ("jacket", "coat") and body.facing > 0.15:
            low = sections[0][0] + 0.01
            line = [self.at(0.066, 0.0, up) for up in (0.845, 0.72, 0.6, low)]
            self.canvas.line(np.array(line), shade(looks.top_colour, 0.5), 0.012 * self.height)
            for side in (-1.0, 1.0):
                lapel = [self.at(0.05, side * 0.012, 0.862), self.at(0.05, side * 0.05, 0.845), self.at(0.066, 0.0, 0.75)]
                self.canvas.polygon(np.array(lapel), shade(looks.top_colour, 0.74))
        elif looks.top == "shirt" and body.facing > 0.3:
            collar = [self.at(0.04, 0.03, 0.868), self.at(0.05, 0.0, 0.835), self.at(0.04, -0.03, 0.868)]
            self.canvas.polygon(np.array(collar), shade(looks.skin, 0.9))
        if looks.bag == "shoulder":
            strap = [self.at(0.055 * np.sign(body.facing), lat, up) for lat, up in ((0.07, 0.85), (0.0, 0.68), (-0.085, 0.53))]
            self.canvas.line(np.array(strap), shade(looks.bag_colour, 0.55), 0.016 * self.height)
        if looks.bag == "backpack" and body.facing > -0.1:
            for side in (-0.068, 0.068):
                strap = [self.at(0.045, side, up) for up in (0.845, 0.76, 0.66)]
                self.canvas.line(np.array(strap), shade(looks.bag_colour, 0.7), 0.017 * self.height)

    def _pattern(self, sections: tuple[tuple[float, float, float], ...]) -> None:
        looks = self.looks
        heights = np.array([section[0] for section in sections])
        if looks.pattern == "stripes":
            bands = [(up, up + 0.022) for up in np.arange(0.52, 0.82, 0.046)]
        elif looks.pattern == "band":
            bands = [(0.66, 0.735)]
        elif looks.pattern == "print" and looks.top == "tshirt" and self.body.facing > 0.2:
            corners = [self.at(0.06, side, up) for side, up in ((-0.05, 0.78), (0.05, 0.78), (0.042, 0.69), (-0.042, 0.69))]
            self.canvas.polygon(np.array(corners), looks.pattern_colour)
            return
        else:
            return
        for low, high in bands:
            left, right = [], []
            for up in (low, high):
                lateral, sagittal = (np.interp(up, heights, [section[k] for section in sections]) for k in (1, 2))
                half = 0.9 * self.body.half_width(lateral, sagittal) * self.girth
                centre = self.at(0.0, 0.0, up)
                left.append(centre - (half * self.height, 0.0))
                right.append(centre + (half * self.height, 0.0))
            self.canvas.polygon(np.array(left + right[::-1]), looks.pattern_colour)

    def shoulder_bag(self) -> None:
        half = self.body.half_width(0.045, 0.075)
        corner = np.array([[-half, 0.05], [half, 0.05], [half * 0.95, -0.06], [-half * 0.95, -0.06]])
        centre = self.body.screen(0.0, -0.105, 0.5)
        self.canvas.polygon(self.place(centre + corner), shade(self.looks.bag_colour, 0.72))
        self.canvas.polygon(self.place(centre + corner * 0.84 + (0, 0.004)), self.looks.bag_colour)

    def paint(self) -> None:
        """Paint from back to front."""
        body, looks = self.body, self.looks
        steps: list[tuple[float, Callable[[], None]]] = [(0.0, self.torso)]
        for side in ("left", "right"):
            depth = body.depth(f"{side}_shoulder")
            hand = body.depth(f"{side}_hand")
            # An arm beside the body goes over it; one that is behind, or reaches behind, under it.
            steps.append((depth + hand - 0.03, lambda side=side: self.arm(side)))
        if looks.bag == "backpack":
            steps.append((0.4 * body.facing - 0.01, self.backpack))
        if looks.bag == "shoulder":
            steps.append((-0.105 * body.cos - 0.02, self.shoulder_bag))
        legs = sorted(("left", "right"), key=lambda side: -(body.depth(f"{side}_hip") + body.depth(f"{side}_knee")))
        first = [step for step in steps if step[0] > 0.0]
        later = [step for step in steps if step[0] <= 0.0]
        if body.facing > -0.35:
            paint_back_hair(self)
        for _, step in sorted(first, key=lambda step: -step[0]):
            step()
        for side in legs:
            self.leg(side)
        head_done = False
        for depth, step in sorted(later, key=lambda step: -step[0]):
            if depth < 0.0 and not head_done:
                paint_head(self)
                head_done = True
            step()
        if not head_done:
            paint_head(self)
        if body.facing <= -0.35:
            paint_back_hair(self)


def paint_person(
    looks: Looks, pose: Pose, height: float, foot: tuple[float, float], light: float = -0.6
) -> Sprite:
    """Return the sprite of a person `height` pixels tall who stands at `foot` (x, y) in the frame.

    `light` is the side that the light comes from, -1 left to 1 right. Positions may be
    fractions of a pixel. The umbrella is not part of the person: see `paint_umbrella`.
    """
    oversample = 4 if height < 64 else 3 if height < 140 else 2
    x, y = foot
    canvas = Canvas((x - 0.46 * height, y - 1.1 * height, x + 0.46 * height, y + 0.06 * height), oversample)
    _Painter(canvas, looks, pose, height, np.array([x, y]), light).paint()
    sprite = canvas.finish()
    return Sprite(_weave(sprite.bgra, looks.texture_seed), sprite.x, sprite.y)


def _weave(bgra: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Give cloth its folds: a soft random brightness, and less light towards the ground."""
    height, width = bgra.shape[:2]
    folds = np.random.default_rng(seed).uniform(0.86, 1.1, (20, 8)).astype(np.float32)
    folds = cv2.resize(folds, (width, height), interpolation=cv2.INTER_CUBIC)
    folds *= np.linspace(1.04, 0.9, height, dtype=np.float32)[:, None]
    every = cv2.merge([folds, folds, folds, np.ones_like(folds)])
    return cv2.multiply(bgra, every, dtype=cv2.CV_8U)


def paint_umbrella(looks: Looks, pose: Pose, height: float, foot: tuple[float, float]) -> Sprite | None:
    """Return the open umbrella of a person, or None; it is an object of its own, not the person."""
    if looks.umbrella is None:
        return None
    x, y = foot
    body = Skeleton(pose)
    hand = body.of("right_hand") * (height, -height) + (x, y)
    top = hand + np.array([0.02 * body.cos, -0.36]) * height
    canvas = Canvas((top[0] - 0.36 * height, top[1] - 0.12 * height, top[0] + 0.36 * height, hand[1] + 4), 3 if height < 140 else 2)
    turn = np.linspace(np.pi, 2 * np.pi, 19)
    for lateral, factor in ((1.0, 0.72), (0.62, 0.9), (0.22, 1.06)):
        dome = np.stack([np.cos(turn) * 0.33 * lateral, 0.155 * np.sin(turn)], axis=1)
        edge = np.linspace(1, -1, 9)
        hem = np.stack([edge * 0.33 * lateral, 0.022 * np.abs(np.sin(edge * 2 * np.pi)) - 0.012], axis=1)
        canvas.polygon(top + np.concatenate([dome, hem]) * height + (0, 0.06 * height), shade(looks.umbrella, factor))
    canvas.line([top + (0, -0.11 * height), top + (0, -0.08 * height)], (40, 40, 40), 0.012 * height)
    return canvas.finish()

"""Paint a person: a posed skeleton, dressed, as an anti-aliased sprite."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from persondet.sample.body import Body
from persondet.sample.carried import paint_backpack, paint_carried_bag, paint_shoulder_bag
from persondet.sample.clothes import paint_torso
from persondet.sample.head import paint_back_hair, paint_head
from persondet.sample.paint import Canvas, Image, Sprite, shade
from persondet.sample.people import Looks, Pose


def _leg(body: Body, side: str) -> None:
    looks = body.looks
    bare = looks.bottom in ("shorts", "skirt", "dress")
    skin = looks.skin
    factor = 0.86 if body.pose.depth(f"{side}_hip") > 0.01 else 1.0
    colour = shade(skin if bare else looks.bottom_colour, factor)
    body.limb(f"{side}_heel", 0.021, f"{side}_toe", 0.019, shade(looks.shoes, factor))
    if bare:
        body.limb(f"{side}_knee", 0.036, f"{side}_ankle", 0.021, colour)
    else:
        body.limb(f"{side}_knee", 0.043, f"{side}_ankle", 0.033, colour)
    thigh = shade(looks.bottom_colour, factor) if looks.bottom == "shorts" else colour
    body.limb(
        f"{side}_hip",
        0.064,
        f"{side}_knee",
        0.052 if looks.bottom == "shorts" else 0.045,
        thigh,
    )


def _arm(body: Body, side: str) -> None:
    looks = body.looks
    factor = 0.84 if body.pose.depth(f"{side}_shoulder") > 0.05 else 1.0
    sleeve, skin = shade(looks.top_colour, factor), shade(looks.skin, factor)
    wide = 1.16 if looks.top in ("jacket", "coat") else 1.0
    short = looks.top in ("tshirt", "dress")
    body.limb(
        f"{side}_elbow", 0.028 * wide, f"{side}_hand", 0.021 * wide, skin if short else sleeve
    )
    if short:
        body.limb(f"{side}_shoulder", 0.034, f"{side}_elbow", 0.028, skin)
        start, end = body.pose.of(f"{side}_shoulder"), body.pose.of(f"{side}_elbow")
        middle = start + 0.55 * (end - start)
        scale = body.thickness
        body.canvas.limb(
            body.place(start),
            0.04 * scale,
            body.place(middle),
            0.037 * scale,
            sleeve,
            body.light,
        )
    else:
        body.limb(f"{side}_shoulder", 0.036 * wide, f"{side}_elbow", 0.031 * wide, sleeve)
    hand = body.pose.of(f"{side}_hand")
    body.canvas.ellipse(
        body.place(hand - np.array([0.0, 0.016])),
        (0.021 * body.height, 0.026 * body.height),
        skin,
    )
    if side == "right" and looks.bag in ("handbag", "shopping"):
        paint_carried_bag(body, hand)


def _paint(body: Body) -> None:
    """Paint from back to front."""
    pose, looks = body.pose, body.looks
    steps: list[tuple[float, Callable[[], None]]] = [(0.0, partial(paint_torso, body))]
    for side in ("left", "right"):
        depth = pose.depth(f"{side}_shoulder")
        hand = pose.depth(f"{side}_hand")
        # An arm beside the body goes over it; one that is behind, or reaches behind, under it.
        steps.append((depth + hand - 0.03, partial(_arm, body, side)))
    if looks.bag == "backpack":
        steps.append((0.4 * pose.facing - 0.01, partial(paint_backpack, body)))
    if looks.bag == "shoulder":
        steps.append((-0.105 * pose.cos - 0.02, partial(paint_shoulder_bag, body)))
    legs = sorted(
        ("left", "right"),
        key=lambda side: -(pose.depth(f"{side}_hip") + pose.depth(f"{side}_knee")),
    )
    first = [step for step in steps if step[0] > 0.0]
    later = [step for step in steps if step[0] <= 0.0]
    if pose.facing > -0.35:
        paint_back_hair(body)
    for _, step in sorted(first, key=lambda step: -step[0]):
        step()
    for side in legs:
        _leg(body, side)
    head_done = False
    for depth, step in sorted(later, key=lambda step: -step[0]):
        if depth < 0.0 and not head_done:
            paint_head(body)
            head_done = True
        step()
    if not head_done:
        paint_head(body)
    if pose.facing <= -0.35:
        paint_back_hair(body)


def paint_person(
    looks: Looks, pose: Pose, height: float, foot: tuple[float, float], light: float = -0.6
) -> Sprite:
    """Return the sprite of a person `height` pixels tall who stands at `foot` (x, y) in the frame.

    `light` is the side that the light comes from, -1 left to 1 right. Positions may be
    fractions of a pixel. The umbrella is not part of the person: see `carried.paint_umbrella`.
    """
    oversample = 4 if height < 64 else 3 if height < 140 else 2
    x, y = foot
    canvas = Canvas(
        (x - 0.46 * height, y - 1.1 * height, x + 0.46 * height, y + 0.06 * height), oversample
    )
    _paint(Body(canvas, looks, pose, height, np.array([x, y]), light))
    sprite = canvas.finish()
    return Sprite(_weave(sprite.bgra, looks.texture_seed), sprite.x, sprite.y)


def _weave(bgra: Image, seed: int) -> Image:
    """Give cloth its folds: a soft random brightness, and less light towards the ground."""
    height, width = bgra.shape[:2]
    folds: NDArray[Any] = (
        np.random.default_rng(seed).uniform(0.91, 1.07, (20, 8)).astype(np.float32)
    )
    folds = cv2.resize(folds, (width, height), interpolation=cv2.INTER_CUBIC)
    folds = folds * np.linspace(1.04, 0.9, height, dtype=np.float32)[:, None]
    every = cv2.merge([folds, folds, folds, np.ones_like(folds)])
    return cv2.multiply(bgra, every, dtype=cv2.CV_8U)

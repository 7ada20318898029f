"""Who walks through the sample: looks, clothes and poses, drawn from a random generator."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from persondet.sample.paint import Colour

STRIDE = 0.7
"""Ground covered by one full gait cycle, in body heights (follows from the leg swing below)."""

_SKIN: tuple[Colour, ...] = (
    (178, 205, 240), (150, 182, 226), (126, 160, 208), (98, 134, 186),
    (74, 106, 158), (58, 82, 128), (42, 60, 98), (34, 46, 74),
)  # fmt: skip
_HAIR: tuple[Colour, ...] = (
    (24, 24, 26), (30, 38, 54), (36, 58, 92), (60, 98, 150),
    (104, 158, 206), (150, 150, 152), (206, 208, 210), (34, 52, 120),
)  # fmt: skip
_CLOTH: tuple[Colour, ...] = (
    (46, 42, 40), (70, 66, 64), (110, 108, 106), (170, 168, 166), (225, 226, 228),
    (120, 66, 34), (168, 110, 54), (190, 160, 110), (60, 44, 150), (50, 60, 196),
    (60, 130, 216), (66, 176, 224), (70, 110, 60), (96, 150, 84), (130, 60, 110),
    (150, 120, 190), (92, 120, 160), (64, 88, 124), (140, 180, 205), (120, 40, 40),
)  # fmt: skip
_TROUSERS: tuple[Colour, ...] = (
    (44, 40, 40), (62, 58, 58), (120, 84, 52), (96, 66, 42), (150, 112, 76),
    (104, 128, 150), (140, 160, 176), (84, 84, 86), (60, 72, 66), (70, 86, 110),
)  # fmt: skip
_SHOES: tuple[Colour, ...] = (
    (34, 32, 34),
    (50, 62, 86),
    (222, 222, 222),
    (60, 60, 150),
    (96, 92, 88),
)


@dataclass(frozen=True)
class Looks:
    """Everything about a person that stays the same while they walk."""

    height_m: float
    build: float  # width of the body relative to a slim adult
    skin: Colour
    hair: Colour
    hair_style: str  # short, long, bun, bald, curly
    hat: str  # "", cap, beanie, brim, hood
    hat_colour: Colour
    glasses: bool
    beard: bool
    top: str  # tshirt, shirt, jacket, coat, dress
    top_colour: Colour
    pattern: str  # "", stripes, band, print
    pattern_colour: Colour
    bottom: str  # trousers, shorts, skirt
    bottom_colour: Colour
    shoes: Colour
    bag: str  # "", backpack, handbag, shoulder, shopping
    bag_colour: Colour
    umbrella: Colour | None
    texture_seed: int


@dataclass(frozen=True)
class Pose:
    """How a person stands at one moment.

    `heading` (radians): 0 walks to the right, pi/2 away from the camera, -pi/2 towards it.
    `phase` (radians) is the left leg's place in the gait cycle, 0 at heel strike.
    """

    heading: float
    phase: float
    gait: float = 1.0  # size of the steps; 0 stands still
    arms: str = "swing"  # swing, phone, pockets, carry


def _pick(rng: np.random.Generator, options: tuple[Colour, ...]) -> Colour:
    base = options[int(rng.integers(len(options)))]
    jitter = rng.normal(0.0, 7.0, 3) + rng.normal(0.0, 8.0)
    # Worn cloth is greyer than dye.
    pale = np.mean(base) + (np.asarray(base) - np.mean(base)) * rng.uniform(0.65, 1.0)
    blue, green, red = np.clip(pale + jitter, 12, 245)
    return float(blue), float(green), float(red)


def _choose(rng: np.random.Generator, options: dict[str, float]) -> str:
    weights = np.array(list(options.values()))
    return str(rng.choice(list(options), p=weights / weights.sum()))


def random_looks(rng: np.random.Generator, *, rain: bool = False, cold: bool = False) -> Looks:
    """Return a random person, dressed for the weather."""
    child = rng.random() < 0.08
    height = rng.uniform(1.2, 1.5) if child else float(np.clip(rng.normal(1.71, 0.09), 1.5, 1.95))
    warm = {"tshirt": 4, "shirt": 3, "jacket": 2, "coat": 0.4, "dress": 1.2}
    top = _choose(
        rng, {"tshirt": 0.3, "shirt": 2, "jacket": 4, "coat": 3} if cold or rain else warm
    )
    bottoms = {"trousers": 5.0, "shorts": 0.0 if cold else 1.2, "skirt": 1.0}
    return Looks(
        height_m=float(height),
        build=float(rng.uniform(0.94, 1.28)),
        skin=_SKIN[int(rng.integers(len(_SKIN)))],
        hair=_pick(rng, _HAIR),
        hair_style=_choose(rng, {"short": 5, "long": 3, "bun": 1, "bald": 0.6, "curly": 1}),
        hat=_choose(rng, {"": 6, "cap": 1, "beanie": 1, "brim": 0.5, "hood": 1.2 if rain else 0.3}),
        hat_colour=_pick(rng, _CLOTH),
        glasses=bool(rng.random() < 0.25),
        beard=bool(not child and rng.random() < 0.18),
        top=top,
        top_colour=_pick(rng, _CLOTH),
        pattern=_choose(rng, {"": 4, "stripes": 1.2, "band": 1, "print": 1}),
        pattern_colour=_pick(rng, _CLOTH),
        bottom="dress" if top == "dress" else _choose(rng, bottoms),
        bottom_colour=_pick(rng, _TROUSERS if rng.random() < 0.8 else _CLOTH),
        shoes=_pick(rng, _SHOES),
        bag=_choose(rng, {"": 5, "backpack": 1.6, "handbag": 1, "shoulder": 1.2, "shopping": 1}),
        bag_colour=_pick(rng, _CLOTH),
        umbrella=_pick(rng, _CLOTH) if rain and rng.random() < 0.3 else None,
        texture_seed=int(rng.integers(1 << 30)),
    )


def random_pose(rng: np.random.Generator, looks: Looks) -> Pose:
    """Return a random moment of a walk (now and then of standing), seen from any side."""
    sides = (0.0, np.pi, np.pi / 2, -np.pi / 2)
    heading = float(rng.choice(sides, p=(0.27, 0.27, 0.2, 0.26)) + rng.normal(0.0, 0.38))
    standing = rng.random() < 0.14
    arms = _choose(rng, {"swing": 5, "phone": 1.2, "pockets": 0.8, "carry": 0.5})
    pose = Pose(heading, float(rng.uniform(0.0, 2.0 * np.pi)), 0.12 if standing else 1.0, arms)
    if looks.umbrella is not None:
        return replace(pose, arms="umbrella")
    return pose

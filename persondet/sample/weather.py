"""Light and weather: what they do to colours, depth and the sensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from persondet.sample.paint import Colour, Image, Sprite

TIMES = ("day", "overcast", "dusk", "night")
WEATHERS = ("clear", "rain", "fog")


@dataclass(frozen=True)
class Light:
    """The light of a scene. Colours are BGR; factors multiply, 1 changes nothing."""

    time: str
    weather: str
    ambient: tuple[float, float, float]
    sun_side: float  # -1 from the left, 1 from the right
    sun: float  # strength of cast shadows, 0..1
    lamps: bool
    sky_top: Colour
    sky_low: Colour
    fog_colour: Colour
    fog_range: float  # metres at which 63 % of a colour is fog
    noise: float  # standard deviation of the sensor noise, grey levels
    blur: float  # sigma of the lens, pixels at 640 x 360

    @property
    def wet(self) -> bool:
        """Whether the ground mirrors."""
        return self.weather == "rain"


def random_light(rng: np.random.Generator, time: str, weather: str) -> Light:
    """Return the light for a time of day (`TIMES`) and a weather (`WEATHERS`)."""
    side = float(rng.choice((-1.0, 1.0)) * rng.uniform(0.4, 0.9))
    sky: dict[str, tuple[Colour, Colour]] = {
        "day": ((214, 150, 84), (236, 214, 186)),
        "overcast": ((196, 186, 176), (222, 218, 212)),
        "dusk": ((120, 70, 66), (90, 150, 238)),
        "night": ((44, 26, 18), (76, 52, 44)),
    }
    top, low = sky[time]
    ambient = {
        "day": (0.96, 1.0, 1.05),
        "overcast": (0.93, 0.92, 0.90),
        "dusk": (0.62, 0.60, 0.74),
        "night": (0.46, 0.37, 0.34),
    }[time]
    if weather != "clear":
        grey = float(np.mean(low))
        top = tuple(0.35 * c + 0.65 * grey for c in top)  # type: ignore[assignment]
        low = tuple(0.5 * c + 0.5 * grey for c in low)  # type: ignore[assignment]
        ambient = tuple(0.92 * a for a in ambient)  # type: ignore[assignment]
    fog = {"clear": 160.0, "rain": 75.0, "fog": float(rng.uniform(26.0, 42.0))}[weather]
    return Light(
        time=time,
        weather=weather,
        ambient=ambient,
        sun_side=side,
        sun=float(rng.uniform(0.35, 0.55)) if time == "day" and weather == "clear" else 0.0,
        lamps=time in ("dusk", "night"),
        sky_top=top,
        sky_low=low,
        fog_colour=low,
        fog_range=fog,
        noise=float(
            {"day": 2.0, "overcast": 2.5, "dusk": 4.0, "night": 5.5}[time] * rng.uniform(0.6, 1.3)
        ),
        blur=float(rng.uniform(0.25, 0.6)),
    )


def haze(light: Light, depth: float) -> float:
    """Return the share of fog in front of something `depth` metres away."""
    return 1.0 - math.exp(-depth / light.fog_range)


def haze_sprite(sprite: Sprite, light: Light, depth: float) -> Sprite:
    """Return `sprite` seen through the air of the scene."""
    share = haze(light, depth)
    if share < 0.02:
        return sprite
    # Premultiplied: fog is added in proportion to coverage.
    keep = 1.0 - share
    fog = np.array(light.fog_colour) * share / 255.0
    matrix = np.array(
        [[keep, 0, 0, fog[0]], [0, keep, 0, fog[1]], [0, 0, keep, fog[2]], [0, 0, 0, 1]]
    )
    return Sprite(cv2.transform(sprite.bgra, matrix), sprite.x, sprite.y, sprite.glow)


def light_map(
    light: Light, size: tuple[int, int], lamps: list[tuple[float, float, float]]
) -> NDArray[np.float32]:
    """Return the factor (h/4, w/4, 3) that lights the scene: ambient plus pools below the lamps.

    `lamps` holds (x, y of the ground below, radius) in frame pixels; `size` is (width, height).
    """
    width, height = size[0] // 4, size[1] // 4
    factor = np.empty((height, width, 3), np.float32)
    factor[:] = np.array(light.ambient, np.float32)
    if light.lamps:
        ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
        warm = np.array((0.36, 0.50, 0.62), np.float32) * (1.0 if light.time == "night" else 0.5)
        total = np.zeros((height, width), np.float32)
        for x, y, radius in lamps:
            across = (xs * 4 - x) / radius
            along = (ys * 4 - (y - 0.45 * radius)) / (0.8 * radius)
            total += np.exp(-(across * across + along * along))
        factor += np.minimum(total, 1.1)[:, :, None] * warm
    return factor


def relight(image: Image, factor: NDArray[np.float32], glow: Image | None) -> Image:
    """Return `image` times the light map, plus emitted light with its halo."""
    height, width = image.shape[:2]
    full = cv2.resize(factor, (width, height), interpolation=cv2.INTER_LINEAR)
    lit = cv2.multiply(image, full, dtype=cv2.CV_8U)
    if glow is not None:
        small = cv2.resize(glow, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
        halo = cv2.addWeighted(cv2.GaussianBlur(small, (0, 0), width / 200), 0.35,
                               cv2.GaussianBlur(small, (0, 0), width / 60), 0.5, 0.0)  # fmt: skip
        halo = cv2.resize(halo, (width, height), interpolation=cv2.INTER_LINEAR)
        lit = cv2.add(cv2.add(lit, glow), halo)
    return lit


def mirror_ground(image: Image, glow: Image, horizon: float, strength: float) -> None:
    """Add to a wet ground the light above it, smeared downwards; `image` is changed in place."""
    height, width = image.shape[:2]
    line = int(np.clip(horizon, 8, height - 8))
    below = height - line
    above = glow[max(line - below, 0) : line][::-1]
    small = cv2.resize(above, (width // 2, max(len(above) // 8, 1)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 1.6)
    small = (
        small * np.linspace(1.0, 0.0, len(small))[:, None, None]
    )  # it ends before the frame does
    mirrored = cv2.resize(small, (width, len(above)), interpolation=cv2.INTER_LINEAR).astype(
        np.uint8
    )
    part = image[line : line + len(above)]
    part[:] = cv2.addWeighted(part, 1.0, mirrored, strength, 0.0)


def rain(image: Image, rng: np.random.Generator, amount: float = 1.0) -> Image:
    """Return `image` behind streaks of rain."""
    height, width = image.shape[:2]
    layer: Image = np.zeros((height, width), np.uint8)
    scale = height / 360.0
    count = int(190 * amount)
    starts = rng.uniform((-20, -40), (width + 20, height), (count, 2))
    lengths = rng.uniform(8, 26, count) * scale
    bright = rng.uniform(40, 120, count)
    slant = float(rng.uniform(-0.12, 0.12))
    for (x, y), length, value in zip(starts, lengths, bright, strict=True):
        end = (int(x + slant * length), int(y + length))
        cv2.line(layer, (int(x), int(y)), end, float(value), max(int(round(scale)), 1), cv2.LINE_AA)
    layer = cv2.GaussianBlur(layer, (0, 0), 0.6 * scale)
    return cv2.add(image, cv2.cvtColor(layer, cv2.COLOR_GRAY2BGR))


class Sensor:
    """A small camera: a slightly soft lens, and noise from a few fields shifted at random.

    Drawing fresh noise would cost more than drawing the scene; shifted fields look the same.
    """

    def __init__(
        self, rng: np.random.Generator, size: tuple[int, int], light: Light, fields: int = 1
    ) -> None:
        """Draw `fields` fields of noise for frames of `size` (width, height)."""
        width, height = size
        self.sigma = light.blur * height / 360.0
        self.fields = []
        for _ in range(fields):
            grain = rng.standard_normal((height, width), np.float32) * light.noise
            colour = rng.standard_normal((height // 2, width // 2, 3), np.float32) * (
                0.8 * light.noise
            )
            noise = cv2.resize(colour, (width, height), interpolation=cv2.INTER_LINEAR)
            self.fields.append(np.rint(noise + grain[:, :, None]).astype(np.int16))

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Return `image` (uint8 (height, width, 3)) as this camera sees it."""
        if self.sigma > 0.3:
            image = cv2.GaussianBlur(image, (0, 0), self.sigma)
        noise = self.fields[int(rng.integers(len(self.fields)))]
        if len(self.fields) > 1:
            noise = np.roll(noise, tuple(rng.integers(0, noise.shape[:2])), axis=(0, 1))
        return cv2.add(image, noise, dtype=cv2.CV_8U)

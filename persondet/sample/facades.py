"""House fronts as flat pictures: walls, windows, doors, shops, posters and mannequins."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from persondet.sample.paint import Colour, Image, blend, shade

_WALLS: tuple[Colour, ...] = (
    (92, 112, 168), (84, 96, 140), (150, 186, 212), (176, 196, 208), (140, 160, 172),
    (170, 176, 180), (128, 172, 214), (120, 128, 134), (196, 206, 214), (150, 170, 150), (160, 150, 130),
)  # fmt: skip
_SIGNS: tuple[Colour, ...] = (
    (60, 40, 150), (120, 70, 30), (60, 110, 40), (40, 130, 200), (50, 50, 54), (120, 50, 100), (190, 190, 196),
)  # fmt: skip
_LIT: tuple[Colour, ...] = ((120, 200, 250), (150, 214, 250), (180, 224, 246), (230, 226, 214))


@dataclass
class Facade:
    """A front seen straight on: `picture` and what of it shines, BGR uint8 (h, w, 3)."""

    picture: Image
    glow: Image
    width_m: float
    height_m: float
    pictures_of_people: int


class _Front:
    def __init__(
        self, rng: np.random.Generator, width_m: float, height_m: float, scale: float, lit: bool
    ) -> None:
        self.rng, self.scale, self.lit = rng, scale, lit
        self.width, self.height = width_m, height_m
        shape = (max(int(height_m * scale), 8), max(int(width_m * scale), 8), 3)
        self.picture: Image = np.zeros(shape, np.uint8)
        self.glow: Image = np.zeros(shape, np.uint8)
        self.people = 0

    def pixel(self, x: float, y: float) -> tuple[int, int]:
        return int(round(x * self.scale)), self.picture.shape[0] - int(round(y * self.scale))

    def box(
        self, x0: float, y0: float, x1: float, y1: float, colour: Colour, glow: Colour | None = None
    ) -> None:
        first, last = self.pixel(x0, y1), self.pixel(x1, y0)
        last = (max(last[0] - 1, first[0]), max(last[1] - 1, first[1]))
        cv2.rectangle(self.picture, first, last, colour, -1)
        cv2.rectangle(self.glow, first, last, glow or (0, 0, 0), -1)

    def poly(self, points: list[tuple[float, float]], colour: Colour) -> None:
        pixels = np.array([self.pixel(x, y) for x, y in points], np.int32)
        cv2.fillPoly(self.picture, [pixels], colour, cv2.LINE_AA)
        cv2.fillPoly(self.glow, [pixels], (0, 0, 0))

    def wall(self) -> Colour:
        rng = self.rng
        base = np.array(_WALLS[int(rng.integers(len(_WALLS)))], float) * rng.uniform(
            0.8, 1.08
        ) + rng.normal(0, 6, 3)
        colour = (float(base[0]), float(base[1]), float(base[2]))
        height, width = self.picture.shape[:2]
        rough = rng.normal(1.0, 0.05, (max(height // 3, 2), max(width // 3, 2))).astype(np.float32)
        stains = rng.normal(1.0, 0.06, (6, 5)).astype(np.float32)
        texture = cv2.resize(rough, (width, height)) * cv2.resize(
            stains, (width, height), interpolation=cv2.INTER_CUBIC
        )
        self.picture[:] = np.clip(texture[:, :, None] * base.astype(np.float32), 0, 255).astype(
            np.uint8
        )
        if rng.random() < 0.45:  # bricks
            course = max(int(0.28 * self.scale), 3)
            brick = course * 2
            joint = shade(colour, 0.86)
            self.picture[::course] = np.array(joint, np.uint8)
            for row in range(0, height, course):
                offset = brick // 2 if (row // course) % 2 else 0
                self.picture[row : row + course, offset::brick] = np.array(joint, np.uint8)
        return colour

    def window(self, x: float, y: float, width: float, tall: float, frame: Colour) -> None:
        rng = self.rng
        self.box(x - 0.1, y - 0.12, x + width + 0.1, y + tall + 0.1, frame)
        on = self.lit and rng.random() < 0.5
        glass: Colour = (
            _LIT[int(rng.integers(len(_LIT)))]
            if on
            else shade((118, 100, 84), rng.uniform(0.55, 1.25))
        )
        glow = shade(glass, rng.uniform(0.3, 0.6)) if on else None
        self.box(x, y, x + width, y + tall, glass, glow)
        if not on:
            self.poly(
                [(x, y + tall), (x + 0.55 * width, y + tall), (x, y + 0.35 * tall)],
                blend(glass, (226, 214, 200), 0.35),
            )
        if rng.random() < 0.4:
            cloth = blend((210, 214, 218), glass, 0.3)
            self.box(x, y, x + 0.22 * width, y + tall, cloth, shade(cloth, 0.4) if on else None)
            self.box(
                x + 0.78 * width, y, x + width, y + tall, cloth, shade(cloth, 0.4) if on else None
            )
        bar = shade(frame, 0.95)
        self.box(x + 0.47 * width, y, x + 0.53 * width, y + tall, bar)
        self.box(x, y + 0.62 * tall, x + width, y + 0.67 * tall, bar)
        self.box(x - 0.15, y - 0.2, x + width + 0.15, y - 0.08, shade(frame, 0.7))

    def mannequin(self, x: float, y: float) -> None:
        """A headless torso on a stand: no limbs."""
        colour = _SIGNS[int(self.rng.integers(len(_SIGNS)))]
        pale = (188, 204, 216)
        self.box(x - 0.02, y, x + 0.02, y + 0.75, (70, 70, 74))
        self.box(x - 0.18, y, x + 0.18, y + 0.05, (60, 60, 64))
        self.poly([(x - 0.2, y + 0.62), (x - 0.15, y + 1.0), (x - 0.22, y + 1.3), (x + 0.22, y + 1.3), (x + 0.15, y + 1.0), (x + 0.2, y + 0.62)], colour)  # fmt: skip
        self.poly(
            [
                (x - 0.14, y + 0.68),
                (x - 0.1, y + 1.0),
                (x - 0.12, y + 1.26),
                (x, y + 1.26),
                (x, y + 0.68),
            ],
            shade(colour, 1.25),
        )
        self.box(x - 0.05, y + 1.29, x + 0.05, y + 1.38, pale)
        self.people += 1

    def poster(self, x: float, y: float, width: float, tall: float) -> None:
        """A framed, flat picture of a person in two inks."""
        picture = poster_picture(
            self.rng, max(int(width * self.scale), 4), max(int(tall * self.scale), 6)
        )
        left, top = self.pixel(x, y + tall)
        height, across = self.picture.shape[:2]
        h, w = min(picture.shape[0], height - top), min(picture.shape[1], across - left)
        if left >= 0 and top >= 0 and h > 0 and w > 0:
            self.picture[top : top + h, left : left + w] = picture[:h, :w]
            self.glow[top : top + h, left : left + w] = 0
            self.people += 1

    def shop(self, x0: float, x1: float, people_pictures: bool) -> None:
        rng = self.rng
        sign = shade(_SIGNS[int(rng.integers(len(_SIGNS)))], rng.uniform(0.8, 1.2))
        self.box(x0, 0.0, x1, 3.7, shade(sign, 0.45))
        door = x0 + rng.uniform(0.1, 0.7) * (x1 - x0 - 1.2)
        inside: Colour = _LIT[int(rng.integers(len(_LIT)))] if self.lit else (128, 140, 150)
        glow = shade(inside, 0.42) if self.lit else None
        panes = [(x0 + 0.2, door - 0.15), (door + 1.25, x1 - 0.2)]
        for left, right in panes:
            if right - left < 0.7:
                continue
            self.box(left, 0.5, right, 2.9, shade(inside, 0.9), glow)
            for _ in range(int((right - left) * 1.6)):  # goods on shelves
                gx, gy = rng.uniform(left, max(right - 0.4, left)), rng.choice((0.55, 1.15, 1.75))
                tone = shade(_SIGNS[int(rng.integers(len(_SIGNS)))], 1.2)
                self.box(
                    gx,
                    gy,
                    min(gx + rng.uniform(0.15, 0.4), right),
                    gy + rng.uniform(0.15, 0.45),
                    tone,
                )
            if people_pictures:
                for k in range(int(rng.integers(0, 3))):
                    if left + 0.5 + k * 0.9 < right - 0.3:
                        self.mannequin(left + 0.5 + k * 0.9, 0.55)
            self.poly(
                [(left, 2.9), (left + 0.4 * (right - left), 2.9), (left, 1.2)],
                blend(inside, (235, 230, 220), 0.3),
            ) if not self.lit else None
            self.box(left - 0.06, 2.86, right + 0.06, 2.95, shade(sign, 0.7))
        self.box(door, 0.0, door + 1.1, 2.6, shade(sign, 0.75))
        self.box(door + 0.15, 0.3, door + 0.95, 2.45, shade(inside, 0.8), glow)
        lettering = blend(sign, (240, 240, 240), 0.85)
        self.box(x0, 3.0, x1, 3.65, sign, shade(sign, 0.3) if self.lit else None)
        cursor = x0 + 0.4
        while cursor < x1 - 0.6:
            step = rng.uniform(0.12, 0.32)
            self.box(
                cursor,
                3.18,
                cursor + step,
                3.18 + rng.uniform(0.2, 0.32),
                lettering,
                shade(lettering, 0.5) if self.lit else None,
            )
            cursor += step + (0.4 if rng.random() < 0.2 else 0.07)
        if rng.random() < 0.5:  # a striped awning
            first, second = shade(sign, 1.3), (226, 228, 230)
            count = max(int((x1 - x0) / 0.5), 2)
            step = (x1 - x0) / count
            for k in range(count):
                left = x0 + k * step
                self.poly(
                    [
                        (left, 3.1),
                        (left + step, 3.1),
                        (left + step, 2.35),
                        (left + step / 2, 2.25),
                        (left, 2.35),
                    ],
                    first if k % 2 else second,
                )


def poster_picture(rng: np.random.Generator, width: int, height: int) -> Image:
    """Return a framed poster, uint8 (height, width, 3): a flat bust in two inks and lines of text."""
    paper = shade(_SIGNS[int(rng.integers(len(_SIGNS)))], 1.5)
    ink = shade(_SIGNS[int(rng.integers(len(_SIGNS)))], 0.75)
    big = np.full((96, 64, 3), np.array(paper, np.uint8), np.uint8)
    middle = int(rng.integers(24, 40))
    cv2.ellipse(big, (middle, 78), (24, 30), 0, 180, 360, ink, -1, cv2.LINE_AA)
    cv2.ellipse(
        big, (middle, 34), (11, 14), 0, 0, 360, blend(paper, (250, 250, 250), 0.5), -1, cv2.LINE_AA
    )
    cv2.ellipse(big, (middle, 29), (12, 11), 0, 180, 360, ink, -1, cv2.LINE_AA)
    big[78:] = np.array(blend(paper, (250, 250, 250), 0.7), np.uint8)
    for row in (82, 88):
        big[row : row + 3, 8 : int(rng.integers(30, 58))] = np.array(ink, np.uint8)
    cv2.rectangle(big, (0, 0), (63, 95), (40, 40, 42), 4)
    return cv2.resize(big, (width, height), interpolation=cv2.INTER_AREA)


def paint_facade(
    rng: np.random.Generator,
    width_m: float,
    height_m: float,
    scale: float,
    *,
    lit: bool,
    people_pictures: bool,
) -> Facade:
    """Return a house front, `scale` pixels per metre.

    `lit` turns lights on; `people_pictures` allows mannequins and posters of people.
    """
    front = _Front(rng, width_m, height_m, scale, lit)
    wall = front.wall()
    frame = blend(wall, (236, 238, 240), rng.uniform(0.2, 0.9))
    ground = 3.9
    storey = rng.uniform(2.9, 3.4)
    width, tall = rng.uniform(0.9, 1.4), rng.uniform(1.4, 1.9)
    count = max(int((width_m - 0.8) / (width + rng.uniform(0.7, 1.5))), 1)
    gap = (width_m - count * width) / (count + 1)
    level = ground
    while level + storey < height_m + 0.3:
        for k in range(count):
            front.window(gap + k * (width + gap), level + 0.8, width, tall, frame)
        front.box(0, level - 0.1, width_m, level + 0.05, shade(wall, 0.78))
        level += storey
    if rng.random() < 0.72:
        front.shop(0.3, width_m - 0.3, people_pictures)
    else:
        front.box(0, 0, width_m, 0.6, shade(wall, 0.6))
        door = rng.uniform(0.5, width_m - 1.8)
        front.box(door - 0.15, 0, door + 1.25, 2.75, frame)
        front.box(door, 0, door + 1.1, 2.6, shade(_SIGNS[int(rng.integers(len(_SIGNS)))], 0.7))
        for k in range(count):
            x = gap + k * (width + gap)
            if x + width < door - 0.3 or x > door + 1.5:
                if people_pictures and rng.random() < 0.45:
                    front.poster(x, 0.9, 1.1, 1.65)
                else:
                    front.window(x, 1.1, width, tall * 0.9, frame)
    front.box(0, height_m - 0.45, width_m, height_m, shade(wall, 0.72))
    front.box(0, height_m - 0.2, width_m, height_m - 0.12, shade(wall, 1.05))
    front.box(0, 0, 0.12, height_m, shade(wall, 0.8))
    return Facade(front.picture, front.glow, width_m, height_m, front.people)

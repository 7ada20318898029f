"""What people carry: bags in the hand, on the shoulder and on the back, and umbrellas."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from persondet.sample.body import Body
from persondet.sample.paint import Canvas, Sprite, shade
from persondet.sample.people import Looks, Pose
from persondet.sample.skeleton import Skeleton


def paint_carried_bag(body: Body, hand: NDArray[np.float64]) -> None:
    """Paint a bag below the hand at `hand`: (right, up) in body heights."""
    drop, half, tall = (0.06, 0.058, 0.085) if body.looks.bag == "handbag" else (0.05, 0.068, 0.15)
    half = max(half * abs(body.pose.cos), 0.5 * half)
    corners = [
        (-0.8 * half, -drop),
        (0.8 * half, -drop),
        (half, -drop - tall),
        (-half, -drop - tall),
    ]
    for side in (-0.6, 0.6):
        ends = np.array([hand + (0.0, -0.015), hand + (side * half, -drop)])
        body.canvas.line(body.place(ends), shade(body.looks.bag_colour, 0.6), 0.01 * body.height)
    body.canvas.polygon(body.place(hand + np.array(corners)), shade(body.looks.bag_colour, 0.85))
    inner = np.array(corners) * (0.86, 1.0) + (0.0, -0.006)
    body.canvas.polygon(body.place(hand + inner * (0.8, 0.92)), body.looks.bag_colour)


def paint_backpack(body: Body) -> None:
    """Paint a backpack; whether it is seen in front or behind is the caller's order."""
    half = body.pose.half_width(0.086, 0.052)
    centre = body.at(-0.108, 0.0, 0.715)
    for scale, factor in ((1.0, 0.68), (0.84, 0.9), (0.5, 1.06)):
        shift = np.array([body.light * 0.2 * half * (1 - scale), -0.02 * (1 - scale)]) * body.height
        turn = np.linspace(0, 2 * np.pi, 29)[:-1]
        shape = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        shape = np.sign(shape) * np.abs(shape) ** 0.55  # a rounded rectangle
        points = centre + shift + shape * body.height * scale * np.array([half, 0.125])
        body.canvas.polygon(points, shade(body.looks.bag_colour, factor))
    if body.pose.facing < -0.3:
        pocket = np.array([[-0.7, 0.02], [0.7, 0.02], [0.7, 0.09], [-0.7, 0.09]]) * (half, 1.0)
        body.canvas.polygon(centre + pocket * body.height, shade(body.looks.bag_colour, 0.8))


def paint_shoulder_bag(body: Body) -> None:
    """Paint the bag at the hip that hangs on a strap."""
    half = body.pose.half_width(0.045, 0.075)
    corner = np.array([[-half, 0.05], [half, 0.05], [half * 0.95, -0.06], [-half * 0.95, -0.06]])
    centre = body.pose.screen(0.0, -0.105, 0.5)
    body.canvas.polygon(body.place(centre + corner), shade(body.looks.bag_colour, 0.72))
    body.canvas.polygon(body.place(centre + corner * 0.84 + (0, 0.004)), body.looks.bag_colour)


def paint_umbrella(
    looks: Looks, pose: Pose, height: float, foot: tuple[float, float]
) -> Sprite | None:
    """Return the open umbrella of a person, or None; it is an object of its own, not the person."""
    if looks.umbrella is None:
        return None
    x, y = foot
    body = Skeleton(pose)
    hand = body.of("right_hand") * (height, -height) + (x, y)
    top = hand + np.array([0.02 * body.cos, -0.34]) * height
    canvas = Canvas(
        (top[0] - 0.36 * height, top[1] - 0.12 * height, top[0] + 0.36 * height, hand[1] + 4),
        3 if height < 140 else 2,
    )
    canvas.line([hand, top], (60, 60, 62), 0.011 * height)
    turn = np.linspace(np.pi, 2 * np.pi, 19)
    for lateral, factor in ((1.0, 0.72), (0.62, 0.9), (0.22, 1.06)):
        dome = np.stack([np.cos(turn) * 0.31 * lateral, 0.15 * np.sin(turn)], axis=1)
        edge = np.linspace(1, -1, 9)
        hem = np.stack(
            [edge * 0.31 * lateral, 0.022 * np.abs(np.sin(edge * 2 * np.pi)) - 0.012], axis=1
        )
        canvas.polygon(
            top + np.concatenate([dome, hem]) * height + (0, 0.085 * height),
            shade(looks.umbrella, factor),
        )
    canvas.line(
        [top + (0, -0.09 * height), top + (0, -0.05 * height)], (40, 40, 40), 0.012 * height
    )
    return canvas.finish()

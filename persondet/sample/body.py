"""A person on the canvas: from body heights to frame pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from persondet.sample.paint import Canvas, Colour
from persondet.sample.people import Looks, Pose
from persondet.sample.skeleton import Skeleton


class Body:
    """A posed person on a canvas: lengths are body heights until they reach it.

    `light` is the side that the light comes from (-1 left, 1 right), `pose` the skeleton,
    `height` the person's height in pixels, `foot` the ground point in the frame, `girth` the
    width of the body relative to a slim adult.
    """

    def __init__(
        self,
        canvas: Canvas,
        looks: Looks,
        pose: Pose,
        height: float,
        foot: NDArray[np.float64],
        light: float,
    ) -> None:
        self.canvas, self.looks, self.light = canvas, looks, light
        self.pose = Skeleton(pose)
        self.height, self.foot = height, foot
        self.girth = looks.build

    def place(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return frame pixels of (right, up) in body heights."""
        return self.foot + self.height * np.stack([point[..., 0], -point[..., 1]], axis=-1)

    def at(self, forward: float, left: float, up: float) -> NDArray[np.float64]:
        """Return frame pixels of a body point; `up` is counted on the upright body."""
        return self.place(
            self.pose.screen(
                forward + self.pose.lean * max(up - 0.5, 0.0) / 0.35, left, up - self.pose.sink
            )
        )

    @property
    def thickness(self) -> float:
        """Pixels per unit of limb radius: wider people have thicker limbs, less than in proportion."""
        return self.height * (0.63 + 0.45 * self.girth)

    def limb(
        self, start: str, start_radius: float, end: str, end_radius: float, colour: Colour
    ) -> None:
        """Paint a limb between two joints; radii in body heights."""
        self.canvas.limb(
            self.place(self.pose.of(start)),
            start_radius * self.thickness,
            self.place(self.pose.of(end)),
            end_radius * self.thickness,
            colour,
            self.light,
        )

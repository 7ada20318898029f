"""The camera of a scene: a pinhole at eye height that looks along a level street."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Camera:
    """World: metres, X to the right, Y up, Z away from the camera; frame: pixels.

    `focal` in pixels; `centre` is the x of the vanishing point, `horizon` its y; `eye` is the
    camera's height above the ground.
    """

    width: int
    height: int
    focal: float
    centre: float
    horizon: float
    eye: float

    def project(self, x: ArrayLike, y: ArrayLike, z: ArrayLike) -> NDArray[np.float64]:
        """Return frame points (..., 2) of world points; Z must be positive."""
        x, y, z = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in (x, y, z)))
        return np.stack(
            [self.centre + self.focal * x / z, self.horizon + self.focal * (self.eye - y) / z],
            axis=-1,
        )

    def point(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Return the frame point of one world point."""
        scale = self.focal / z
        return self.centre + scale * x, self.horizon + scale * (self.eye - y)

    def pixels_per_metre(self, z: float) -> float:
        """Return the scale at depth `z`."""
        return self.focal / z

    def depth_for(self, metres: float, pixels: float) -> float:
        """Return the depth at which something `metres` tall covers `pixels`."""
        return self.focal * metres / pixels

    def across(self, pixel_x: float, z: float) -> float:
        """Return the world X seen at frame column `pixel_x` and depth `z`."""
        return (pixel_x - self.centre) * z / self.focal

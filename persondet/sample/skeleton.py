"""The walking skeleton: joint positions in body heights from a pose, in three dimensions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from persondet.sample.people import Pose

Point = NDArray[np.float64]

HIP, THIGH, SHANK = 0.525, 0.245, 0.240
SHOULDER, UPPER_ARM, FOREARM = 0.803, 0.165, 0.150


class Skeleton:
    """Joints of a posed body.

    `joints` maps a name to (forward, left, up) in body heights; the ground is at 0. `screen`
    gives (right, up) and `depth` the distance away from the camera, after turning by the heading.
    """

    def __init__(self, pose: Pose) -> None:
        """Pose the body: legs from the gait cycle, the lowest foot on the ground."""
        self.cos, self.sin = float(np.cos(pose.heading)), float(np.sin(pose.heading))
        self.facing = -self.sin
        self.joints: dict[str, Point] = {}
        lean = 0.035 * pose.gait
        for side, offset, phase in (("left", 1.0, pose.phase), ("right", -1.0, pose.phase + np.pi)):
            self._leg(side, offset, phase, pose.gait)
            self._arm(side, offset, phase, pose, lean)
        ground = min(
            self.joints[f"{side}_{part}"][2]
            for side in ("left", "right")
            for part in ("heel", "toe")
        )
        sink = ground - 0.018
        self.joints["neck"] = np.array([lean, 0.0, 0.865])
        self.joints["head"] = np.array([lean + 0.012, 0.0, 0.928])
        for joint in self.joints.values():
            joint[2] -= sink
        self.sink = sink
        self.lean = lean

    def _leg(self, side: str, offset: float, phase: float, gait: float) -> None:
        turn = phase % (2.0 * np.pi)
        thigh = gait * (np.radians(20.0) * np.cos(turn) + np.radians(4.0))
        swing = np.exp(-(((turn - 1.36 * np.pi) / (0.27 * np.pi)) ** 2))
        give = np.exp(-(((turn - 0.25 * np.pi) / (0.2 * np.pi)) ** 2))
        knee = np.radians(4.0) + gait * np.radians(46.0 * swing + 10.0 * give)
        shank = thigh - knee
        lateral = offset * 0.048
        hip = np.array([0.0, lateral, HIP])
        joint = hip + THIGH * np.array([np.sin(thigh), 0.0, -np.cos(thigh)])
        ankle = joint + SHANK * np.array([np.sin(shank), 0.0, -np.cos(shank)])
        ankle[1] = offset * 0.04
        # Toes up before heel strike, heel up at push-off.
        strike = np.exp(
            -((((turn + 0.05 * np.pi) % (2 * np.pi) - 0.05 * np.pi) / (0.16 * np.pi)) ** 2)
        )
        push = np.exp(-(((turn - 1.08 * np.pi) / (0.24 * np.pi)) ** 2))
        pitch = gait * np.radians(20.0 * strike - 42.0 * push)
        along = np.array([np.cos(pitch), 0.0, np.sin(pitch)])
        down = np.array([np.sin(pitch), 0.0, -np.cos(pitch)])
        self.joints |= {
            f"{side}_hip": hip,
            f"{side}_knee": joint,
            f"{side}_ankle": ankle,
            f"{side}_heel": ankle - 0.028 * along + 0.024 * down,
            f"{side}_toe": ankle + 0.092 * along + 0.026 * down,
        }
        self.joints[f"{side}_toe"][1] += offset * 0.012

    def _arm(self, side: str, offset: float, phase: float, pose: Pose, lean: float) -> None:
        swing = -np.cos(phase) * pose.gait
        raised = np.radians(-3.0 + 15.0 * swing)
        bend = np.radians(16.0 + 12.0 * max(swing, 0.0) * pose.gait)
        spread = 0.018
        if pose.arms == "pockets":
            raised, bend, spread = np.radians(-14.0), np.radians(34.0), 0.045
        elif pose.arms == "phone" and side == "right":
            raised, bend, spread = np.radians(22.0), np.radians(96.0), -0.01
        elif pose.arms == "umbrella" and side == "right":
            raised, bend, spread = np.radians(18.0), np.radians(118.0), 0.0
        elif pose.arms == "carry":
            raised, bend, spread = raised * 0.3, np.radians(10.0), 0.02
        shoulder = np.array([lean, offset * 0.1, SHOULDER])
        elbow = shoulder + UPPER_ARM * np.array([np.sin(raised), 0.0, -np.cos(raised)])
        elbow[1] += offset * spread
        lower = raised + bend
        hand = elbow + FOREARM * np.array([np.sin(lower), 0.0, -np.cos(lower)])
        hand[1] += offset * (0.004 if pose.arms == "swing" else -0.03)
        self.joints |= {f"{side}_shoulder": shoulder, f"{side}_elbow": elbow, f"{side}_hand": hand}

    def screen(self, forward: float, left: float, up: float) -> Point:
        """Return (right, up) of a body point, in body heights."""
        return np.array([forward * self.cos - left * self.sin, up])

    def of(self, name: str) -> Point:
        """Return (right, up) of a joint."""
        forward, left, up = self.joints[name]
        return self.screen(forward, left, up)

    def depth(self, name: str) -> float:
        """Return how far a joint is behind the body's middle, seen from the camera."""
        forward, left, _ = self.joints[name]
        return float(forward * self.sin + left * self.cos)

    def half_width(self, lateral: float, sagittal: float) -> float:
        """Return the half width on screen of an elliptic section of the body."""
        return float(np.hypot(lateral * self.sin, sagittal * self.cos))

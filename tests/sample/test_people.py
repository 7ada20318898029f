"""People: a body that keeps its proportions, walks without sliding, and stands on the ground."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.sample.figure import paint_person
from persondet.sample.people import STRIDE, Pose, random_looks, random_pose
from persondet.sample.skeleton import FOREARM, SHANK, THIGH, UPPER_ARM, Skeleton

angles = st.floats(0.0, 2.0 * np.pi)


def length(skeleton: Skeleton, first: str, last: str) -> float:
    return float(np.linalg.norm(skeleton.joints[first] - skeleton.joints[last]))


@given(angles, angles, st.sampled_from(["swing", "phone", "pockets", "carry", "umbrella"]))
def test_bones_keep_their_length_and_a_foot_is_on_the_ground(heading, phase, arms):
    skeleton = Skeleton(Pose(heading, phase, 1.0, arms))
    for side in ("left", "right"):
        assert length(skeleton, f"{side}_hip", f"{side}_knee") == pytest.approx(THIGH)
        assert length(skeleton, f"{side}_knee", f"{side}_ankle") == pytest.approx(SHANK, abs=0.01)
        assert length(skeleton, f"{side}_shoulder", f"{side}_elbow") == pytest.approx(
            UPPER_ARM, abs=0.01
        )
        assert length(skeleton, f"{side}_elbow", f"{side}_hand") == pytest.approx(FOREARM, abs=0.01)
    lowest = min(
        skeleton.joints[f"{s}_{part}"][2] for s in ("left", "right") for part in ("heel", "toe")
    )
    assert lowest == pytest.approx(0.018)  # the sole's thickness
    assert 0.88 < skeleton.joints["head"][2] < 0.97


@given(angles)
def test_a_cycle_later_the_other_leg_is_where_this_one_was(phase):
    now, half = Skeleton(Pose(0.0, phase)), Skeleton(Pose(0.0, phase + np.pi))
    np.testing.assert_allclose(
        now.joints["left_knee"][[0, 2]], half.joints["right_knee"][[0, 2]], atol=1e-9
    )


def test_the_standing_foot_goes_back_as_fast_as_the_body_goes_forward():
    phases = np.linspace(0.1 * np.pi, 0.9 * np.pi, 30)
    ankle = np.array([Skeleton(Pose(0.0, phase)).joints["left_ankle"][0] for phase in phases])
    walked = STRIDE * (phases[-1] - phases[0]) / (2.0 * np.pi)
    assert ankle[0] - ankle[-1] == pytest.approx(walked, rel=0.15)
    assert (np.diff(ankle) < 0).all()


def test_left_is_far_when_walking_to_the_right():
    right, away = Skeleton(Pose(0.0, 0.0)), Skeleton(Pose(np.pi / 2, 0.0))
    assert right.depth("left_hip") > right.depth("right_hip")
    assert away.of("left_hip")[0] < away.of("right_hip")[0]
    assert away.facing == pytest.approx(-1.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(36.0, 150.0))
def test_a_sprite_is_as_tall_as_asked_and_stands_where_asked(seed, height):
    rng = np.random.default_rng(seed)
    looks = random_looks(rng)
    sprite = paint_person(looks, random_pose(rng, looks), height, (200.0, 300.0))
    rows, columns = np.nonzero(sprite.mask())
    top, bottom = sprite.y + rows.min(), sprite.y + rows.max() + 1
    assert bottom == pytest.approx(300.0, abs=0.03 * height + 1.5)
    assert 0.9 * height < bottom - top < 1.1 * height + 2
    assert sprite.x + columns.mean() == pytest.approx(200.0, abs=0.14 * height)


def test_a_fraction_of_a_pixel_moves_the_sprite_by_it():
    rng = np.random.default_rng(0)
    looks = random_looks(rng)
    centres = []
    for shift in (0.0, 0.25, 0.5):
        sprite = paint_person(looks, Pose(0.3, 1.0), 120.0, (200.0 + shift, 300.0))
        weights = sprite.bgra[:, :, 3].astype(float).sum(axis=0)
        centres.append(sprite.x + float((np.arange(len(weights)) + 0.5) @ weights / weights.sum()))
    np.testing.assert_allclose(np.diff(centres), 0.25, atol=0.06)


def test_the_same_person_is_painted_the_same():
    looks = random_looks(np.random.default_rng(2))
    first, again = (paint_person(looks, Pose(0.0, 1.0), 90.0, (50.0, 120.0)) for _ in range(2))
    assert (first.bgra == again.bgra).all()
    assert random_looks(np.random.default_rng(2)) == looks

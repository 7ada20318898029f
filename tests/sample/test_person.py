"""People: a body that keeps its proportions, walks without sliding, and stands on the ground."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.sample import person
from persondet.sample.person import Pose, Skeleton, paint_person, random_looks, random_pose

angles = st.floats(0.0, 2.0 * np.pi)
BONES = {
    ("hip", "knee"): person.THIGH,
    ("knee", "ankle"): person.SHANK,
    ("shoulder", "elbow"): person.UPPER_ARM,
    ("elbow", "hand"): person.FOREARM,
}


@settings(max_examples=25)
@given(angles, angles, st.sampled_from(["swing", "phone"]))
def test_bones_keep_their_length_and_a_foot_is_on_the_ground(heading, phase, arms):
    joints = Skeleton(Pose(heading, phase, 1.0, arms)).joints
    for side in ("left", "right"):
        for (first, last), length in BONES.items():
            bone = joints[f"{side}_{first}"] - joints[f"{side}_{last}"]
            assert np.linalg.norm(bone) == pytest.approx(length, abs=0.01)
    soles = [joints[f"{s}_{part}"][2] for s in ("left", "right") for part in ("heel", "toe")]
    assert min(soles) == pytest.approx(0.018)  # the sole's thickness


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.floats(36.0, 150.0))
def test_a_sprite_is_as_tall_as_asked_and_stands_where_asked(seed, height):
    rng = np.random.default_rng(seed)
    looks, pose = random_looks(rng), random_pose(rng)
    sprite, moved = (paint_person(looks, pose, height, (x, 300.0)) for x in (200.0, 200.5))
    rows, columns = np.nonzero(sprite.mask)
    top, bottom = sprite.y + rows.min(), sprite.y + rows.max() + 1
    assert bottom == pytest.approx(300.0, abs=0.03 * height + 1.5)
    assert 0.9 * height < bottom - top < 1.1 * height + 2
    assert sprite.x + columns.mean() == pytest.approx(200.0, abs=0.14 * height)
    assert (sprite.bgra[:, :, :3] <= sprite.bgra[:, :, 3:]).all()  # premultiplied
    # A walker moves by fractions of a pixel.
    weights = [one.bgra[:, :, 3].astype(float).sum(axis=0) for one in (sprite, moved)]
    before, after = (np.arange(len(weight)) @ weight / weight.sum() for weight in weights)
    assert moved.x + after - sprite.x - before == pytest.approx(0.5, abs=0.08)

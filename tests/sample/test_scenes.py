"""Scenes: who hides whom, checked against what is really painted; shares of the test split."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from persondet.sample.camera import Camera
from persondet.sample.paint import Sprite, composite
from persondet.sample.placement import Plan, compose, plan_split
from persondet.sample.scenes import Item, render, visible_part

SIZE = (320, 180)


def box_item(name: str, x: int, y: int, width: int, height: int, depth: float) -> Item:
    bgra = np.full((height, width, 4), 255, np.uint8)
    return Item(name, Sprite(bgra, x, y), 0.0, depth, depth, np.ones((height, width), bool))


def test_the_visible_share_is_what_nearer_things_leave_inside_the_frame():
    person = box_item("person", -10, 10, 30, 40, 5.0)
    pole = box_item("pole", 5, 0, 5, 100, 4.0)
    behind = box_item("tree", 0, 0, 90, 90, 6.0)
    seen = visible_part(person, [person, pole, behind], 100, 100)
    assert (seen.x, seen.y, seen.mask.shape) == (0, 10, (40, 20))
    assert seen.area == 40 * 15
    assert seen.share == pytest.approx(0.75)
    assert visible_part(pole, [person, pole, behind], 100, 100).share == 1.0
    outside = box_item("person", 200, 10, 10, 10, 5.0)
    assert visible_part(outside, [], 100, 100).share == 0.0


def test_a_camera_projects_as_a_pinhole():
    camera = Camera(640, 360, 450.0, 320.0, 120.0, 1.8)
    assert camera.point(0.0, 1.8, 7.0) == (320.0, 120.0)  # eye height is the horizon
    foot, head = camera.point(1.0, 0.0, 9.0), camera.point(1.0, 1.8, 9.0)
    assert foot[1] - head[1] == pytest.approx(camera.pixels_per_metre(9.0) * 1.8)
    assert camera.across(foot[0], 9.0) == pytest.approx(1.0)
    assert camera.depth_for(1.8, 90.0) == pytest.approx(9.0)
    np.testing.assert_allclose(camera.project(1.0, 0.0, 9.0), foot)


@pytest.fixture(scope="module")
def plans() -> list[Plan]:
    return plan_split(11, "people", "train", 12)


def test_visible_masks_are_what_the_painter_leaves(plans):
    """Paint everybody flat in a colour of their own: the same pixels must come out."""
    for plan in plans[:4]:
        scene, _ = compose(11, "people", "train", plan, SIZE)
        canvas = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
        people = [item for item in scene.items if item.name == "person"]
        for item in sorted(scene.items, key=lambda item: -item.depth):
            value = people.index(item) + 1 if item.name == "person" else 0
            flat = np.zeros_like(item.sprite.bgra)
            flat[item.mask] = (value, value, value, 255)
            composite(canvas, Sprite(flat, item.sprite.x, item.sprite.y))
        for number, item in enumerate(people, 1):
            seen = visible_part(item, scene.items, *SIZE)
            mask = np.zeros((SIZE[1], SIZE[0]), bool)
            height, width = seen.mask.shape
            mask[seen.y : seen.y + height, seen.x : seen.x + width] = seen.mask
            np.testing.assert_array_equal(canvas[:, :, 0] == number, mask)


def test_people_are_where_the_picture_changes(plans):
    """A scene with and without its people differs where they are, and only near them."""
    plan = next(plan for plan in plans if len(plan.small) > 4 and plan.weather == "clear")
    scene, rng = compose(11, "people", "train", plan, SIZE)
    state = rng.bit_generator.state
    full = render(scene, rng).astype(int)
    people = [item for item in scene.items if item.name == "person"]
    union = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    for item in people:
        seen = visible_part(item, scene.items, *SIZE)
        part = union[seen.y : seen.y + seen.mask.shape[0], seen.x : seen.x + seen.mask.shape[1]]
        part |= seen.mask.astype(np.uint8)
    scene.items = [item for item in scene.items if item.name not in ("person", "umbrella")]
    rng.bit_generator.state = state
    changed = np.abs(full - render(scene, rng)).max(axis=2) > 12
    assert changed[union > 0].mean() > 0.8
    far = cv2.dilate(union, np.ones((61, 61), np.uint8)) == 0
    assert not changed[far].any()


def test_every_picture_has_three_distractors(plans):
    for plan in plans[3:8]:
        scene, _ = compose(11, "people", "train", plan, SIZE)
        things = [item for item in scene.items if item.name not in ("person", "umbrella")]
        assert len(things) + scene.street.pictures_of_people >= 3


@pytest.mark.slow
def test_the_test_split_is_as_hard_as_promised():
    shares, heights = [], []
    for plan in plan_split(7, "people", "test", 60):
        scene, _ = compose(7, "people", "test", plan, (640, 360))
        for item in scene.items:
            if item.name != "person":
                continue
            seen = visible_part(item, scene.items, 640, 360)
            rows = np.flatnonzero(seen.mask.any(axis=1))
            shares.append(seen.share)
            heights.append(rows[-1] - rows[0] + 1)
            assert seen.area >= 60
    assert 0.30 <= np.mean(np.array(shares) <= 0.75) <= 0.38
    assert 0.15 <= np.mean(np.array(heights) < 48) <= 0.24
    assert min(shares) > 0.25

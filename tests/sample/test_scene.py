"""Scenes: who hides whom, checked against what is really painted; shares of the plans."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from persondet.sample.paint import Sprite, composite
from persondet.sample.scene import Item, Plan, compose, plan_split, render, visible_part
from persondet.sample.street import Camera

SIZE = (320, 180)


def box_item(name: str, x: int, y: int, width: int, height: int, depth: float) -> Item:
    return Item(name, Sprite(np.full((height, width, 4), 255, np.uint8), x, y), 0.0, depth)


def test_the_visible_share_is_what_nearer_things_leave_inside_the_frame():
    person = box_item("person", -10, 10, 30, 40, 5.0)
    pole = box_item("lamp_post", 5, 0, 5, 100, 4.0)
    behind = box_item("tree", 0, 0, 90, 90, 6.0)
    seen = visible_part(person, [person, pole, behind], (100, 100))
    assert (seen.x, seen.y, seen.mask.shape) == (0, 10, (40, 20))
    assert seen.area == 40 * 15
    assert seen.share == pytest.approx(0.75)
    assert visible_part(pole, [person, pole, behind], (100, 100)).share == 1.0
    outside = box_item("person", 200, 10, 10, 10, 5.0)
    assert visible_part(outside, [], (100, 100)).share == 0.0


def test_a_camera_projects_as_a_pinhole():
    camera = Camera(640, 360, 450.0, 320.0, 120.0, 1.8)
    foot, head = camera.project(1.0, (0.0, 1.8), 9.0)
    assert head[1] == 120.0  # eye height is the horizon
    assert foot[1] - head[1] == pytest.approx(camera.pixels_per_metre(9.0) * 1.8)
    assert camera.across(foot[0], 9.0) == pytest.approx(1.0)
    assert camera.depth_for(1.8, 90.0) == pytest.approx(9.0)


@pytest.fixture(scope="module")
def plans() -> list[Plan]:
    return plan_split(11, "people", "train", 12)


def full_mask(item: Item, items: list[Item]) -> np.ndarray:
    seen, mask = visible_part(item, items, SIZE), np.zeros(SIZE[::-1], bool)
    height, width = seen.mask.shape
    mask[seen.y : seen.y + height, seen.x : seen.x + width] = seen.mask
    return mask


def test_visible_masks_are_what_the_painter_leaves(plans):
    """Paint everybody flat in a colour of their own: the same pixels must come out."""
    for plan in plans[:4]:
        scene, _ = compose(11, "people", "train", plan, SIZE)
        canvas = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
        people = [item for item in scene.items if item.name == "person"]
        for item in sorted(scene.items, key=lambda item: -item.z):
            value = people.index(item) + 1 if item.name == "person" else 0
            flat = np.zeros_like(item.sprite.bgra)
            flat[item.mask] = (value, value, value, 255)
            composite(canvas, Sprite(flat, item.sprite.x, item.sprite.y))
        for number, item in enumerate(people, 1):
            mask = full_mask(item, scene.items)
            np.testing.assert_array_equal(canvas[:, :, 0] == number, mask)


def test_people_are_where_the_image_changes(plans):
    """A scene with and without its people differs where they are, and only near them."""
    plan = next(plan for plan in plans if len(plan.small) > 4 and plan.weather == "clear")
    scene, rng = compose(11, "people", "train", plan, SIZE)
    state = rng.bit_generator.state
    full = render(scene, rng).astype(int)
    people = [item for item in scene.items if item.name == "person"]
    union = np.any([full_mask(item, scene.items) for item in people], axis=0)
    scene.items = [item for item in scene.items if item.name != "person"]
    rng.bit_generator.state = state
    changed = np.abs(full - render(scene, rng)).max(axis=2) > 12
    assert changed[union].mean() > 0.8
    assert not changed[cv2.dilate(union.astype(np.uint8), np.ones((61, 61))) == 0].any()


def test_a_plan_meets_its_shares_exactly():
    plans = plan_split(7, "people", "test", 60)
    assert 0.16 <= np.mean([flag for plan in plans for flag in plan.small]) <= 0.20
    assert 0.31 <= np.mean([flag for plan in plans for flag in plan.hidden]) <= 0.38
    assert sum(not plan.small for plan in plans) == 4  # of 60 images without people
    assert {plan.time for plan in plans} == {"day", "overcast", "dusk", "night"}
    assert {plan.weather for plan in plans} == {"clear", "rain", "fog"}


@pytest.mark.slow
def test_the_test_split_is_as_hard_as_promised():
    shares, heights = [], []
    for plan in plan_split(7, "people", "test", 60):
        scene, _ = compose(7, "people", "test", plan, (640, 360))
        for item in scene.items:
            if item.name == "person":
                seen = visible_part(item, scene.items, (640, 360))
                rows = np.flatnonzero(seen.mask.any(axis=1))
                shares.append(seen.share)
                heights.append(rows[-1] - rows[0] + 1)
    assert 0.28 <= np.mean(np.array(shares) <= 0.75) <= 0.38
    assert 0.15 <= np.mean(np.array(heights) < 48) <= 0.24
    assert min(shares) > 0.25

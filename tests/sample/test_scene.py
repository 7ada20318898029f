"""Scenes: who hides whom, checked against what is really painted; shares of the splits."""

import numpy as np
import pytest

from persondet.sample.paint import Sprite, composite
from persondet.sample.scene import Item, compose, visible_part

SIZE = (320, 180)


def box_item(name: str, x: int, y: int, width: int, height: int, depth: float) -> Item:
    return Item(name, Sprite(np.full((height, width, 4), 255, np.uint8), x, y), 0.0, depth)


def test_the_visible_share_is_what_nearer_things_leave_inside_the_frame():
    person = box_item("person", -10, 10, 30, 40, 5.0)
    pole = box_item("lamp_post", 5, 0, 5, 100, 4.0)
    behind = box_item("tree", 0, 0, 90, 90, 6.0)
    seen = visible_part(person, [person, pole, behind], (0, 0, 100, 100))
    assert (seen.x, seen.y, seen.mask.shape) == (0, 10, (40, 20))
    assert seen.area == 40 * 15
    assert seen.share == pytest.approx(0.75)
    assert visible_part(pole, [person, pole, behind], (0, 0, 100, 100)).share == 1.0
    assert visible_part(person, [], (30, 0, 60, 100)).share == 0.0


def test_visible_masks_are_what_the_painter_leaves():
    """Paint everybody flat in a colour of their own: the same pixels must come out."""
    items = compose(11, "train", 5, SIZE)[0].items
    people = [item for item in items if item.name == "person"]
    assert len(people) > 4
    canvas = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    for item in sorted(items, key=lambda item: -item.z):
        value = people.index(item) + 1 if item.name == "person" else 0
        flat = item.sprite.mask[:, :, None] * np.array([value, value, value, 255], np.uint8)
        composite(canvas, canvas.copy(), Sprite(flat, item.sprite.x, item.sprite.y))
    for number, item in enumerate(people, 1):
        seen, mask = visible_part(item, items, (0, 0, *SIZE)), np.zeros(SIZE[::-1], bool)
        height, width = seen.mask.shape
        mask[seen.y : seen.y + height, seen.x : seen.x + width] = seen.mask
        np.testing.assert_array_equal(canvas[:, :, 0] == number, mask)

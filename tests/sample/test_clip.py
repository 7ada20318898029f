"""The clip and its ground truth: decoded again, they belong together."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from persondet.records import decode_mask
from persondet.sample.clip import _plan_walk, write_clip
from persondet.video.reader import VideoReader

FRAMES, SIZE = 8, (320, 192)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[np.ndarray], dict[str, Any]]:
    path = tmp_path_factory.mktemp("clip") / "walk.mp4"
    write_clip(path, path.with_suffix(".json"), 4, frames=FRAMES, size=SIZE)
    with VideoReader(path) as reader:
        images = [frame.image.astype(float) for frame in reader]
    return images, json.loads(path.with_suffix(".json").read_text())


def masks_of(frame: dict[str, Any]) -> dict[int, np.ndarray]:
    codes = {person["track_id"]: person["mask"]["counts"] for person in frame["people"]}
    return {number: decode_mask(code, SIZE[1], SIZE[0]) for number, code in codes.items()}


def test_boxes_are_the_extent_of_the_masks_and_masks_are_disjoint(clip):
    images, content = clip
    assert [image.shape for image in images] == [(SIZE[1], SIZE[0], 3)] * FRAMES
    assert [frame["index"] for frame in content["frames"]] == list(range(FRAMES))
    assert [content[key] for key in ("version", "fps", "width", "height")] == [1, 25, *SIZE]
    for frame in content["frames"]:
        masks = masks_of(frame)
        assert sum(masks.values(), np.zeros(SIZE[::-1], int)).max() <= 1
        for person in frame["people"]:
            points = np.argwhere(masks[person["track_id"]])[:, ::-1]
            assert person["box"] == [*points.min(axis=0), *points.max(axis=0) + 1]
            assert 0.1 <= person["visible_share"] <= 1.0


def test_people_keep_their_identity_and_move_a_little_per_frame(clip):
    moved = []
    for before, after in pairwise(clip[1]["frames"]):
        places = {person["track_id"]: person for person in before["people"]}
        for person in after["people"]:
            earlier, box = places.get(person["track_id"], person), np.array(person["box"])
            inside = (box[:2] > 2).all() and (box[2:] < np.array(SIZE) - 2).all()
            if inside and min(one["visible_share"] for one in (person, earlier)) > 0.95:
                # Feet and head stay level; walking and panning shift the box a little.
                x0, y0, x1, y1 = np.abs(box - earlier["box"]) / (box[3] - box[1])
                moved.append([(x0 + x1) / 2, max(y0, y1)])
    assert len(moved) > FRAMES / 2
    assert (np.max(moved, axis=0) < (0.2, 0.08)).all()


def test_the_masks_lie_on_the_people_of_their_frames(clip):
    """A walker's colour stays with their mask; where they were before fits worse."""
    images, content = clip
    first, last = masks_of(content["frames"][0]), masks_of(content["frames"][-1])
    right, wrong = [], []
    for number in first.keys() & last.keys():
        left = first[number] & ~last[number]
        if left.sum() > 60:
            colour = images[0][first[number]].mean(axis=0)
            right.append(np.linalg.norm(images[-1][last[number]].mean(axis=0) - colour))
            wrong.append(np.linalg.norm(images[-1][left].mean(axis=0) - colour))
    assert np.mean(right) < 0.5 * np.mean(wrong)


@pytest.mark.slow
def test_people_leave_a_frame_that_stands_still_and_come_back():
    walk = _plan_walk(3, SIZE, absences=True)
    camera = walk.scene.camera
    left = (camera.width - SIZE[0]) // 2
    assert len(walk.tracks) == 8
    for track in walk.tracks:
        (x, z), (speed, _) = track.start, track.velocity
        side = 1 if speed > 0 else -1
        edge = camera.across(left + SIZE[0] * (side > 0), z)
        farthest = side * (x + speed * track.turn - edge)
        # All of them is out of sight, 0.6 m behind the edge, for 3 to 10 seconds.
        assert 2.9 <= 2 * (farthest - 0.6) / abs(speed) <= 10.1
        assert side * (x - edge) < 0 and 3.5 <= track.turn <= 12.0
        before, after = (
            track.item(walk.scene, 0, camera.width, track.turn + step) for step in (-1.0, 1.0)
        )
        assert (before is None) == (after is None)
        assert before is None or abs(before.x - after.x) < 1e-6

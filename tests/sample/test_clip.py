"""The clip and its ground truth: decoded again, they belong together."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persondet.records import decode_mask
from persondet.sample.clip import write_clip
from persondet.video.reader import VideoReader

FRAMES, SIZE = 8, (320, 192)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("clip")
    write_clip(folder / "walk.mp4", folder / "walk.json", 4, frames=FRAMES, size=SIZE)
    return folder, json.loads((folder / "walk.json").read_text())


def images(folder: Path) -> list[np.ndarray]:
    with VideoReader(folder / "walk.mp4") as reader:
        return [frame.image.copy() for frame in reader]


def masks_of(frame: dict[str, Any]) -> dict[int, np.ndarray]:
    return {
        person["track_id"]: decode_mask(person["mask"]["counts"], SIZE[1], SIZE[0])
        for person in frame["people"]
    }


def test_boxes_are_the_extent_of_the_masks_and_masks_are_disjoint(clip):
    folder, content = clip
    assert [image.shape for image in images(folder)] == [(SIZE[1], SIZE[0], 3)] * FRAMES
    assert [frame["index"] for frame in content["frames"]] == list(range(FRAMES))
    assert (content["version"], content["fps"]) == (1, 25)
    assert (content["width"], content["height"]) == SIZE
    for frame in content["frames"]:
        masks = masks_of(frame)
        assert sum(masks.values(), np.zeros((SIZE[1], SIZE[0]), int)).max() <= 1
        for person in frame["people"]:
            rows, columns = np.nonzero(masks[person["track_id"]])
            extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert person["box"] == extent
            assert 0.1 <= person["visible_share"] <= 1.0


def test_people_keep_their_identity_and_move_a_little_per_frame(clip):
    _, content = clip
    assert 2 <= max(len(frame["people"]) for frame in content["frames"]) <= 12
    moved = []
    for before, after in pairwise(content["frames"]):
        places = {person["track_id"]: person for person in before["people"]}
        for person in after["people"]:
            earlier = places.get(person["track_id"])
            x0, y0, x1, y1 = person["box"]
            cut = x0 <= 2 or y0 <= 2 or x1 >= SIZE[0] - 2 or y1 >= SIZE[1] - 2
            shares = [one["visible_share"] for one in (person, earlier) if one]
            if earlier and not cut and min(shares) > 0.95:
                height = y1 - y0
                x0, y0, x1, y1 = np.array(person["box"]) - earlier["box"]
                # Feet and head stay level; walking and panning shift the box a little.
                moved.append([abs(x0 + x1) / 2 / height, max(abs(y0), abs(y1)) / height])
    assert len(moved) > FRAMES / 2
    assert np.max(moved, axis=0)[0] < 0.15
    assert np.max(moved, axis=0)[1] < 0.08


def test_the_masks_lie_on_the_people_of_their_frames(clip):
    """A walker's colour stays with their mask; the mask of another frame fits worse."""
    folder, content = clip
    frames = [image.astype(float) for image in images(folder)]
    first, last = masks_of(content["frames"][0]), masks_of(content["frames"][-1])
    right, wrong = [], []
    for number, mask in first.items():
        later = last.get(number)
        gone = mask & ~later if later is not None else mask[:0]
        if gone.sum() > 60:
            colour = frames[0][mask].mean(axis=0)
            right.append(np.linalg.norm(frames[-1][later].mean(axis=0) - colour))
            wrong.append(np.linalg.norm(frames[-1][gone].mean(axis=0) - colour))
    assert right
    assert np.mean(right) < 0.5 * np.mean(wrong)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_ground_truth(clip, tmp_path):
    folder, _ = clip
    write_clip(tmp_path / "walk.mp4", tmp_path / "walk.json", 4, frames=FRAMES, size=SIZE)
    assert (tmp_path / "walk.json").read_bytes() == (folder / "walk.json").read_bytes()

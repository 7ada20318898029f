"""Recall by size, crowding and closeness to the border, on people whose place is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from persondet.evaluation.curves import recall_by, surroundings
from persondet.evaluation.matching import gather
from tests.evaluation.scored_scenes import person, scene


def test_each_person_is_measured_by_hand() -> None:
    truth = [
        [
            person((0, 10, 10, 40)),  # at the left edge
            person((50, 20, 20, 40)),  # shares half with the next
            person((60, 20, 20, 40)),
            person((100, 0, 90, 90), crowd=1),  # counts for nobody, and crowds nobody
            person((120, 57, 20, 40)),  # 3 pixels above the lower edge
        ]
    ]
    around = surroundings(gather(*scene(truth, [[]]), masks=True))
    np.testing.assert_allclose(around.side, np.sqrt([400, 800, 800, 800]))
    np.testing.assert_allclose(around.crowding, [0, 1 / 3, 1 / 3, 0])
    np.testing.assert_allclose(around.border, [0, 20, 20, 3])
    np.testing.assert_allclose(around.short_side, [100] * 4)

    rows = recall_by(around, np.array([False, True, False, True]))
    assert [(row["people"], row["found"]) for row in rows["border"]] == [(1, 0), (1, 1), (2, 1)]
    crowding = [(row["people"], row["found"]) for row in rows["crowding"]]
    assert crowding == [(2, 1), (0, 0), (0, 0), (2, 1)]
    assert [row["people"] for row in rows["size"]] == [4, 0, 0]
    assert rows["size"][0]["recall"] == pytest.approx(0.5)
    assert math.isnan(rows["size"][2]["recall"])


def test_sizes_are_cocos_and_follow_the_mask_and_not_the_box() -> None:
    slim = person((0, 0, 60, 60)) | {"area": 31 * 31}
    wide = person((0, 0, 60, 60)) | {"area": 32 * 32}
    large = person((0, 0, 60, 60)) | {"area": 96 * 96}
    around = surroundings(gather(*scene([[slim], [wide], [large]], [[], [], []]), masks=True))
    rows = recall_by(around, np.ones(3, np.bool_))
    assert [row["people"] for row in rows["size"]] == [1, 1, 1]


def test_every_person_is_in_one_class_of_each_list() -> None:
    rng = np.random.default_rng(0)
    truth = [
        [
            person((int(x), int(y), int(w), int(h)))
            for x, y, w, h in rng.integers([0, 0, 2, 2], [150, 60, 50, 40], (6, 4))
        ]
        for _ in range(20)
    ]
    around = surroundings(gather(*scene(truth, [[]] * 20), masks=True))
    found = rng.random(120) < 0.5
    for rows in recall_by(around, found).values():
        assert sum(row["people"] for row in rows) == 120
        assert sum(row["found"] for row in rows) == found.sum()


def test_nobody_annotated_gives_empty_classes() -> None:
    around = surroundings(gather(*scene([[]], [[]]), masks=True))
    rows = recall_by(around, np.zeros(0, np.bool_))
    assert all(row["people"] == 0 and math.isnan(row["recall"]) for row in rows["size"])

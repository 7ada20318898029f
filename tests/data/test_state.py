"""Whether a dataset is the one that a run began with."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from persondet.data.state import DatasetState


def records() -> list[dict[str, Any]]:
    return [
        {
            "file_name": f"/data/train/{name}.jpg",
            "width": 9,
            "height": 6,
            "annotations": [
                {"bbox": [1, 2, 3, 4], "category_id": 0, "iscrowd": 0, "segmentation": [[1.0] * 6]},
                {
                    **{"bbox": [0, 0, 2, 2], "category_id": 0, "iscrowd": 1},
                    "segmentation": {"size": [6, 9], "counts": b"01"},
                },
            ],
        }
        for name in "abc"
    ]


def test_a_dataset_that_moved_is_the_same() -> None:
    moved = records()
    for record in moved:
        record["file_name"] = record["file_name"].replace("/data", "/elsewhere")
    state = DatasetState.of(records())
    assert state.difference(DatasetState.of(moved)) == ""
    assert DatasetState.from_state(state.state()) == state


def test_what_is_missing_and_new_is_named() -> None:
    other = [*records()[1:], records()[0] | {"file_name": "d.jpg", "annotations": []}]
    assert DatasetState.of(records()).difference(DatasetState.of(other)) == (
        "had 3 images and 6 annotations, and has 3 and 4 now; missing: a.jpg; new: d.jpg"
    )
    order = DatasetState.of(records()).difference(DatasetState.of(records()[::-1]))
    assert order.endswith("their order is another")


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(width=8),
        lambda record: record["annotations"].pop(),
        lambda record: record["annotations"][0].update(bbox=[1, 2, 3, 4.5]),
        lambda record: record["annotations"][0].update(category_id=1),
        lambda record: record["annotations"][0]["segmentation"][0].append(2.0),
        lambda record: record["annotations"][0].update(segmentation=[[1.0] * 3, [1.0] * 3]),
        lambda record: record["annotations"][1]["segmentation"].update(counts=b"02"),
    ],
)
def test_each_change_of_an_image_is_noticed(change: Any) -> None:
    other = copy.deepcopy(records())
    change(other[1])
    difference = DatasetState.of(records()).difference(DatasetState.of(other))
    assert difference.endswith("changed: b.jpg")

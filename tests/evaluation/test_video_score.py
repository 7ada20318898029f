"""Hits, misses and false alarms of a clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, pairwise_iou
from hypothesis import given
from hypothesis import strategies as st

from persondet.evaluation.video_score import box_iou, score_frames


def person(box: list[float], visible: float = 1.0) -> dict[str, Any]:
    return {"box": box, "visible_share": visible}


def found(box: list[float], score: float = 0.9) -> dict[str, Any]:
    return {"box": box, "score": score}


def test_a_known_clip_is_counted_by_hand() -> None:
    truth = [
        [person([0, 0, 10, 40]), person([50, 0, 60, 40]), person([90, 0, 95, 10])],  # last: small
        [person([0, 0, 10, 40], visible=0.1)],  # hidden
        [],
    ]
    detections = [
        [found([0, 0, 10, 38]), found([0, 0, 10, 40], 0.8), found([90, 0, 95, 10])],
        [],
        [found([1, 1, 5, 30])],
    ]
    score = score_frames(detections, truth)
    assert (score.hits, score.misses, score.false_alarms) == (1, 1, 3)
    assert score.recall == 0.5
    assert score.precision == 0.25


def test_the_surer_detection_chooses_first() -> None:
    truth = [[person([0, 0, 10, 40])]]
    score = score_frames([[found([0, 0, 10, 36], 0.5), found([0, 0, 10, 39], 0.9)]], truth)
    assert (score.hits, score.false_alarms) == (1, 1)


def test_frames_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="zip"):
        score_frames([[]], [[], []])


boxes = st.lists(
    st.tuples(*(st.floats(0, 100) for _ in range(2)), *(st.floats(1, 50) for _ in range(2))),
    min_size=1,
    max_size=5,
)


@given(boxes, boxes)
def test_iou_equals_detectron2s(first: list[Any], second: list[Any]) -> None:
    one, two = (np.array([[x, y, x + w, y + h] for x, y, w, h in b]) for b in (first, second))
    theirs = pairwise_iou(Boxes(torch.tensor(one)), Boxes(torch.tensor(two))).numpy()
    assert np.allclose(box_iou(one, two), theirs, atol=1e-4)

"""What labels and the count say."""

import numpy as np
import torch
from detectron2.structures import Instances
from hypothesis import given
from hypothesis import strategies as st

from persondet.visualization.labels import (
    SCORE_SLACK,
    ShownScores,
    label_texts,
)


def found(scores=(0.97, 0.6), tracks=None):
    instances = Instances((10, 10), pred_classes=torch.zeros(len(scores), dtype=torch.int64))
    instances.scores = torch.tensor(scores)
    if tracks is not None:
        instances.ID = tracks
    return instances


def test_labels_say_class_score_and_track_and_short_ones_who():
    assert label_texts(found(), ["person"]) == [("person 97%", "97%"), ("person 60%", "60%")]
    assert label_texts(found(tracks=[12, 3]), ["person"]) == [
        ("#12 person 97%", "#12"),
        ("#3 person 60%", "#3"),
    ]
    assert label_texts(found((0.5,)), None) == [("0 50%", "50%")]
    assert label_texts(found((0.5,)), ["person"], [0.75]) == [("person 75%", "75%")]
    bare = found()
    bare.remove("scores")
    assert label_texts(bare, ["person"])[0] == ("person", "person")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_a_shown_score_is_never_far_from_the_real_one(scores):
    shown = ShownScores()
    for score in scores:
        assert abs(shown.update(["a"], [score])[0] - score) <= SCORE_SLACK


def test_a_shown_score_does_not_tremble_and_belongs_to_its_person():
    shown, rng = ShownScores(), np.random.default_rng(0)
    seen = set()
    for _ in range(50):
        first, second = shown.update("ab", [0.9 + rng.uniform(-0.01, 0.01), 0.5])
        seen.add(first)
        assert second == 0.5
    assert len(seen) == 1
    assert shown.update("ba", [0.5, 0.7]) == [0.5, 0.7]
    # Forgotten with the person.
    shown.update("b", [0.5])
    assert shown.update("a", [0.71]) == [0.71]

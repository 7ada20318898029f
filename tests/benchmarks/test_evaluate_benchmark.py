"""The evaluation benchmark: both sides score the same predictions, and to the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from persondet.benchmarks.evaluate import benchmark_evaluate
from persondet.benchmarks.scored_images import HEIGHT, PEOPLE, WIDTH, make_scenes, predictions
from persondet.benchmarks.table import lines_of


def test_the_predictions_are_the_same_at_each_call_and_lie_on_their_masks():
    scenes = make_scenes()
    first, again = list(predictions(scenes, 40)), list(predictions(scenes, 40))
    for (asked, one), (_, other) in zip(first, again, strict=True):
        assert np.array_equal(one.scores, other.scores)
        assert one.pred_masks.shape == (PEOPLE, HEIGHT, WIDTH)
        assert asked["image_id"] > 0
        for box, mask in zip(one.pred_boxes.tensor.numpy(), one.pred_masks.numpy(), strict=True):
            rows, columns = np.nonzero(mask)
            assert box[0] - 2 < columns.min() and columns.max() < box[2] + 2
            assert box[1] - 2 < rows.min() and rows.max() < box[3] + 2
    scores = [one.scores.tolist() for _, one in first]
    assert scores[0] != scores[32]  # the same picture under another id


@pytest.mark.slow
def test_every_line_is_measured_and_the_scores_of_both_sides_are_equal():
    found = benchmark_evaluate(pairs=1, images=24)
    assert found["apart"] < 1e-6
    assert found["memory"]["ours"] > 0
    lines = lines_of("evaluate", found)
    assert [line.partition(",")[0].partition(":")[0] for line in lines] == [
        "process() and evaluate()",
        "evaluate() alone",
        "from the mask head's output to COCO's code",
        "memory that grows over 24 images",
    ]
    assert "goal at least 3.0" in lines[0] and "goal at least 2.5" in lines[1]
    assert "goal at most 0.25" in lines[3]

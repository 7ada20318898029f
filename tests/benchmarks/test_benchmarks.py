"""The statistics of known times, and every benchmark once at its smallest size."""

import gc
import json

import benchmark
import bm_pairs
import bm_scenes
import bm_train
import bm_video
import numpy as np
import pytest
import torch

from persondet.errors import PersondetError


def test_statistics_of_known_times():
    found = bm_pairs.statistics((1.0, 2.0, 4.0), (2.0, 6.0, 4.0))
    assert found["ratio"] == 2.0  # the median of 2, 3 and 1, not the ratio of medians or means
    assert (found["low"], found["high"]) == pytest.approx((1.2, 2.8))
    assert found["first_seconds"] == [1.0, 2.0, 4.0] and found["pairs"] == 3
    assert "2.00 x" in bm_pairs.table({"x": found | {"what": "work", "details": ""}})


def test_sides_take_turns_so_that_drift_cancels_and_no_garbage_is_collected_within():
    calls, told, clock = [], [], iter(range(100, 200))

    def side(name):
        def work():
            calls.append(name if not gc.isenabled() else "collected")
            return bm_pairs.Seconds(next(clock))

        return work

    turns = bm_pairs.Turns(4, rows=1, progress=lambda *step: told.append(step))
    times = turns.time(side("A"), side("B"))
    assert "".join(calls) == "BA" + "ABBAABBA"
    assert told == [(done, 10) for done in range(1, 11)]
    assert times["ratio"] == pytest.approx(1.0, abs=0.001)
    assert gc.isenabled()


def test_how_far_apart_objects_are():
    def people(*boxes):
        scores = torch.linspace(0.9, 0.8, len(boxes))
        return bm_scenes.raw_result(np.reshape(boxes, (-1, 4)), scores, (100, 100))

    one = people([0, 0, 50, 50], [60, 60, 90, 90])
    other = people([60, 60, 90, 90.5], [0.25, 0, 50, 50])
    apart = bm_video._people_apart([one], [other])
    assert (apart["box_apart"], apart["matched"]) == (0.5, 1.0)
    assert apart["score_apart"] == pytest.approx(0.1)
    assert bm_video._people_apart([one], [people()])["matched"] == 0.0


def test_a_tool_without_the_checkout_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "HOME", tmp_path)
    with pytest.raises(PersondetError, match="checkout"):
        benchmark.main(["train"])


@pytest.mark.slow
def test_rows_that_need_no_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bm_video, "in_own_process", lambda work, *rest: work(*rest))
    monkeypatch.setattr(bm_video, "_GROWTH_FRAMES", (5, 20))
    kept = tmp_path / "numbers.json"
    words = ["evaluate", "mapper", "video", "--pairs", "1", "--images", "2", "--json", str(kept)]
    assert benchmark.main(words) == 0
    found = json.loads(kept.read_text())
    assert found["evaluate"]["both"]["apart"] < 1e-6
    for name in ("street", "geometry"):
        # Only the same random decisions put the outlines of two mappers in the same place.
        apart = found["mapper"][name]
        assert apart["people"] >= 8 and apart["boundary_mean"] < 0.7
    assert found["video"]["draw"]["ratio"] > 1
    assert "against VideoVisualizer" in capsys.readouterr().out


@pytest.mark.slow
def test_a_training_step_has_the_losses_of_detectron2s(monkeypatch):
    small = bm_train._CONFIG.with_name("person_mask_rcnn_R_18_FPN_scratch.yaml")
    monkeypatch.setattr(bm_train, "_CONFIG", small)
    found = bm_train.main(pairs=1, size=64, small_size=64, batch_size=1, dtype="float32")
    for name in ("default", "float32", "cpu"):
        losses = [found[name]["losses"][side]["total_loss"] for side in ("ours", "stock")]
        assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert found["saved"]["ratio"] == found["saved"]["ours"] / found["saved"]["stock"]


@pytest.mark.soak
def test_memory_is_flat_once_warm_and_smaller_than_without_the_bound():
    import bm_memory

    rows = bm_memory.main()
    assert rows["tools"]["end"] - rows["tools"]["warm"] < 25
    assert rows["tools"]["end"] < rows["default"]["end"]


@pytest.mark.soak
def test_the_rows_of_a_cluster():
    pytest.importorskip("ray")
    import bm_cluster

    found = bm_cluster.main(pairs=1, images=2000)
    assert {"1 actors", "8 actors", "overhead", "1000 items", "2000 items"} <= found.keys()
    assert all("0.00 s" not in row["details"] for row in found.values())

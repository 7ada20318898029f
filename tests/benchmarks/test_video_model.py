"""A trained model beside the serial way: in float32 both find the same people."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from persondet.benchmarks import video_model
from persondet.benchmarks.video_model import people_apart, real_model
from persondet.benchmarks.video_scene import write_street
from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.checkpoint.model_file import store_score_threshold
from persondet.engine import load_cfg

CONFIG = (
    Path(__file__).resolve().parents[2]
    / "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"
)


@pytest.mark.slow
def test_both_sides_find_the_same_people(tmp_path, monkeypatch):
    # For good is too long for a process with other tests.
    monkeypatch.setattr(os, "sched_setaffinity", lambda *cores: None, raising=False)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    cfg = load_cfg(CONFIG, ["MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", "False"])
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    torch.manual_seed(0)
    carried = {"config": cfg.dump(), "class_names": ["person"]}
    checkpointer = SafeDetectionCheckpointer(build_model(cfg), str(tmp_path), carried=carried)
    checkpointer.save_model("model_best", iteration=1)
    store_score_threshold(tmp_path / "model_best.pth", 0.01)
    clip = write_street(tmp_path / "street.mp4", 3, (160, 96))
    people: list[int] = []

    def apart(ours, stock):
        people.extend(len(instances) for instances in (*ours, *stock))
        return people_apart(ours, stock)

    monkeypatch.setattr(video_model, "people_apart", apart)
    found = real_model(str(tmp_path), str(clip), str(tmp_path), "float32", 1, 3, 1)
    assert (found["frames"], found["dtype"]) == (3, "float32")
    assert len(people) == 6 and min(people) > 0
    assert found["matched"] > 0.95
    assert found["box_apart"] < 1
    assert found["score_apart"] < 0.02

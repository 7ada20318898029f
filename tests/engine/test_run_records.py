"""What a run leaves of its start: records, examples, provenance."""

import json
import logging
import random
import sys
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from persondet.checkpoint.checkpointer import KeyReport
from persondet.checkpoint.model_file import load_checkpoint
from persondet.config import get_cfg, merge_yaml
from persondet.data.augmentation import pipeline_file
from persondet.data.register import (
    register_roboflow_coco,
)
from persondet.engine import run_records as module
from persondet.engine import run_records as training_records
from persondet.engine.defaults import config_text
from persondet.engine.run_folder import remove_run
from persondet.engine.run_records import git_state, provenance, write_training_records
from persondet.errors import InterruptedRun
from persondet.files import sha256_of_file
from tests.engine.toy_training import rows, same, toy_cfg, toy_run

CONFIG = "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"


@pytest.fixture
def cfg(tiny_export, tmp_path):
    register_roboflow_coco("provenance", tiny_export, output_dir=tmp_path)
    config = get_cfg()
    merge_yaml(config, Path(__file__).resolve().parents[2] / CONFIG)
    config.DATASETS.TRAIN, config.DATASETS.VAL = ("provenance_train",), ("provenance_valid",)
    config.DATASETS.TEST = ("provenance_test",)
    config.OUTPUT_DIR = str(tmp_path)
    return config


def starts(cfg):
    record = json.loads((Path(cfg.OUTPUT_DIR) / "provenance.json").read_text())
    assert record["schema"] == 1
    return list(record["starts"])


def run(cfg, before, after, *overrides):
    steps = iter([before, after, after])
    with provenance(cfg, CONFIG, overrides, lambda: next(steps)):
        pass


def test_a_training_leaves_what_it_was_made_of(cfg, monkeypatch, tiny_export):
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    monkeypatch.setattr(sys, "argv", ["tools/train_net.py", "--config-file", CONFIG])
    run(cfg, 0, 20, "SOLVER.EPOCHS", "3")
    (start,) = starts(cfg)
    assert start["command"] == ["tools/train_net.py", "--config-file", CONFIG]
    assert start["config"]["files"] == [
        CONFIG,
        "configs/sample_mask_rcnn_R_18_FPN.yaml",
        "configs/Base-PersonMaskRCNN.yaml",
    ]
    assert start["config"]["overrides"] == ["SOLVER.EPOCHS", "3"]
    written = Path(cfg.OUTPUT_DIR) / "config.yaml"
    written.write_text(config_text(cfg))
    assert start["config"]["sha256"] == sha256_of_file(written)
    assert start["seeds"] == {"SEED": 42, "TEST.VAL_LOSS.SEED": 0}
    assert {"torch", "detectron2", "persondet", "python"} <= start["versions"].keys()
    assert start["git"] == git_state(Path(__file__).resolve().parents[2])
    assert start["hardware"]["cores"] >= 1
    assert start["hardware"]["memory_bytes"] > 2**28
    assert start["hardware"]["cpu"]
    assert start["datasets"].keys() == {f"provenance_{s}" for s in ("train", "valid", "test")}
    fingerprint = start["datasets"]["provenance_train"]
    truth = json.loads((tiny_export / "train" / "_annotations.coco.json").read_text())
    assert fingerprint["images"] == len(truth["images"])
    assert fingerprint["annotations"] == len(truth["annotations"])
    assert (start["first_step"], start["steps_done"], start["exit"]) == (0, 20, "finished")
    began, ended = (datetime.fromisoformat(start[key]) for key in ("started", "ended"))
    assert began <= ended
    assert began.tzinfo is not None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (InterruptedRun("after step 4"), "interrupted"),
        (ValueError("no\nmemory"), "ValueError: no memory"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_the_way_it_ended_is_kept_and_the_error_goes_on(cfg, error, reason):
    with pytest.raises(type(error)), provenance(cfg, CONFIG, (), lambda: 4):
        raise error
    (start,) = starts(cfg)
    assert (start["exit"], start["steps_done"]) == (reason, 4)
    assert start["ended"]


@pytest.mark.parametrize("trouble", ["describing", "writing", "damaged"])
def test_it_never_is_a_reason_for_a_training_to_fail(cfg, trouble, monkeypatch, caplog):
    path = Path(cfg.OUTPUT_DIR) / "provenance.json"

    def broken(*_):
        raise OSError("the disk is full")

    if trouble == "describing":
        monkeypatch.setattr(module, "environment_report", broken)
    elif trouble == "writing":
        monkeypatch.setattr(module, "write_json", broken)
    else:
        path.write_text('{"starts": 3')
    log = logging.getLogger("persondet")
    log.addHandler(caplog.handler)
    try:
        run(cfg, 0, 20)
    finally:
        log.removeHandler(caplog.handler)
    assert "provenance.json" in caplog.text
    if trouble == "damaged":
        assert starts(cfg)[0]["exit"] == "finished"
    else:
        assert not path.exists()


IMAGES_SHOWN = ("examples/ground_truth.jpg", "examples/augmentation.jpg")


RECORDS = ("augmentation.yaml", "dataset.json", "weights.txt", *IMAGES_SHOWN)


def _draw_from_every_state(*_):
    random.random()
    np.random.rand()
    torch.rand(1)


def test_a_run_is_the_same_to_the_bit_with_and_without_its_records(
    tiny_export, tmp_path, monkeypatch
):
    keys = ("SOLVER.MAX_ITER", 8, "SOLVER.STEPS", (6,))
    plain = toy_run(tiny_export, tmp_path / "plain", *keys)
    plain.train()
    recorded = toy_run(tiny_export, tmp_path / "recorded", *keys)
    # Whatever the writers draw, today or later.
    annotations = training_records._write_annotations
    monkeypatch.setattr(
        training_records,
        "_write_annotations",
        lambda cfg, path: (_draw_from_every_state(), annotations(cfg, path)),
    )
    write_training_records(recorded.cfg, recorded.checkpointer.key_report, new=True)
    recorded.train()
    assert all((tmp_path / "recorded" / name).stat().st_size for name in RECORDS)
    assert rows(tmp_path / "plain") == rows(tmp_path / "recorded")
    one, other = (
        load_checkpoint(tmp_path / name / "model_final.pth") for name in ("plain", "recorded")
    )
    for part in ("model", "trainer", "run_state"):
        assert same(one[part], other[part]), part


def test_the_records_tell_of_the_data_and_of_the_weights(tiny_export, tmp_path):
    cfg = toy_cfg(tiny_export, tmp_path / "run")
    write_training_records(cfg, None, new=True)
    dataset = json.loads((tmp_path / "run/dataset.json").read_text())
    assert dataset["schema"] == 1
    assert dataset["decoded"] is True
    assert dataset["statistics"]["splits"]["train"]["images"] == 6
    assert dataset["leaks"]["test"]["leaked"] == 0
    assert "random values" in (tmp_path / "run/weights.txt").read_text()
    assert not (tmp_path / "run/weights.json").exists()
    report = KeyReport(("a.b",), (("c.cls_score.weight", (6, 8), (2, 8)),), ("d",), ("e.f",))
    write_training_records(cfg, report, new=True)
    told = json.loads((tmp_path / "run/weights.json").read_text())
    assert (told["loaded"], told["not_loaded"]) == (1, 2)
    assert told["classes"] == {"checkpoint": 5, "dataset": 1}
    loaded = {part["part"]: (part["loaded"], part["not_loaded"]) for part in told["parts"]}
    assert loaded == {"a": (1, 0), "c": (0, 1), "d": (0, 1), "e": (None, 1)}
    assert (tmp_path / "run/augmentation.yaml").read_text() == pipeline_file(
        cfg.INPUT.ALBUMENTATIONS.PIPELINE
    ).read_text()
    shapes = [cv2.imread(str(tmp_path / "run" / name)).shape for name in IMAGES_SHOWN]
    assert shapes[0][1] == shapes[1][1]  # four columns each
    assert shapes[1][0] > shapes[0][0]  # four rows of augmentation, two of six images


def test_a_run_that_goes_on_keeps_its_records_and_adds_what_lacks(tiny_export, tmp_path):
    cfg = toy_cfg(tiny_export, tmp_path / "run")
    write_training_records(cfg, None, new=True)
    folder = tmp_path / "run"
    (folder / "weights.txt").write_text("as it began")
    (folder / "examples/ground_truth.jpg").unlink()
    before = (folder / "dataset.json").stat().st_mtime_ns
    write_training_records(cfg, None, new=False)
    assert (folder / "weights.txt").read_text() == "as it began"
    assert (folder / "dataset.json").stat().st_mtime_ns == before
    assert (folder / "examples/ground_truth.jpg").is_file()
    remove_run(folder)
    assert not [name for name in RECORDS if (folder / name).exists()]

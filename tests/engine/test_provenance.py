"""What a run was made of, on disk."""

import json
import logging
import sys
from datetime import datetime
from pathlib import Path

import pytest

from persondet.config import get_cfg, merge_yaml
from persondet.data.register import (
    dataset_fingerprint,
    register_roboflow_coco,
)
from persondet.engine import run_records as module
from persondet.engine.defaults import config_text
from persondet.engine.run_records import git_state, provenance
from persondet.errors import InterruptedRun
from persondet.files import sha256_of_file
from tests.conftest import write_export

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


def test_a_changed_annotation_changes_the_fingerprint_of_its_split_alone(tmp_path):
    write_export(tmp_path / "export", {"train": 2, "valid": 2})

    def fingerprints():
        register_roboflow_coco("fingerprint", tmp_path / "export", output_dir=tmp_path / "run")
        return [dataset_fingerprint(f"fingerprint_{split}") for split in ("train", "valid")]

    before = fingerprints()
    path = tmp_path / "export" / "valid" / "_annotations.coco.json"
    path.write_text(path.read_text().replace('"iscrowd": 0', '"iscrowd": 1', 1))
    train, valid = fingerprints()
    assert train == before[0]
    assert valid["json_sha256"] != before[1]["json_sha256"]

"""What a run leaves of its start: records, examples, provenance."""

import json
import sys
from pathlib import Path

import cv2
import pytest

from persondet.checkpoint.checkpointer import KeyReport
from persondet.data.augmentation import pipeline_file
from persondet.engine import run_records as module
from persondet.engine.defaults import config_text
from persondet.engine.run_folder import remove_run
from persondet.engine.run_records import git_state, provenance, write_training_records
from persondet.errors import InterruptedRun
from persondet.files import sha256_of_file
from tests.engine.toy_training import ROOT, toy_cfg

SHEETS = ("examples/ground_truth.jpg", "examples/augmentation.jpg")
RECORDS = ("augmentation.yaml", "dataset.json", "weights.txt", *SHEETS)


@pytest.fixture(scope="module")
def toy(tiny_export, tmp_path_factory):
    return toy_cfg(tiny_export, tmp_path_factory.mktemp("records") / "run")


@pytest.fixture
def cfg(toy, tmp_path):
    cfg = toy.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = str(tmp_path)
    return cfg


def starts(cfg):
    record = json.loads((Path(cfg.OUTPUT_DIR) / "provenance.json").read_text())
    assert record["schema"] == 1
    return list(record["starts"])


def run(cfg, before, after, *overrides, error=None):
    steps = iter([before, *[after] * 3])
    with provenance(cfg, "configs/a.yaml", overrides, lambda: next(steps)):
        if error:
            raise error


def test_a_training_leaves_what_it_was_made_of(cfg, monkeypatch, tiny_export):
    monkeypatch.setattr(sys, "argv", ["tools/train_net.py", "--config-file", "configs/a.yaml"])
    run(cfg, 0, 24, "SOLVER.EPOCHS", "3")
    run(cfg, 24, 12)
    first, _ = both = starts(cfg)  # one for each start
    known = [(one["first_step"], one["steps_done"], one["exit"]) for one in both]
    assert known == [(0, 24, "finished"), (24, 12, "stopped early")]
    assert first["command"] == sys.argv
    assert first["config"]["files"] == ["configs/a.yaml"]
    assert first["config"]["overrides"] == ["SOLVER.EPOCHS", "3"]
    written = Path(cfg.OUTPUT_DIR) / "config.yaml"
    written.write_text(config_text(cfg))
    assert first["config"]["sha256"] == sha256_of_file(written)
    assert first["seeds"] == {"SEED": 42, "TEST.VAL_LOSS.SEED": 0}
    assert {"torch", "detectron2", "persondet", "python"} <= first["versions"].keys()
    assert first["git"] == git_state(ROOT)
    assert first["datasets"].keys() == {f"person_{s}" for s in ("train", "valid", "test")}
    truth = json.loads((tiny_export / "train" / "_annotations.coco.json").read_text())
    for key in ("images", "annotations"):
        assert first["datasets"]["person_train"][key] == len(truth[key])


def test_the_way_it_ended_is_kept_and_the_error_goes_on(cfg):
    for error in (KeyboardInterrupt(), InterruptedRun("after step 4"), ValueError("no\nmemory")):
        with pytest.raises(type(error)):
            run(cfg, 0, 4, error=error)
    ends = [(start["exit"], start["steps_done"]) for start in starts(cfg)]
    assert ends == [("interrupted", 4), ("interrupted", 4), ("ValueError: no memory", 4)]


def test_it_never_is_a_reason_for_a_training_to_fail(cfg, monkeypatch, caplog):
    path = Path(cfg.OUTPUT_DIR) / "provenance.json"

    def broken(*_):
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json", broken)
        run(cfg, 0, 24)
    assert "provenance.json" in caplog.text and not path.exists()
    path.write_text('{"starts": 3')
    run(cfg, 0, 24)
    assert starts(cfg)[0]["exit"] == "finished"


@pytest.mark.slow
def test_the_records_tell_of_the_data_and_of_the_weights_and_a_resume_keeps_them(cfg, tmp_path):
    write_training_records(cfg, None, new=True)
    dataset = json.loads((tmp_path / "dataset.json").read_text())
    assert (dataset["schema"], dataset["decoded"]) == (1, True)
    assert dataset["statistics"]["splits"]["train"]["images"] == 6
    assert dataset["leaks"]["test"]["leaked"] == 0
    assert "random values" in (tmp_path / "weights.txt").read_text()
    assert not (tmp_path / "weights.json").exists()
    pipeline = pipeline_file(cfg.INPUT.ALBUMENTATIONS.PIPELINE)
    assert (tmp_path / "augmentation.yaml").read_text() == pipeline.read_text()
    truth, augmented = (cv2.imread(str(tmp_path / name)).shape for name in SHEETS)
    assert truth[1] == augmented[1] and augmented[0] > truth[0]  # four columns each, more rows

    report = KeyReport(("a.b",), (("c.cls_score.weight", (6, 8), (2, 8)),), ("d",), ("e.f",))
    (tmp_path / SHEETS[0]).unlink()
    write_training_records(cfg, report, new=False)  # the run goes on
    assert not (tmp_path / "weights.json").exists()
    assert (tmp_path / SHEETS[0]).is_file()
    write_training_records(cfg, report, new=True)
    told = json.loads((tmp_path / "weights.json").read_text())
    assert (told["loaded"], told["not_loaded"]) == (1, 2)
    assert told["classes"] == {"checkpoint": 5, "dataset": 1}
    loaded = {part["part"]: (part["loaded"], part["not_loaded"]) for part in told["parts"]}
    assert loaded == {"a": (1, 0), "c": (0, 1), "d": (0, 1), "e": (None, 1)}
    remove_run(tmp_path)
    assert not [name for name in RECORDS if (tmp_path / name).exists()]

"""The road from the command line to a frozen config and registered data."""

import argparse
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from persondet.engine import load_cfg, setup
from persondet.errors import ConfigError, DatasetError, PersondetError
from tests.conftest import write_export

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
INSTANT = CONFIGS / "quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"


def arguments(*opts, config=INSTANT, **flags):
    words = [str(word) for word in opts]
    defaults = {"resume": False, "eval_only": False, "overwrite": False}
    return argparse.Namespace(config_file=str(config), opts=words, **(defaults | flags))


def test_classes_splits_and_device_follow_from_the_export(tiny_export, tmp_path):
    cfg = setup(arguments("DATASETS.ROBOFLOW.ROOT", tiny_export, "OUTPUT_DIR", tmp_path / "run"))
    assert cfg.DATASETS.TRAIN == ("person_train",)
    assert cfg.DATASETS.VAL == ("person_valid",)
    assert cfg.DATASETS.TEST == ("person_test",)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 1
    assert cfg.MODEL.DEVICE in ("cpu", "cuda")
    assert cfg.is_frozen()
    # What was asked is kept, so that another machine can choose its own device.
    assert load_cfg(tmp_path / "run/config.yaml").MODEL.DEVICE == "auto"


def test_trap_6_the_periodic_evaluation_never_names_the_test_split(tiny_export, tmp_path):
    cfg = setup(arguments("DATASETS.ROBOFLOW.ROOT", tiny_export, "OUTPUT_DIR", tmp_path / "run"))
    assert not set(cfg.DATASETS.VAL) & set(cfg.DATASETS.TEST)


def test_trap_20_setup_itself_registers_what_a_fresh_process_must_know(tiny_export, tmp_path):
    words = ("DATASETS.ROBOFLOW.ROOT", tiny_export, "OUTPUT_DIR", tmp_path / "run")
    names = {f"person_{split}" for split in ("train", "valid", "test")}
    for _ in range(2):  # the second rank of a run knows nothing of the first
        for name in names & set(DatasetCatalog):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        setup(arguments(*words))
        assert names <= set(DatasetCatalog)
        assert len(DatasetCatalog.get("person_train")) == 6
        assert MetadataCatalog.get("person_train").thing_classes == ["person"]


def test_a_dataset_that_is_refused_leaves_no_run_folder(tmp_path, caplog):
    write_export(tmp_path / "export", {"train": 3, "valid": 1, "test": 1})
    picture = next((tmp_path / "export" / "train").glob("*.jpg"))
    content = picture.read_bytes()
    words = ("DATASETS.ROBOFLOW.ROOT", tmp_path / "export", "OUTPUT_DIR", tmp_path / "run")
    picture.write_bytes(b"<html>")
    with pytest.raises(DatasetError, match="no image"):
        setup(arguments(*words))
    assert not (tmp_path / "run").exists()
    picture.write_bytes(content)
    with pytest.raises(DatasetError, match="MASK_ON|DATASETS"):
        setup(arguments(*words, "DATASETS.TRAIN", "('person_other',)"))
    assert not (tmp_path / "run").exists()
    setup(arguments(*words))
    assert "Cleaned: grouping-category: 1" in (tmp_path / "run" / "log.txt").read_text()


def test_an_export_without_a_valid_split_trains_without_one(tmp_path, capsys):
    write_export(tmp_path / "export", {"train": 3, "test": 1})
    cfg = setup(
        arguments("DATASETS.ROBOFLOW.ROOT", tmp_path / "export", "OUTPUT_DIR", tmp_path / "run")
    )
    assert cfg.DATASETS.VAL == ()
    assert "No validation split" in (tmp_path / "run/log.txt").read_text()


@pytest.mark.parametrize(
    ("opts", "kind", "words"),
    [
        (("DATASETS.ROBOFLOW.ROOT", "nowhere"), DatasetError, "DATASETS.ROBOFLOW.ROOT"),
        (("MODEL.WEIGHTS", "nowhere.pth"), PersondetError, "nowhere.pth"),
        (("DATASETS.TRAIN", "('person_trian',)"), DatasetError, "person_train"),
        pytest.param(
            ("MODEL.DEVICE", "cuda"),
            ConfigError,
            "MODEL.DEVICE",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU"),
        ),
    ],
)
def test_bad_input_is_refused_before_a_run_is_touched(tiny_export, tmp_path, opts, kind, words):
    old = tmp_path / "metrics.json"
    old.write_text("{}")
    common = ("DATASETS.ROBOFLOW.ROOT", tiny_export, "OUTPUT_DIR", tmp_path)
    with pytest.raises(kind, match=words) as caught:
        setup(arguments(*common, *opts, overwrite=True))
    assert "\n" not in str(caught.value)
    assert old.read_text() == "{}"


def test_a_used_folder_needs_resume_or_overwrite(tiny_export, tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    common = ("DATASETS.ROBOFLOW.ROOT", tiny_export, "OUTPUT_DIR", tmp_path)
    with pytest.raises(PersondetError, match="holds a run already"):
        setup(arguments(*common))
    setup(arguments(*common, resume=True))
    assert (tmp_path / "metrics.json").exists()
    setup(arguments(*common, overwrite=True))
    assert (tmp_path / "metrics.json").exists()  # it goes when the new run is ready to train

"""The road from the command line to a frozen config and registered data."""

from argparse import Namespace

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from persondet.engine import load_cfg, setup
from persondet.errors import ConfigError, DatasetError, PersondetError
from tests.conftest import write_export
from tests.engine.toy_training import CONFIG


def arguments(root, output, *opts, **flags):
    words = ["DATASETS.ROBOFLOW.ROOT", root, "OUTPUT_DIR", output, *opts]
    return Namespace(config_file=str(CONFIG), opts=[str(word) for word in words], **flags)


def test_trap_20_setup_itself_registers_what_a_fresh_process_must_know(tiny_export, tmp_path):
    names = {f"person_{split}" for split in ("train", "valid", "test")}
    for _ in range(2):  # the second rank of a run knows nothing of the first
        for name in names & set(DatasetCatalog):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        cfg = setup(arguments(tiny_export, tmp_path / "run"))
        assert names <= set(DatasetCatalog)
        assert len(DatasetCatalog.get("person_train")) == 6
        assert MetadataCatalog.get("person_train").thing_classes == ["person"]
    # Classes, splits and device follow from the export; trap 6: no evaluation names the test split.
    assert cfg.DATASETS.TRAIN == ("person_train",)
    assert cfg.DATASETS.VAL == ("person_valid",)
    assert cfg.DATASETS.TEST == ("person_test",)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 1
    assert cfg.MODEL.DEVICE in ("cpu", "cuda")
    assert cfg.is_frozen()
    # What was asked is kept, so that another machine can choose its own device.
    assert load_cfg(tmp_path / "run/config.yaml").MODEL.DEVICE == "auto"


def test_a_dataset_that_is_refused_leaves_no_run_folder(tmp_path):
    write_export(tmp_path / "export", {"train": 2, "test": 1})
    image = next((tmp_path / "export" / "train").glob("*.jpg"))
    content = image.read_bytes()
    image.write_bytes(b"<html>")
    for opts in ((), ("DATASETS.TRAIN", "('person_other',)")):
        with pytest.raises(DatasetError, match="no image|MASK_ON|DATASETS"):
            setup(arguments(tmp_path / "export", tmp_path / "run", *opts))
        assert not (tmp_path / "run").exists()
        image.write_bytes(content)
    cfg = setup(arguments(tmp_path / "export", tmp_path / "run"))
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "Cleaned: grouping-category: 1" in log
    assert cfg.DATASETS.VAL == () and "No validation split" in log


@pytest.mark.parametrize(
    ("opts", "kind", "words"),
    [
        (("DATASETS.ROBOFLOW.ROOT", "nowhere"), DatasetError, "DATASETS.ROBOFLOW.ROOT"),
        (("MODEL.WEIGHTS", "nowhere.pth"), PersondetError, "nowhere.pth"),
        (("DATASETS.TRAIN", "('person_trian',)"), DatasetError, "person_train"),
        (("MODEL.DEVICE", "gpu"), ConfigError, "MODEL.DEVICE"),
    ],
)
def test_bad_input_is_refused_before_a_run_is_touched(tiny_export, tmp_path, opts, kind, words):
    old = tmp_path / "metrics.json"
    old.write_text("{}")
    with pytest.raises(kind, match=words) as caught:
        setup(arguments(tiny_export, tmp_path, *opts, overwrite=True))
    assert "\n" not in str(caught.value)
    assert old.read_text() == "{}"

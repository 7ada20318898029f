"""What a training writes of its start, without leaving a trace in what follows."""

import json
import random

import cv2
import numpy as np
import torch

from persondet.checkpoint.model_file import load_checkpoint
from persondet.data.augmentation import pipeline_file
from persondet.engine import run_records as training_records
from persondet.engine.run_folder import remove_run
from persondet.engine.run_records import write_training_records
from tests.engine.toy_training import rows, same, toy_cfg, toy_run

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

"""When a run folder may be used, and which model is its model."""

import multiprocessing
import os
import signal
import time

import pytest
import torch
from detectron2.modeling import build_model

from persondet.engine.defaults import load_cfg
from persondet.engine.run_folder import (
    build_inference_model,
    find_model,
    refuse_used_folder,
    remove_run,
    reserved,
)
from persondet.errors import CheckpointError, OutputExistsError
from persondet.modeling.cpu import BlockedBackbone
from persondet.modeling.freeze import learns
from tests.modeling.test_backbones import with_statistics


@pytest.mark.parametrize("mark", ["metrics.json", "model_0000099.pth", "results.json"])
def test_a_used_folder_is_refused_unless_asked(tmp_path, mark):
    (tmp_path / "metrics.json").touch()  # what a start that failed leaves
    refuse_used_folder(tmp_path, resume=False, overwrite=False)
    (tmp_path / mark).write_text("{}")
    with pytest.raises(OutputExistsError, match="--resume.*--overwrite"):
        refuse_used_folder(tmp_path, resume=False, overwrite=False)
    refuse_used_folder(tmp_path, resume=True, overwrite=False)
    refuse_used_folder(tmp_path, resume=False, overwrite=True)


def test_overwriting_removes_the_run_and_nothing_else(tmp_path):
    for name in ("metrics.json", "model_final.pth", "my_notes.txt", "log.txt", "log.txt.rank1"):
        (tmp_path / name).touch()
    (tmp_path / "inference").mkdir()
    remove_run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.txt", "my_notes.txt"]


def train_for_long(folder, told):
    with reserved(folder):
        worker = os.fork()  # a loader's worker, which outlives a training that is killed
        if worker:
            told.send(worker)
        time.sleep(60)


def test_two_trainings_in_one_folder_are_refused_until_the_first_has_ended(tmp_path):
    (tmp_path / ".model_0000009.x1y2z3.pth").touch()  # half of a checkpoint, from a kill
    (tmp_path / "model_0000004.pth").touch()
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    first = fork.Process(target=train_for_long, args=(tmp_path, there))
    first.start()
    worker = here.recv()
    try:
        with pytest.raises(OutputExistsError, match="another process is training"):
            reserved(tmp_path).__enter__()
        first.kill()
        first.join()
        with reserved(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
    assert [path.name for path in tmp_path.iterdir()] == ["model_0000004.pth"]


def test_the_best_model_goes_before_the_final_and_the_newest(tmp_path):
    with pytest.raises(CheckpointError, match="holds no model_best.pth"):
        find_model(tmp_path)
    for name in ("model_0000009.pth", "model_0000019.pth", "model_final.pth", "model_best.pth"):
        (tmp_path / name).touch()
        assert find_model(tmp_path).name == name


def test_batch_norm_that_was_trained_joins_the_convolutions_of_a_model_for_inference(tmp_path):
    """As frozen batch norm does: whoever trains it must not pay for it in every image."""
    cfg = load_cfg("configs/person_mask_rcnn_EfficientNet_Lite0_FPN.yaml", [])
    cfg.MODEL.DEVICE, cfg.MODEL.ROI_HEADS.NUM_CLASSES = "cpu", 1
    assert cfg.MODEL.TIMM.NORM == "BN"
    trained = with_statistics(build_model(cfg)).eval()
    cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    torch.save({"model": trained.state_dict()}, cfg.MODEL.WEIGHTS)
    model = build_inference_model(cfg).model
    assert not learns(*model.parameters()) and not model.training
    assert isinstance(model.backbone.bottom_up, BlockedBackbone)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for name, map_ in trained.backbone(image).items():
            torch.testing.assert_close(model.backbone(image)[name], map_, rtol=1e-4, atol=1e-4)

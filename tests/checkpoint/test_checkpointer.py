"""Saving whole or not at all, loading nothing but tensors, and saying what fitted."""

import hashlib
import math
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.checkpoint.checkpointer import newest_checkpoint, remove_old_checkpoints
from persondet.checkpoint.model_file import (
    CarriedFacts,
    load_checkpoint,
    model_record,
    store_score_threshold,
)
from persondet.errors import CheckpointError, TrainingError


def two_layers(classes=3, fill=1.0):
    model = nn.Sequential(OrderedDict(body=nn.Linear(4, 4), head=nn.Linear(4, classes)))
    for number, parameter in enumerate(model.parameters()):
        nn.init.constant_(parameter, fill * (number + 1))
    return model


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_weights_come_back_and_the_file_carries_config_and_classes(tmp_path):
    carried = {"config": "SEED: 1\n", "class_names": ["person"]}
    saved = two_layers()
    parts = {"carried": carried, "optimizer": torch.optim.SGD(saved.parameters(), lr=0.1)}
    saver = SafeDetectionCheckpointer(saved, str(tmp_path), **parts)
    saver.save("m", iteration=7)
    saver.save_model("model_best", iteration=4)
    checkpointer = SafeDetectionCheckpointer(two_layers(fill=0.0))
    assert checkpointer.load(str(tmp_path / "m.pth"))["iteration"] == 7
    for name, value in checkpointer.model.state_dict().items():
        assert torch.equal(value, saved.state_dict()[name])
    assert checkpointer.facts == CarriedFacts("SEED: 1\n", ("person",), 7)
    # The best model is not the newest, and has no optimizer to resume with.
    assert (tmp_path / "last_checkpoint").read_text() == "m.pth"
    assert "optimizer" in load_checkpoint(tmp_path / "m.pth")
    assert "optimizer" not in load_checkpoint(tmp_path / "model_best.pth")


def test_trap_16_a_kill_during_a_save_leaves_the_older_files_whole(tmp_path, monkeypatch):
    checkpointer = SafeDetectionCheckpointer(two_layers(), str(tmp_path))
    checkpointer.save("m", iteration=1)

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save("m", iteration=2)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.tag_last_checkpoint("other.pth")
    assert load_checkpoint(tmp_path / "m.pth")["iteration"] == 1
    assert (tmp_path / "last_checkpoint").read_text() == "m.pth"
    assert names(tmp_path) == ["last_checkpoint", "m.pth"]


class Command:
    """A pickle that would make a folder when it is loaded."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (Path.mkdir, (self.folder,))


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_trap_15_a_file_that_carries_code_is_refused_and_does_not_run(tmp_path, suffix):
    target, path = tmp_path / "ran", tmp_path / f"evil{suffix}"
    content = {"model": {"w": torch.ones(1)}, "__author__": "x", "x": Command(target)}
    torch.save(content, path) if suffix == ".pth" else path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match="loading that would run code|not a pickle of plain"):
        load_checkpoint(path)
    assert not target.exists()


def test_another_model_and_other_trained_parts_are_refused_by_a_resume(tmp_path):
    def checkpointer(model, *trained):
        optimizer = torch.optim.SGD(trained, lr=0.1)
        return SafeDetectionCheckpointer(model, str(tmp_path), optimizer=optimizer)

    model, other = two_layers(), two_layers(classes=6)
    checkpointer(model, *model.parameters()).save("model_0000009", iteration=9)
    with pytest.raises(CheckpointError, match="head.bias and 1 more differ.*MODEL.WEIGHTS"):
        checkpointer(other, *other.parameters()).resume_or_load("")
    with pytest.raises(CheckpointError, match="other parameters were trained.*FREEZE_AT"):
        checkpointer(model, model.head.weight).resume_or_load("")
    checkpointer(model, *model.parameters()).resume_or_load("")


def test_classes_are_compared_when_a_checkpoint_meets_another_dataset(tmp_path, caplog):
    def checkpointer(*classes):
        carried = {"class_names": classes}
        return SafeDetectionCheckpointer(two_layers(), str(tmp_path), carried=carried)

    checkpointer("person").save("m")
    checkpointer("person").resume_or_load("", resume=True)
    with pytest.raises(CheckpointError, match="knows person, and the dataset has dog, cat"):
        checkpointer("dog", "cat").resume_or_load("", resume=True)
    assert "classes apart" not in caplog.text
    checkpointer("dog", "cat").resume_or_load(str(tmp_path / "m.pth"), resume=False)
    assert "classes apart" in caplog.text


def test_the_record_of_a_model_tells_one_checkpoint_from_another(tmp_path):
    path = tmp_path / "model_best.pth"
    torch.save({"model": {"backbone.w": torch.ones(1)}}, path)
    before = model_record(str(path), 449)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert before == {"file": "model_best.pth", "iteration": 449, "sha256": digest}
    store_score_threshold(path, 0.4)
    after = model_record(f"{path}?matching_heuristics=True", 449)
    assert after["file"] == "model_best.pth" and after["sha256"] != digest
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        model_record(str(tmp_path / "none.pth"), None)


def test_weights_that_are_not_finite_are_not_saved_and_the_good_file_stays(tmp_path):
    model = two_layers()
    checkpointer = SafeDetectionCheckpointer(model, str(tmp_path))
    checkpointer.save("model_0000009", iteration=9)
    for value, save in ((math.nan, checkpointer.save), (-math.inf, checkpointer.save_model)):
        model.head.bias.data[1] = value
        with pytest.raises(TrainingError, match=r"head\.bias holds NaN or infinity.*BASE_LR"):
            save("model_0000009", iteration=19)
    assert names(tmp_path) == ["last_checkpoint", "model_0000009.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000009.pth"
    assert load_checkpoint(tmp_path / "model_0000009.pth")["model"]["head.bias"].isfinite().all()


def detector(classes):
    """Names as in a detector, with a normalisation that only the model has."""
    tree, res2 = nn.ModuleDict, nn.Sequential(nn.Conv2d(3, 4, 1), FrozenBatchNorm2d(4))
    predictor = tree({"cls_score": nn.Linear(4, classes + 1), "bbox_pred": nn.Linear(4, 4)})
    backbone = tree({"bottom_up": tree({"res2": res2}), "fpn_lateral2": nn.Linear(4, 4)})
    heads = tree({"box_predictor": predictor})
    return tree({"backbone": backbone, "neck": FrozenBatchNorm2d(2), "roi_heads": heads})


def test_the_report_says_for_each_part_what_was_loaded_and_why_not(tmp_path):
    state = {name: t for name, t in detector(80).state_dict().items() if "neck" not in name}
    del state["backbone.fpn_lateral2.bias"]
    # Caffe2 has none: they are in weight and bias already, so the model makes them up.
    del state["backbone.bottom_up.res2.1.running_var"]
    state["keypoint_head.weight"] = torch.ones(1)
    torch.save({"model": state}, tmp_path / "m.pth")
    model = detector(1)
    scores = model.roi_heads.box_predictor.cls_score.weight.clone()
    checkpointer = SafeDetectionCheckpointer(model)
    checkpointer.load(str(tmp_path / "m.pth"))
    assert torch.equal(model.roi_heads.box_predictor.cls_score.weight, scores)
    assert torch.equal(model.backbone.fpn_lateral2.weight, state["backbone.fpn_lateral2.weight"])
    text = checkpointer.key_report.text("m.pth")
    assert text.startswith("m.pth: 9 tensors loaded, 7 of the model")
    table = {line.split()[0]: line.split()[1:3] for line in text.splitlines()[3:] if line.split()}
    assert table["backbone.bottom_up.res2"] == ["6", "0"]
    assert table["backbone.fpn"] == ["1", "1"]
    assert table["neck"] == ["0", "4"]
    assert table["roi_heads.box_predictor"] == ["2", "2"]
    assert table["keypoint_head"] == ["-", "1"]
    assert "cls_score.weight: checkpoint (81, 4), model (2, 4)" in text
    assert "tells 80 classes apart and the dataset has 1" in text


@pytest.fixture
def run(tmp_path):
    content = {"model": {"w": torch.ones(99)}}
    for iteration in (9, 19, 29):
        torch.save(content | {"iteration": iteration}, tmp_path / f"model_{iteration:07d}.pth")
    torch.save(content | {"iteration": 99}, tmp_path / "model_best.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000029.pth")
    return tmp_path


@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "tag empty", "tag wrong"])
def test_trap_16_what_a_kill_leaves_is_passed_over(run, damage, caplog):
    path, tag = run / "model_0000029.pth", run / "last_checkpoint"
    if damage == "missing":
        path.unlink()
    elif damage.startswith("tag"):
        tag.write_text("" if damage == "tag empty" else "model_0000039.pth")
    else:
        path.write_bytes(path.read_bytes()[: 500 if damage == "truncated" else 0])
    found, checkpoint = newest_checkpoint(run)
    assert found.name == f"model_00000{29 if damage.startswith('tag') else 19}.pth"
    assert checkpoint["model"]["w"].sum() == 99
    assert ("goes on from" in caplog.text) is (damage != "tag empty")


def test_nothing_is_none_and_nothing_loadable_is_one_sentence(run):
    for path in (*run.glob("model_0*.pth"), tag := run / "last_checkpoint"):
        path.unlink()
    assert newest_checkpoint(run) is None  # the best model is none to go on from
    tag.touch()
    with pytest.raises(CheckpointError, match="last_checkpoint is empty"):
        newest_checkpoint(run)
    (run / "model_0000009.pth").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="no checkpoint of .* can be resumed"):
        newest_checkpoint(run)


def test_old_ones_go_and_best_final_and_foreign_ones_stay(run):
    for name in ("model_final.pth", "model_0000019_mine.pth", "model_0000039.pth"):
        (run / name).touch()
    kept = {*names(run)} - {"model_0000009.pth"}
    for keep, iteration in ((2, 29), (0, 99)):
        remove_old_checkpoints(run, keep=keep, iteration=iteration)
        assert {*names(run)} == kept

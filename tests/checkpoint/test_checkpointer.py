"""Saving whole or not at all, loading nothing but tensors, and saying what fitted."""

import hashlib
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.checkpoint import checkpointer as module
from persondet.checkpoint.checkpointer import (
    newest_checkpoint,
    remove_old_checkpoints,
)
from persondet.checkpoint.model_file import (
    CarriedFacts,
    load_checkpoint,
    model_record,
    store_score_threshold,
)
from persondet.errors import CheckpointError, TrainingError


def two_layers(classes=3):
    model = nn.Sequential(OrderedDict(body=nn.Linear(4, 4), head=nn.Linear(4, classes)))
    for number, parameter in enumerate(model.parameters()):
        nn.init.constant_(parameter, number + 1.0)
    return model


class Command:
    """A pickle that would make a folder when it is loaded."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (Path.mkdir, (self.folder,))


def test_weights_come_back_and_the_file_carries_config_and_classes(tmp_path):
    carried = {"config": "SEED: 1\n", "class_names": ["person"]}
    SafeDetectionCheckpointer(two_layers(), str(tmp_path), carried=carried).save("m", iteration=7)
    model = nn.Sequential(OrderedDict(body=nn.Linear(4, 4), head=nn.Linear(4, 3)))
    checkpointer = SafeDetectionCheckpointer(model)
    rest = checkpointer.load(str(tmp_path / "m.pth"))
    assert rest["iteration"] == 7
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.parameters(), two_layers().parameters(), strict=True)
    )
    assert checkpointer.facts == CarriedFacts("SEED: 1\n", ("person",), 7)
    assert (tmp_path / "last_checkpoint").read_text() == "m.pth"


def test_the_best_model_is_not_tagged_for_resume_and_has_no_optimizer(tmp_path):
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    checkpointer = SafeDetectionCheckpointer(model, str(tmp_path), optimizer=optimizer)
    checkpointer.save("model_0000009", iteration=9)
    checkpointer.save_model("model_best", iteration=4)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000009.pth"
    assert "optimizer" not in load_checkpoint(tmp_path / "model_best.pth")
    assert "optimizer" in load_checkpoint(tmp_path / "model_0000009.pth")


def test_trap_16_a_save_that_dies_leaves_the_older_file_whole(tmp_path, monkeypatch):
    checkpointer = SafeDetectionCheckpointer(two_layers(), str(tmp_path))
    checkpointer.save("m", iteration=1)

    def dies(data, path):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(module.torch, "save", dies)
    with pytest.raises(OSError, match="no space"):
        checkpointer.save("m", iteration=2)
    assert load_checkpoint(tmp_path / "m.pth")["iteration"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "m.pth"]


def test_trap_16_a_kill_at_the_tag_leaves_the_older_one_whole(tmp_path, monkeypatch):
    checkpointer = SafeDetectionCheckpointer(two_layers(), str(tmp_path))
    checkpointer.save("m", iteration=1)

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.tag_last_checkpoint("other.pth")
    assert (tmp_path / "last_checkpoint").read_text() == "m.pth"


def test_heads_that_do_not_fit_are_named_and_the_rest_is_loaded(tmp_path):
    SafeDetectionCheckpointer(two_layers(classes=6), str(tmp_path)).save("m")
    model = two_layers(classes=2)
    nn.init.zeros_(model.body.weight)
    head = model.head.weight.clone()
    checkpointer = SafeDetectionCheckpointer(model)
    checkpointer.load(str(tmp_path / "m.pth"))
    assert torch.equal(model.body.weight, torch.ones(4, 4))
    assert torch.equal(model.head.weight, head)
    report = checkpointer.key_report
    assert report is not None
    assert {name for name, _, _ in report.not_fitting} == {"head.weight", "head.bias"}
    assert report.loaded == 2
    assert "head.weight: checkpoint (6, 4), model (2, 4)" in report.text("m.pth")


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_trap_15_a_file_that_carries_code_is_refused_and_does_not_run(tmp_path, suffix):
    target = tmp_path / "ran"
    path = tmp_path / f"evil{suffix}"
    if suffix == ".pth":
        torch.save({"model": {"w": torch.ones(1)}, "x": Command(target)}, path)
    else:
        path.write_bytes(pickle.dumps({"model": {}, "__author__": "x", "x": Command(target)}))
    said = {
        ".pth": "beside tensors, and loading that would run code",
        ".pkl": "not a pickle of plain",
    }
    with pytest.raises(CheckpointError, match=said[suffix]):
        load_checkpoint(path)
    assert not target.exists()


def test_another_model_and_other_trained_parts_are_refused_by_a_resume(tmp_path):
    def checkpointer(model, *trained):
        return SafeDetectionCheckpointer(
            model, str(tmp_path), optimizer=torch.optim.SGD(trained, lr=0.1)
        )

    model = two_layers()
    checkpointer(model, *model.parameters()).save("model_0000009", iteration=9)
    other = two_layers(classes=6)
    with pytest.raises(CheckpointError, match="head.bias and 1 more differ.*MODEL.WEIGHTS"):
        checkpointer(other, *other.parameters()).resume_or_load("")
    with pytest.raises(CheckpointError, match="other parameters were trained.*FREEZE_AT"):
        checkpointer(model, model.head.weight).resume_or_load("")  # type: ignore[union-attr, arg-type]
    checkpointer(model, *model.parameters()).resume_or_load("")


def test_classes_are_compared_when_a_checkpoint_meets_another_dataset(tmp_path, caplog):
    run = str(tmp_path)
    SafeDetectionCheckpointer(two_layers(), run, carried={"class_names": ["person"]}).save("m")
    same = SafeDetectionCheckpointer(two_layers(), run, carried={"class_names": ["person"]})
    same.resume_or_load("", resume=True)
    dogs = {"class_names": ["dog", "cat"]}
    other = SafeDetectionCheckpointer(two_layers(), run, carried=dogs)
    with pytest.raises(CheckpointError, match="knows person, and the dataset has dog, cat"):
        other.resume_or_load("", resume=True)
    assert not [record for record in caplog.records if "classes apart" in record.message]
    fresh = SafeDetectionCheckpointer(two_layers(), run, carried=dogs)
    fresh.resume_or_load(str(tmp_path / "m.pth"), resume=False)
    assert [record for record in caplog.records if "classes apart" in record.message]


def test_the_record_of_a_model_tells_one_checkpoint_from_another(tmp_path):
    path = tmp_path / "model_best.pth"
    torch.save({"model": {"backbone.w": torch.ones(1)}}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    expected = {"file": "model_best.pth", "iteration": 449, "sha256": digest}
    assert model_record(str(path), 449) == expected
    assert model_record(f"{path}?matching_heuristics=True", 449) == expected
    store_score_threshold(path, 0.4)
    assert model_record(str(path), None) == {
        "file": "model_best.pth",
        "iteration": None,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert model_record(str(path), None)["sha256"] != digest
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        model_record(str(tmp_path / "none.pth"), None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_not_saved_and_the_good_file_stays(tmp_path, value):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    checkpointer = SafeDetectionCheckpointer(model, str(tmp_path))
    checkpointer.save("model_0000009", iteration=9)
    good = model[1].bias.detach().clone()
    model[1].bias.data[1] = value
    for save in (
        lambda: checkpointer.save("model_0000019", iteration=19),
        lambda: checkpointer.save("model_0000009", iteration=19),
        lambda: checkpointer.save_model("model_best", iteration=19),
    ):
        with pytest.raises(
            TrainingError, match=r"1\.bias holds NaN or infinity.*BASE_LR"
        ) as caught:
            save()
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "last_checkpoint",
        "model_0000009.pth",
    ]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000009.pth"
    assert torch.equal(load_checkpoint(tmp_path / "model_0000009.pth")["model"]["1.bias"], good)


def detector(classes, width=4):
    """Names as in a detector, two layers each."""
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.bottom_up = nn.Module()
    model.backbone.bottom_up.res2 = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))
    model.backbone.fpn_lateral2 = nn.Linear(width, 4)
    model.roi_heads = nn.Module()
    model.roi_heads.box_predictor = nn.Module()
    model.roi_heads.box_predictor.cls_score = nn.Linear(4, classes + 1)
    model.roi_heads.box_predictor.bbox_pred = nn.Linear(4, 4)
    return model


def rows(text):
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()[3:] if line.split()}


def report_of(model, path):
    checkpointer = SafeDetectionCheckpointer(model)
    checkpointer.load(str(path))
    assert checkpointer.key_report is not None
    return checkpointer.key_report.text("m.pth")


def test_a_row_says_for_each_part_what_was_loaded_and_why_not(tmp_path):
    state = detector(80).state_dict()
    del state["backbone.fpn_lateral2.bias"]
    state["keypoint_head.weight"] = torch.ones(1)
    torch.save({"model": state}, tmp_path / "m.pth")
    text = report_of(detector(1), tmp_path / "m.pth")
    assert text.splitlines()[0] == (
        "m.pth: 9 tensors loaded, 3 of the model left at their start values."
    )
    table = rows(text)
    assert table["backbone.bottom_up.res2"] == ["6", "0"]
    assert table["backbone.fpn"] == ["1", "1", "not", "in", "the", "checkpoint"]
    assert table["roi_heads.box_predictor"][:2] == ["2", "2"]
    assert "cls_score.weight: checkpoint (81, 4), model (2, 4)" in text
    assert table["keypoint_head"][:2] == ["-", "1"]
    assert "tells 80 classes apart and the dataset has 1" in text


def test_statistics_that_frozen_batch_norm_makes_up_are_not_loaded(tmp_path):
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), FrozenBatchNorm2d(4))
    model.head = FrozenBatchNorm2d(2)
    state = {name: t for name, t in model.state_dict().items() if name.startswith("backbone")}
    del state["backbone.1.running_var"]  # Caffe2 has none: they are in weight and bias already
    torch.save({"model": state}, tmp_path / "m.pth")
    table = rows(report_of(model, tmp_path / "m.pth"))
    assert table["backbone.1"] == ["4", "0"]
    assert table["head"] == ["0", "4", "not", "in", "the", "checkpoint"]


def write(folder, name, iteration):
    path = folder / name
    torch.save({"model": {"w": torch.ones(99)}, "iteration": iteration}, path)
    return path


@pytest.fixture
def run(tmp_path):
    for iteration in (9, 19, 29):
        write(tmp_path, f"model_{iteration:07d}.pth", iteration)
    write(tmp_path, "model_best.pth", 99)
    (tmp_path / "last_checkpoint").write_text("model_0000029.pth")
    return tmp_path


def newest(folder):
    found = newest_checkpoint(folder)
    assert found is not None
    path, checkpoint = found
    assert checkpoint["model"]["w"].sum() == 99
    return path.name


@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "tag empty", "tag wrong"])
def test_trap_16_what_a_kill_leaves_is_passed_over(run, damage, caplog):
    path, tag = run / "model_0000029.pth", run / "last_checkpoint"
    if damage == "missing":
        path.unlink()
    elif damage.startswith("tag"):
        tag.write_text("" if damage == "tag empty" else "model_0000039.pth")
    else:
        path.write_bytes(path.read_bytes()[: 500 if damage == "truncated" else 0])
    expected = "model_0000029.pth" if damage.startswith("tag") else "model_0000019.pth"
    with caplog.at_level("WARNING", "persondet"):
        assert newest(run) == expected
    assert ("goes on from" in caplog.text) is (damage != "tag empty")


def test_nothing_is_none_and_nothing_loadable_is_one_sentence(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    write(tmp_path, "model_best.pth", 9)
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / "last_checkpoint").touch()
    with pytest.raises(CheckpointError, match="last_checkpoint is empty"):
        newest_checkpoint(tmp_path)
    (tmp_path / "model_0000009.pth").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="no checkpoint of .* can be resumed") as caught:
        newest_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_old_ones_go_and_best_final_and_foreign_ones_stay(run):
    for name in ("model_final.pth", "model_0000019_mine.pth", "model_0000039.pth"):
        (run / name).touch()
    remove_old_checkpoints(run, keep=2, iteration=29)
    kept = {path.name for path in run.glob("*.pth")}
    assert kept == {
        *("model_0000019.pth", "model_0000029.pth", "model_0000039.pth"),
        *("model_best.pth", "model_final.pth", "model_0000019_mine.pth"),
    }
    remove_old_checkpoints(run, keep=0, iteration=99)
    assert {path.name for path in run.glob("*.pth")} == kept

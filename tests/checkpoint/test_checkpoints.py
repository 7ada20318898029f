"""Saving whole or not at all, loading nothing but tensors, and saying what fitted."""

import hashlib
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.checkpoint import checkpointer as module
from persondet.checkpoint.model_file import (
    CarriedFacts,
    load_checkpoint,
    model_record,
    store_score_threshold,
)
from persondet.errors import CheckpointError


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

"""One table says what a checkpoint gave: loaded, not loaded, and why."""

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from persondet.checkpoint import SafeDetectionCheckpointer


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

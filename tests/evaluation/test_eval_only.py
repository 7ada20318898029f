"""Scoring alone: any split that is registered, and any model that was saved here."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.modeling import build_model

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.engine import setup
from persondet.engine.run import run

CONFIG = (
    Path(__file__).resolve().parents[2]
    / "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"
)
FLAGS = {"resume": False, "overwrite": False, "config_file": str(CONFIG)}


def keys(export: Path, folder: Path, *more: str) -> list[str]:
    data = ["DATASETS.ROBOFLOW.ROOT", str(export), "OUTPUT_DIR", str(folder)]
    return [*data, "MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "64", *more]


def saved_model(
    export: Path, folder: Path, *more: str, classes: Sequence[str] = ("person",)
) -> Path:
    opts = keys(export, folder, *more)
    cfg = setup(argparse.Namespace(opts=opts, eval_only=False, **FLAGS)).clone()
    cfg.defrost()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(classes)
    torch.manual_seed(0)
    carried = {"config": cfg.dump(), "class_names": list(classes)}
    SafeDetectionCheckpointer(build_model(cfg), str(folder), carried=carried).save_model(
        "model_best", iteration=9
    )
    return folder / "model_best.pth"


def scored(export: Path, folder: Path, weights: Path, dataset: str, *more: str) -> dict[str, Any]:
    opts = keys(export, folder, "MODEL.WEIGHTS", str(weights), *more)
    opts += ["DATASETS.TEST", f"('{dataset}',)"]
    results = run(argparse.Namespace(opts=opts, eval_only=True, **FLAGS))
    written = json.loads((folder / "inference" / dataset / "results.json").read_text())
    assert written["test"]["dataset"] == results["test"]["dataset"] == dataset
    return written["test"]


@pytest.mark.slow
def test_each_split_is_scored_with_its_intervals(tiny_export: Path, tmp_path: Path) -> None:
    weights = saved_model(tiny_export, tmp_path / "run")
    images = {"train": 6, "valid": 3, "test": 3}
    for split, count in images.items():
        test = scored(tiny_export, tmp_path / "scores", weights, f"person_{split}")
        assert test["images"] == count
        for task in ("bbox", "segm"):
            low, high = test["intervals"][task]["AP"]
            assert low <= test[task]["AP"] <= high
            assert test[task]["AR"] is not None
        assert any(f"only {count} images" in note for note in test["notes"])


@pytest.mark.slow
def test_a_model_of_boxes_and_one_of_other_classes_are_scored(
    tiny_export: Path, tmp_path: Path
) -> None:
    boxes = ("MODEL.MASK_ON", "False")
    weights = saved_model(tiny_export, tmp_path / "boxes", *boxes)
    test = scored(tiny_export, tmp_path / "a", weights, "person_test", *boxes)
    assert math.isfinite(test["bbox"]["AP"]) and "segm" not in test
    weights = saved_model(tiny_export, tmp_path / "many", classes=("dog", "person", "cat"))
    test = scored(tiny_export, tmp_path / "b", weights, "person_valid")
    assert math.isfinite(test["segm"]["AP"]) and math.isfinite(test["bbox"]["AP-person"])

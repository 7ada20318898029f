"""What is scored: the best model, and each of its detections, drawn or not."""

import argparse
import json
from pathlib import Path

import cv2
import pytest
import torch
from detectron2.modeling import build_model

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.engine import Trainer, setup
from persondet.engine import run as run_file
from persondet.engine.inference_model import build_inference_model
from persondet.errors import CheckpointError
from persondet.inference.predictor import Predictor

CONFIG = (
    Path(__file__).resolve().parents[2]
    / "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"
)


def test_trap_3_scoring_alone_takes_the_best_model_whatever_a_resume_would_take(
    tiny_export, tmp_path, monkeypatch
):
    asked = []

    def build(cfg, names):
        asked.append(Path(cfg.MODEL.WEIGHTS).name)
        raise CheckpointError("far enough")

    monkeypatch.setattr(run_file, "build_inference_model", build)
    opts = ["DATASETS.ROBOFLOW.ROOT", str(tiny_export), "OUTPUT_DIR", str(tmp_path)]
    flags = {"resume": True, "eval_only": True, "overwrite": False}
    for tag in ("model_0000009.pth", "model_best.pth", "model_final.pth"):
        (tmp_path / tag).touch()
    for tag in ("model_0000009.pth", "model_final.pth"):
        (tmp_path / "last_checkpoint").write_text(tag)
        with pytest.raises(CheckpointError, match="far enough"):
            run_file.run(argparse.Namespace(config_file=str(CONFIG), opts=opts, **flags))
    assert asked == ["model_best.pth"] * 2


def test_trap_18_the_drawing_threshold_never_reaches_the_evaluation(tiny_export, tmp_path):
    """Every detection is about as likely as 0.3: none is drawn, and all of them count."""
    opts = [
        *("DATASETS.ROBOFLOW.ROOT", str(tiny_export), "OUTPUT_DIR", str(tmp_path)),
        *("MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "64"),
        *("VISUALIZATION.SCORE_THRESH", "0.9"),
    ]
    cfg = setup(argparse.Namespace(config_file=str(CONFIG), opts=opts)).clone()
    cfg.defrost()
    torch.manual_seed(0)
    model = build_model(cfg)
    model.roi_heads.box_predictor.cls_score.weight.data.zero_()
    model.roi_heads.box_predictor.cls_score.bias.data[:] = torch.tensor([-0.85, 0.0])
    carried = {"config": cfg.dump(), "class_names": ["person"], "score_threshold": 0.9}
    SafeDetectionCheckpointer(model, str(tmp_path), carried=carried).save_model(
        "model_best", iteration=9
    )

    picture = cv2.imread(str(next((tiny_export / "test").glob("*.jpg"))))
    cfg.MODEL.WEIGHTS = str(tmp_path / "model_best.pth")
    drawn = Predictor.from_run(tmp_path)
    assert drawn.confidence_threshold == 0.9
    assert len(drawn(picture)) == 0

    Trainer.test(cfg, build_inference_model(cfg, ["person"]).model)
    predictions = tmp_path / "inference" / "person_test" / "coco_instances_results.json"
    scores = [row["score"] for row in json.loads(predictions.read_text())]
    assert len(scores) >= 3
    assert all(0.25 < score < 0.35 for score in scores)

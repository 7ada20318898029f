"""COCO metrics: pycocotools' numbers, on random scenes and on a registered export."""

import argparse
import contextlib
import io
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from pycocotools import mask as mask_coding
from torch import nn

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.config import get_cfg
from persondet.data.register import register_roboflow_coco
from persondet.engine import Trainer, setup
from persondet.engine import run as run_file
from persondet.engine.defaults import load_cfg
from persondet.engine.run_folder import build_inference_model
from persondet.errors import CheckpointError
from persondet.evaluation import evaluate
from persondet.inference.predictor import Predictor
from persondet.modeling.precision import autocast
from persondet.modeling.roi_masks import roi_masks_kept


@pytest.fixture
def datasets(tiny_export, tmp_path):
    return register_roboflow_coco("scored", tiny_export, output_dir=tmp_path)


class Oracle(nn.Module):
    """Predicts the ground truth, moved by `shift` pixels, with noise of its own when asked."""

    def __init__(self, dataset, shift=0.0, seed=None):
        super().__init__()
        self.truth = {record["image_id"]: record for record in DatasetCatalog.get(dataset)}
        self.shift, self.rng = shift, None if seed is None else np.random.default_rng(seed)

    def forward(self, inputs):
        return [{"instances": self._predict(self.truth[item["image_id"]])} for item in inputs]

    def _predict(self, record):
        height, width = record["height"], record["width"]
        boxes, masks, scores = [], [], []
        for annotation in record["annotations"]:
            x, y, w, h = annotation["bbox"]
            rle = mask_coding.merge(
                mask_coding.frPyObjects(annotation["segmentation"], height, width)
            )
            copies = 1 if self.rng is None else 4
            for _ in range(copies):
                dx = self.shift if self.rng is None else float(self.rng.normal(0, 2))
                boxes.append([x + dx, y, x + w + dx, y + h])
                masks.append(np.roll(mask_coding.decode(rle).astype(bool), round(dx), axis=1))
                scores.append(0.9 if self.rng is None else float(self.rng.uniform(0.1, 1)))
        out = Instances((height, width))
        out.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
        out.pred_masks = torch.tensor(np.array(masks).reshape(-1, height, width))
        out.scores = torch.tensor(scores)
        out.pred_classes = torch.zeros(len(scores), dtype=torch.int64)
        return out


def score(datasets, model, folder, *, limit=100, **options):
    cfg = get_cfg()
    cfg.TEST.DETECTIONS_PER_IMAGE = limit
    cfg.DATASETS.ROBOFLOW.NAME = "scored"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.MASK_ON = True
    cfg.SOLVER.AMP.ENABLED = False
    cfg.OUTPUT_DIR = str(folder)

    def loader(_, name):
        return [[record] for record in DatasetCatalog.get(name)]

    return dict(evaluate(cfg, model, [datasets.names["train"]], loader, **options))


def test_trap_19_no_prediction_scores_0_for_both_tasks(datasets, tmp_path, caplog):
    class Blind(Oracle):
        def _predict(self, record):
            return super()._predict(record)[:0]

    scores = score(datasets, Blind(datasets.names["train"]), tmp_path)
    assert scores["bbox"]["AP"] == 0.0
    assert scores["segm"]["AP50"] == 0.0
    assert "No predictions" in caplog.text


def test_trap_19_a_single_class_has_its_row_and_a_size_without_truth_no_number(datasets, tmp_path):
    scores = score(datasets, Oracle(datasets.names["train"], shift=3.0), tmp_path)
    assert scores["bbox"]["AP-person"] == scores["bbox"]["AP"]
    assert math.isnan(scores["bbox"]["APl"])  # the images are 96 x 64: nobody is large


def test_scalars_are_numbers_and_what_a_reader_needs_besides_is_asked_for(export_writer, tmp_path):
    """Training writes each value to metrics.json; the final evaluation has the intervals too."""
    export_writer(tmp_path / "export", {"train": 11})  # the last one shows nobody
    datasets = register_roboflow_coco("scored", tmp_path / "export", output_dir=tmp_path)
    model = Oracle(datasets.names["train"], seed=5)
    plain = score(datasets, model, tmp_path, intervals=False)
    assert plain.keys() == {"bbox", "segm"}
    assert all(isinstance(value, float) for task in plain.values() for value in task.values())
    full = score(datasets, Oracle(datasets.names["train"], seed=5), tmp_path, limit=200)
    names = {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR", "AP-person"}
    assert plain["segm"].keys() == names
    assert full["segm"].keys() == names | {"AP@200"}
    for task in ("bbox", "segm"):
        low, high = full["intervals"][task]["AP"]
        assert 0 <= low < full[task]["AP"] < high <= 100
        assert full[task]["AP"] == plain[task]["AP"]
    assert full["notes"] == [
        "scored_train: only 10 images show an object: even its intervals are rough.",
    ]


CONFIG = (
    Path(__file__).resolve().parents[2]
    / "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"
)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_scores_as_with_detectron2s_evaluator(datasets, tmp_path, dtype):
    """The same file of predictions, the same numbers, and the model is as before."""
    cfg = load_cfg(CONFIG)
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR = "cpu", str(tmp_path)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE = True, dtype
    torch.manual_seed(3)
    model = build_model(cfg).eval()
    name = datasets.names["train"]

    def loader(*_):
        generator = torch.Generator().manual_seed(0)
        return [
            [{**record, "image": torch.rand(3, 64, 96, generator=generator) * 255}]
            for record in DatasetCatalog.get(name)
        ]

    ours = evaluate(cfg, model, [name], loader, intervals=False)
    stock = COCOEvaluator(
        name, tasks=("bbox", "segm"), output_dir=str(tmp_path / "stock"), use_fast_impl=False
    )
    with autocast(cfg), contextlib.redirect_stdout(io.StringIO()):
        theirs = inference_on_dataset(model, loader(), stock)
    file = "coco_instances_results.json"
    written = json.loads((tmp_path / "inference" / name / file).read_text())
    assert len(written) > 10
    assert written == json.loads((tmp_path / "stock" / file).read_text())
    for task, metrics in theirs.items():
        assert {k: ours[task][k] for k in metrics} == pytest.approx(metrics, abs=1e-6, nan_ok=True)
    assert not (tmp_path / "inference" / name / "instances_predictions.pth").exists()
    with roi_masks_kept(model), torch.no_grad():
        assert model(loader()[0])[0]["instances"].has("roi_masks")
    with torch.no_grad():
        assert model(loader()[0])[0]["instances"].has("pred_masks")


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

"""AP on a registered export, against plain pycocotools and known answers."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances
from pycocotools import mask as mask_coding
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from persondet.config import get_cfg
from persondet.data.register import RoboflowDatasets, register_roboflow_coco
from persondet.evaluation import evaluate


@pytest.fixture
def datasets(tiny_export: Path, tmp_path: Path) -> RoboflowDatasets:
    return register_roboflow_coco("scored", tiny_export, output_dir=tmp_path)


class Oracle(nn.Module):
    """Predicts the ground truth, moved by `shift` pixels, with noise of its own when asked."""

    def __init__(self, dataset: str, shift: float = 0.0, seed: int | None = None) -> None:
        super().__init__()
        self.truth = {record["image_id"]: record for record in DatasetCatalog.get(dataset)}
        self.shift, self.rng = shift, None if seed is None else np.random.default_rng(seed)

    def forward(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"instances": self._predict(self.truth[item["image_id"]])} for item in inputs]

    def _predict(self, record: dict[str, Any]) -> Instances:
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


def score(datasets: RoboflowDatasets, model: nn.Module, folder: Path) -> dict[str, Any]:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.MASK_ON = True
    cfg.SOLVER.AMP.ENABLED = False
    cfg.OUTPUT_DIR = str(folder)

    def loader(_: Any, name: str) -> list[list[dict[str, Any]]]:
        return [[record] for record in DatasetCatalog.get(name)]

    return dict(evaluate(cfg, model, [datasets.names["train"]], loader))


def test_ground_truth_as_prediction_gives_100(datasets: RoboflowDatasets, tmp_path: Path) -> None:
    scores = score(datasets, Oracle(datasets.names["train"]), tmp_path)
    assert scores["bbox"]["AP"] == pytest.approx(100)
    assert scores["segm"]["AP"] == pytest.approx(100)


def test_noisy_predictions_score_as_plain_pycocotools_says(
    datasets: RoboflowDatasets, tmp_path: Path
) -> None:
    name = datasets.names["train"]
    scores = score(datasets, Oracle(name, seed=5), tmp_path)
    predictions = json.loads(
        (tmp_path / "inference" / name / "coco_instances_results.json").read_text()
    )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(datasets.json_files["train"]))
        for task in ("bbox", "segm"):
            plain = COCOeval(truth, truth.loadRes(json.loads(json.dumps(predictions))), task)
            plain.evaluate()
            plain.accumulate()
            plain.summarize()
            expected = [float(value) * 100 for value in plain.stats[:3]]
            got = [scores[task][key] for key in ("AP", "AP50", "AP75")]
            assert got == pytest.approx(expected, abs=1e-9)
            assert 0 < got[0] < 100


def test_trap_19_no_prediction_scores_0_for_both_tasks(
    datasets: RoboflowDatasets, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Blind(Oracle):
        def _predict(self, record: dict[str, Any]) -> Instances:
            return super()._predict(record)[:0]

    scores = score(datasets, Blind(datasets.names["train"]), tmp_path)
    assert scores["bbox"]["AP"] == 0.0
    assert scores["segm"]["AP50"] == 0.0
    assert "No predictions" in caplog.text


def test_trap_19_a_single_class_has_its_row_and_a_size_without_truth_no_number(
    datasets: RoboflowDatasets, tmp_path: Path
) -> None:
    scores = score(datasets, Oracle(datasets.names["train"], shift=3.0), tmp_path)
    assert scores["bbox"]["AP-person"] == scores["bbox"]["AP"]
    assert math.isnan(scores["bbox"]["APl"])  # the pictures are 96 x 64: nobody is large

"""Scores a dataset's own ground truth: by the project's evaluator, and by plain pycocotools."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from persondet.config import get_cfg
from persondet.data.register import register_roboflow_coco
from persondet.evaluation import evaluate
from tests.data.exports import ANNOTATION_FILE, raster

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class GroundTruth(nn.Module):
    """Predicts what a registered dataset says; `noise` moves each object by some pixels."""

    def __init__(self, dataset: str, masks: bool, noise: float) -> None:
        super().__init__()
        self.truth = {record["image_id"]: record for record in DatasetCatalog.get(dataset)}
        self.masks, self.noise, self.rng = masks, noise, np.random.default_rng(3)

    def forward(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"instances": self._predict(self.truth[item["image_id"]])} for item in inputs]

    def _predict(self, record: dict[str, Any]) -> Instances:
        height, width = record["height"], record["width"]
        boxes, masks, scores, classes = [], [], [], []
        for annotation in record["annotations"]:
            if annotation["iscrowd"]:
                continue
            x, y, w, h = annotation["bbox"]
            dx = float(self.rng.normal(0, self.noise)) if self.noise else 0.0
            boxes.append([x + dx, y, x + w + dx, y + h])
            scores.append(float(self.rng.uniform(0.2, 1)) if self.noise else 0.9)
            classes.append(annotation["category_id"])
            if self.masks:
                mask = raster(annotation["segmentation"], height, width).astype(bool)
                masks.append(np.roll(mask, round(dx), axis=1))
        out = Instances((height, width))
        out.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
        if self.masks:
            out.pred_masks = torch.tensor(np.array(masks, bool).reshape(-1, height, width))
        out.scores = torch.tensor(scores)
        out.pred_classes = torch.tensor(classes, dtype=torch.int64)
        return out


def assert_ground_truth_scores_100(name: str, root: Path, output: Path) -> None:
    """Assert what has to hold of a folder that `clean` wrote.

    Ground truth used as prediction scores AP 100 for boxes and masks in each split that has
    objects; and, also for predictions with noise, all numbers equal to the digit what pycocotools
    alone makes of the folder's own json. `name` is in no other test.
    """
    datasets = register_roboflow_coco(name, root, output_dir=output)
    for split, dataset in datasets.names.items():
        json_file = next(root.glob(f"{split}/{ANNOTATION_FILE}"))
        annotations = json.loads(json_file.read_text(encoding="utf-8"))["annotations"]
        if all(annotation["iscrowd"] for annotation in annotations):
            continue
        for noise in (0.0, 2.0):
            got = scores_of_ground_truth(dataset, datasets.has_masks, noise, output)
            folder = output / "inference" / dataset
            predictions = json.loads((folder / "coco_instances_results.json").read_text())
            for task in ("bbox", "segm") if datasets.has_masks else ("bbox",):
                if noise == 0:
                    assert got[task]["AP"] == pytest.approx(100, abs=1e-9), (split, task)
                expected = _plain(json_file, predictions, task)
                found = [got[task][metric] for metric in METRICS]
                np.testing.assert_array_equal(found, expected, f"{split} {task}")


def scores_of_ground_truth(dataset: str, masks: bool, noise: float, output: Path) -> dict[str, Any]:
    """The scores, by task, of predicting what a registered dataset says."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.MASK_ON = masks
    cfg.SOLVER.AMP.ENABLED = False
    cfg.OUTPUT_DIR = str(output)

    def loader(_: Any, name: str) -> list[list[dict[str, Any]]]:
        return [[record] for record in DatasetCatalog.get(name)]

    return dict(evaluate(cfg, GroundTruth(dataset, masks, noise), [dataset], loader))


def _plain(json_file: Path, predictions: list[dict[str, Any]], task: str) -> np.ndarray:
    """METRICS by pycocotools; the mask's size is what counts, as in Detectron2."""
    kept = ("image_id", "category_id", "score", "bbox" if task == "bbox" else "segmentation")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(json_file))
        records = [{key: copy.copy(record[key]) for key in kept} for record in predictions]
        plain = COCOeval(truth, truth.loadRes(records), task)
        plain.evaluate()
        plain.accumulate()
        plain.summarize()
    return np.where(plain.stats[:6] >= 0, plain.stats[:6] * 100, np.nan)

"""Scores a dataset's own ground truth by the project's evaluator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances
from torch import nn

from persondet.config import get_cfg
from persondet.data.register import register_roboflow_coco
from persondet.evaluation import evaluate
from tests.data.exports import raster


class GroundTruth(nn.Module):
    """Predicts what a registered dataset says."""

    def __init__(self, dataset, masks):
        super().__init__()
        self.truth = {record["image_id"]: record for record in DatasetCatalog.get(dataset)}
        self.masks = masks

    def forward(self, inputs):
        return [{"instances": self._predict(self.truth[item["image_id"]])} for item in inputs]

    def _predict(self, record):
        size = (record["height"], record["width"])
        objects = [one for one in record["annotations"] if not one["iscrowd"]]
        boxes = torch.tensor([one["bbox"] for one in objects]).reshape(-1, 4)
        out = Instances(size)
        out.pred_boxes = Boxes(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1))
        if self.masks:
            masks = [raster(one["segmentation"], *size) for one in objects]
            out.pred_masks = torch.tensor(np.array(masks, bool).reshape(-1, *size))
        out.scores = torch.full((len(objects),), 0.9)
        classes = [one["category_id"] for one in objects]
        out.pred_classes = torch.tensor(classes, dtype=torch.int64)
        return out


def assert_ground_truth_scores_100(name, root, output):
    """Assert AP 100 for boxes and masks in the last split of `root`, which `clean` wrote."""
    datasets = register_roboflow_coco(name, root, output_dir=output)
    *_, dataset = datasets.names.values()
    scores = scores_of_ground_truth(dataset, datasets.has_masks, output)
    for task in ("bbox", "segm") if datasets.has_masks else ("bbox",):
        assert scores[task]["AP"] == pytest.approx(100, abs=1e-9), task


def scores_of_ground_truth(dataset, masks, output):
    """The scores, by task, of predicting what a registered dataset says."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.MASK_ON = masks
    cfg.SOLVER.AMP.ENABLED = False
    cfg.OUTPUT_DIR = str(output)

    batches = [[record] for record in DatasetCatalog.get(dataset)]
    return evaluate(cfg, GroundTruth(dataset, masks), [dataset], lambda *_: batches)

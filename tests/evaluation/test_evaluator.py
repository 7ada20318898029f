"""The evaluator on a registered export, beside Detectron2's, and the constant box."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.modeling import build_model
from detectron2.structures import BoxMode

from persondet.config import get_cfg
from persondet.data.register import register_roboflow_coco
from persondet.engine.defaults import load_cfg
from persondet.evaluation import evaluate, evaluator
from persondet.evaluation.evaluator import constant_box_scores, median_boxes
from persondet.evaluation.matching import match
from persondet.modeling.precision import autocast
from tests.data.ground_truth_score import GroundTruth
from tests.engine.toy_training import CONFIG
from tests.evaluation.scenes import person, scene
from tests.inference.tiny_model import NARROW


class Blind(GroundTruth):
    def _predict(self, record):
        return super()._predict(record)[:0]


class Moved(GroundTruth):
    def _predict(self, record):
        out, rng = super()._predict(record), np.random.default_rng(record["image_id"])
        out.pred_boxes.tensor += torch.from_numpy(rng.normal(0, 3, (len(out), 4))).float()
        out.pred_masks = out.pred_masks.roll(int(rng.integers(-4, 5)), -1)
        out.scores = torch.from_numpy(rng.uniform(0.2, 1, len(out)))
        return out


def score(name, folder, *, limit=100, kind=Moved, **options):
    cfg = get_cfg()
    cfg.TEST.DETECTIONS_PER_IMAGE = limit
    cfg.MODEL.DEVICE, cfg.MODEL.MASK_ON, cfg.OUTPUT_DIR = "cpu", True, str(folder)
    cfg.SOLVER.AMP.ENABLED = False
    records = [[record] for record in DatasetCatalog.get(name)]
    return dict(evaluate(cfg, kind(name, True), [name], lambda *_: records, **options))


def test_trap_19_a_class_has_its_row_and_no_prediction_is_0(
    export_writer, tmp_path, caplog, monkeypatch
):
    """Training writes each value to metrics.json; the final evaluation has the intervals too."""
    export_writer(tmp_path / "export", {"train": 11})  # the last one shows nobody
    name = register_roboflow_coco("scored", tmp_path / "export", output_dir=tmp_path).names["train"]
    plain = score(name, tmp_path, intervals=False)
    assert plain.keys() == {"bbox", "segm"}
    assert all(isinstance(value, float) for task in plain.values() for value in task.values())
    assert plain["bbox"]["AP-person"] == plain["bbox"]["AP"]
    assert math.isnan(plain["bbox"]["APl"])  # the images are 96 x 64: nobody is large
    tasks = []
    monkeypatch.setattr(evaluator, "match", lambda *a: tasks.append(a[2]) or match(*a))
    full = score(name, tmp_path, limit=200)
    assert tasks == ["bbox", "segm"]  # the metrics, intervals and the analysis share the matches
    assert full["segm"].keys() == plain["segm"].keys() | {"AP@200"}
    low, high = full["intervals"]["segm"]["AP"]
    assert 0 <= low < full["segm"]["AP"] == plain["segm"]["AP"] < high <= 100
    (note,) = full["notes"]
    assert "scored_train: only 10 images show an object" in note
    nothing = score(name, tmp_path, kind=Blind)
    assert nothing["bbox"]["AP"] == nothing["segm"]["AP50"] == 0.0
    assert "No predictions" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_scores_as_with_detectron2s_evaluator(tiny_export, tmp_path, dtype):
    cfg = load_cfg(CONFIG, NARROW)
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR = "cpu", str(tmp_path)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE = True, dtype
    torch.manual_seed(3)
    model = build_model(cfg).eval()
    name = register_roboflow_coco("scored", tiny_export, output_dir=tmp_path).names["valid"]

    def loader(*_):
        generator = torch.Generator().manual_seed(0)
        return [
            [{**record, "image": torch.rand(3, 32, 48, generator=generator) * 255}]
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
    with torch.no_grad():
        assert model(loader()[0])[0]["instances"].has("pred_masks")  # as before


def record(box, *, crowd=0, size=(200, 100)):
    annotation = {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": crowd}
    return {"width": size[0], "height": size[1], "annotations": [annotation]}


def test_the_constant_box_is_the_median_of_each_corner_relative_to_its_image():
    boxes = median_boxes(
        [
            record([10, 10, 30, 60], size=(100, 100)),
            record([20, 0, 100, 50]),
            record([60, 20, 180, 90]),
            record([0, 0, 9, 9], crowd=1),
        ]
    )
    # corners as shares: (0.1, 0.1, 0.3, 0.6), (0.1, 0, 0.5, 0.5), (0.3, 0.2, 0.9, 0.9)
    assert boxes[0] == (1, pytest.approx([0.1, 0.1, 0.5, 0.6]))


@pytest.mark.parametrize("masks", [False, True])
def test_a_constant_box_that_hits_on_half_of_the_images_has_the_precision_of_half(tmp_path, masks):
    # All scores are equal, so pycocotools keeps the order of the images: hit, miss, hit, miss.
    truth = [[person((x, 20, 40, 60))] for x in (50, 150, 50, 150)]
    (tmp_path / "t.json").write_text(json.dumps(scene(truth, [])[0]))
    training = [record([50, 20, 90, 80])]
    scores = constant_box_scores(training, tmp_path / "t.json", (1,), masks=masks)
    # recall 1/4 at precision 1 and 2/4 at 2/3: of 101 recall points 26 and 25.
    for task in ("bbox", "segm") if masks else ("bbox",):
        assert scores[task]["AP50"] == pytest.approx(100 * (26 + 25 * 2 / 3) / 101)
    assert ("segm" in scores) == masks
    assert constant_box_scores([], tmp_path / "t.json", (1,), masks=masks) == {}

"""A whole run: its operating point, what explains its scores, and whom leaks are told of."""

import json
from argparse import Namespace

import pytest
import torch
from detectron2.data import DatasetCatalog
from pycocotools.coco import COCO

from persondet.checkpoint.model_file import CarriedFacts, load_checkpoint
from persondet.config import get_cfg
from persondet.data.register import ground_truth, register_roboflow_coco
from persondet.engine.run import explain, headlines, run, tuned_threshold
from persondet.evaluation.analysis import Analysis
from persondet.evaluation.matching import GroundTruth, match
from persondet.evaluation.predictions import read_predictions
from persondet.results import read_results
from tests.engine.toy_training import CONFIG


def facts(file):
    return CarriedFacts.from_checkpoint(load_checkpoint(file))


def test_the_best_model_carries_the_threshold_and_the_split_is_looked_at_with_it(
    tiny_export, tmp_path
):
    """Everybody is found at 0.8, and there is a false alarm at 0.3."""
    register_roboflow_coco("scoring", tiny_export, output_dir=tmp_path)
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    truth = GroundTruth(COCO(str(ground_truth("scoring_valid")[0])))
    kept = ("image_id", "category_id", "bbox", "segmentation")
    found = [
        {key: one[key] for key in kept} | {"score": 0.8}
        for one in json.loads(ground_truth("scoring_valid")[0].read_text())["annotations"]
    ]
    corner = {"bbox": [0, 0, 4, 4], "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]], "score": 0.3}
    found.append(found[0] | corner)
    folder = tmp_path / "inference/scoring_valid"
    folder.mkdir(parents=True)
    (folder / "coco_instances_results.json").write_text(json.dumps(found))
    ids = [image["id"] for image in truth.images]
    read = read_predictions(folder / "coco_instances_results.json", ids).__getitem__
    analysis = Analysis({task: match(truth, read, task, 100) for task in ("bbox", "segm")}, read)
    weights, file = torch.arange(6.0), tmp_path / "model_best.pth"
    carried = {"config": "A: 1", "class_names": ["person"], "iteration": 3}
    torch.save({"model": {"w": weights}, "persondet": carried}, file)

    assert tuned_threshold(analysis, "scoring_valid", file) == 0.55
    best = facts(file)
    assert best.score_threshold == 0.55
    assert (best.config, best.class_names, best.iteration) == ("A: 1", ("person",), 3)
    assert torch.equal(load_checkpoint(file)["model"]["w"], weights)
    point = explain(cfg, "scoring_valid", analysis, 0.55)
    expected = {"task": "segm", "iou": 0.5, "threshold": 0.55, "tuned": True}
    assert expected.items() <= point.items()
    assert (point["test"]["misses"], point["test"]["false_alarms"]) == (0, 0)
    assert {"curves.json", "errors.json", "gallery"} <= {path.name for path in folder.iterdir()}
    untuned = explain(cfg, "scoring_valid", analysis, None)
    assert (untuned["threshold"], untuned["tuned"]) == (0.5, False)


def test_leaks_are_those_of_the_export_that_is_scored(export_writer, tmp_path):
    """Also in the folder of a run that was trained on another export."""
    root, folder = tmp_path / "export", tmp_path / "run"
    export_writer(root, {"train": 2, "test": 3})
    first, known = (next((root / split).glob("*.jpg")) for split in ("test", "train"))
    first.write_bytes(known.read_bytes())
    register_roboflow_coco("leaking", root, output_dir=tmp_path)
    cfg = get_cfg()
    cfg.DATASETS.ROBOFLOW.NAME, cfg.DATASETS.ROBOFLOW.ROOT = "leaking", str(root)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("leaking_train",), ("leaking_test",)
    cfg.OUTPUT_DIR = str(folder)
    folder.mkdir()
    asked = {"images": 1, "share": pytest.approx(1 / 3), "with": {"train": 1}, "clip_mates": 0}

    def leaks(dataset="leaking_test"):
        return headlines(cfg, {dataset: {}})[dataset]["leaks"]

    assert leaks() == asked
    looked_at = folder / "inference/leaking_test/dataset.json"
    record = json.loads(looked_at.read_text())
    assert record["folder"] == str(root)
    assert not (folder / "dataset.json").exists()  # that one is the training's
    record["leaks"]["test"]["leaked"] = 2
    (folder / "dataset.json").write_text(json.dumps(record))
    assert leaks()["images"] == 2  # known: not looked at again
    other = json.dumps({**record, "folder": "elsewhere"})
    (folder / "dataset.json").write_text(other)
    assert leaks() == asked
    assert (folder / "dataset.json").read_text() == other
    # What comes from elsewhere has no share in the export's leaks, whatever its name is.
    DatasetCatalog.register("test", list)
    try:
        assert leaks("test") is None
    finally:
        DatasetCatalog.remove("test")


@pytest.mark.slow
@pytest.mark.parametrize(("split", "missing"), [("test", "valid"), ("valid", "test")])
def test_a_run_without_a_split_reports_what_it_has(export_writer, tmp_path, split, missing):
    export_writer(tmp_path / "export", {"train": 2, split: 2})
    output = tmp_path / "run"
    words = f"""MODEL.DEVICE cpu MODEL.MASK_ON False INPUT.MIN_SIZE_TEST 48 SOLVER.MAX_ITER 1
        INPUT.MIN_SIZE_TRAIN (48,) DATASETS.ROBOFLOW.ROOT {tmp_path}/export OUTPUT_DIR {output}"""
    flags = {"resume": False, "eval_only": False, "overwrite": False}
    results = run(Namespace(config_file=str(CONFIG), opts=words.split(), **flags))
    assert split in results and missing not in results
    point = read_results(output)["operating_point"]
    assert point is None or point[missing] is None
    if missing == "valid":
        assert results["operating_point"]["tuned"] is False
        assert facts(output / "model_best.pth").score_threshold is None

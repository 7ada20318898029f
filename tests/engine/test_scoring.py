"""The operating point: where it comes from, where it is kept, and who uses it."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from pycocotools.coco import COCO

from persondet.checkpoint.model_file import CarriedFacts, load_checkpoint
from persondet.config import get_cfg
from persondet.data.register import ground_truth, register_roboflow_coco
from persondet.engine.run import explain, headlines, operating_point, run, tuned_threshold
from persondet.evaluation.analysis import Analysis
from persondet.evaluation.matching import GroundTruth, match
from persondet.evaluation.predictions import read_predictions
from persondet.files import sha256_of_file
from persondet.inference.predictor import Predictor, _threshold
from persondet.results import read_results
from tests.engine.toy_training import CONFIG, same

WEIGHTS = torch.arange(6.0)


@pytest.fixture
def cfg(tiny_export, tmp_path):
    """A run folder whose model finds everybody at 0.8 and adds a false alarm at 0.3."""
    register_roboflow_coco("scoring", tiny_export, output_dir=tmp_path)
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.OUTPUT_DIR = str(tmp_path)
    for split in ("valid", "test"):
        coco = json.loads(ground_truth(f"scoring_{split}")[0].read_text())
        size = [coco["images"][0][side] for side in ("height", "width")]
        rows = [
            {key: one[key] for key in ("image_id", "category_id", "bbox", "segmentation")}
            | {"score": 0.8}
            for one in coco["annotations"]
        ]
        rows.append({**rows[0], "bbox": [0, 0, 4, 4], "score": 0.3})
        rows[-1]["segmentation"] = [[0, 0, 4, 0, 4, 4, 0, 4]]
        assert size == [64, 96]
        folder = tmp_path / "inference" / f"scoring_{split}"
        folder.mkdir(parents=True)
        (folder / "coco_instances_results.json").write_text(json.dumps(rows))
    for name in ("model_best", "model_final"):
        carried = {"config": "A: 1", "class_names": ["person"], "iteration": 3}
        torch.save({"model": {"w": WEIGHTS}, "persondet": carried}, tmp_path / f"{name}.pth")
    return cfg


def analysis(cfg, name="scoring_valid"):
    truth = GroundTruth(COCO(str(ground_truth(name)[0])))
    folder = Path(cfg.OUTPUT_DIR) / "inference" / name
    ids = [image["id"] for image in truth.images]
    read = read_predictions(folder / "coco_instances_results.json", ids).__getitem__
    return Analysis({task: match(truth, read, task, 100) for task in ("bbox", "segm")}, read)


def analyses(cfg, *names):
    return {name: analysis(cfg, name) for name in names}


def facts(folder, name):
    return CarriedFacts.from_checkpoint(load_checkpoint(folder / f"{name}.pth"))


def test_the_best_model_carries_the_threshold_of_the_validation_split_and_no_other_does(
    cfg, tmp_path
):
    assert tuned_threshold(analysis(cfg), "scoring_valid", tmp_path / "model_best.pth") == 0.55
    best = facts(tmp_path, "model_best")
    assert best.score_threshold == 0.55
    assert (best.config, best.class_names, best.iteration) == ("A: 1", ("person",), 3)
    assert torch.equal(load_checkpoint(tmp_path / "model_best.pth")["model"]["w"], WEIGHTS)
    assert facts(tmp_path, "model_final").score_threshold is None


def test_both_splits_are_looked_at_with_the_one_threshold(cfg, tmp_path):
    points = explain(cfg, analyses(cfg, "scoring_valid", "scoring_test"), 0.55)
    point = operating_point(points, 0.55, valid="scoring_valid", test="scoring_test")
    assert point is not None
    assert (point["task"], point["iou"], point["threshold"], point["tuned"]) == (
        "segm",
        0.5,
        0.55,
        True,
    )
    for split in ("valid", "test"):
        assert (point[split]["misses"], point[split]["false_alarms"]) == (0, 0)
        folder = tmp_path / "inference" / f"scoring_{split}"
        assert {path.name for path in folder.iterdir()} == {
            *("coco_instances_results.json", "curves.json", "errors.json", "gallery"),
        }


def test_leaks_are_those_of_the_export_that_is_scored(export_writer, tmp_path):
    """Also in the folder of a run that was trained on another export."""
    root, folder = tmp_path / "export", tmp_path / "run"
    export_writer(root)
    first, known = (next((root / split).glob("*.jpg")) for split in ("test", "train"))
    first.write_bytes(known.read_bytes())
    register_roboflow_coco("leaking", root, output_dir=tmp_path)
    cfg = get_cfg()
    cfg.DATASETS.ROBOFLOW.NAME, cfg.DATASETS.ROBOFLOW.ROOT = "leaking", str(root)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("leaking_train",), ("leaking_test",)
    cfg.OUTPUT_DIR = str(folder)
    folder.mkdir()
    asked = {"images": 1, "share": pytest.approx(1 / 3), "with": {"train": 1}}

    def leaks(dataset="leaking_test"):
        return headlines(cfg, {dataset: {}})[dataset]["leaks"]

    assert leaks() == asked
    looked_at = folder / "inference/leaking_test/dataset.json"
    record = json.loads(looked_at.read_text())
    assert (record["schema"], record["folder"]) == (1, str(root))
    assert not (folder / "dataset.json").exists()  # that one is the training's
    record["leaks"]["test"]["leaked"] = 2
    (folder / "dataset.json").write_text(json.dumps(record))
    assert leaks()["images"] == 2  # known: not looked at again
    assert not looked_at.exists()
    for other in (json.dumps({**record, "folder": "elsewhere"}), "[1]", "{"):
        (folder / "dataset.json").write_text(other)
        assert leaks() == asked
        assert (folder / "dataset.json").read_text() == other
        assert json.loads(looked_at.read_text())["folder"] == str(root)
    # What comes from elsewhere has no share in the export's leaks, whatever its name is.
    DatasetCatalog.register("test", list)
    try:
        assert leaks("test") is None
    finally:
        DatasetCatalog.remove("test")
    assert not (folder / "inference/test").exists()


@pytest.mark.parametrize(
    ("flag", "key", "stored", "used"),
    [
        (0.1, 0.2, 0.3, 0.1),
        (0.0, 0.2, 0.3, 0.0),
        (None, 0.2, 0.3, 0.2),
        (None, 0.0, 0.3, 0.3),
        (None, 0.0, None, 0.5),
    ],
)
def test_flag_before_key_before_stored_threshold_before_a_half(flag, key, stored, used):
    cfg = get_cfg()
    cfg.VISUALIZATION.SCORE_THRESH = key
    assert _threshold(flag, cfg, CarriedFacts(score_threshold=stored)) == used


def _run(export, output, *opts, **flags):
    words = ("DATASETS.ROBOFLOW.ROOT", export, "OUTPUT_DIR", output, "MODEL.DEVICE", "cpu", *opts)
    known = {"resume": False, "eval_only": False, "overwrite": False} | flags
    return run(Namespace(config_file=str(CONFIG), opts=[str(word) for word in words], **known))


@pytest.mark.slow
def test_a_run_ends_with_its_operating_point_and_what_explains_its_scores(
    tiny_export, tmp_path, monkeypatch
):
    output = tmp_path / "run"
    matched = []

    def counted(truth, read, task, limit):
        matched.append((len(truth.images), task))
        return match(truth, read, task, limit)

    monkeypatch.setattr("persondet.evaluation.evaluator.match", counted)
    results = _run(tiny_export, output, "SOLVER.MAX_ITER", 4)
    # The best model's predictions on both splits once per task, after one evaluation in training.
    assert matched == [(3, "bbox"), (3, "segm")] * 3
    assert results["test"]["dataset"] == "person_test"
    assert results["valid"]["dataset"] == "person_valid"
    point = results["operating_point"]
    carried = facts(output, "model_best").score_threshold
    assert carried == (point["threshold"] if point["tuned"] else None)
    assert Predictor.from_run(output).confidence_threshold == point["threshold"]
    model = {
        "file": "model_best.pth",
        "iteration": facts(output, "model_best").iteration,
        "sha256": sha256_of_file(output / "model_best.pth"),
    }
    assert (results["model"], results["model_sha256"]) == (model["file"], model["sha256"])
    assert results["iteration"] == model["iteration"] and "tests" not in results
    for split in ("valid", "test"):
        folder = output / "inference" / f"person_{split}"
        for name in ("curves.json", "errors.json", "gallery/gallery.json", "results.json"):
            assert json.loads((folder / name).read_text())["model"] == model
        assert same(read_results(folder)["test"], read_results(output)[split])
        errors = json.loads((folder / "errors.json").read_text())
        for task in ("bbox", "segm"):
            ap50 = results[split][task]["AP50"]
            assert errors["tasks"][task]["AP50"] == pytest.approx(ap50, abs=1e-6)
    for name in ("weights.txt", "dataset.json", "examples/ground_truth.jpg"):
        assert (output / name).is_file()

    # Scoring alone, with a drawing threshold that hides everything: the same numbers.
    again = _run(
        tiny_export,
        tmp_path / "scored",
        *("MODEL.WEIGHTS", output / "model_best.pth", "VISUALIZATION.SCORE_THRESH", 0.999),
        eval_only=True,
    )
    assert same(again["test"]["segm"], results["test"]["segm"])
    assert again["operating_point"]["test"] == point["test"]
    assert again["model"] == model
    first, second = (
        (folder / "inference/person_test/curves.json").read_text()
        for folder in (output, tmp_path / "scored")
    )
    assert json.loads(first) == json.loads(second)


@pytest.mark.slow
@pytest.mark.parametrize("splits", [("train", "test"), ("train", "valid"), ("train",)])
def test_a_run_without_a_split_reports_what_it_has(export_writer, tmp_path, splits):
    export_writer(tmp_path / "export", dict.fromkeys(splits, 2))
    results = _run(tmp_path / "export", tmp_path / "run", "SOLVER.MAX_ITER", 2)
    assert {split for split in ("valid", "test") if split in results} == set(splits[1:])
    if len(splits) == 1:
        assert results == {}
        return
    assert json.loads((tmp_path / "run/results.json").read_text())["schema"] == 1
    if "valid" not in splits:
        assert results["operating_point"]["tuned"] is False
        assert facts(tmp_path / "run", "model_best").score_threshold is None

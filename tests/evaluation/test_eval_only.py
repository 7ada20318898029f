"""Scoring alone: any split that is registered, and any model that was saved here."""

import argparse
import json
from pathlib import Path

import cv2
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.data.register import register_roboflow_coco
from persondet.engine import Trainer, setup
from persondet.engine import run as run_file
from persondet.engine.run_folder import build_inference_model
from persondet.errors import CheckpointError, ConfigError
from persondet.files import sha256_of_file
from persondet.inference.predictor import Predictor
from persondet.results import read_results, write_results
from tests.engine.toy_training import CONFIG
from tests.inference.tiny_model import NARROW


def arguments(export, folder, *opts, **flags):
    data = ["DATASETS.ROBOFLOW.ROOT", str(export), "OUTPUT_DIR", str(folder)]
    known = {"resume": False, "eval_only": True, "overwrite": False, "config_file": str(CONFIG)}
    opts = [*data, "MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "64", *NARROW, *map(str, opts)]
    return argparse.Namespace(opts=opts, **{**known, **flags})


def saved_model(export, folder, *opts, **carried):
    """Save a model that is about 0.3 sure of everything; return its config and file."""
    cfg = setup(arguments(export, folder, *opts, eval_only=False)).clone()
    cfg.defrost()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    torch.manual_seed(0)
    model = build_model(cfg)
    model.roi_heads.box_predictor.cls_score.weight.data.zero_()
    model.roi_heads.box_predictor.cls_score.bias.data[:] = torch.tensor([-0.85, 0.0])
    carried = {"config": cfg.dump(), "class_names": ["person"], **carried}
    checkpointer = SafeDetectionCheckpointer(model, str(folder), carried=carried)
    checkpointer.save_model("model_best", iteration=9)
    return cfg, folder / "model_best.pth"


def evaluated(folder, weights, export, names):
    opts = ("MODEL.WEIGHTS", weights, "DATASETS.TEST", repr(tuple(names)))
    return run_file.run(arguments(export, folder, *opts))


@pytest.fixture
def elsewhere(tiny_export, tmp_path):
    """A dataset registered by other code, with as little as Detectron2 asks for."""
    name = register_roboflow_coco("source", tiny_export, output_dir=tmp_path).names["valid"]
    rows = DatasetCatalog.get(name)
    DatasetCatalog.register("street_night", lambda: rows)
    MetadataCatalog.get("street_night").set(thing_classes=["person"])
    yield "street_night"
    DatasetCatalog.remove("street_night")
    MetadataCatalog.pop("street_night", None)


@pytest.mark.slow
def test_each_of_several_sets_is_written_and_another_checkpoint_changes_nothing_of_the_run(
    tiny_export, tmp_path, elsewhere
):
    folder = tmp_path / "run"
    best = saved_model(tiny_export, folder)[1]
    names = ("person_test", elsewhere, "person_valid")
    first = evaluated(folder, best, tiny_export, [*names, "person_test"])
    assert list(first["tests"]) == list(names) and first["test"] == first["tests"]["person_test"]
    for name in names:
        written = read_results(folder / "inference" / name)
        assert (written["test"]["dataset"], written["test"]["images"]) == (name, 3)
        made_by = json.loads((folder / "inference" / name / "errors.json").read_text())
        assert made_by["dataset"] == name and made_by["model"] == written["model"]
    looked_at = {path.parent.name for path in folder.rglob("dataset.json")}
    assert looked_at == {"person_test", "person_valid"}  # what is of the export
    assert read_results(folder / "inference" / elsewhere)["test"]["leaks"] is None

    write_results(folder, {**first, "model": "model_best.pth"})
    (folder / "dataset.json").write_text('{"folder": "where it was trained", "decoded": true}')
    kept = {name: (folder / name).read_bytes() for name in ("results.json", "dataset.json")}
    other = folder / "model_0000004.pth"
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["persondet"] |= {"iteration": 4, "score_threshold": 0.001}
    torch.save(checkpoint, other)
    second = evaluated(folder, other, tiny_export, ["person_test"])
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    digest = sha256_of_file(other)
    assert second["model"] == {"file": "model_0000004.pth", "iteration": 4, "sha256": digest}
    assert digest != first["model"]["sha256"] == sha256_of_file(best)
    inside = folder / "inference/person_test"
    for name in ("results.json", "curves.json", "errors.json", "gallery/gallery.json"):
        assert json.loads((inside / name).read_text())["model"] == second["model"]
    assert json.loads((inside / "dataset.json").read_text())["folder"] == str(tiny_export)


def test_sets_of_different_classes_are_refused_together(tiny_export, tmp_path, elsewhere):
    MetadataCatalog.pop(elsewhere)
    MetadataCatalog.get(elsewhere).set(thing_classes=["person", "dog"])
    weights = tmp_path / "model.pth"
    torch.save({"model": {"backbone.bottom_up.w": torch.ones(1)}}, weights)
    with pytest.raises(ConfigError, match="person_test and street_night, "):
        evaluated(tmp_path / "scores", weights, tiny_export, ["person_test", elsewhere])


def test_trap_3_scoring_alone_takes_the_best_model_whatever_a_resume_would_take(
    tiny_export, tmp_path, monkeypatch
):
    def build(cfg, names):
        raise CheckpointError(f"asked for {Path(cfg.MODEL.WEIGHTS).name}")

    monkeypatch.setattr(run_file, "build_inference_model", build)
    for tag in ("model_0000009.pth", "model_best.pth", "model_final.pth"):
        (tmp_path / tag).touch()
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    with pytest.raises(CheckpointError, match="asked for model_best.pth"):
        run_file.run(arguments(tiny_export, tmp_path, resume=True))


@pytest.mark.slow
def test_trap_18_the_drawing_threshold_never_reaches_the_evaluation(tiny_export, tmp_path):
    """Every detection is about as likely as 0.3: none is drawn, and all of them count."""
    cfg, weights = saved_model(
        tiny_export, tmp_path, "VISUALIZATION.SCORE_THRESH", 0.9, score_threshold=0.9
    )
    image = cv2.imread(str(next((tiny_export / "test").glob("*.jpg"))))
    assert len(Predictor.from_run(tmp_path)(image)) == 0

    cfg.MODEL.WEIGHTS = str(weights)
    Trainer.test(cfg, build_inference_model(cfg, ["person"]).model)
    predictions = tmp_path / "inference" / "person_test" / "coco_instances_results.json"
    scores = [row["score"] for row in json.loads(predictions.read_text())]
    assert len(scores) >= 3 and all(0.25 < score < 0.35 for score in scores)

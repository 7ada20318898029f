"""Scoring alone: any split that is registered, and any model that was saved here."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.data.register import register_roboflow_coco
from persondet.engine import setup
from persondet.engine.run import run
from persondet.errors import ConfigError
from persondet.files import sha256_of_file
from persondet.results import read_results, write_results

CONFIG = (
    Path(__file__).resolve().parents[2]
    / "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"
)
FLAGS = {"resume": False, "overwrite": False, "config_file": str(CONFIG)}


def keys(export, folder, *more):
    data = ["DATASETS.ROBOFLOW.ROOT", str(export), "OUTPUT_DIR", str(folder)]
    return [*data, "MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "64", *more]


def saved_model(export, folder, *more, classes=("person",)):
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


def scored(export, folder, weights, dataset, *more):
    opts = keys(export, folder, "MODEL.WEIGHTS", str(weights), *more)
    opts += ["DATASETS.TEST", f"('{dataset}',)"]
    results = run(argparse.Namespace(opts=opts, eval_only=True, **FLAGS))
    written = json.loads((folder / "inference" / dataset / "results.json").read_text())
    assert written["test"]["dataset"] == results["test"]["dataset"] == dataset
    return written["test"]


@pytest.fixture
def elsewhere(tiny_export, tmp_path):
    """A dataset registered by other code, with as little as Detectron2 asks for."""
    datasets = register_roboflow_coco("source", tiny_export, output_dir=tmp_path)
    rows = DatasetCatalog.get(datasets.names["valid"])
    DatasetCatalog.register("street_night", lambda: rows)
    MetadataCatalog.get("street_night").set(thing_classes=["person"])
    yield "street_night"
    DatasetCatalog.remove("street_night")
    MetadataCatalog.pop("street_night", None)


def evaluated(folder, weights, export, names):
    opts = keys(export, folder, "MODEL.WEIGHTS", str(weights), "DATASETS.TEST", repr(tuple(names)))
    return run(argparse.Namespace(opts=opts, eval_only=True, **FLAGS))


@pytest.mark.slow
def test_each_of_several_sets_is_written_and_shown_one_of_another_origin_too(
    tiny_export, tmp_path, elsewhere
):
    weights = saved_model(tiny_export, tmp_path / "run")
    names = ("person_test", elsewhere, "person_valid")
    folder = tmp_path / "scores"
    results = evaluated(folder, weights, tiny_export, [*names, "person_test"])
    log = (folder / "log.txt").read_text()
    assert log.count("person_test, segm: AP") == 1  # named twice, scored once
    assert list(results["tests"]) == list(names)
    assert results["test"] == results["tests"]["person_test"]
    for name in names:
        written = read_results(folder / "inference" / name)
        assert (written["test"]["dataset"], written["test"]["images"]) == (name, 3)
        assert written["operating_point"]["test"]["hits"] is not None
        assert f"{name}, 3 images" in log
        made_by = json.loads((folder / "inference" / name / "errors.json").read_text())
        assert made_by["dataset"] == name and made_by["model"] == written["model"]
    looked_at = {path.parent.name for path in folder.rglob("dataset.json")}
    assert looked_at == {"person_test", "person_valid"}  # what is of the export
    assert read_results(folder / "inference" / elsewhere)["test"]["leaks"] is None


@pytest.mark.slow
def test_another_checkpoint_scored_in_a_runs_folder_changes_nothing_of_the_run(
    tiny_export, tmp_path
):
    folder = tmp_path / "run"
    best = saved_model(tiny_export, folder)
    first = evaluated(folder, best, tiny_export, ["person_test"])
    write_results(folder, {**first, "model": "model_best.pth"})
    (folder / "dataset.json").write_text('{"folder": "where it was trained", "decoded": true}')
    kept = {name: (folder / name).read_bytes() for name in ("results.json", "dataset.json")}
    other = folder / "model_0000004.pth"
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["persondet"]["iteration"] = 4
    checkpoint["persondet"]["score_threshold"] = 0.001
    torch.save(checkpoint, other)
    second = evaluated(folder, other, tiny_export, ["person_test"])
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    assert second["model"] == {
        "file": "model_0000004.pth",
        "iteration": 4,
        "sha256": sha256_of_file(other),
    }
    assert second["model"]["sha256"] != first["model"]["sha256"] == sha256_of_file(best)
    inside = folder / "inference/person_test"
    for name in ("results.json", "curves.json", "errors.json", "gallery/gallery.json"):
        assert json.loads((inside / name).read_text())["model"] == second["model"]
    assert json.loads((inside / "dataset.json").read_text())["folder"] == str(tiny_export)


def test_sets_of_different_classes_are_refused_together(tiny_export, tmp_path, elsewhere):
    MetadataCatalog.pop(elsewhere)
    MetadataCatalog.get(elsewhere).set(thing_classes=["person", "dog"])
    weights = tmp_path / "model.pth"
    torch.save({"model": {"backbone.bottom_up.w": torch.ones(1)}}, weights)
    with pytest.raises(ConfigError, match="person_test and street_night, whose classes differ"):
        evaluated(tmp_path / "scores", weights, tiny_export, ["person_test", elsewhere])

"""The main job through the tools, as a person runs it: train, resume, score, annotate, plot."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from persondet.checkpoint.model_file import CarriedFacts, load_checkpoint
from persondet.errors import PersondetError
from persondet.files import sha256_of_file
from persondet.inference.predictor import Predictor
from persondet.records import read_records
from persondet.report.events import load_events
from persondet.sample.clip import write_clip
from persondet.sample.export import write_export
from persondet.video.reader import VideoReader
from tests.engine.toy_training import CONFIG, ROOT

pytestmark = pytest.mark.slow


def tool(name, *arguments, expect=0, limit=400):
    """Run a tool as a person does, from another folder than the repository; return its output."""
    result = subprocess.run(
        [sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=Path(sys.prefix),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=limit,
    )
    assert result.returncode == expect, f"exit {result.returncode}\n{result.stdout}{result.stderr}"
    return result.stdout + result.stderr


def code_of(name, *arguments):
    try:
        return importlib.import_module(name).main([str(word) for word in arguments])
    except PersondetError as error:
        return error.exit_code if "\n" not in str(error) else "more than a sentence"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a space in its name: an export and a clip."""
    root = tmp_path_factory.mktemp("end to end")
    write_export(root / "people", {"train": 8, "valid": 3, "test": 3}, size=(160, 96))
    write_clip(root / "clip.mp4", root / "clip.json", 3, frames=9, size=(160, 96))
    return root


@pytest.fixture(scope="module")
def run(folder):
    """A training of 12 steps, stopped after 6 and resumed; the end of its first half is kept."""
    common = ("DATASETS.ROBOFLOW.ROOT", folder / "people", "OUTPUT_DIR", folder / "run")
    common += ("TEST.EVAL_PERIOD", 3, "LOG_PERIOD", 3)
    tool("train_net", "--config-file", CONFIG, *common, "SOLVER.MAX_ITER", 6)
    shutil.copy(folder / "run/model_final.pth", folder / "half.pth")
    again = (*common, "SOLVER.MAX_ITER", 12)
    assert code_of("train_net", "--config-file", CONFIG, "--resume", *again) == 0
    return folder / "run"


def test_the_run_folder_holds_scores_curves_and_models(run, folder):
    results = json.loads((run / "results.json").read_text())
    assert results["test"]["images"] == 3
    assert list(run.glob("events.out.tfevents*")) and (run / "log.txt").stat().st_size

    events = load_events(run)
    for name in ("total_loss", "loss_mask", "fast_rcnn/cls_accuracy", "mask_rcnn/accuracy"):
        for twin in (name, f"val/{name}"):
            assert len(events[twin].finite().values) == len(events[twin].values) >= 2, twin
    steps = list(events["total_loss"].iterations)
    assert steps == sorted(steps) and steps[-1] >= 11
    assert events["segm/AP"].iterations[0] == 2
    files = (folder / "half.pth", run / "model_final.pth")
    before, after = (load_checkpoint(file)["model"] for file in files)
    frozen = ("backbone.bottom_up.stem", "backbone.bottom_up.res2")
    same = {name for name in after if torch.equal(before[name], after[name])}
    assert len(same) >= 20 and {name for name in after if name.startswith(frozen)} <= same
    assert "backbone.bottom_up.res3.0.conv1.weight" in after.keys() - same


def test_a_run_ends_with_its_operating_point_and_what_explains_its_scores(run):
    results = json.loads((run / "results.json").read_text())
    point, file = results["operating_point"], run / "model_best.pth"
    best, last = (
        CarriedFacts.from_checkpoint(load_checkpoint(path))
        for path in (file, run / "model_final.pth")
    )
    assert best.class_names == ("person",) and "ROBOFLOW" in best.config
    assert best.score_threshold == (point["threshold"] if point["tuned"] else None)
    assert last.score_threshold is None
    assert Predictor.from_run(run).confidence_threshold == point["threshold"]
    digest = sha256_of_file(file)
    model = {"file": file.name, "iteration": best.iteration, "sha256": digest}
    told = {"model": file.name, "model_sha256": digest, "iteration": best.iteration}
    assert told.items() <= results.items()
    for split in ("valid", "test"):
        folder = run / "inference" / f"person_{split}"
        names = ("curves.json", "errors.json", "gallery/gallery.json", "results.json")
        _, errors, _, scored = known = [json.loads((folder / name).read_text()) for name in names]
        assert [one["model"] for one in known] == [model] * 4
        assert scored["test"] == results[split]
        assert scored["operating_point"]["test"] == point[split]
        for task in ("bbox", "segm"):
            ap50 = pytest.approx(results[split][task]["AP50"], abs=1e-6)
            assert errors["tasks"][task]["AP50"] == ap50


def test_scoring_alone_gives_the_same_numbers_and_leaves_the_run_as_it_is(run, folder):
    before = _models_and_numbers(run)
    words = ("--config-file", run / "config.yaml", "--eval-only", "OUTPUT_DIR", folder / "scored")
    weights = ("MODEL.WEIGHTS", run / "model_best.pth")
    hidden = ("VISUALIZATION.SCORE_THRESH", 0.999)  # it decides what is drawn, not what is scored
    assert code_of("train_net", *words, *weights, *hidden) == 0
    again, own = (f / "inference/person_test/results.json" for f in (folder / "scored", run))
    assert json.loads(again.read_text()) == json.loads(own.read_text())
    assert _models_and_numbers(run) == before


def test_a_clip_comes_back_whole_with_its_records_and_the_log_becomes_plots(run, folder):
    out = folder / "annotated" / "clip.mp4"
    video = ("--config-file", run / "config.yaml", "--video-input", folder / "clip.mp4")
    weights = ("--confidence-threshold", 0.05, "--opts", "MODEL.WEIGHTS", run / "model_best.pth")
    assert code_of("video_demo", *video, "--output", out, *weights) == 0
    with VideoReader(out) as reader:
        assert sum(1 for _ in reader) == 9
    _, records = read_records(out.with_suffix(".jsonl"))
    assert [record.index for record in records] == list(range(9))
    assert code_of("plot_metrics", run) == 0
    made = {path.name for path in (run / "plots").iterdir()}
    assert {"loss.png", "accuracy.png", "average_precision.png", "learning_rate.png"} <= made


def _models_and_numbers(run):
    names = ("*.pth", "*.json", "last_checkpoint", "config.yaml", "inference/**/*.json")
    return {path: path.stat().st_mtime_ns for name in names for path in run.glob(name)}


def test_bad_input_is_one_sentence_and_exit_2_with_nothing_overwritten(run, folder, tmp_path):
    before = _models_and_numbers(run)
    people = ("--config-file", CONFIG, "DATASETS.ROBOFLOW.ROOT", folder / "people")
    (tmp_path / "not_coco/train").mkdir(parents=True)
    (tmp_path / "not_coco/train/_annotations.coco.json").write_text('{"pictures": []}')
    foreign, text = tmp_path / "foreign.pth", tmp_path / "clip.mp4"
    torch.save({"model": {"w": torch.ones(1)}}, foreign)
    text.write_text("<html>not a clip</html>")
    replace = ("train_net", "--overwrite", *people, "OUTPUT_DIR", run)
    video = ("video_demo", "--run", run, "--video-input", text)
    cases = [
        (*replace, "DATASETS.ROBOFLOW.ROOT", tmp_path / "not_coco"),
        (*replace, "SOLVER.MAX_ITR", 3),
        (*replace, "MODEL.FREEZE.MODULES", "('x',)"),
        (*replace, "MODEL.WEIGHTS", foreign),
        ("train_net", *people, "OUTPUT_DIR", run),
        (*video, "--output", tmp_path / "out.mp4"),
        ("plot_metrics", tmp_path / "nowhere"),
    ]
    for case in cases:
        assert code_of(*case) == 2, case
    output = tool(*cases[0], expect=2)  # what a person sees
    assert "Traceback" not in output
    assert len([line for line in output.splitlines() if line.startswith("error: ")]) == 1
    assert _models_and_numbers(run) == before
    assert not (tmp_path / "out.mp4").exists()

"""The main job through the tools, as a person runs it: train, resume, score, predict, annotate."""

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from persondet.checkpoint.model_file import CarriedFacts, load_checkpoint
from persondet.engine.console import last_row
from persondet.errors import PersondetError
from persondet.records import read_records
from persondet.report.events import load_events
from persondet.sample.clip import write_clip
from persondet.sample.export import write_export
from persondet.video.reader import VideoReader

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a space in its name: people, the same with five classes, and a clip."""
    root = tmp_path_factory.mktemp("end to end")
    write_export(root / "people", {"train": 12, "valid": 4, "test": 4}, size=(320, 180))
    write_export(root / "others", {"train": 8, "valid": 2, "test": 2}, size=(320, 180), seed=1)
    for file in (root / "others").glob("*/_annotations.coco.json"):
        coco = json.loads(file.read_text())
        group = coco["categories"][0]["name"]
        coco["categories"][1:] = [
            {"id": number, "name": f"kind {number}", "supercategory": group}
            for number in range(1, 6)
        ]
        for number, annotation in enumerate(coco["annotations"]):
            annotation["category_id"] = 1 + number % 5
        file.write_text(json.dumps(coco))
    write_clip(root / "clip.mp4", root / "clip.json", 3, frames=9, size=(320, 180))
    return root


@pytest.fixture(scope="module")
def pretrained(folder):
    tool(
        "train_net",
        *("--config-file", CONFIG),
        *("DATASETS.ROBOFLOW.ROOT", folder / "others", "OUTPUT_DIR", folder / "pretrained"),
        *("MODEL.BACKBONE.FREEZE_AT", 0, "SOLVER.MAX_ITER", 4),
    )
    return folder / "pretrained"


@pytest.fixture(scope="module")
def run(folder, pretrained):
    """A transfer of 20 steps, stopped after 10 and resumed."""
    common = (
        *("DATASETS.ROBOFLOW.ROOT", folder / "people", "OUTPUT_DIR", folder / "run"),
        *("MODEL.WEIGHTS", pretrained / "model_final.pth"),
    )
    first = tool("train_net", "--config-file", CONFIG, *common, "SOLVER.MAX_ITER", 10)
    assert "backbone.bottom_up.res2" in first
    assert "roi_heads.box_predictor.cls_score.weight: checkpoint (6, 64), model (2, 64)" in first
    assert last_row(folder / "run/metrics.json") == 10
    tool("train_net", "--config-file", CONFIG, "--resume", *common)
    assert last_row(folder / "run/metrics.json") == 20
    return folder / "run"


def test_the_run_folder_holds_scores_curves_and_models(run):
    results = json.loads((run / "results.json").read_text())
    assert results["test"]["images"] == 4
    for task in ("bbox", "segm"):
        assert 0 <= results["test"][task]["AP50"] <= 100
    names = {path.name for path in run.iterdir()}
    assert {"model_best.pth", "model_final.pth", "config.yaml", "log.txt"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    facts = CarriedFacts.from_checkpoint(load_checkpoint(run / "model_best.pth"))
    assert facts.class_names == ("person",)
    assert "ROBOFLOW" in facts.config


def test_training_and_validation_stand_side_by_side(run):
    events = load_events(run)
    for name in ("total_loss", "loss_mask", "fast_rcnn/cls_accuracy", "mask_rcnn/accuracy"):
        for twin in (name, f"val/{name}"):
            assert len(events[twin].values) >= 2, twin
            assert all(math.isfinite(value) for value in events[twin].values), twin
    assert list(events["total_loss"].iterations) == sorted(events["total_loss"].iterations)
    # The evaluation after the tenth step lies where it would in a run of 20 in one go.
    assert events["segm/AP"].iterations[0] == 9


def test_frozen_tensors_equal_the_pretrained_ones_to_the_bit(run, pretrained):
    before = load_checkpoint(pretrained / "model_final.pth")["model"]
    after = load_checkpoint(run / "model_final.pth")["model"]
    frozen = [
        name
        for name in after
        if name.startswith(("backbone.bottom_up.stem", "backbone.bottom_up.res2"))
    ]
    assert len(frozen) >= 20
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not torch.equal(
        before["backbone.bottom_up.res3.0.conv1.weight"],
        after["backbone.bottom_up.res3.0.conv1.weight"],
    )


def test_scoring_alone_gives_the_runs_own_numbers(run, folder):
    before = (run / "results.json").read_bytes()
    out = tool(
        "train_net",
        *("--config-file", run / "config.yaml", "--eval-only"),
        *("MODEL.WEIGHTS", run / "model_best.pth", "OUTPUT_DIR", folder / "scored"),
    )
    assert "person_test" in out
    again = json.loads((folder / "scored/inference/person_test/results.json").read_text())
    assert again["test"] == json.loads(before)["test"]
    assert again["test"]["leaks"]["images"] == 0
    assert (run / "results.json").read_bytes() == before


def test_a_clip_comes_back_whole_with_its_records(run, folder):
    out = folder / "annotated" / "clip.mp4"
    tool(
        "video_demo",
        *("--config-file", run / "config.yaml", "--video-input", folder / "clip.mp4"),
        *("--output", out, "--confidence-threshold", 0.05),
        *("--opts", "MODEL.WEIGHTS", run / "model_best.pth"),
    )
    with VideoReader(out) as reader:
        assert sum(1 for _ in reader) == 9
    _, records = read_records(out.with_suffix(".jsonl"))
    assert [record.index for record in records] == list(range(9))


def test_the_event_log_becomes_plots(run):
    tool("plot_metrics", run)
    assert {"loss.png", "accuracy.png", "average_precision.png", "learning_rate.png"} <= {
        path.name for path in (run / "plots").iterdir()
    }


def _models_and_numbers(run):
    """What a run must not lose, with the times of the last change."""
    names = ("*.pth", "*.json", "last_checkpoint", "config.yaml", "inference/**/*.json")
    return {path: path.stat().st_mtime_ns for name in names for path in run.glob(name)}


def test_bad_input_is_one_sentence_and_exit_2_with_nothing_overwritten(run, folder, tmp_path):
    before = _models_and_numbers(run)
    config = ("--config-file", CONFIG)
    people = ("DATASETS.ROBOFLOW.ROOT", folder / "people")
    no_json = tmp_path / "no_json"
    (no_json / "train").mkdir(parents=True)
    not_coco = tmp_path / "not_coco"
    (not_coco / "train").mkdir(parents=True)
    (not_coco / "train/_annotations.coco.json").write_text('{"pictures": []}')
    foreign = tmp_path / "foreign.pth"
    torch.save({"model": {"w": torch.ones(1)}}, foreign)
    text = tmp_path / "clip.mp4"
    text.write_text("<html>not a clip</html>")
    out = ("OUTPUT_DIR", tmp_path / "out")
    video = ("video_demo", "--run", run)
    replaced, best = ("OUTPUT_DIR", run), run / "model_best.pth"
    sample = ("--config-file", ROOT / "configs/sample_mask_rcnn_R_18_FPN.yaml")
    cases = [
        ("train_net", *config, "DATASETS.ROBOFLOW.ROOT", tmp_path / "nowhere", *out),
        ("train_net", *config, "DATASETS.ROBOFLOW.ROOT", no_json, *out),
        ("train_net", *config, "DATASETS.ROBOFLOW.ROOT", not_coco, *out),
        ("train_net", *config, *people, *out, "SOLVER.MAX_ITR", 3),
        ("train_net", *config, *people, *out, "MODEL.WEIGHTS", tmp_path / "none.pth"),
        ("train_net", *config, *people, *out, "MODEL.WEIGHTS", foreign),
        ("train_net", *config, *people, "OUTPUT_DIR", run),
        (*video, "--video-input", text, "--output", tmp_path / "out.mp4"),
        (*video, "--video-input", folder / "clip.mp4", "--output", folder / "clip.mp4"),
        (*video, "--video-input", tmp_path / "none.mp4", "--output", tmp_path / "out.mp4"),
        ("train_net", *config, "--overwrite", *people, *replaced, "MODEL.FREEZE.MODULES", "('x',)"),
        ("train_net", *config, "--overwrite", *people, *replaced, "MODEL.WEIGHTS", foreign),
        ("train_net", *sample, "--eval-only", *people, *out, "MODEL.WEIGHTS", best),
        ("plot_metrics", tmp_path / "nowhere"),
    ]
    for name, *arguments in cases:
        try:
            code = importlib.import_module(str(name)).main([str(word) for word in arguments])
        except PersondetError as error:
            code = error.exit_code if "\n" not in str(error) else "more than a sentence"
        assert code == 2, arguments
    name, *arguments = cases[0]  # what a person sees
    output = tool(str(name), *arguments, expect=2)
    assert "Traceback" not in output
    assert len([line for line in output.splitlines() if line.startswith("error: ")]) == 1
    assert _models_and_numbers(run) == before
    assert not (tmp_path / "out.mp4").exists()

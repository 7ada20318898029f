"""Real exports and clips, unchanged, from PERSONDET_REAL_DATA."""

import json
from pathlib import Path

import pytest

from persondet.records import read_records
from persondet.report.events import load_events
from persondet.video.reader import VideoReader
from tests.test_end_to_end import CONFIG, tool

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 steps at a small size on a real export whose split is called `validation`."""
    folder: Path = tmp_path_factory.mktemp("real run")
    export = real_data / "roboflow-multimodal-human-polygons" / "dataset"
    tool(
        "train_net",
        *("--config-file", CONFIG),
        *("DATASETS.ROBOFLOW.ROOT", export, "OUTPUT_DIR", folder / "run"),
        *("SOLVER.MAX_ITER", 50, "TEST.EVAL_PERIOD", 25, "SOLVER.CHECKPOINT_PERIOD", 50),
    )
    return folder / "run"


def test_a_real_export_trains_learns_and_is_scored_alone(run: Path, tmp_path: Path) -> None:
    events = load_events(run)
    assert events["total_loss"].values[-1] < 0.8 * events["total_loss"].values[0]
    assert events["segm/AP"].iterations[0] == 24
    tool(
        "train_net",
        *("--config-file", run / "config.yaml", "--eval-only"),
        *("MODEL.WEIGHTS", run / "model_best.pth", "OUTPUT_DIR", tmp_path),
    )
    results = json.loads((tmp_path / "inference/person_test/results.json").read_text())
    assert results["test"]["images"] == 33
    trained = json.loads((run / "results.json").read_text())["test"]
    assert trained["leaks"]["images"] == 18
    assert results["test"] == trained  # the leaks too, which are looked for again in a new folder


@pytest.mark.parametrize(
    "clip",
    [
        "clips/walk.small.mp4",
        "roboflow-drone-person-polygons/DJI_0839_5meter_conv (online-video-cutter.com).mp4",
    ],
)
def test_every_third_frame_of_real_clips_is_annotated(
    run: Path, real_data: Path, tmp_path: Path, clip: str
) -> None:
    out = tmp_path / "annotated.mp4"
    words = ["--run", run, "--video-input", real_data / clip, "--output", out, "--stride", 3]
    tool("video_demo", *words)
    with VideoReader(real_data / clip) as source, VideoReader(out) as annotated:
        times = [[float(frame.time) for frame in reader] for reader in (source, annotated)]
    assert len(times[0]) > 30
    assert times[1] == pytest.approx(times[0][::3], abs=1e-3)
    _, records = read_records(out.with_suffix(".jsonl"))
    assert len(list(records)) == len(times[1])

"""The command line of video_demo: outputs, messages and exit codes; the model is a stand-in."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
import video_demo
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, Instances

from persondet.errors import MediaError, OutputExistsError, PartialResultError
from persondet.video.io import VideoReader, VideoWriter
from persondet.video.records import read_records

TOOL = Path(__file__).resolve().parents[2] / "tools" / "video_demo.py"


class OnePerFrame:
    """Stands in for the model: one person in every frame."""

    loaded = 0

    def __init__(self):
        OnePerFrame.loaded += 1
        self.metadata = Metadata(name="stub", thing_classes=["person"])
        self.confidence_threshold, self.model_file, self.batch_size = 0.3, "stub.pth", 2
        self.cfg = SimpleNamespace(VIDEO=SimpleNamespace(STRIDE=2))

    def predict_batch(self, images):
        return [self._one(image) for image in images]

    def _one(self, image):
        found = Instances(image.shape[:2])
        found.pred_boxes = Boxes(torch.tensor([[8.0, 8, 40, 56]]))
        found.scores, found.pred_classes = torch.tensor([0.9]), torch.tensor([0])
        return found


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """Replaces the loading of a model, and counts it."""
    asked = []

    def load(args):
        asked.append(args)
        return OnePerFrame()

    monkeypatch.setattr(video_demo.model_arguments, "load_predictor", load)
    return asked


def write_clip(path, frames=6):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(frames):
            image = np.full((64, 96, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return path


def run(*words):
    return video_demo.main(["--run", "some/run", *map(str, words)])


def test_one_clip_with_the_configs_stride_and_a_line_at_the_end(tmp_path, capsys):
    clip = write_clip(tmp_path / "a walk (1).mp4")
    assert run("--video-input", clip, "--output", tmp_path / "out.mp4") == 0
    line = capsys.readouterr().out
    assert line.startswith("a walk (1).mp4: 3 frames in ")
    assert "1.0 people per frame" in line
    assert str(tmp_path / "out.mp4") in line
    header, frames = read_records(tmp_path / "out.jsonl")
    assert [frame.index for frame in frames] == [0, 2, 4]
    assert header.confidence_threshold == 0.3


def test_a_folder_of_clips_with_a_broken_one_ends_with_partial(tmp_path, capsys):
    write_clip(tmp_path / "in" / "a.mp4")
    write_clip(tmp_path / "in" / "b.mkv")
    (tmp_path / "in" / "c.mp4").write_text("<html>")
    with pytest.raises(PartialResultError, match="1 of 3 clips") as caught:
        run("--video-input", tmp_path / "in", "--output", tmp_path / "out", "--stride", 1)
    assert caught.value.exit_code == 3
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("a_annotated.jsonl", "a_annotated.mp4", "b_annotated.jsonl", "b_annotated.mp4")
    ]
    assert len(list(VideoReader(tmp_path / "out" / "b_annotated.mp4"))) == 6
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 2
    assert "c.mp4" in output.err


def test_bad_input_is_refused_before_the_model_is_loaded(tmp_path, stand_in):
    clip = write_clip(tmp_path / "a.mp4")
    bad = tmp_path / "bad.mp4"
    bad.write_text("https://example.org")
    with pytest.raises(MediaError, match="address"):
        run("--video-input", bad, "--output", tmp_path / "out.mp4")
    with pytest.raises(MediaError, match="source itself"):
        run("--video-input", clip, "--output", clip, "--overwrite")
    with pytest.raises(OutputExistsError):
        run("--video-input", clip, "--output", bad)
    assert stand_in == []


def test_parts_of_the_drawing_can_be_switched_off(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", frames=1)
    pictures = {}
    for flag in ("--no-labels", "--no-count", "--overwrite"):
        run("--video-input", clip, "--output", tmp_path / "o.mp4", "--overwrite", flag)
        pictures[flag] = next(iter(VideoReader(tmp_path / "o.mp4"))).image.astype(int)
    for flag in ("--no-labels", "--no-count"):
        assert np.abs(pictures[flag] - pictures["--overwrite"]).max() > 60


@pytest.mark.parametrize(
    "words",
    [
        ["--video-input", "a", "--output", "b"],
        ["--video-input", "a", "--output", "b", "--run", "r", "--config-file", "c"],
        ["--video-input", "a", "--output", "b", "--run", "r", "--stride", "0"],
        ["--video-input", "a", "--output", "b", "--run", "r", "--confidence-threshold", "1.5"],
        ["--video-input", "a", "--output", "b", "--run", "r", "SEED", "3"],
    ],
)
def test_wrong_usage_ends_with_code_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        video_demo.main(words)
    assert end.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_command_says_one_sentence_and_ends_with_code_2(tmp_path):
    done = subprocess.run(
        [sys.executable, TOOL, "--run", "r", "--video-input", "none.mp4", "--output", "o.mp4"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(TOOL.parents[1]), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: none.mp4 does not exist")
    assert "Traceback" not in done.stderr


def test_a_cut_clip_is_kept_and_ends_with_partial(tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 255, (20, 64, 96, 3), dtype=np.uint8)
    with VideoWriter(tmp_path / "cut.mp4", width=96, height=64, fps=Fraction(25)) as writer:
        for image in noise:
            writer.write(image)
    data = (tmp_path / "cut.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(PartialResultError):
        run("--video-input", tmp_path / "cut.mp4", "--output", tmp_path / "o.mp4", "--stride", 1)
    kept = len(list(VideoReader(tmp_path / "o.mp4")))
    assert 5 <= kept <= 15
    assert f"it should have 20 frames; {kept} were annotated" in capsys.readouterr().err

"""The command line of video_demo: outputs, messages and exit codes; the model is a stand-in."""

from __future__ import annotations

import argparse
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import video_demo

from persondet.errors import (
    MediaError,
    OutputExistsError,
    PartialMediaError,
    PartialResultError,
)
from persondet.records import read_records
from persondet.video.pipeline import VideoSummary
from persondet.video.reader import VideoReader
from persondet.video.writer import VideoWriter

TOOL = Path(__file__).resolve().parents[2] / "tools" / "video_demo.py"


pytestmark = pytest.mark.usefixtures("loaded")


def write_clip(path, frames=6, size=(96, 64), codec="libx264", suffix=None):
    path = path.with_suffix(suffix) if suffix else path
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            image = np.full((*size[::-1], 3), 20 * number % 250, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return path


def run(*words):
    return video_demo.main(["--run", "some/run", *map(str, words)])


def test_one_clip_with_the_configs_stride_and_a_line_at_the_end(tmp_path, capsys):
    clip = write_clip(tmp_path / "a walk (1).mp4")
    assert run("--video-input", clip, "--output", tmp_path / "out.mp4") == 0
    line, *table = capsys.readouterr().out.splitlines()
    assert line.startswith("a walk (1).mp4: 3 frames in ")
    assert "1.0 people per frame" in line
    assert "1 at most, 1 different ones" in line
    assert str(tmp_path / "out.mp4") in line
    assert [row.split()[0] for row in table] == [
        *("stage", "decode", "infer", "track", "draw", "encode")
    ]
    assert sum("the slowest" in row for row in table) == 1
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
    assert [line.partition(":")[0] for line in output.out.splitlines()[:2]] == ["a.mp4", "b.mkv"]
    assert sum(line.startswith("stage") for line in output.out.splitlines()) == 1
    assert "c.mp4" in output.err


def test_a_clip_that_fails_costs_no_other(tmp_path, capsys):
    write_clip(tmp_path / "in" / "a.mp4", frames=3)
    write_clip(tmp_path / "in" / "b.mp4", frames=30)
    words = ("--video-input", tmp_path / "in", "--output", tmp_path / "out", "--start", "0.8")
    with pytest.raises(PartialResultError, match="1 of 2 clips"):
        run(*words)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("b_annotated.jsonl", "b_annotated.mp4")
    ]
    assert "skipped: " in capsys.readouterr().err
    with pytest.raises(MediaError):
        run(*words[:-1], "0:30", "--overwrite")


def test_every_flag_reaches_the_pipeline(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "a.mp4")
    asked = []

    def annotate_video(*places, **choices):
        asked.append(choices | {"places": places})
        return VideoSummary(1, 1.0, 1.0, 1, 1.0, tmp_path, tmp_path, "", notes=("a note",))

    monkeypatch.setattr("persondet.video.pipeline.annotate_video", annotate_video)
    run(
        *("--video-input", clip, "--output", tmp_path / "o.mkv", "--start", "0:00:00.08"),
        *("--end", "2:00", "--stride", 3, "--max-frames", 7, "--crf", 30, "--save-mot"),
    )
    choices = asked[0]
    assert choices["places"][:2] == (clip, tmp_path / "o.mkv")
    assert (choices["start"], choices["end"]) == (Fraction(2, 25), 120)
    assert (choices["stride"], choices["max_frames"], choices["crf"]) == (3, 7, 30)
    assert (choices["save_mot"], choices["tracker"], choices["overwrite"]) == (True, "auto", False)
    run("--video-input", clip, "--output", tmp_path / "o.mkv", "--no-tracking", "--overwrite")
    assert (asked[1]["tracker"], asked[1]["overwrite"]) == (None, True)
    assert asked[1]["start"] is asked[1]["end"] is asked[1]["max_frames"] is asked[1]["crf"] is None


def test_no_tracking_writes_no_tracks(tmp_path, capsys):
    clip = write_clip(tmp_path / "a.mp4")
    run("--video-input", clip, "--output", tmp_path / "o.mp4", "--no-tracking")
    assert "different ones" not in capsys.readouterr().out
    header, frames = read_records(tmp_path / "o.jsonl")
    assert header.tracker is None
    assert {person.track_id for frame in frames for person in frame.people} == {None}


def test_mot_text_on_request(tmp_path):
    clip = write_clip(tmp_path / "a.mp4")
    run("--video-input", clip, "--output", tmp_path / "o.mp4", "--save-mot", "--stride", "1")
    lines = (tmp_path / "o.txt").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines] == [[str(n), "1"] for n in range(1, 7)]
    (tmp_path / "p.txt").write_text("precious")
    with pytest.raises(OutputExistsError):
        run("--video-input", clip, "--output", tmp_path / "p.mp4", "--save-mot")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1:30", 90),
        ("0:01:30.5", Fraction(181, 2)),
        (".04", Fraction(1, 25)),
        ("2:00:00", 7200),
        ("33.3667", Fraction(333667, 10000)),
    ],
)
def test_times_are_exact(text, seconds):
    assert video_demo.clip_time(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1:2:3:4", "one", "1:", ":30", "1e3", "nan"])
def test_what_is_no_time(text):
    with pytest.raises(argparse.ArgumentTypeError, match="no time"):
        video_demo.clip_time(text)


def test_bad_input_is_refused_before_the_model_is_loaded(tmp_path, loaded, monkeypatch):
    clip, bad = write_clip(tmp_path / "a.mp4"), tmp_path / "bad.mp4"
    bad.write_text("https://example.org")
    for source, output, more, error, says in (
        (bad, tmp_path / "out.mp4", (), MediaError, "address"),
        (clip, clip, ("--overwrite",), MediaError, "source itself"),
        (clip, bad, (), OutputExistsError, "--overwrite"),
        (clip, tmp_path / "out.mp4", ("--start", "1:00"), MediaError, "no frame between"),
    ):
        with pytest.raises(error, match=says):
            run("--video-input", source, "--output", output, *more)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(MediaError, match="must not be written"):
        run("--video-input", clip, "--output", tmp_path / "new" / "out.mp4")
    assert loaded == []


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
        *(
            "",
            "--run r --config-file c",
            "--run r --stride 0",
            "--run r --confidence-threshold 1.5",
        ),
        *("--run r SEED 3", "--run r --crf 52", "--run r --start soon"),
        *("--run r --start 9 --end 0:09", "--run r --save-mot --no-tracking"),
    ],
)
def test_wrong_usage_ends_with_code_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        video_demo.main(["--video-input", "a", "--output", "b", *words.split()])
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


def test_a_clip_of_a_folder_that_was_kept_in_part_is_a_partial_result(
    tmp_path, capsys, monkeypatch
):
    write_clip(tmp_path / "in" / "a.mp4")
    errors = [PartialMediaError("the disk is full; what was written is kept"), MediaError("no")]

    def annotate_video(*_, **__):
        raise errors.pop(0)

    monkeypatch.setattr("persondet.video.pipeline.annotate_video", annotate_video)
    write_clip(tmp_path / "in" / "b.mp4")
    with pytest.raises(PartialMediaError) as caught:
        run("--video-input", tmp_path / "in", "--output", tmp_path / "out")
    assert caught.value.exit_code == 3
    errors += [MediaError("no"), MediaError("no")]
    with pytest.raises(MediaError) as caught:
        run("--video-input", tmp_path / "in", "--output", tmp_path / "out")
    assert caught.value.exit_code == 2


def test_names_of_strangers_do_not_steer_the_terminal(tmp_path, capsys):
    write_clip(tmp_path / "in" / "new\nline\x1b[31m.mkv", size=(97, 63), codec="ffv1")
    (tmp_path / "in" / "bad\x1b[2J.mp4").write_text("<html>")
    with pytest.raises(PartialResultError):
        run("--video-input", tmp_path / "in", "--output", tmp_path / "out")
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert r"new\nline\x1b[31m.mkv: 3 frames" in shown.out
    assert [line.split(":")[0] for line in shown.err.splitlines()] == ["skipped", "note"]

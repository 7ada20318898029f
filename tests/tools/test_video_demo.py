"""The command line of video_demo: outputs, messages and exit codes; the model is a stand-in."""

import argparse
from fractions import Fraction

import cli
import numpy as np
import pytest
import video_demo

from persondet.errors import (
    ConfigError,
    MediaError,
    OutputExistsError,
    PartialMediaError,
    PartialResultError,
)
from persondet.records import read_records
from persondet.video.pipeline import VideoSummary
from persondet.video.reader import VideoReader
from persondet.visualization.hiding import HideOptions
from tests.video.clips import cut, noisy_clip
from tests.video.clips import write_clip as write_frames

pytestmark = pytest.mark.usefixtures("loaded")


def write_clip(path, frames=6, size=(96, 64), **choices):
    images = [np.full((*size[::-1], 3), 20 * n % 250, np.uint8) for n in range(frames)]
    return write_frames(path, images, rate=Fraction(25), **choices)


def run(source, output, *words):
    places = ["--video-input", str(source), "--output", str(output)]
    return video_demo.main(["--run", "some/run", *places, *map(str, words)])


def test_one_clip_with_the_configs_stride_and_a_line_at_the_end(tmp_path, capsys):
    assert run(write_clip(tmp_path / "a walk (1).mp4"), tmp_path / "out.mp4") == 0
    line, *table = capsys.readouterr().out.splitlines()
    assert line.startswith("a walk (1).mp4: 3 frames in ")
    assert "1 at most, 1 different ones" in line
    assert [row.split()[0] for row in table] == "stage decode infer track draw encode".split()
    header, frames = read_records(tmp_path / "out.jsonl")
    assert [frame.index for frame in frames] == [0, 2, 4]
    assert header.confidence_threshold == 0.3


def test_a_folder_of_clips_costs_no_clip_for_another_and_names_do_not_steer_the_terminal(
    tmp_path, capsys
):
    folder, out = tmp_path / "in", tmp_path / "out"
    cut(noisy_clip(folder / "b.mkv", 60))
    write_clip(folder / "new\nline\x1b[31m.mkv", size=(97, 63), codec="ffv1", frames=30)
    write_clip(folder / "short.mp4", frames=3)
    (folder / "bad\x1b[2J.mp4").write_text("<html>")
    with pytest.raises(PartialResultError, match="3 of 4 clips") as caught:
        run(folder, out, "--start", "0.4", "--stride", 1)
    assert caught.value.exit_code == 3
    kept = len(list(VideoReader(out / "b_annotated.mp4")))
    assert 5 <= kept <= 35
    assert len(list(out.iterdir())) == 4
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert r"new\nline\x1b[31m.mkv: 20 frames" in shown.out
    assert sum(line.startswith("stage") for line in shown.out.splitlines()) == 1
    told = [line.split(":")[0] for line in shown.err.splitlines()]
    assert told == ["skipped", "skipped", "incomplete", "note"]
    assert f"it should have 60 frames; {kept} were annotated" in shown.err


def test_a_second_run_of_a_folder_does_what_is_missing(tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    write_clip(folder / "a.mp4")
    run(folder, out)
    write_clip(folder / "deeper" / "b.mp4")
    before = (out / "a_annotated.mp4").stat().st_mtime_ns
    capsys.readouterr()
    for expected in ("b.mp4: 3 frames", "b.mp4: finished before"):
        assert run(folder, out, "--recursive") == 0
        first, second, *_ = capsys.readouterr().out.splitlines()
        assert first.startswith("a.mp4: finished before") and second.startswith(expected)
    with pytest.raises(MediaError, match="another stride; add --overwrite"):
        run(folder, out, "--stride", 1)
    write_clip(folder / "c.mp4")
    with pytest.raises(PartialResultError, match="1 of 2 clips"):
        run(folder, out, "--stride", 1)
    assert (out / "a_annotated.mp4").stat().st_mtime_ns == before


def test_every_flag_reaches_the_pipeline(tmp_path, monkeypatch):
    clip, target, asked = write_clip(tmp_path / "a.mp4"), tmp_path / "o.mkv", []

    def annotate_video(*places, **choices):
        asked.append(choices | {"places": places[:2]})
        return VideoSummary(1, 1.0, 1.0, 1, 1.0, tmp_path, tmp_path, "", notes=("a note",))

    monkeypatch.setattr("persondet.video.pipeline.annotate_video", annotate_video)
    part = ("--start", "0:00:00.08", "--end", "2:00", "--stride", 3, "--max-frames", 7)
    run(clip, target, *part, "--crf", 30, "--save-mot")
    run(clip, target, "--no-tracking", "--overwrite")
    run(clip, target, "--anonymize", "blur", "--part", "head", "--except", 7, 3, "--mute")
    assert asked[2]["hiding"] == HideOptions("blur", part="head", exempt=(3, 7))
    assert (asked[0]["hiding"], asked[0]["mute"], asked.pop(2)["mute"]) == (None, False, True)
    expected = {"start": Fraction(2, 25), "end": 120, "stride": 3, "max_frames": 7, "crf": 30}
    first = expected | {"save_mot": True, "tracker": "auto", "overwrite": False}
    second = dict.fromkeys(expected) | {"stride": 2, "tracker": None, "overwrite": True}
    for choices, wanted in zip(asked, (first, second), strict=True):
        assert {name: choices[name] for name in ("places", *wanted)} == {
            "places": (clip, target),
            **wanted,
        }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1:30", 90), ("0:01:30.5", Fraction(181, 2)), (".04", Fraction(1, 25))]
    + [(text, None) for text in ("", "-1", "1:2:3:4", "1:", ":30", "1e3", "nan")],
)
def test_times_are_exact_or_refused(text, seconds):
    if seconds is None:
        with pytest.raises(argparse.ArgumentTypeError, match="no time"):
            cli.clip_time(text)
    else:
        assert cli.clip_time(text) == seconds


def test_bad_input_is_refused_before_the_model_is_loaded(tmp_path, loaded):
    clip, bad, out = write_clip(tmp_path / "a.mp4"), tmp_path / "bad.mp4", tmp_path / "out.mp4"
    bad.write_text("https://example.org")
    for source, output, more, error in (
        ("none.mp4", out, (), MediaError),
        (bad, out, (), MediaError),
        (clip, clip, ("--overwrite",), MediaError),
        (clip, bad, (), OutputExistsError),
        (clip, out, ("--start", "1:00"), MediaError),
    ):
        with pytest.raises(error):
            run(source, output, *more)
    assert loaded == []


@pytest.mark.parametrize(
    "words",
    [
        *("", "--run r --config-file c", "--run r --stride 0", "--run r --crf 52"),
        *("--run r --start soon", "--run r --start 9 --end 0:09"),
        "--run r --save-mot --no-tracking",
        *("--run r --part head", "--run r --except 3", "--run r --keep-masks"),
        *("--run r --anonymize smear", "--run r --anonymize fill --except 0"),
        "--run r --anonymize fill --except 3 --no-tracking",
        "--run r --relink --no-tracking",
        "--model m.onnx --relink",
    ],
)
def test_wrong_usage_ends_with_code_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        video_demo.main(["--video-input", "a", "--output", "b", *words.split()])
    assert end.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [PartialMediaError, MediaError])
def test_clips_that_all_fail_end_with_the_code_of_what_is_kept(kind, tmp_path, monkeypatch):
    errors = [kind("kept in part"), MediaError("no")]

    def annotate_video(*_, **__):
        raise errors.pop(0)

    monkeypatch.setattr("persondet.video.pipeline.annotate_video", annotate_video)
    for name in "ab":
        write_clip(tmp_path / "in" / f"{name}.mp4")
    with pytest.raises(MediaError) as caught:
        run(tmp_path / "in", tmp_path / "out")
    assert type(caught.value) is kind


@pytest.mark.slow
def test_areas_are_drawn_with_their_counts_and_analysed(tmp_path, capsys):
    clip, areas, out = write_clip(tmp_path / "a.mp4", 40), tmp_path / "areas.yaml", tmp_path / "o"
    areas.write_text("zones: {all: [[0, 0], [1, 0], [1, 1], [0, 1]]}\nlines: {x: [[2, 9], [9, 9]]}")
    assert run(clip, out / "plain.mp4") == 0
    assert run(clip, out / "areas.mp4", "--areas", areas) == 0
    assert "zone all: 1 visits of 1.6 s on average" in capsys.readouterr().out
    assert (out / "areas_analysis" / "visits.csv").is_file()
    plain, drawn = (list(VideoReader(out / f"{n}.mp4"))[-1].image for n in ("plain", "areas"))
    assert np.abs(plain.astype(int) - drawn).max() > 60
    with pytest.raises(OutputExistsError):
        run(clip, out / "areas.mp4", "--areas", areas)


def test_areas_of_another_clip_are_refused_before_the_model_is_loaded(tmp_path, loaded):
    clip, areas = write_clip(tmp_path / "a.mp4"), tmp_path / "areas.yaml"
    areas.write_text("lines: {far: [[1, 1], [900, 9]]}")
    with pytest.raises(ConfigError, match="outside the frame of 96 × 64"):
        run(clip, tmp_path / "o.mp4", "--areas", areas)
    assert loaded == [] and not (tmp_path / "o.mp4").exists()

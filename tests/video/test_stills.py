"""Stills: the right frames of the annotated clip, and what they show."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from persondet.errors import OutputExistsError
from persondet.video.outputs import write_stills
from persondet.video.pipeline import annotate_video
from tests.video.clips import BrightSquares, square_frame, write_clip


def annotate(run, name="clip"):
    run.mkdir(exist_ok=True, parents=True)
    source = write_clip(run.parent / f"{name}.mp4", [square_frame(n, 160, 96) for n in range(30)])
    annotate_video(source, run / f"{name}_annotated.mp4", BrightSquares())
    return run / f"{name}_annotated.mp4"


def test_the_stills_are_frames_evenly_spaced_and_replace_those_of_an_earlier_call(tmp_path):
    run = tmp_path / "run"
    clip = annotate(run)
    written = write_stills(run, 3)
    assert [path.name for path in written] == [f"video_still_{n}.jpg" for n in (1, 2, 3)]
    index = json.loads((run / "plots/video_stills.json").read_text())
    assert index["schema"] == 1
    assert [still["index"] for still in index["stills"]] == [5, 15, 25]
    assert {still["clip"] for still in index["stills"]} == {clip.name}
    capture, frames = cv2.VideoCapture(str(clip)), []  # another road than the one under test
    while (answer := capture.read())[0]:
        frames.append(answer[1])
    for still, path in zip(index["stills"], written, strict=True):
        image = cv2.imread(str(path)).astype(int)
        distances = [np.abs(frame.astype(int) - image).mean() for frame in frames]
        assert int(np.argmin(distances)) == still["index"]
        assert min(distances) < 4
    assert len(write_stills(run, 1)) == len(list((run / "plots").glob("*.jpg"))) == 1
    clip.unlink()
    assert write_stills(run) == []
    assert list((run / "plots").iterdir()) == []


def test_a_clip_that_cannot_be_read_is_left_out_and_clips_may_lie_deeper(tmp_path):
    run = tmp_path / "run"
    good = annotate(run / "video" / "monday", "b")
    for name, records in (("a", good.with_suffix(".jsonl").read_text()), ("c", "no records\n")):
        (run / f"{name}.mp4").write_bytes(b"no video")
        (run / f"{name}.jsonl").write_text(records)
    written = write_stills(run, 2, output=tmp_path / "there")
    assert [path.parent for path in written] == [tmp_path / "there"] * 2
    assert not (run / "plots").exists()


def test_a_file_in_the_place_of_the_folder_is_one_sentence(tmp_path):
    run = tmp_path / "run"
    assert write_stills(run) == []
    assert not run.exists()
    annotate(run)
    (run / "plots").write_text("mine")
    with pytest.raises(OutputExistsError, match="plots cannot be written"):
        write_stills(run)

"""Stills: the right frames of the annotated clip, and what they show."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from persondet.errors import OutputExistsError
from persondet.video.pipeline import annotate_video
from persondet.video.stills import write_stills


def annotate(run: Path, clip_writer, squares, predictor, name: str = "clip") -> Path:
    run.mkdir(exist_ok=True, parents=True)
    source = clip_writer(run.parent / f"{name}.mp4", [squares(n, 160, 96) for n in range(30)])
    annotate_video(source, run / f"{name}_annotated.mp4", predictor)
    return run / f"{name}_annotated.mp4"


def test_the_stills_are_frames_evenly_spaced(tmp_path, clip_writer, squares, predictor):
    run = tmp_path / "run"
    clip = annotate(run, clip_writer, squares, predictor)
    written = write_stills(run, 3)
    assert [path.name for path in written] == [f"video_still_{n}.jpg" for n in (1, 2, 3)]
    index = json.loads((run / "plots/video_stills.json").read_text())
    assert index["schema"] == 1
    assert [still["index"] for still in index["stills"]] == [5, 15, 25]
    assert {still["clip"] for still in index["stills"]} == {clip.name}
    frames = frames_by_opencv(clip)
    for still, path in zip(index["stills"], written, strict=True):
        found = cv2.imread(str(path)).astype(int)
        distances = [np.abs(frame.astype(int) - found).mean() for frame in frames]
        assert int(np.argmin(distances)) == still["index"]
        assert min(distances) < 4


def test_stills_of_an_earlier_call_do_not_stay(tmp_path, clip_writer, squares, predictor):
    run = tmp_path / "run"
    clip = annotate(run, clip_writer, squares, predictor)
    write_stills(run, 3)
    assert len(write_stills(run, 1)) == 1
    assert len(list((run / "plots").glob("video_still_*.jpg"))) == 1
    clip.unlink()
    assert write_stills(run) == []
    assert list((run / "plots").iterdir()) == []


def test_a_clip_that_cannot_be_read_is_left_out(tmp_path, clip_writer, squares, predictor):
    run = tmp_path / "run"
    annotate(run, clip_writer, squares, predictor, "b")
    (run / "a.mp4").write_bytes(b"no video")
    (run / "a.jsonl").write_text((run / "b_annotated.jsonl").read_text())
    (run / "c.mp4").write_bytes(b"no video")
    (run / "c.jsonl").write_text("no records\n")
    assert len(write_stills(run, 2)) == 2


def test_stills_go_to_another_folder_and_clips_may_lie_deeper(
    tmp_path, clip_writer, squares, predictor
):
    run = tmp_path / "run"
    run.mkdir()
    annotate(run / "video" / "monday", clip_writer, squares, predictor)
    written = write_stills(run, 1, output=tmp_path / "there")
    assert [path.parent for path in written] == [tmp_path / "there"]
    assert not (run / "plots").exists()


def test_a_file_in_the_place_of_the_folder_is_one_sentence(
    tmp_path, clip_writer, squares, predictor
):
    run = tmp_path / "run"
    run.mkdir()
    (run / "plots").write_text("mine")
    assert write_stills(run) == []
    annotate(run, clip_writer, squares, predictor)
    with pytest.raises(OutputExistsError, match="plots cannot be written"):
        write_stills(run)


def test_a_run_without_a_clip_has_no_stills(tmp_path):
    assert write_stills(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def frames_by_opencv(path: Path) -> list[np.ndarray]:
    """All frames of a clip, by another road than the one that is tested."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (answer := capture.read())[0]:
        frames.append(answer[1])
    return frames

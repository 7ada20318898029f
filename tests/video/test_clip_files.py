"""Which clips are meant, which files must not be written, and the stills of annotated clips."""

import json
from fractions import Fraction

import cv2
import numpy as np
import pytest

from persondet.errors import MediaError, OutputExistsError
from persondet.video.clip_files import check_clips, plan_clips, write_stills
from persondet.video.pipeline import annotate_video
from tests.video.clips import BrightSquares, squares, write_clip


def test_a_file_goes_to_a_file_or_into_a_folder_and_a_folder_gives_its_clips(clip, tmp_path):
    (tmp_path / "there.v2").mkdir()
    twin = f"{clip.stem}_annotated.mp4"
    for name, target in (("b.mkv", ""), ("new", twin), ("there.v2", twin)):
        assert plan_clips(clip, tmp_path / name) == [(clip, tmp_path / name / target)]
    clip.unlink()
    names = "b.MP4 a.avi a_annotated.mp4 b.partial.mp4 b.finishing.mp4 notes.txt .hidden.mp4"
    for name in names.split():
        (tmp_path / name).touch()
    plan = [(clip.name, target.name) for clip, target in plan_clips(tmp_path, tmp_path)]
    assert plan == [("a.avi", "a_annotated.mp4"), ("b.MP4", "b_annotated.mp4")]


def test_what_cannot_be_planned_is_refused(tmp_path):
    with pytest.raises(MediaError, match="does not exist"):
        plan_clips(tmp_path / "none", tmp_path)
    with pytest.raises(MediaError, match="has no clip"):
        plan_clips(tmp_path, tmp_path)
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "a.mp4").touch()
    with pytest.raises(MediaError, match="add --recursive"):
        plan_clips(tmp_path, tmp_path)


def test_clips_of_one_stem_are_kept_apart_and_sub_folders_stay(tmp_path):
    clips = ("a.avi", "a.mp4", "b.mp4", "b.mp4.mkv", "s/a.mp4", ".old/c.mp4", "s/a_annotated.mp4")
    for name in clips:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    out = tmp_path / "out"
    plan = plan_clips(tmp_path, out, recursive=True)
    assert {str(clip.relative_to(tmp_path)): str(t.relative_to(out)) for clip, t in plan} == {
        "a.avi": "a.avi_annotated.mp4",
        "a.mp4": "a.mp4_annotated.mp4",
        "b.mp4": "b_annotated.mp4",
        "b.mp4.mkv": "b.mp4.mkv_annotated.mp4",  # the stem b.mp4 is another clip's name
        "s/a.mp4": "s/a_annotated.mp4",
    }
    assert len(plan_clips(tmp_path, out)) == 4


def test_an_address_stays_as_it_is_and_needs_a_file_to_go_to(tmp_path):
    address = "https://user:secret@example.org/walk.mp4?token=1"
    assert plan_clips(address, tmp_path / "walk.mp4") == [(address, tmp_path / "walk.mp4")]
    for target in (tmp_path, tmp_path / "new"):
        with pytest.raises(MediaError, match=r"name that ends in \.mp4") as caught:
            plan_clips(address, target)
        assert not any(word in str(caught.value) for word in ("secret", "token"))


def test_broken_clips_are_told_apart_from_good_ones_before_a_model_is_loaded(clip, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_text("<html>")
    plan = [(bad, tmp_path / "x.mp4"), (clip, tmp_path / "y.mp4")]
    readable, (fault,), existing = check_clips(plan, start=Fraction(1, 10), end=Fraction(1))
    assert (readable, existing) == (plan[1:], [])
    assert "HTML" in fault
    with pytest.raises(MediaError, match="HTML"):
        check_clips(plan[:1])
    with pytest.raises(MediaError, match="no frame between the chosen start, 60 s"):
        check_clips(plan[1:], start=Fraction(60))
    (tmp_path / "y.mp4").touch()
    with pytest.raises(OutputExistsError):
        check_clips(plan[1:])
    (tmp_path / "z.partial.mp4").touch()
    readable, faults, existing = check_clips([*plan, (clip, tmp_path / "z.mp4")], folder=True)
    assert (readable, len(faults)) == ([], 2)  # what a killed run left counts as not done
    assert existing == plan[1:]
    for target, says in ((clip / "y.mp4", "is a file or closed"), ("y.avi", "use a name in .mp4")):
        with pytest.raises(MediaError, match=says):
            check_clips([(clip, target)])


def test_a_clip_whose_result_would_have_too_long_a_name_is_left_out(clip, tmp_path):
    long = clip.rename(clip.with_name("ü" * 120 + ".mp4"))  # its own name fits: 244 bytes
    short = tmp_path / "in.mp4"
    short.write_bytes(long.read_bytes())
    plan = [(path, tmp_path / "out" / f"{path.stem}_annotated.mp4") for path in (long, short)]
    readable, faults, existing = check_clips(plan, folder=True)
    assert (readable, existing) == (plan[1:], [])
    assert [fault.startswith(f"{long}: the name ") for fault in faults] == [True]
    with pytest.raises(MediaError, match=r"too long; rename the clip or give --output a shorter"):
        check_clips(plan[:1])


def annotate(run, name="clip"):
    run.mkdir(exist_ok=True, parents=True)
    source = write_clip(run.parent / f"{name}.mp4", squares(12))
    return annotate_video(source, run / f"{name}_annotated.mp4", BrightSquares()).output


def test_the_stills_are_frames_evenly_spaced_and_replace_those_of_an_earlier_call(tmp_path):
    run = tmp_path / "run"
    assert write_stills(run) == []
    assert not run.exists()
    clip = annotate(run)
    written = write_stills(run, 3)
    index = json.loads((run / "plots/video_stills.json").read_text())
    assert index["schema"] == 1
    assert [still["index"] for still in index["stills"]] == [2, 6, 10]
    assert {still["clip"] for still in index["stills"]} == {clip.name}
    capture, frames = cv2.VideoCapture(str(clip)), []  # another road than the one under test
    while (answer := capture.read())[0]:
        frames.append(answer[1].astype(int))
    for still, path in zip(index["stills"], written, strict=True):
        assert path.name == still["file"]
        distances = [np.abs(frame - cv2.imread(str(path))).mean() for frame in frames]
        assert int(np.argmin(distances)) == still["index"]
        assert min(distances) < 6
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
    (run / "plots").write_text("mine")
    with pytest.raises(OutputExistsError, match="plots cannot be written"):
        write_stills(run)

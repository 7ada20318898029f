"""Input clips and their outputs: which clips are meant, and which files must not be written."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import pytest

from persondet.errors import MediaError, OutputExistsError
from persondet.video.outputs import check_clips, plan_clips


def test_a_file_goes_to_a_file_or_into_a_folder(clip, tmp_path):
    (tmp_path / "there.v2").mkdir()
    twin = f"{clip.stem}_annotated.mp4"
    assert plan_clips(clip, tmp_path / "b.mkv") == [(clip, tmp_path / "b.mkv")]
    assert plan_clips(clip, tmp_path / "new") == [(clip, tmp_path / "new" / twin)]
    assert plan_clips(clip, tmp_path / "there.v2") == [(clip, tmp_path / "there.v2" / twin)]


def test_a_folder_gives_its_clips_but_no_results_and_unfinished_ones(tmp_path):
    names = "b.MP4 a.avi a_annotated.mp4 b.partial.mp4 b.finishing.mp4 notes.txt .hidden.mp4"
    for name in names.split():
        (tmp_path / name).touch()
    plan = plan_clips(tmp_path, tmp_path)
    assert [(clip.name, target.name) for clip, target in plan] == [
        ("a.avi", "a_annotated.mp4"),
        ("b.MP4", "b_annotated.mp4"),
    ]


def test_what_cannot_be_planned_is_refused(tmp_path):
    with pytest.raises(MediaError, match="does not exist"):
        plan_clips(tmp_path / "none", tmp_path)
    with pytest.raises(MediaError, match="has no clip"):
        plan_clips(tmp_path, tmp_path)
    for name in ("a.avi", "a.mp4"):
        (tmp_path / name).touch()
    with pytest.raises(MediaError, match=r"a\.avi and a\.mp4"):
        plan_clips(tmp_path, tmp_path)


def test_an_address_stays_as_it_is_and_needs_a_file_to_go_to(tmp_path):
    address = "https://user:secret@example.org/walk.mp4?token=1"
    assert plan_clips(address, tmp_path / "walk.mp4") == [(address, tmp_path / "walk.mp4")]
    for target in (tmp_path, tmp_path / "new"):
        with pytest.raises(MediaError, match=r"name that ends in \.mp4") as caught:
            plan_clips(address, target)
        assert "secret" not in str(caught.value)
        assert "token" not in str(caught.value)


def test_broken_clips_are_told_apart_from_good_ones(clip, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_text("<html>")
    plan = [(bad, tmp_path / "x.mp4"), (clip, tmp_path / "y.mp4")]
    readable, faults = check_clips(plan)
    assert readable == plan[1:]
    assert len(faults) == 1
    assert "HTML" in faults[0]
    with pytest.raises(MediaError, match="HTML"):
        check_clips(plan[:1])
    (tmp_path / "y.mp4").touch()
    with pytest.raises(OutputExistsError):
        check_clips(plan)


def test_a_start_beyond_the_end_is_known_before_a_model_is_loaded(clip, tmp_path):
    plan = [(clip, tmp_path / "y.mp4")]
    assert check_clips(plan, start=Fraction(1, 10), end=Fraction(1))[0] == plan
    with pytest.raises(MediaError, match="no frame between the chosen start, 60 s"):
        check_clips(plan, start=Fraction(60))


def test_a_folder_that_cannot_be_written_or_looked_up_is_refused(clip, tmp_path, monkeypatch):
    plan = [(clip, tmp_path / "new" / "deeper" / "y.mp4")]
    check_clips(plan)
    assert not (tmp_path / "new").exists()
    with pytest.raises(MediaError, match="is a file or closed"):
        check_clips([(clip, clip / "y.mp4")])
    closed = tmp_path / "closed"
    closed.mkdir()
    stat, access = os.stat, os.access

    def refuse(path, **choices):
        if closed in Path(path).parents:
            raise PermissionError(13, "Permission denied")
        return stat(path, **choices)

    monkeypatch.setattr("os.stat", refuse)
    monkeypatch.setattr(
        "os.access", lambda path, mode: (path != closed or mode == os.F_OK) and access(path, mode)
    )
    with pytest.raises(MediaError, match="closed is a file or closed to writing"):
        check_clips(plan_clips(clip, closed / "b.mp4"))

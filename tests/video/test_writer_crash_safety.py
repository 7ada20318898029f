"""Nothing is lost: what a killed or failed run leaves, and what replaces what."""

from __future__ import annotations

import collections
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from persondet.errors import MediaError, OutputExistsError, PartialMediaError
from persondet.video import writer as writer_module
from persondet.video.reader import VideoReader
from persondet.video.writer import VideoWriter, draft_path, partial_path

SIZE = {"width": 96, "height": 64}


def frames_on_disk(path):
    """Times of the frames in a file that is still being written."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return [frame.pts * frame.time_base for frame in container.decode(stream)]
    except av.error.FFmpegError:
        return []


@pytest.mark.parametrize("fps", [1, 2, 5, 12, 25, 30, 60])
def test_all_but_the_last_second_is_on_the_disk_at_any_time(fps, tmp_path, squares):
    target = tmp_path / "clip.mp4"
    longest = 0.0
    with VideoWriter(target, **SIZE, fps=Fraction(fps)) as writer:
        for number in range(3 * fps + 2):
            writer.write(squares(number))
            if number % max(1, fps // 5) == 0:
                times = frames_on_disk(partial_path(target))
                # Of pictures that are coded out of order, the last ones may be there first.
                assert set(times) >= {Fraction(n, fps) for n in range(number + 1 - fps)}
                assert times == sorted(times)
                assert all((time * fps).denominator == 1 for time in times)
                longest = max(longest, (number + 1 - len(times)) / fps)
        assert not target.exists()
    assert 0 < longest <= 1
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def fail_after(count, target, squares, **choices):
    """Write `count` frames, then fail."""

    def frames():
        yield from (squares(n) for n in range(count))
        raise KeyError("in the middle")

    writer = VideoWriter(target, **SIZE, fps=Fraction(25), **choices)
    with pytest.raises(KeyError), writer:
        collections.deque(map(writer.write, frames()))


def test_a_failure_keeps_every_frame_and_what_was_there(tmp_path, squares, caplog):
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"what was there")
    fail_after(40, target, squares, overwrite=True)
    partial = tmp_path / "clip.partial.mp4"
    assert target.read_bytes() == b"what was there"
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "clip.partial.mp4"}
    reader = VideoReader(partial)
    assert [frame.time for frame in reader] == [Fraction(n, 25) for n in range(40)]
    assert reader.damage == ""
    assert str(partial) in caplog.text


def test_a_failure_before_the_first_frame_leaves_nothing(tmp_path, squares):
    fail_after(0, tmp_path / "clip.mp4", squares)
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_or_finished_clip_is_not_replaced_unasked(tmp_path, squares):
    target = tmp_path / "clip.mkv"
    fail_after(5, target, squares)
    before = partial_path(target).read_bytes()
    with (
        pytest.raises(OutputExistsError, match=r"clip\.partial\.mp4 is there already"),
        VideoWriter(target, **SIZE, fps=Fraction(25)),
    ):
        pass
    assert partial_path(target).read_bytes() == before
    with VideoWriter(target, **SIZE, fps=Fraction(25), overwrite=True) as writer:
        writer.write(squares(0))
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mkv"]
    finished = target.read_bytes()
    with (
        pytest.raises(OutputExistsError, match=r"clip\.mkv is there already"),
        VideoWriter(target, **SIZE, fps=Fraction(25)),
    ):
        pass
    assert target.read_bytes() == finished
    assert not partial_path(target).exists()


def test_what_appears_meanwhile_is_not_replaced(tmp_path, squares):
    target = tmp_path / "clip.mp4"
    writer = VideoWriter(target, **SIZE, fps=Fraction(25))
    writer.__enter__()
    writer.write(squares(0))
    target.write_bytes(b"somebody else's")
    says = r"there already.*kept in .*clip\.partial\.mp4"
    with pytest.raises(PartialMediaError, match=says):
        writer.__exit__(None, None, None)
    assert target.read_bytes() == b"somebody else's"
    assert len(frames_on_disk(partial_path(target))) == 1
    assert not draft_path(target).exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: no disk is full here")
def test_a_full_disk_says_so_and_names_what_is_kept(tmp_path):
    target = tmp_path / "clip.mp4"
    partial_path(target).symlink_to("/dev/full")
    noise = np.random.default_rng(0).integers(0, 255, (60, 64, 96, 3), dtype=np.uint8)
    writer = VideoWriter(target, **SIZE, fps=Fraction(25), overwrite=True)
    with pytest.raises(MediaError, match="the disk is full") as caught, writer:
        collections.deque(map(writer.write, noise))
    assert str(partial_path(target)) in str(caught.value)
    assert "--overwrite" in str(caught.value)
    assert not target.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: no disk is full here")
def test_a_disk_that_is_full_at_the_very_end_costs_nothing(tmp_path, squares):
    target = tmp_path / "clip.mp4"
    draft_path(target).symlink_to("/dev/full")
    writer = VideoWriter(target, **SIZE, fps=Fraction(25))
    with pytest.raises(MediaError, match="the disk is full") as caught, writer:
        collections.deque(writer.write(squares(number)) for number in range(30))
    assert str(partial_path(target)) in str(caught.value)
    assert len(frames_on_disk(partial_path(target))) == 30
    assert [path.name for path in tmp_path.iterdir()] == ["clip.partial.mp4"]


def test_a_clip_that_lost_frames_on_the_way_is_not_handed_over(tmp_path, squares, monkeypatch):
    target = tmp_path / "clip.mp4"
    with VideoWriter(tmp_path / "other.mp4", **SIZE, fps=Fraction(25)) as writer:
        for number in range(7):
            writer.write(squares(number))
    remux = writer_module.remux
    monkeypatch.setattr(
        writer_module,
        "remux",
        lambda partial, draft, *rest: remux(tmp_path / "other.mp4", draft, *rest),
    )
    writer = VideoWriter(target, **SIZE, fps=Fraction(25))
    with pytest.raises(MediaError, match="has 7 of 9 frames") as caught, writer:
        collections.deque(writer.write(squares(number)) for number in range(9))
    assert str(partial_path(target)) in str(caught.value)
    assert not target.exists()
    assert not draft_path(target).exists()
    assert len(frames_on_disk(partial_path(target))) == 9


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputExistsError, match="cannot be written"),
        VideoWriter(tmp_path / "file" / "clip.mp4", **SIZE, fps=Fraction(25)),
    ):
        pass


KILLED = """
import sys, time
from fractions import Fraction
import numpy as np
from persondet.video.writer import VideoWriter
with VideoWriter(sys.argv[1], width=96, height=64, fps=Fraction(25)) as writer:
    number = 0
    while True:
        writer.write(np.full((64, 96, 3), number % 200, np.uint8))
        number += 1
        print(number, flush=True)
"""


@pytest.mark.slow
def test_a_killed_run_leaves_all_but_the_last_second(tmp_path):
    target = tmp_path / "clip.mp4"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE, text=True
    )
    written = 0
    while written < 137:
        written = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    written = int(([written] + process.stdout.read().split())[-1])
    process.wait()
    times = frames_on_disk(partial_path(target))
    assert set(times) >= {Fraction(n, 25) for n in range(written - 25)}
    assert times == sorted(times)
    assert not target.exists()

"""A part of a clip is that part of the whole clip: same indices, same times, same pixels."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from persondet.errors import MediaError
from persondet.video import reader as reader_module
from persondet.video.reader import UncountableError, VideoReader, skip_to
from tests.video.clips import noise, write_clip

OPEN_GOP = {"x264-params": "open-gop=1:bframes=3:b-adapt=0"}
UNEVEN = [n * 40 + n % 3 * 7 + (500 if n > 30 else 0) for n in range(60)]
# name: (file, codec, options, times in milliseconds, whether the start need not be decoded)
CLIPS = {
    "mp4": ("a.mp4", "libx264", {}, None, True),
    "open groups": ("a.mp4", "libx264", OPEN_GOP, None, True),
    "variable rate": ("a.mp4", "libx264", {}, UNEVEN, True),
    "matroska": ("a.mkv", "libx264", OPEN_GOP, None, True),
    "broadcast": ("a.ts", "libx264", OPEN_GOP, None, True),
    "program stream": ("a.mpg", "mpeg2video", {"bf": "2"}, None, True),
    "HEVC": ("a.mp4", "libx265", {"x265-params": "log-level=none:pools=none"}, None, True),
    "VP9": ("a.webm", "libvpx-vp9", {"cpu-used": "8", "deadline": "realtime"}, None, True),
    "hidden frames": ("a.webm", "libvpx", {"cpu-used": "8", "auto-alt-ref": "1"}, None, False),
    "AVI": ("a.avi", "libx264", {"bf": "3"}, None, False),
    "no container": ("a.h264", "libx264", {}, None, False),
}
QUICK = {"variable rate", "matroska", "AVI"}


def same(first, second):
    return [(f.index, f.time) for f in first] == [(f.index, f.time) for f in second] and all(
        np.array_equal(a.image, b.image) for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in CLIPS]
)
def test_a_part_is_that_part_of_the_whole_and_what_can_be_counted_is_not_decoded(
    name, tmp_path, monkeypatch
):
    file, codec, options, times, countable = CLIPS[name]
    frames = [np.roll(noise(1, seed=1)[0], number, 1) for number in range(60)]
    path = write_clip(
        tmp_path / file,
        frames,
        rate=Fraction(25),
        codec=codec,
        options=options,
        gop=12,
        times=times or range(60),
        time_base=Fraction(1, 1000 if times else 25),
    )
    begins = []

    def noted(packets, pts):
        begins.append(skip_to(packets, pts))
        return begins[-1]

    monkeypatch.setattr(reader_module, "skip_to", noted)
    whole = list(VideoReader(path))
    for number in (0, 13, 36, 54):
        start = whole[number].time
        end = start + Fraction(1, 2)
        assert same(list(VideoReader(path, start=start)), whole[number:])
        inside = [frame for frame in whole if start <= frame.time < end]
        assert same(list(VideoReader(path, start=start, end=end)), inside)
        between = start + Fraction(1, 500)
        later = [frame for frame in whole if frame.time >= between]
        assert same(list(VideoReader(path, start=between)), later)
    assert bool(begins) == countable
    begins.clear()
    assert next(iter(VideoReader(path, start=whole[50].time))).index == 50
    assert len(begins) == countable
    assert all(36 <= index <= 50 for index, _ in begins)


def test_a_clip_without_packets_cannot_be_counted():
    with pytest.raises(UncountableError):
        skip_to(iter([]), 10)


def test_progress_counts_the_part_only(clip):
    three = Fraction(3 * 1001, 30000)
    assert [frame.index for frame in VideoReader(clip, end=three)] == [0, 1, 2]
    assert VideoReader(clip, end=three).expected_frames == 3
    assert VideoReader(clip, start=three).expected_frames == 7
    assert VideoReader(clip, start=0.1, end=0.2).expected_frames == 3
    reader = VideoReader(clip, end=100)
    assert (reader.expected_frames, len(list(reader)), reader.damage) == (10, 10, "")


@pytest.mark.parametrize(
    ("start", "end", "says"),
    [
        (-1, None, "from -1 s to the end; start must not be negative"),
        (3, 3, "from 3 s to 3 s; .* end must be later"),
        (None, 0, "from 0 s to 0 s"),
        (100, None, r"no frame between the chosen start, 100 s, and end; .* end at 0\.30 s"),
        (0.001, 0.002, "no frame between"),
    ],
)
def test_an_impossible_part_is_refused_in_one_sentence(start, end, says, clip):
    with pytest.raises(MediaError, match=says) as caught:
        VideoReader(clip, start=start, end=end)
    assert "\n" not in str(caught.value)

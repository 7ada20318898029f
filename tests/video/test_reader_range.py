"""A part of a clip is that part of the whole clip: same indices, same times, same pixels."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from persondet.errors import MediaError
from persondet.video import reader as reader_module
from persondet.video import reader as skip
from persondet.video.reader import UncountableError, VideoReader

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
    "hidden pictures": ("a.webm", "libvpx", {"cpu-used": "8", "auto-alt-ref": "1"}, None, False),
    "AVI": ("a.avi", "libx264", {"bf": "3"}, None, False),
    "no container": ("a.h264", "libx264", {}, None, False),
}
QUICK = {"variable rate", "matroska", "AVI"}


def write(path, codec, options, times):
    noise = np.random.default_rng(1).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(25), options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.gop_size = 12
        tick = Fraction(1, 25) if times is None else Fraction(1, 1000)
        stream.codec_context.time_base = tick
        for number in range(60):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, number, 1), format="bgr24")
            frame.pts, frame.time_base = number if times is None else times[number], tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def same(first, second):
    return [(f.index, f.time) for f in first] == [(f.index, f.time) for f in second] and all(
        np.array_equal(a.image, b.image) for a, b in zip(first, second, strict=True)
    )


def is_part_of_whole(path, starts):
    whole = list(VideoReader(path))
    for number in starts:
        start = whole[number].time
        end = start + Fraction(1, 2)
        assert same(list(VideoReader(path, start=start)), whole[number:])
        inside = [frame for frame in whole if start <= frame.time < end]
        assert same(list(VideoReader(path, start=start, end=end)), inside)
        between = start + Fraction(1, 500)
        later = [frame for frame in whole if frame.time >= between]
        assert same(list(VideoReader(path, start=between)), later)


@pytest.mark.parametrize("name", sorted(QUICK))
def test_a_part_is_that_part_of_the_whole(name, tmp_path):
    file, codec, options, times, _ = CLIPS[name]
    is_part_of_whole(write(tmp_path / file, codec, options, times), [13, 35])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CLIPS))
def test_a_part_is_that_part_of_the_whole_for_every_container(name, tmp_path):
    file, codec, options, times, _ = CLIPS[name]
    path = write(tmp_path / file, codec, options, times)
    is_part_of_whole(path, range(0, 55, 9))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CLIPS))
def test_what_can_be_counted_is_not_decoded(name, tmp_path, monkeypatch):
    file, codec, options, times, countable = CLIPS[name]
    path = write(tmp_path / file, codec, options, times)
    begins = []

    def skip_to(packets, pts):
        skipped = skip.skip_to(packets, pts)
        begins.append(skipped.index)
        return skipped

    monkeypatch.setattr(reader_module, "skip_to", skip_to)
    whole = list(VideoReader(path))
    assert next(iter(VideoReader(path, start=whole[50].time))).index == 50
    assert len(begins) == countable
    assert all(36 <= index <= 50 for index in begins)


def test_a_start_before_a_damaged_packet_is_decoded_from_the_beginning():
    with pytest.raises(UncountableError):
        skip.skip_to(iter([]), 10)


def test_a_clip_is_read_up_to_but_without_its_end(clip):
    frames = list(VideoReader(clip, end=Fraction(3 * 1001, 30000)))
    assert [frame.index for frame in frames] == [0, 1, 2]
    reader = VideoReader(clip, end=100)
    assert len(list(reader)) == 10
    assert reader.damage == ""


def test_progress_is_told_of_the_part_only(clip):
    assert VideoReader(clip).expected_frames == 10
    assert VideoReader(clip, start=Fraction(5 * 1001, 30000)).expected_frames == 5
    assert VideoReader(clip, end=Fraction(2 * 1001, 30000)).expected_frames == 2
    assert VideoReader(clip, start=0.1, end=0.2).expected_frames == 3
    assert VideoReader(clip, start=0.1).announced_frames == 10


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
def test_a_part_that_is_none_is_refused_in_one_sentence(start, end, says, clip):
    with pytest.raises(MediaError, match=says) as caught:
        VideoReader(clip, start=start, end=end)
    assert "\n" not in str(caught.value)

"""Reading clips: frames come out upright, timed and complete, or damage is reported."""

from __future__ import annotations

import itertools
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from persondet.errors import MediaError
from persondet.video.reader import FrameTimes, VideoReader
from persondet.video.writer import VideoWriter
from tests.video.clips import noise, noisy_clip, square_frame, with_a_hole, write_clip

ONE = 1 << 16
# Display matrices (a b u c d v x y w), the corner to which each turns the upper left one, and
# whether width and height change places.
MATRICES = {
    "upright": ((ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), (4, 4), False),
    "clockwise, as a phone": ((0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30), (4, -5), True),
    "half a turn": ((-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30), (-5, -5), False),
    "counterclockwise": ((0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), (-5, 4), True),
    "mirrored": ((-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), (4, -5), False),
}


def test_frames_times_and_rate_are_the_sources(clip):
    with VideoReader(clip) as reader:
        assert (reader.width, reader.height) == (96, 64)
        assert reader.frame_rate == Fraction(30000, 1001)
        assert reader.announced_frames == 10
        frames = list(reader)
    assert [frame.index for frame in frames] == list(range(10))
    assert [frame.time for frame in frames] == [Fraction(1001 * n, 30000) for n in range(10)]
    assert (reader.damage, reader.complete) == ("", True)
    assert (frames[0].image.shape, frames[0].image.dtype) == ((64, 96, 3), np.uint8)
    with pytest.raises(RuntimeError, match="read once"):
        list(reader)


@pytest.mark.parametrize("name", MATRICES)
def test_rotation_is_applied_once_to_frame_and_pixel_aspect(name, tmp_path):
    matrix, corner, turned = MATRICES[name]
    image = np.zeros((48, 64, 3), dtype=np.uint8)
    image[:16, :16] = 255
    path = tmp_path / "turned.mp4"
    reader = VideoReader(write_clip(path, [image] * 3, matrix=matrix, aspect=Fraction(4, 3)))
    frame = next(iter(reader)).image
    assert (reader.width, reader.height) == ((48, 64) if turned else (64, 48))
    assert reader.pixel_aspect == (Fraction(3, 4) if turned else Fraction(4, 3))
    assert frame.shape == (reader.height, reader.width, 3)
    bright = [at for at in ((4, 4), (4, -5), (-5, 4), (-5, -5)) if frame[at][0] > 128]
    assert bright == [corner]
    assert frame.flags.c_contiguous


def test_variable_frame_rate_keeps_its_times(tmp_path):
    ticks = [0, 40, 60, 200, 210, 500]
    frames = [square_frame(n) for n in range(6)]
    path = tmp_path / "variable.mp4"
    write_clip(path, frames, rate=Fraction(25), times=ticks, time_base=Fraction(1, 1000))
    assert [frame.time for frame in VideoReader(path)] == [Fraction(t, 1000) for t in ticks]


def test_avi_stores_when_a_frame_is_decoded_and_the_reader_tells_when_it_is_shown(tmp_path):
    options = {"codec": "libx264", "pix_fmt": "yuv420p", "options": {"bf": "3", "b_strategy": "0"}}
    path = noisy_clip(tmp_path / "a.avi", **options)
    assert [frame.time for frame in VideoReader(path)] == [Fraction(n, 25) for n in range(40)]


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("blue.mkv", "ffv1", "bgr0"),
        ("grey.mkv", "ffv1", "gray"),
        ("deep grey.mkv", "ffv1", "gray16le"),
        ("ten bits.mp4", "libx264", "yuv420p10le"),
        ("444.mp4", "libx264", "yuv444p"),
        ("422.mov", "prores_ks", "yuv422p10le"),
        ("alpha.mov", "qtrle", "argb"),
    ],
)
def test_pixels_of_every_kind_become_bgr(name, codec, pixels, tmp_path):
    given = np.repeat(np.arange(0, 240, 10, np.uint8), 4)[None, :, None]
    given = np.broadcast_to(given, (64, 96, 3)).copy()
    if name == "blue.mkv":
        given[:] = (255, 0, 0)
    frames = list(
        VideoReader(write_clip(tmp_path / name, [given] * 2, codec=codec, pix_fmt=pixels))
    )
    assert (len(frames), frames[0].image.dtype) == (2, np.uint8)
    assert np.abs(frames[0].image.astype(int) - given).mean() < 3


def whole_clip(path, kind):
    """Write 60 frames of noise."""
    if kind == "index in front":
        with VideoWriter(path, width=96, height=64, fps=Fraction(25)) as writer:
            for image in noise(60):
                writer.write(image)
    elif kind == "fragments":
        movflags = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "300000"}
        noisy_clip(path, 60, container_options=movflags)
    else:
        noisy_clip(path, 60, codec="libvpx") if path.suffix == ".webm" else noisy_clip(path, 60)
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.mp4", "index in front"),
        ("a.mp4", "fragments"),
        ("a.avi", "index in front and behind"),
        ("a.avi", "index behind"),
        ("a.mkv", "no index"),
        pytest.param("a.webm", "no index", marks=pytest.mark.slow),
    ],
)
def test_a_cut_clip_gives_the_frames_it_has_and_says_so(name, kind, tmp_path):
    whole, cut = whole_clip(tmp_path / name, kind), tmp_path / f"cut_{name}"
    data = whole.read_bytes()
    if kind == "index behind":  # as older programs write AVI: nothing at the front tells
        data = data.replace(b"indx", b"JUNK")
    cut.write_bytes(data[: len(data) // 2])
    reader = VideoReader(cut)
    frames = list(reader)
    assert 15 <= len(frames) <= 45
    assert reader.damage.startswith("the clip is cut: it should have ")
    reader = VideoReader(whole)
    assert (len(list(reader)), reader.damage) == (60, "")


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.mp4", "a.avi"])
def test_a_hole_costs_its_frames_only_and_is_noticed(name, tmp_path):
    reader = VideoReader(with_a_hole(noisy_clip(tmp_path / name)))
    frames = list(reader)
    assert 15 < len(frames) < 40
    assert all(a.time < b.time for a, b in itertools.pairwise(frames))
    # Matroska's demuxer may pass over the hole; what is missing at the end then tells of it.
    told = ("the clip is damaged", "the clip is cut") if name == "a.mkv" else "the clip is damaged"
    assert reader.damage.startswith(told)


def test_a_hole_before_the_chosen_end_is_noticed(tmp_path):
    path = with_a_hole(noisy_clip(tmp_path / "a.mp4"))
    reader = VideoReader(path, end=Fraction(35, 25))
    assert 15 < len(list(reader)) < 35
    assert reader.damage.startswith("the clip is damaged")
    assert not reader.complete
    reader = VideoReader(path, end=Fraction(5, 25))
    assert (len(list(reader)), reader.damage) == (5, "")


def test_a_hole_leaves_the_numbers_of_the_frames_behind_it(tmp_path):
    path = with_a_hole(noisy_clip(tmp_path / "a.avi"))
    frames = list(VideoReader(path))
    assert len(frames) < 40
    assert [frame.index for frame in frames] == [round(frame.time * 25) for frame in frames]
    part = list(VideoReader(path, start=frames[-3].time))
    assert [frame.index for frame in part] == [frame.index for frame in frames[-3:]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "HTML page"),
        (b"https://example.org/clip.mp4\n", "text with an address"),
        (b"book\0\0\0\0mark\0\0\0\0", "bookmark"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"", "empty"),
        (bytes(5000), "it is cut, damaged or no video .* copy or download"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/clip.ts\n#EXT-X-ENDLIST\n", "cannot be read"),
        (None, "does not exist"),
    ],
)
def test_a_file_that_is_no_clip_is_refused_in_one_sentence(content, says, tmp_path):
    path = tmp_path / "no clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MediaError, match=says) as caught:
        VideoReader(path)
    assert "no clip.mp4" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(MediaError, match="is a folder"):
        VideoReader(tmp_path)


def test_sound_alone_is_no_clip(tmp_path):
    path = tmp_path / "sound.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        samples.sample_rate = 8000
        container.mux([*stream.encode(samples), *stream.encode(None)])
    with pytest.raises(MediaError, match="no video stream"):
        VideoReader(path)


@pytest.mark.parametrize("share", [0.1, 0.98, 1])
def test_an_mp4_that_is_cut_before_or_in_its_index_is_refused(share, tmp_path):
    whole = noisy_clip(tmp_path / "whole.mp4").read_bytes()
    index = whole.index(b"moov")
    assert index > whole.index(b"mdat")
    (tmp_path / "cut.mp4").write_bytes(whole[: int(index * share) + 100 * (share == 1)])
    with pytest.raises(MediaError, match=r"cut\.mp4: .* is cut"):
        VideoReader(tmp_path / "cut.mp4")


@pytest.mark.parametrize("count", [7, 4000])
def test_trap_a_header_with_a_wrong_number_of_frames_is_not_believed(count, tmp_path):
    path = noisy_clip(tmp_path / "a.avi")
    data = bytearray(path.read_bytes())
    for place in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):
        assert data[place : place + 4] == (40).to_bytes(4, "little")
        data[place : place + 4] = count.to_bytes(4, "little")
    path.write_bytes(data)
    reader = VideoReader(path)
    assert reader.announced_frames == count
    assert [frame.index for frame in reader] == list(range(40))
    assert reader.damage == ""


@pytest.mark.parametrize(("name", "announced"), [("a.h264", None), ("a.ts", 40), ("a.mkv", 40)])
def test_a_clip_without_a_number_of_frames_is_read_to_its_end(name, announced, tmp_path):
    reader = VideoReader(noisy_clip(tmp_path / name))
    assert reader.announced_frames == announced
    assert [frame.time for frame in reader] == [Fraction(n, 25) for n in range(40)]
    assert reader.damage == ""


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_clip_without_any_frame_is_refused(name, tmp_path):
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()
    with pytest.raises(MediaError, match=rf"{name}: "):
        VideoReader(tmp_path / name)


@pytest.mark.parametrize(("suffix", "codec"), [(".ts", "libx264"), (".mpg", "mpeg2video")])
def test_a_clock_that_begins_again_goes_on(suffix, codec, tmp_path):
    once = noisy_clip(tmp_path / f"once{suffix}", 60, codec=codec)
    twice = tmp_path / f"twice{suffix}"
    twice.write_bytes(2 * once.read_bytes())
    reader = VideoReader(twice)
    frames = list(reader)
    assert reader.clock_restarts
    reader = VideoReader(once)
    times = [frame.time for frame in reader]
    assert not reader.clock_restarts
    assert [frame.time for frame in frames[:60]] == times
    assert [frame.time for frame in frames[60:]] == [
        times[-1] + Fraction(1, 25) + time - times[0] for time in times
    ]
    part = VideoReader(twice, start=frames[75].time)
    assert [(f.index, f.time) for f in part] == [(f.index, f.time) for f in frames[75:]]


def test_one_wrong_stamp_moves_no_other_frame():
    times = FrameTimes(Fraction(1, 1000), Fraction(25), Fraction(0))

    def shown(stamps):
        return [times.next(SimpleNamespace(pts=s, time_base=None)) * 1000 for s in stamps]

    assert shown([0, 40, 5000, 5040, 0, 5120]) == [0, 40, 5000, 5040, 5080, 5120]
    assert times.moved == 0
    assert shown([5160, 0, 40, 80]) == [5160, 5200, 5240, 5280]
    assert times.moved != 0
    assert shown([80, 80]) == [5281, 5282]  # times always rise


def test_real_bad_files_are_refused_and_the_old_avi_is_read(real_data, tmp_path):
    folder = real_data / "bad-videos"
    names = sorted(path.name for path in folder.iterdir() if "no_people" not in path.name)
    assert len(names) == 4
    for name in names:
        with pytest.raises(MediaError, match=r"HTML page|address|bookmark"):
            VideoReader(folder / name)
    whole = folder / "vtest_ac3_no_people.avi"
    assert VideoReader(whole).announced_frames == 835
    data = whole.read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 20])
    reader = VideoReader(tmp_path / "cut.avi")
    assert 5 < len(list(reader)) < 100
    assert reader.damage == "the clip is cut: it should have 835 frames"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "frames"), [("legs", 250), ("people", 341), ("shopping_mall", 300), ("walk", 623)]
)
def test_real_clips_are_read_whole(name, frames, real_data):
    reader = VideoReader(real_data / "clips" / f"{name}.small.mp4")
    times = [frame.time for frame in reader]
    assert (len(times), reader.announced_frames, reader.damage) == (frames, frames, "")
    assert all(a < b for a, b in itertools.pairwise(times))
    assert reader.sound == (name == "legs")

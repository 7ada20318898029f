"""Reading clips: what comes out is upright, timed, complete, or said to be incomplete."""

from __future__ import annotations

import itertools
import logging
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from persondet.errors import MediaError
from persondet.video.reader import FrameTimes, VideoReader
from persondet.video.source import file_damage
from persondet.video.writer import VideoWriter

ONE = 1 << 16
# Display matrices (a b u c d v x y w) and what each does to the upper left corner of a picture.
MATRICES = {
    "upright": ((ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), "upper left"),
    "clockwise, as a phone held upright writes it": (
        (0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30),
        "upper right",
    ),
    "half a turn": ((-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30), "lower right"),
    "counterclockwise": ((0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), "lower left"),
    "mirrored": ((-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), "upper right"),
}


def test_frames_times_and_rate_are_the_sources(clip):
    with VideoReader(clip) as reader:
        assert (reader.width, reader.height) == (96, 64)
        assert reader.frame_rate == Fraction(30000, 1001)
        assert reader.announced_frames == 10
        frames = list(reader)
    assert [frame.index for frame in frames] == list(range(10))
    assert [frame.time for frame in frames] == [Fraction(1001 * n, 30000) for n in range(10)]
    assert reader.damage == ""
    assert frames[0].image.shape == (64, 96, 3)
    assert frames[0].image.dtype == np.uint8


def test_pixels_are_bgr(tmp_path, clip_writer):
    blue = np.full((64, 96, 3), (255, 0, 0), dtype=np.uint8)
    path = clip_writer(tmp_path / "blue.mkv", [blue] * 3, codec="ffv1", pix_fmt="bgr0")
    image = next(iter(VideoReader(path))).image
    assert np.abs(image.astype(int) - blue).max() <= 2


@pytest.mark.parametrize("name", MATRICES)
def test_rotation_is_applied_once(name, tmp_path, clip_writer):
    matrix, where = MATRICES[name]
    image = np.zeros((48, 64, 3), dtype=np.uint8)
    image[:16, :16] = 255
    path = clip_writer(tmp_path / "turned.mp4", [image] * 3, matrix=matrix)
    reader = VideoReader(path)
    frame = next(iter(reader)).image
    assert frame.shape == (reader.height, reader.width, 3)
    turned = name not in ("upright", "half a turn", "mirrored")
    assert (reader.width, reader.height) == ((48, 64) if turned else (64, 48))
    corners = {"upper left": (4, 4), "upper right": (4, -5), "lower left": (-5, 4)}
    corners["lower right"] = (-5, -5)
    assert [place for place, at in corners.items() if frame[at][0] > 128] == [where]
    assert frame.flags.c_contiguous


def test_variable_frame_rate_keeps_its_times(tmp_path, clip_writer, squares):
    ticks = [0, 40, 60, 200, 210, 500]
    path = clip_writer(
        tmp_path / "variable.mp4",
        [squares(n) for n in range(6)],
        rate=Fraction(25),
        times=ticks,
        time_base=Fraction(1, 1000),
    )
    assert [frame.time for frame in VideoReader(path)] == [Fraction(t, 1000) for t in ticks]


def test_ten_bit_pixels_are_read(tmp_path, clip_writer, squares):
    path = clip_writer(tmp_path / "deep.mp4", [squares(n) for n in range(3)], pix_fmt="yuv420p10le")
    frames = list(VideoReader(path))
    assert len(frames) == 3
    assert np.abs(frames[0].image.astype(int) - squares(0)).mean() < 6


def test_sound_beside_the_pictures_is_passed_over(tmp_path, clip_writer, squares):
    path = clip_writer(tmp_path / "loud.mp4", [squares(n) for n in range(4)], sound=True)
    assert len(list(VideoReader(path))) == 4


def test_a_reader_is_read_once(clip):
    reader = VideoReader(clip)
    list(reader)
    with pytest.raises(RuntimeError, match="read once"):
        list(reader)


@pytest.mark.parametrize(
    ("suffix", "index"), [(".mp4", "in front"), (".avi", "in front"), (".avi", "at the end only")]
)
def test_a_cut_clip_gives_what_there_is_and_says_so(suffix, index, tmp_path, clip_writer, caplog):
    whole = tmp_path / f"whole{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 96, 3), dtype=np.uint8)
    if suffix == ".mp4":
        with VideoWriter(whole, width=96, height=64, fps=Fraction(25)) as writer:
            for image in noise:
                writer.write(image)
    else:
        clip_writer(whole, noise, codec="mjpeg", pix_fmt="yuvj420p", rate=Fraction(25))
    cut = tmp_path / f"cut{suffix}"
    data = whole.read_bytes()
    if index == "at the end only":  # as older programs write AVI: nothing at the front tells
        data = data.replace(b"indx", b"JUNK")
    cut.write_bytes(data[: len(data) // 2])
    reader = VideoReader(cut)
    with caplog.at_level(logging.INFO):
        frames = list(reader)
    assert 10 <= len(frames) <= 30
    assert "cut" in reader.damage
    assert f"{len(frames)} frames were read" in caplog.text
    reader = VideoReader(whole)
    assert (len(list(reader)), reader.damage) == (40, "")


def test_a_hole_in_the_middle_costs_its_frames_only(tmp_path):
    path = tmp_path / "hole.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 96, 3), dtype=np.uint8)
    with VideoWriter(path, width=96, height=64, fps=Fraction(25)) as writer:
        for image in noise:
            writer.write(image)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 30_000] = bytes(30_000)
    path.write_bytes(data)
    reader = VideoReader(path)
    assert 20 <= len(list(reader)) < 40
    assert "damaged" in reader.damage


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "HTML page"),
        (b"https://example.org/clip.mp4\n", "text with an address"),
        (b"book\0\0\0\0mark\0\0\0\0", "bookmark"),
        (b"bplist00\xd3\x01", "bookmark"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"", "empty"),
        (bytes(5000), "cannot be read as a video"),
    ],
)
def test_what_is_no_clip_is_refused_in_one_sentence(content, says, tmp_path):
    path = tmp_path / "no clip.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=says) as caught:
        VideoReader(path)
    assert "no clip.mp4" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(MediaError, match="does not exist"):
        VideoReader(tmp_path / "none.mp4")
    with pytest.raises(MediaError, match="is a folder"):
        VideoReader(tmp_path)


def test_sound_alone_is_no_clip(tmp_path):

    path = tmp_path / "sound.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        samples.sample_rate = 8000
        container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match="no picture stream"):
        VideoReader(path)


def test_a_playlist_cannot_lead_elsewhere(tmp_path, clip):
    path = tmp_path / "list.m3u8"
    path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/clip.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError):
        VideoReader(path)


def test_real_bad_files_are_refused_and_the_old_avi_is_read(real_data):
    folder = real_data / "bad-videos"
    names = sorted(path.name for path in folder.iterdir() if "no_people" not in path.name)
    assert len(names) == 4
    for name in names:
        with pytest.raises(MediaError, match=r"HTML page|address|bookmark"):
            VideoReader(folder / name)
    assert VideoReader(folder / "vtest_ac3_no_people.avi").announced_frames == 835


def test_a_real_avi_with_its_index_at_the_end_is_cut(real_data, tmp_path):
    whole = (real_data / "bad-videos" / "vtest_ac3_no_people.avi").read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(whole[: len(whole) // 20])
    reader = VideoReader(path)
    assert 5 < len(list(reader)) < 100
    assert reader.damage == "the clip is cut: it should have 835 frames"


def noisy_clip(path, codec="libx264", frames=40, options=None, **choices):
    """Write noise, which no codec can compress, so that a cut costs frames."""
    noise = np.random.default_rng(0).integers(0, 255, (frames, 64, 96, 3), dtype=np.uint8)
    with av.open(str(path), "w", options=choices.pop("container", {})) as container:
        stream = container.add_stream(codec, rate=Fraction(25), options=options or {})
        stream.width, stream.height = 96, 64
        stream.pix_fmt = choices.pop("pix_fmt", "yuv420p")
        for image in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "container"),
    [
        ("whole.mkv", {}),
        pytest.param("whole.webm", {}, marks=pytest.mark.slow),
        ("whole.mp4", {"movflags": "frag_keyframe+empty_moov", "frag_duration": "300000"}),
    ],
)
@pytest.mark.parametrize("share", [0.72])
def test_containers_whose_index_is_missing_are_known_to_be_cut(name, container, share, tmp_path):
    codec = "libvpx" if name.endswith("webm") else "libx264"
    whole = noisy_clip(tmp_path / name, codec, container=container)
    reader = VideoReader(whole)
    assert (len(list(reader)), reader.damage) == (40, "")
    cut = tmp_path / f"cut_{name}"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    reader = VideoReader(cut)
    assert 40 * share - 14 < len(list(reader)) < 40
    assert reader.damage.startswith("the clip is ")


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.mp4", "a.avi"])
def test_a_hole_is_noticed_in_every_container(name, tmp_path):
    codec, pixels = ("mjpeg", "yuvj420p") if name == "a.avi" else ("libx264", "yuv420p")
    path = noisy_clip(tmp_path / name, codec, pix_fmt=pixels)
    data = path.read_bytes()
    middle = len(data) // 2
    junk = np.random.default_rng(0).integers(0, 256, len(data) // 10, dtype=np.uint8).tobytes()
    path.write_bytes(data[:middle] + junk + data[middle + len(junk) :])
    reader = VideoReader(path)
    frames = list(reader)
    assert 15 < len(frames) < 40
    assert all(a.time < b.time for a, b in itertools.pairwise(frames))
    assert reader.damage.startswith("the clip is damaged")


def test_packets_that_a_broadcast_lost_are_noticed(tmp_path):
    data = noisy_clip(tmp_path / "a.ts").read_bytes()
    middle = len(data) // 2 // 188 * 188
    (tmp_path / "lossy.ts").write_bytes(data[:middle] + data[middle + 5 * 188 :])
    reader = VideoReader(tmp_path / "lossy.ts")
    assert 30 <= len(list(reader)) <= 40
    assert reader.damage.startswith("the clip is damaged")


def test_an_element_of_matroska_that_leads_nowhere_is_noticed(tmp_path):
    data = bytearray(noisy_clip(tmp_path / "a.mkv").read_bytes())
    assert file_damage(tmp_path / "a.mkv") == ""
    cluster = data.index(bytes.fromhex("1F43B675"))
    data[cluster : cluster + 4] = bytes(4)
    (tmp_path / "broken.mkv").write_bytes(data)
    assert file_damage(tmp_path / "broken.mkv") == "broken"


@pytest.mark.parametrize("share", [0.1, 0.6, 0.98])
def test_an_mp4_whose_index_at_the_end_is_cut_off_says_so(share, tmp_path):
    whole = noisy_clip(tmp_path / "whole.mp4").read_bytes()
    assert whole.index(b"moov") > whole.index(b"mdat")
    (tmp_path / "cut.mp4").write_bytes(whole[: int(whole.index(b"moov") * share)])
    with pytest.raises(MediaError, match=r"cut\.mp4: .* its index, at the end .* is missing"):
        VideoReader(tmp_path / "cut.mp4")


@pytest.mark.parametrize("count", [7, 4000])
def test_a_header_with_a_wrong_number_of_frames_is_not_believed(count, tmp_path):
    path = noisy_clip(tmp_path / "a.avi", "mjpeg", pix_fmt="yuvj420p")
    data = bytearray(path.read_bytes())
    main = data.index(b"avih") + 8 + 16
    assert data[main : main + 4] == (40).to_bytes(4, "little")
    data[main : main + 4] = count.to_bytes(4, "little")
    length = data.index(b"strh") + 8 + 32
    assert data[length : length + 4] == (40).to_bytes(4, "little")
    data[length : length + 4] = count.to_bytes(4, "little")
    path.write_bytes(data)
    reader = VideoReader(path)
    assert reader.announced_frames == count
    assert [frame.index for frame in reader] == list(range(40))
    assert reader.damage == ""


@pytest.mark.parametrize("name", ["a.h264", "a.ts", "a.mkv"])
def test_a_clip_without_a_number_of_frames_is_read_to_its_end(name, tmp_path):
    reader = VideoReader(noisy_clip(tmp_path / name))
    assert reader.announced_frames == {"a.h264": None}.get(name, 40)
    frames = list(reader)
    assert [frame.time for frame in frames] == [Fraction(n, 25) for n in range(40)]
    assert reader.damage == ""


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_clip_without_any_frame_is_refused(name, tmp_path):
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()
    with pytest.raises(MediaError, match=rf"{name}: ") as caught:
        VideoReader(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_avi_tells_when_a_picture_is_decoded_and_the_reader_when_it_is_shown(tmp_path):
    path = noisy_clip(tmp_path / "a.avi", "libx264", options={"bf": "3", "b_strategy": "0"})
    assert [frame.time for frame in VideoReader(path)] == [Fraction(n, 25) for n in range(40)]


@pytest.mark.parametrize("turned", [False, True])
def test_a_pixel_that_is_no_square_turns_with_the_picture(turned, tmp_path, squares):
    with av.open(str(tmp_path / "tv.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        if turned:
            stream.set_display_matrix(MATRICES["counterclockwise"][0])
        frame = av.VideoFrame.from_ndarray(squares(0), format="bgr24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    reader = VideoReader(tmp_path / "tv.mp4")
    assert reader.pixel_aspect == (Fraction(3, 4) if turned else Fraction(4, 3))


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


def with_a_hole(path, place=0.5, codec="libx264", pixels="yuv420p"):
    """A clip with a tenth of its bytes overwritten."""
    data = noisy_clip(path, codec, pix_fmt=pixels).read_bytes()
    at = int(len(data) * place)
    junk = np.random.default_rng(0).integers(0, 256, len(data) // 10, dtype=np.uint8).tobytes()
    path.write_bytes(data[:at] + junk + data[at + len(junk) :])
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_a_hole_before_the_end_that_was_chosen_is_noticed(name, tmp_path):
    path = with_a_hole(tmp_path / name)
    reader = VideoReader(path, end=Fraction(35, 25))
    assert 15 < len(list(reader)) < 35
    assert reader.damage.startswith("the clip is damaged")
    assert not reader.complete
    reader = VideoReader(path, end=Fraction(5, 25))
    assert (len(list(reader)), reader.damage) == (5, "")


def test_a_hole_is_noticed_by_who_stops_reading_behind_it(tmp_path):
    reader = VideoReader(with_a_hole(tmp_path / "a.mp4"))
    frames = iter(reader)
    while next(frames).time < Fraction(35, 25):
        pass
    assert reader.damage.startswith("the clip is damaged")
    reader.close()
    assert reader.damage.startswith("the clip is damaged")


def test_a_hole_leaves_the_numbers_of_the_frames_behind_it(tmp_path):
    path = with_a_hole(tmp_path / "a.avi", codec="mjpeg", pixels="yuvj420p")
    frames = list(VideoReader(path))
    assert len(frames) < 40
    assert [frame.index for frame in frames] == [round(frame.time * 25) for frame in frames]
    part = list(VideoReader(path, start=frames[-3].time))
    assert [frame.index for frame in part] == [frame.index for frame in frames[-3:]]


@pytest.mark.parametrize("refused", [PermissionError(13, "Permission denied")])
def test_a_file_that_must_not_be_read_says_so(refused, clip, monkeypatch):
    def refuse(*_, **__):
        raise refused

    monkeypatch.setattr("persondet.video.source.av.open", lambda *_, **__: refuse_by_ffmpeg())

    def refuse_by_ffmpeg():
        raise av.error.PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(MediaError, match=r"cannot be opened \(Permission denied\)"):
        VideoReader(clip)


def joined(path, first, second):
    path.write_bytes(first.read_bytes() + second.read_bytes())
    return path


@pytest.mark.parametrize(("suffix", "codec"), [(".ts", "libx264"), (".mpg", "mpeg2video")])
def test_a_clock_that_begins_again_goes_on(suffix, codec, tmp_path):
    once = noisy_clip(tmp_path / f"once{suffix}", codec, frames=60)
    twice = joined(tmp_path / f"twice{suffix}", once, once)
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


def test_one_wrong_stamp_moves_no_other_frame(tmp_path, clip_writer, squares):
    times = FrameTimes(Fraction(1, 1000), Fraction(25), Fraction(0))

    def shown(stamps):
        return [times.next(SimpleNamespace(pts=s, time_base=None)) * 1000 for s in stamps]

    assert shown([0, 40, 5000, 5040, 0, 5120]) == [0, 40, 5000, 5040, 5080, 5120]
    assert times.restarts == 0
    assert shown([5160, 0, 40, 80]) == [5160, 5200, 5240, 5280]
    assert times.restarts == 1


def test_a_file_that_is_cut_in_its_index_says_so(tmp_path, clip_writer, squares):
    behind = noisy_clip(tmp_path / "behind.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(behind[: behind.index(b"moov") + 100])
    with pytest.raises(MediaError, match="it is cut: its index ends early"):
        VideoReader(tmp_path / "a.mp4")
    with VideoWriter(tmp_path / "front.mp4", width=96, height=64, fps=Fraction(25)) as writer:
        for number in range(20):
            writer.write(squares(number))
    front = (tmp_path / "front.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(front[: front.index(b"moov") + 60])
    with pytest.raises(MediaError, match="it is cut: its index ends early"):
        VideoReader(tmp_path / "b.mp4")


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.ts", "a.avi"])
def test_what_is_left_of_a_beginning_is_said_to_be_cut(name, tmp_path):
    codec = {"a.webm": "libvpx"}.get(name, "libx264")
    data = noisy_clip(tmp_path / name, codec, frames=5).read_bytes()
    (tmp_path / name).write_bytes(data[:150])
    with pytest.raises(MediaError, match="it is cut, damaged or no video .* copy or download"):
        VideoReader(tmp_path / name)


def test_an_asf_file_that_is_cut_is_known_by_its_length(tmp_path):
    data = noisy_clip(tmp_path / "whole.asf", "wmv2").read_bytes()
    assert file_damage(tmp_path / "whole.asf") == ""
    (tmp_path / "cut.asf").write_bytes(data[: len(data) // 2])
    reader = VideoReader(tmp_path / "cut.asf")
    assert 5 < len(list(reader)) < 40
    assert "cut" in reader.damage
    live = bytearray(data[: len(data) // 2])
    live[data.index(bytes.fromhex("A1DCAB8C47A9CF118EE400C00C205365")) + 88] |= 1
    (tmp_path / "live.asf").write_bytes(live)
    assert file_damage(tmp_path / "live.asf") == ""


def test_an_end_that_holds_no_frame_is_not_called_a_loss(tmp_path):
    data = noisy_clip(tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[:-5])
    reader = VideoReader(tmp_path / "cut.mkv")
    assert len(list(reader)) == 40
    assert reader.damage == "the file is cut at its end, but all its 40 frames are there"


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("grey.mkv", "ffv1", "gray"),
        ("deep grey.mkv", "ffv1", "gray16le"),
        ("444.mp4", "libx264", "yuv444p"),
        ("422.mov", "prores_ks", "yuv422p10le"),
        ("alpha.mov", "qtrle", "argb"),
    ],
)
def test_pixels_of_every_kind_become_the_same_picture(name, codec, pixels, tmp_path, clip_writer):
    given = np.repeat(np.arange(0, 240, 10, np.uint8), 4)[None, :, None]
    given = np.broadcast_to(given, (64, 96, 3)).copy()
    path = clip_writer(tmp_path / name, [given] * 2, codec=codec, pix_fmt=pixels)
    frames = list(VideoReader(path))
    assert len(frames) == 2
    assert frames[0].image.dtype == np.uint8
    assert np.abs(frames[0].image.astype(int) - given).mean() < 3


def test_what_else_a_clip_has_is_told(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        container.metadata["title"] = "A walk"
        for _ in range(2):
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for stream in container.streams.video:
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="bgr24")
            container.mux([*stream.encode(frame), *stream.encode(None)])
    reader = VideoReader(tmp_path / "a.mkv")
    assert (reader.title, reader.left_out) == ("A walk", "1 further picture track")

"""Reading clips: what comes out is upright, timed, complete, or said to be incomplete."""

from __future__ import annotations

import itertools
import logging
from fractions import Fraction

import av
import numpy as np
import pytest

from persondet.errors import MediaError
from persondet.video.io import VideoReader, VideoWriter
from persondet.video.io.truncation import file_damage

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

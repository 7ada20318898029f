"""Reading clips: what comes out is upright, timed, complete, or said to be incomplete."""

from __future__ import annotations

import logging
from fractions import Fraction

import numpy as np
import pytest

from persondet.errors import MediaError
from persondet.video.io import VideoReader, VideoWriter

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
    import av

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

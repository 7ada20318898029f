"""Writing clips: as many frames as were given, at their times, in a file that browsers play."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from persondet.errors import MediaError
from persondet.video.reader import VideoReader
from persondet.video.writer import VideoWriter


def write(path, frames, fps=Fraction(25), times=None, **choices):
    height, width = frames[0].shape[:2]
    with VideoWriter(path, width=width, height=height, fps=fps, **choices) as writer:
        for number, image in enumerate(frames):
            writer.write(image, None if times is None else times[number])
    return path


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001)])
def test_codec_pixels_rate_and_fast_start(rate, tmp_path, squares, atoms):
    path = write(tmp_path / "clip.mp4", [squares(n) for n in range(12)], rate)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.codec_tag == "avc1"
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == rate
        times = [frame.pts * frame.time_base for frame in container.decode(stream)]
    assert times == [n / rate for n in range(12)]
    order = atoms(path)
    assert order.index("moov") < order.index("mdat")


def test_colours_survive(tmp_path):
    colors = [(0, 0, 255), (0, 255, 0), (255, 0, 0), (128, 128, 128), (0, 159, 230)]
    frames = [np.full((64, 96, 3), color, dtype=np.uint8) for color in colors for _ in range(2)]
    path = write(tmp_path / "colours.mp4", frames, crf=10)
    for read, given in zip(VideoReader(path), frames, strict=True):
        assert np.abs(read.image.astype(int) - given).max() <= 8


@pytest.mark.parametrize("size", [(95, 63), (96, 63), (95, 64)])
def test_odd_sizes_are_padded_by_a_pixel_and_said(size, tmp_path, squares):
    width, height = size
    frames = [squares(n, width, height) for n in range(4)]
    path = tmp_path / "odd.mp4"
    writer = VideoWriter(path, width=width, height=height, fps=Fraction(25), crf=5)
    with writer:
        for image in frames:
            writer.write(image)
    assert writer.notes == [
        f"{width} x {height} is odd; padded by a pixel to {width + width % 2} x "
        f"{height + height % 2}, as H.264 needs it"
    ]
    reader = VideoReader(path)
    assert (reader.width, reader.height) == (width + width % 2, height + height % 2)
    image = next(iter(reader)).image.astype(int)
    assert np.abs(image[:height, :width] - frames[0]).mean() < 4
    # The pixel that was added repeats the border: no dark line.
    assert np.abs(image[-1] - 60).max() < 12
    assert np.abs(image[:, -1] - 60).max() < 12


def test_the_same_frames_give_the_same_bytes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (12, 64, 256, 3), dtype=np.uint8)
    first, second = (write(tmp_path / f"{name}.mp4", noise).read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_times_are_kept_within_half_a_tick_of_the_coarser_clock(suffix, tmp_path, squares):
    source_tick = Fraction(1, 90_000)
    times = [t * source_tick for t in (4_000, 7_003, 9_777, 30_000, 30_900, 90_001)]
    path = write(
        tmp_path / f"variable{suffix}",
        [squares(n) for n in range(6)],
        Fraction(12),
        times,
        time_base=source_tick,
    )
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        read = [frame.pts * frame.time_base for frame in container.decode(stream)]
        coarser = max(source_tick, stream.time_base)
    assert all(abs(a - b) <= coarser / 2 for a, b in zip(read, times, strict=True))
    assert coarser == (Fraction(1, 1000) if suffix == ".mkv" else source_tick)


def test_the_rate_is_exact_in_matroska_too(tmp_path, squares):
    rate = Fraction(30000, 1001)
    path = write(tmp_path / "clip.mkv", [squares(n) for n in range(40)], rate)
    times = [frame.time for frame in VideoReader(path)]
    assert all(abs(time - n / rate) <= Fraction(1, 2000) for n, time in enumerate(times))
    assert len(times) == 40


def test_a_pixel_that_is_no_square_stays_one(tmp_path, squares):
    path = write(tmp_path / "tv.mp4", [squares(0)] * 3, pixel_aspect=Fraction(64, 45))
    assert VideoReader(path).pixel_aspect == Fraction(64, 45)
    assert VideoReader(write(tmp_path / "pc.mp4", [squares(0)] * 3)).pixel_aspect == 1


def test_crf_trades_size_for_quality(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (6, 64, 96, 3), dtype=np.uint8)
    sizes = [
        write(tmp_path / f"{crf}.mp4", noise, crf=crf).stat().st_size for crf in (0, None, 20, 40)
    ]
    assert sizes[0] > sizes[1] == sizes[2] > sizes[3]


def test_a_clip_without_frames_is_refused(tmp_path):
    with (
        pytest.raises(MediaError, match="no frame was written"),
        VideoWriter(tmp_path / "none.mp4", width=96, height=64, fps=Fraction(25)),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((64, 95, 3), np.uint8), r"expected uint8 \(64, 96, 3\)"),
        (np.zeros((64, 96, 3), np.float32), "float32"),
    ],
)
def test_frames_of_another_size_or_type_are_refused(image, says, tmp_path):
    with (
        pytest.raises(MediaError, match=says),
        VideoWriter(tmp_path / "clip.mp4", width=96, height=64, fps=Fraction(25)) as writer,
    ):
        writer.write(image)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "choices", "says"),
    [
        ("clip.avi", {}, "use a name in .mp4, .mov, .mkv"),
        ("clip", {}, "use a name in"),
        ("clip.mp4", {"crf": 60}, "crf 0 to 51"),
        ("clip.mp4", {"fps": Fraction(0)}, "must be positive"),
    ],
)
def test_what_cannot_be_written_is_refused_at_once(name, choices, says, tmp_path):
    choices = {"width": 96, "height": 64, "fps": Fraction(25), **choices}
    with pytest.raises(MediaError, match=says):
        VideoWriter(tmp_path / name, **choices)


@pytest.mark.parametrize("suffix", [".mov", ".mkv"])
def test_other_containers_by_name(suffix, tmp_path, squares):
    path = write(tmp_path / f"clip{suffix}", [squares(n) for n in range(5)])
    assert len(list(VideoReader(path))) == 5

"""Writing clips: every frame at its time, in a file that browsers play and that survives a kill."""

import collections
import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.errors import MediaError, PartialMediaError
from persondet.video import writer as writer_module
from persondet.video.reader import VideoReader
from persondet.video.writer import (
    MAX_TICKS_PER_SECOND,
    OutputClock,
    VideoWriter,
    common_tick,
    draft_path,
    partial_path,
)
from tests.video.clips import frames_on_disk, noise, square_frame, squares

PLAIN = {"width": 96, "height": 64, "fps": Fraction(25)}


def write(path, frames, fps=Fraction(25), times=None, **choices):
    height, width = frames[0].shape[:2]
    with VideoWriter(path, width=width, height=height, fps=fps, **choices) as writer:
        for number, image in enumerate(frames):
            writer.write(image, None if times is None else times[number])
    return path


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(24000, 1001)])
def test_codec_pixels_rate_and_fast_start(rate, tmp_path):
    path = write(tmp_path / "clip.mp4", squares(12), rate, pixel_aspect=Fraction(64, 45))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.codec_tag, context.pix_fmt) == ("h264", "avc1", "yuv420p")
        assert stream.average_rate == rate
    assert frames_on_disk(path) == [n / rate for n in range(12)]
    assert VideoReader(path).pixel_aspect == Fraction(64, 45)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_colours_survive(tmp_path):
    colors = [(0, 0, 255), (0, 255, 0), (255, 0, 0), (128, 128, 128), (0, 159, 230)]
    frames = [np.full((64, 96, 3), color, dtype=np.uint8) for color in colors for _ in range(2)]
    path = write(tmp_path / "colours.mp4", frames, crf=10)
    for read, frame in zip(VideoReader(path), frames, strict=True):
        assert np.abs(read.image.astype(int) - frame).max() <= 8


def test_odd_sizes_are_padded_by_a_pixel_and_said(tmp_path):
    image, path = square_frame(0, 95, 63), tmp_path / "odd.mp4"
    with VideoWriter(path, width=95, height=63, fps=Fraction(25), crf=5) as writer:
        writer.write(image)
    (note,) = writer.notes
    assert "padded by a pixel to 96 x 64" in note
    seen = next(iter(VideoReader(path))).image.astype(int)
    assert seen.shape == (64, 96, 3)
    assert np.abs(seen[:63, :95] - image).mean() < 4
    # The pixel that was added repeats the border: no dark line.
    assert np.abs(seen[-1] - 60).max() < 12
    assert np.abs(seen[:, -1] - 60).max() < 12


def test_the_same_frames_give_the_same_bytes(tmp_path):
    wide = np.concatenate([noise(12)] * 3, axis=2)[:, :, :256]
    first, second = (write(tmp_path / f"{name}.mp4", wide).read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_times_are_kept_within_half_a_tick_of_the_coarser_clock(suffix, tmp_path):
    tick, rate = Fraction(1, 90_000), Fraction(30000, 1001)
    coarser = Fraction(1, 1000) if suffix == ".mkv" else tick
    uneven = [t * tick for t in (4_000, 7_003, 9_777, 30_000, 30_900, 90_001)]
    path = write(tmp_path / f"a{suffix}", squares(6), Fraction(12), uneven, time_base=tick)
    even = write(tmp_path / f"b{suffix}", squares(40), rate)
    for written, times in ((path, uneven), (even, [n / rate for n in range(40)])):
        read = frames_on_disk(written)
        assert all(abs(a - b) <= coarser / 2 for a, b in zip(read, times, strict=True))


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ([], "no frame was written"),
        ([np.zeros((64, 95, 3), np.uint8)], r"expected uint8 \(64, 96, 3\)"),
        ([np.zeros((64, 96, 3), np.float32)], "float32"),
    ],
)
def test_no_frame_or_one_of_another_size_or_type_leaves_nothing(images, says, tmp_path):
    writer = VideoWriter(tmp_path / "clip.mp4", **PLAIN)
    with pytest.raises(MediaError, match=says), writer:
        collections.deque(map(writer.write, images))
    assert list(tmp_path.iterdir()) == []


RATES = st.sampled_from(
    [Fraction(n) for n in (1, 25, 60, 120)] + [Fraction(n, 1001) for n in (24000, 30000)]
) | st.just(Fraction(25, 3))
CLOCKS = st.sampled_from([1000, 12800, 30000, 90000, 600, 1_000_000]).map(lambda n: Fraction(1, n))
BEYOND_32_BITS = Fraction(1, 1_999_999_973)


@settings(max_examples=50)
@given(RATES, CLOCKS, st.integers(0, 10_000), st.lists(st.integers(0, 10**7), min_size=1))
def test_ticks_divide_both_clocks_and_increase(rate, clock, start, numbers):
    tick = common_tick(rate, clock)
    assert (1 / rate / tick).denominator == (clock / tick).denominator == 1
    assert tick.denominator <= MAX_TICKS_PER_SECOND
    assert common_tick(rate, BEYOND_32_BITS).denominator <= MAX_TICKS_PER_SECOND
    assert (1 / rate / common_tick(rate, BEYOND_32_BITS)).denominator == 1
    output, ordered = OutputClock(rate, clock), sorted(set(numbers))
    ticks = [output.ticks(n * clock) for n in ordered]
    assert all(a < b for a, b in itertools.pairwise(ticks))
    assert all(
        abs(t * output.tick - n * clock) <= clock / 2 for t, n in zip(ticks, ordered, strict=True)
    )
    assert output.ticks(Fraction(0)) == ticks[-1] + 1
    output, begin = OutputClock(rate, clock), start * clock
    rounded = [round((begin + n / rate) / clock) * clock for n in range(20)]
    if 1 / rate > 2 * clock:
        times = [output.ticks(time) * output.tick for time in rounded]
        assert times == [begin + n / rate for n in range(20)]


@pytest.mark.parametrize("fps", [1, 25])
def test_all_but_the_last_two_frames_are_on_the_disk_at_any_time(fps, tmp_path):
    target = tmp_path / "clip.mp4"
    with VideoWriter(target, width=96, height=64, fps=Fraction(fps)) as writer:
        for number in range(12):
            writer.write(square_frame(number))
            times = frames_on_disk(partial_path(target))
            assert times == [Fraction(n, fps) for n in range(number - 1)] or number == 0
        assert not target.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_failure_keeps_every_frame_and_what_was_there(tmp_path, caplog):
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"what was there")
    writer = VideoWriter(target, **PLAIN, overwrite=True)
    frames = itertools.chain(squares(40), [None])  # what is no image fails
    with pytest.raises(AttributeError), writer:
        collections.deque(map(writer.write, frames))
    partial = tmp_path / "clip.partial.mp4"
    assert target.read_bytes() == b"what was there"
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "clip.partial.mp4"}
    reader = VideoReader(partial)
    assert [frame.time for frame in reader] == [Fraction(n, 25) for n in range(40)]
    assert reader.damage == ""
    assert str(partial) in caplog.text


def test_what_appears_meanwhile_is_not_replaced(tmp_path):
    target = tmp_path / "clip.mp4"
    writer = VideoWriter(target, **PLAIN).__enter__()
    writer.write(square_frame(0))
    target.write_bytes(b"somebody else's")
    with pytest.raises(PartialMediaError, match=r"there already.*kept in .*clip\.partial"):
        writer.__exit__(None, None, None)
    assert target.read_bytes() == b"somebody else's"
    assert len(frames_on_disk(partial_path(target))) == 1
    assert not draft_path(target).exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("file", [partial_path, draft_path])
def test_a_full_disk_says_so_and_names_what_is_kept(file, tmp_path):
    target = tmp_path / "clip.mp4"
    file(target).symlink_to("/dev/full")
    writer = VideoWriter(target, **PLAIN, overwrite=True)
    with pytest.raises(PartialMediaError, match="the disk is full.*--overwrite") as caught, writer:
        collections.deque(map(writer.write, noise(60)))
    assert str(partial_path(target)) in str(caught.value)
    assert not target.exists()
    if file is draft_path:  # at the very end: nothing is lost
        assert len(frames_on_disk(partial_path(target))) == 60
        assert [path.name for path in tmp_path.iterdir()] == ["clip.partial.mp4"]


def test_trap_a_clip_that_lost_frames_on_the_way_is_not_handed_over(tmp_path, monkeypatch):
    target, other = tmp_path / "clip.mp4", write(tmp_path / "other.mp4", squares(7))
    remux = writer_module.remux
    monkeypatch.setattr(writer_module, "remux", lambda _, *rest: remux(other, *rest))
    writer = VideoWriter(target, **PLAIN)
    with pytest.raises(PartialMediaError, match="has 7 of 9 frames.*partial"), writer:
        collections.deque(map(writer.write, squares(9)))
    assert not target.exists()
    assert not draft_path(target).exists()
    assert len(frames_on_disk(partial_path(target))) == 9

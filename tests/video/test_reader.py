"""Reading clips: frames come out upright, timed and complete, or damage is reported."""

import itertools
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from persondet.errors import MediaError
from persondet.video import reader as reader_module
from persondet.video.reader import FrameTimes, VideoReader, skip_to
from tests.video.clips import cut, noise, noisy_clip, square_frame, squares, with_a_hole, write_clip

ONE = 1 << 16
# Display matrices (a b u c d v x y w), the corner to which each turns the upper left one, and
# whether width and height change places.
MATRICES = {
    "clockwise, as a phone": ((0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30), (4, -5), True),
    "counterclockwise": ((0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), (-5, 4), True),
    "mirrored": ((-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), (4, -5), False),
}


def test_frames_times_and_rate_are_the_sources(clip):
    with VideoReader(clip) as reader:
        assert (reader.width, reader.height) == (96, 64)
        assert reader.frame_rate == Fraction(30000, 1001)
        assert reader.announced_frames == 10
        frames = list(reader)
    times = [(frame.index, frame.time) for frame in frames]
    assert times == [(n, Fraction(1001 * n, 30000)) for n in range(10)]
    assert (reader.damage, reader.complete, reader.frames_read) == ("", True, 10)
    assert (frames[0].image.shape, frames[0].image.dtype) == ((64, 96, 3), np.uint8)
    with pytest.raises(RuntimeError, match="read once"):
        list(reader)


@pytest.mark.parametrize("name", MATRICES)
def test_rotation_is_applied_once_to_frame_and_pixel_aspect(name, tmp_path):
    matrix, corner, turned = MATRICES[name]
    image = np.zeros((48, 64, 3), dtype=np.uint8)
    image[:16, :16] = 255
    path = write_clip(tmp_path / "turned.mp4", [image], matrix=matrix, aspect=Fraction(4, 3))
    reader = VideoReader(path)
    frame = next(iter(reader)).image
    assert (reader.width, reader.height) == ((48, 64) if turned else (64, 48))
    assert reader.pixel_aspect == (Fraction(3, 4) if turned else Fraction(4, 3))
    assert frame.shape == (reader.height, reader.width, 3)
    bright = [at for at in ((4, 4), (4, -5), (-5, 4), (-5, -5)) if frame[at][0] > 128]
    assert bright == [corner]
    assert frame.flags.c_contiguous


def test_a_clip_that_tells_no_rate_has_that_of_its_time_stamps(tmp_path):
    ticks = np.cumsum([0, 41, 33, 67, 41, 41, 40])[1:]  # FFmpeg takes each tick for a frame
    choices = {"codec": "libvpx", "rate": Fraction(1000), "time_base": Fraction(1, 1000)}
    path = write_clip(tmp_path / "browser.webm", squares(6), times=ticks.tolist(), **choices)
    reader = VideoReader(path)
    assert reader.frame_rate == Fraction(1000, 41)
    assert [frame.time for frame in reader] == [Fraction(int(t - 41), 1000) for t in ticks]


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("blue.mkv", "ffv1", "bgr0"),
        ("ten bits.mp4", "libx264", "yuv420p10le"),
        ("422.mov", "prores_ks", "yuv422p10le"),
    ],
)
def test_pixels_of_every_kind_become_bgr(name, codec, pixels, tmp_path):
    given = np.repeat(np.arange(0, 240, 10, np.uint8), 4)[None, :, None]
    given = np.broadcast_to(given, (64, 96, 3)).copy()
    if name == "blue.mkv":
        given[:] = (255, 0, 0)
    path = write_clip(tmp_path / name, [given] * 2, codec=codec, pix_fmt=pixels)
    frames = list(VideoReader(path))
    assert (len(frames), frames[0].image.dtype) == (2, np.uint8)
    assert np.abs(frames[0].image.astype(int) - given).mean() < 3


# cd/m²: black, dark, middle grey, white, a lamp; and the signals of HLG and PQ for them
# (ITU-R BT.2408, table 1, and the formulas of BT.2100).
LIGHTS = np.array([0, 1, 26, 203, 1000])
HLG, PQ = np.array([[0, 0.0974, 0.3787, 0.75, 1], [0, 0.1499, 0.3793, 0.5807, 0.7518]])


@pytest.mark.parametrize(("transfer", "signal"), [(18, HLG), (16, PQ)])
def test_high_dynamic_range_becomes_standard_and_white_is_white(transfer, signal, tmp_path):
    given = np.broadcast_to(np.repeat(65535 * signal, 64)[:, None], (64, 320, 3)).astype(np.uint16)
    tags = {"color_trc": transfer, "color_primaries": 9, "colorspace": 9, "color_range": 1}
    choices = {"codec": "libx265", "pix_fmt": "yuv420p10le", "tags": tags}
    choices["options"] = {"x265-params": "bframes=0:pools=none:frame-threads=1"}
    reader = VideoReader(write_clip(tmp_path / "phone.mkv", [given], **choices))
    image = next(iter(reader)).image[32, 32::64]
    assert np.ptp(image, axis=1).max() <= 2  # grey stays grey
    _, dark, middle, white, lamp = image[:, 1].astype(float)
    standard = 255 * (LIGHTS / 203) ** (1 / 2.4)
    assert np.abs([dark, middle] - standard[1:3]).max() <= 5
    assert 231 <= white < 245 <= lamp
    assert "dynamic range" in reader.notes[0]


def test_interlaced_frames_have_no_comb_and_keep_their_times(tmp_path):
    frames = [square_frame(2 * number) for number in range(12)]
    for number, frame in enumerate(frames):
        frame[1::2] = square_frame(2 * number + 1)[1::2]  # the second field comes later
    choices = {"options": {"x264-params": "interlaced=1:tff=1", "crf": "5"}, "rate": Fraction(25)}
    reader = VideoReader(write_clip(tmp_path / "a.ts", frames, **choices))
    read = list(reader)
    assert [frame.time for frame in read] == [Fraction(n, 25) for n in range(12)]
    assert "deinterlaced" in reader.notes[0]
    for before, after in zip(frames[1:], read[1:], strict=True):
        comb, left = (
            np.abs(2 * image[22:33].astype(int) - image[21:32] - image[23:34]).mean()
            for image in (before, after.image)
        )
        assert comb > 15 > 4 > left


def test_a_packet_that_is_flagged_and_decodes_is_a_note_and_no_damage(tmp_path):
    path = noisy_clip(tmp_path / "a.ts", 12)
    data = bytearray(path.read_bytes())
    # The 4 bits that count a stream's packets jump, as where two recordings are joined.
    starts = [at for at in range(0, len(data), 188) if data[at + 1] & 0x5F == 0x41]
    for at in range(starts[6], len(data), 188):
        if (data[at + 1] & 0x1F, data[at + 2]) == (1, 0):
            data[at + 3] = data[at + 3] & 0xF0 | (data[at + 3] + 5) & 0x0F
    path.write_bytes(data)
    reader = VideoReader(path)
    assert (len(list(reader)), reader.damage) == (12, "")
    assert reader.notes[0].startswith("packets flagged as damaged: ")


def test_a_matroska_clip_whose_clock_begins_late_is_whole_and_as_long_as_it_is(tmp_path):
    times = [1_000_000 + 40 * number for number in range(6)]
    clock = {"times": times, "time_base": Fraction(1, 1000)}
    reader = VideoReader(write_clip(tmp_path / "a.mkv", squares(6), rate=Fraction(25), **clock))
    assert (reader.duration, reader.expected_frames) == (Fraction("0.24"), 6)
    assert [frame.time for frame in reader] == [Fraction(40 * n, 1000) for n in range(6)]
    assert (reader.damage, reader.complete) == ("", True)


def test_a_frame_that_decodes_with_errors_is_not_said_to_be_lost(tmp_path):
    # Encoded to the same bytes on every processor and every time, so that the same are damaged.
    same = {"x264-params": "asm=0:threads=1"}
    path = noisy_clip(tmp_path / "a.mp4", 20, options=same)
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    data[at : at + 4] = bytes(255 - value for value in data[at : at + 4])
    path.write_bytes(data)
    reader = VideoReader(path)
    assert len(list(reader)) == 20
    assert reader.damage == "the clip is damaged: 1 of its frames decoded with errors"


def test_a_matroska_clip_with_longer_sound_has_the_length_of_its_frames(tmp_path):
    path = noisy_clip(tmp_path / "a.mkv", 10, sound=["pcm_s16le"], sound_start=1)
    assert VideoReader(path).announced_frames == 10


FAST_START = {"container_options": {"movflags": "faststart"}}
FRAGMENTS = {"container_options": {"movflags": "frag_keyframe", "frag_duration": "300000"}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "choices"),
    [("a.mp4", FAST_START), ("a.mp4", FRAGMENTS), ("a.avi", {}), ("old.avi", {}), ("a.mkv", {})],
)
def test_a_cut_clip_gives_the_frames_it_has_and_says_so(name, choices, tmp_path):
    path = noisy_clip(tmp_path / name, 60, **choices)
    reader = VideoReader(path)
    assert (len(list(reader)), reader.damage) == (60, "")
    if name == "old.avi":  # as older programs write it: nothing at the front tells
        path.write_bytes(path.read_bytes().replace(b"indx", b"JUNK"))
    reader = VideoReader(cut(path))
    assert 15 <= len(list(reader)) <= 45
    assert reader.damage.startswith("the clip is cut: it should have ")


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.avi"])
def test_a_hole_costs_its_frames_only_and_is_noticed(name, tmp_path):
    path = with_a_hole(noisy_clip(tmp_path / name))
    reader = VideoReader(path)
    frames = list(reader)
    assert 15 < len(frames) < 40
    assert all(a.time < b.time for a, b in itertools.pairwise(frames))
    # Matroska's demuxer may pass over the hole; what is missing at the end then tells of it.
    told = ("the clip is damaged", "the clip is cut") if name == "a.mkv" else "the clip is damaged"
    assert reader.damage.startswith(told)
    if name == "a.avi":  # the frames behind the hole keep their numbers
        assert [frame.index for frame in frames] == [round(frame.time * 25) for frame in frames]
        part = list(VideoReader(path, start=frames[-3].time))
        assert [frame.index for frame in part] == [frame.index for frame in frames[-3:]]
    if name == "a.mp4":
        told = f"the clip is damaged: {40 - len(frames)} of its packets could not be decoded"
        assert reader.damage == told  # each packet holds a frame
        reader = VideoReader(path, end=Fraction(35, 25))
        assert 15 < len(list(reader)) < 35
        assert reader.damage.startswith("the clip is damaged")
        assert not reader.complete


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
def test_a_file_that_is_no_clip_is_refused(content, says, tmp_path):
    path = tmp_path / "no clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MediaError, match=rf"no clip\.mp4.*{says}"):
        VideoReader(path)
    with pytest.raises(MediaError, match="is a folder"):
        VideoReader(tmp_path)


@pytest.mark.parametrize("share", [0.1, 1])
def test_an_mp4_that_is_cut_before_or_in_its_index_is_refused(share, tmp_path):
    whole = noisy_clip(tmp_path / "cut.mp4").read_bytes()
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


# AVI stores when a frame is decoded; the reader tells when it is shown.
AVI = {"codec": "libx264", "pix_fmt": "yuv420p", "options": {"bf": "3", "b_strategy": "0"}}


@pytest.mark.parametrize(
    ("name", "announced", "choices"),
    [("a.h264", None, {}), ("a.ts", 40, {}), ("a.avi", 40, AVI)],
)
def test_frames_have_their_times_in_every_container(name, announced, choices, tmp_path):
    reader = VideoReader(noisy_clip(tmp_path / name, **choices))
    assert reader.announced_frames == announced
    assert [frame.time for frame in reader] == [Fraction(n, 25) for n in range(40)]
    assert reader.damage == ""


@pytest.mark.slow
def test_a_clock_that_begins_again_goes_on(tmp_path):
    once = noisy_clip(tmp_path / "once.ts", 60)
    twice = tmp_path / "twice.ts"
    twice.write_bytes(2 * once.read_bytes())
    reader = VideoReader(once)
    times = [frame.time for frame in reader]
    assert not reader.clock_restarts
    reader = VideoReader(twice)
    frames = list(reader)
    assert reader.clock_restarts
    later = [times[-1] + Fraction(1, 25) + time - times[0] for time in times]
    assert [frame.time for frame in frames] == times + later
    part = VideoReader(twice, start=frames[75].time)
    assert [(f.index, f.time) for f in part] == [(f.index, f.time) for f in frames[75:]]


def test_one_wrong_stamp_moves_no_other_frame():
    times = FrameTimes(Fraction(1, 1000), Fraction(25), Fraction(0))

    def shown(stamps):
        return [times.next(SimpleNamespace(pts=s, time_base=None)) * 1000 for s in stamps]

    assert shown([0, 40, 5000, 5040, 0, 5120]) == [0, 40, 5000, 5040, 5080, 5120]
    assert times.moved == 0
    assert shown([5160, 0, 40, 80, None]) == [5160, 5200, 5240, 5280, 5320]
    assert shown([80, 80]) == [5321, 5322]  # times always rise
    assert times.moved != 0


OPEN_GOP = {"x264-params": "open-gop=1:bframes=3:b-adapt=0"}
UNEVEN = [n * 40 + n % 3 * 7 + (500 if n > 30 else 0) for n in range(60)]
# name: (file, codec, options, times in milliseconds, whether the start need not be decoded)
PARTS = {
    "variable rate": ("a.mp4", "libx264", {}, UNEVEN, True),
    "matroska": ("a.mkv", "libx264", OPEN_GOP, None, True),
    "AVI": ("a.avi", "libx264", {"bf": "3"}, None, False),
    "broadcast": ("a.ts", "libx264", OPEN_GOP, None, True),
    "hidden frames": ("a.webm", "libvpx", {"cpu-used": "8", "auto-alt-ref": "1"}, None, False),
}
QUICK = {"variable rate", "matroska", "AVI"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in PARTS]
)
def test_a_part_is_that_part_of_the_whole(name, tmp_path, monkeypatch):
    file, codec, options, times, countable = PARTS[name]
    path = write_clip(
        tmp_path / file,
        [np.roll(noise(1, seed=1)[0], number, 1) for number in range(60)],
        rate=Fraction(25),
        codec=codec,
        options=options,
        gop=12,
        times=times,
        time_base=Fraction(1, 1000 if times else 25),
    )
    begins = []
    monkeypatch.setattr(
        reader_module, "skip_to", lambda *given: begins.append(skip_to(*given)) or begins[-1]
    )
    whole = list(VideoReader(path))
    for number in (0, 13, 36, 54):
        start = whole[number].time
        end = whole[number + 5].time  # that frame is no part of it
        for part in ({"start": start}, {"start": start - Fraction(1, 500), "end": end}):
            part["start"] = max(Fraction(0), part["start"])
            wanted = [f for f in whole if part["start"] <= f.time < part.get("end", 99)]
            for a, b in zip(VideoReader(path, **part), wanted, strict=True):
                assert (a.index, a.time) == (b.index, b.time)
                assert np.array_equal(a.image, b.image)
    assert bool(begins) == countable
    begins.clear()
    assert next(iter(VideoReader(path, start=whole[50].time))).index == 50
    assert len(begins) == countable
    assert all(36 <= index <= 50 for index, _ in begins)


@pytest.mark.parametrize(
    ("start", "end", "says"),
    [
        (-1, None, "from -1 s to the end; start must not be negative"),
        (3, 3, "from 3 s to 3 s; .* end must be later"),
        (100, None, r"no frame between the chosen start, 100 s, and end; .* end at 0\.30 s"),
    ],
)
def test_an_impossible_part_is_refused(start, end, says, clip):
    with pytest.raises(MediaError, match=says):
        VideoReader(clip, start=start, end=end)


def test_real_bad_files_are_refused_and_the_old_avi_is_read(real_data, tmp_path):
    folder = real_data / "bad-videos"
    names = sorted(path.name for path in folder.iterdir() if "no_people" not in path.name)
    assert len(names) == 4
    for name in names:
        with pytest.raises(MediaError, match=r"HTML page|address|bookmark"):
            VideoReader(folder / name)
    data = (folder / "vtest_ac3_no_people.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 20])
    reader = VideoReader(tmp_path / "cut.avi")
    assert 5 < len(list(reader)) < 100
    assert reader.damage == "the clip is cut: it should have 835 frames"

"""Sound: copied packet by packet, in step with the frames, or left out with a sentence."""

from __future__ import annotations

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest

from persondet.video.reader import VideoReader
from persondet.video.writer import VideoWriter

RATE = Fraction(30000, 1001)


def clip_with_sound(path, codecs=("aac",), sound_start=Fraction(0), frame_start=0, frames=40):
    """A clip with one noisy sound track per codec; starts in seconds and in frames."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        video.codec_context.time_base = 1 / RATE
        tracks = []
        for codec in codecs:
            rate = 8000 if codec.startswith("pcm") else 48000
            track = container.add_stream(codec, rate=rate)
            track.layout = "mono"
            tracks.append(track)
        for track in tracks:
            rate = track.rate
            samples = noise.normal(0, 3000, (1, int(rate * frames / RATE))).astype(np.int16)
            whole = av.AudioFrame.from_ndarray(samples, "s16", "mono")
            whole.sample_rate = rate
            start = int(sound_start * rate)
            resampler = av.AudioResampler(
                track.codec_context.format.name, "mono", rate, track.frame_size or 1024
            )
            for piece in [*resampler.resample(whole), *resampler.resample(None)]:
                piece.pts, piece.time_base = start, Fraction(1, rate)
                start += piece.samples
                container.mux(track.encode(piece))
            container.mux(track.encode(None))
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(
                noise.integers(0, 255, (64, 96, 3), np.uint8), format="bgr24"
            )
            frame.pts, frame.time_base = number + frame_start, 1 / RATE
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def packets_of(path):
    """Per sound track: (seconds from the clip's start, bytes) of each packet."""
    with av.open(str(path)) as container:
        # A warm-up of the sound before zero is no part of the clip.
        start = max(Fraction(0), Fraction(container.start_time or 0, av.time_base))
        tracks = {track.index: [] for track in container.streams.audio}
        if not tracks:
            return []
        for packet in container.demux(container.streams.audio):
            if packet.size:
                time = packet.pts * packet.time_base - start
                tracks[packet.stream_index].append((time, bytes(packet)))
    return list(tracks.values())


def annotated(source, target):
    with VideoReader(source) as reader:
        writer = VideoWriter(
            target,
            width=reader.width,
            height=reader.height,
            fps=reader.frame_rate,
            time_base=reader.time_base,
            sound_from=source if reader.sound else None,
        )
        with writer:
            for frame in reader:
                writer.write(frame.image, frame.time)
    return writer


SHIFTS = ["together", "sound later", "frames later"]


CASES = [
    ("a.mp4", ["aac"], "b.mp4"),
    ("a.mp4", ["aac"], "b.mkv"),
    ("a.mp4", ["mp3", "ac3"], "b.mov"),
    ("a.mp4", ["mp3", "ac3"], "b.mkv"),
    ("a.mkv", ["libopus"], "b.mp4"),
    ("a.mkv", ["flac", "aac"], "b.mp4"),
    ("a.mkv", ["pcm_u8"], "b.mkv"),
    ("a.avi", ["mp3"], "b.mp4"),
]


@pytest.mark.parametrize(
    ("source", "codecs", "target", "shift"),
    [
        # The rest of the combinations takes longer than it tells more.
        pytest.param(*case, shift, marks=() if number in (0, 9, 14) else pytest.mark.slow)
        for number, (case, shift) in enumerate(itertools.product(CASES, SHIFTS))
    ],
)
def test_packets_are_copied_bit_for_bit_and_in_step(source, codecs, target, shift, tmp_path):
    source = clip_with_sound(
        tmp_path / source,
        codecs,
        sound_start=Fraction(1, 4) if shift == "sound later" else Fraction(0),
        frame_start=9 if shift == "frames later" else 0,
    )
    assert annotated(source, tmp_path / target).notes == []
    given, copied = packets_of(source), packets_of(tmp_path / target)
    assert [[data for _, data in track] for track in copied] == [
        [data for _, data in track] for track in given
    ]
    assert all(len(track) > 5 for track in copied)
    coarser = Fraction(1, 1000)
    with VideoReader(source) as reader, VideoReader(tmp_path / target) as result:
        shifts = [a.time - b.time for a, b in zip(reader, result, strict=True)]
    sounds = [
        a[0] - b[0]
        for track, copy in zip(given, copied, strict=True)
        for a, b in zip(track, copy, strict=True)
    ]
    assert max(map(abs, shifts)) <= coarser / 2
    assert max(map(abs, sounds)) <= coarser


@pytest.mark.parametrize(
    ("source", "codecs", "target", "left_out", "advice", "known"),
    [
        ("in.mkv", ["pcm_u8", "aac"], "out.mp4", "pcm_u8", True, True),
        # Matroska does not hold it either.
        ("in.avi", ["pcm_mulaw"], "out.mp4", "pcm_mulaw", False, True),
        ("in.avi", ["pcm_mulaw"], "out.mkv", "pcm_mulaw", False, True),
        ("in.mkv", ["flac", "aac"], "out.mov", "flac", True, True),
        ("in.mkv", ["libopus", "aac"], "out.mov", "opus", True, True),
    ],
)
def test_a_track_that_the_container_refuses_is_left_out_and_costs_no_other(
    source, codecs, target, left_out, advice, known, tmp_path, monkeypatch
):
    if not known:  # FFmpeg refuses it only while writing
        monkeypatch.setattr("persondet.video.writer._REFUSED_AFTER_ALL", {})
    source, target = clip_with_sound(tmp_path / source, codecs), tmp_path / target
    note = f"the sound ({left_out}) is left out, as {target.suffix} cannot hold it"
    note += "; name the output out.mkv to keep it" if advice else ""
    assert annotated(source, target).notes == [note]
    assert packets_of(target) == packets_of(source)[1:]
    assert {path.name for path in tmp_path.iterdir()} == {source.name, target.name}


def test_sound_that_cannot_be_copied_at_all_leads_to_matroska(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise av.error.FFmpegError(22, "Invalid argument")

    source = clip_with_sound(tmp_path / "in.mkv")
    monkeypatch.setattr("persondet.video.writer._sound_packets", refuse)
    (note,) = annotated(source, tmp_path / "out.mp4").notes
    assert "could not be copied (Invalid argument); name the output out.mkv" in note
    assert "name the output" not in annotated(source, tmp_path / "out.mkv").notes[0]


def test_adts_headers_are_all_that_changes_between_a_broadcast_and_mp4(tmp_path):
    source = clip_with_sound(tmp_path / "broadcast.ts")
    assert annotated(source, tmp_path / "out.mp4").notes == []
    (given,), (copied,) = packets_of(source), packets_of(tmp_path / "out.mp4")
    assert [data[7:] for _, data in given] == [data for _, data in copied]


def test_sound_of_a_source_that_breaks_off_is_copied_as_far_as_it_goes(tmp_path):
    source = clip_with_sound(tmp_path / "whole.mkv", frames=60)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(source.read_bytes()[: source.stat().st_size * 2 // 3])
    annotated(cut, tmp_path / "out.mkv")
    (given,), (copied,) = packets_of(source), packets_of(tmp_path / "out.mkv")
    assert 5 < len(copied) < len(given)
    assert [data for _, data in copied] == [data for _, data in given[: len(copied)]]


def test_real_sound(real_data, tmp_path):
    source, target = real_data / "clips" / "legs.small.mp4", tmp_path / "legs.mp4"
    image = next(iter(VideoReader(source))).image
    size = {"width": image.shape[1], "height": image.shape[0]}
    with VideoWriter(target, **size, fps=Fraction(25), sound_from=source) as writer:
        writer.write(image)
    assert packets_of(target) == packets_of(source)


def test_a_layout_that_is_not_told_is_the_usual_one(tmp_path):
    with av.open(str(tmp_path / "old.avi"), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        track = container.add_stream("pcm_s16le", rate=8000)
        track.layout = "stereo"
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        samples = np.random.default_rng(0).integers(-99, 99, (1, 6400)).astype(np.int16)
        whole = av.AudioFrame.from_ndarray(samples, "s16", "stereo")
        whole.sample_rate, whole.pts = 8000, 0
        container.mux([*track.encode(whole), *track.encode(None), *video.encode(None)])
    for name in ("out.mp4", "out.mov", "out.mkv"):
        assert annotated(tmp_path / "old.avi", tmp_path / name).notes == []
        (given,), (copied,) = packets_of(tmp_path / "old.avi"), packets_of(tmp_path / name)
        assert b"".join(data for _, data in copied) == b"".join(data for _, data in given)
        with av.open(str(tmp_path / name)) as container:
            assert container.streams.audio[0].codec_context.layout.nb_channels == 2


def test_language_default_and_lengths_stay(tmp_path):
    source = clip_with_sound(tmp_path / "in.mkv", ["alac", "aac"])
    named = tmp_path / "named.mkv"
    with av.open(str(source)) as given, av.open(str(named), "w") as container:
        copies = {s.index: container.add_stream_from_template(s) for s in given.streams}
        copies[1].metadata["language"], copies[2].metadata["language"] = "deu", "fra"
        copies[2].disposition = av.stream.Disposition.default
        copies[1].disposition = 0
        for packet in given.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                container.mux_one(packet)
    assert annotated(named, tmp_path / "out.mp4").notes == []
    with av.open(str(tmp_path / "out.mp4")) as container:
        told = [(s.metadata.get("language"), s.disposition.value) for s in container.streams.audio]
        seconds = [s.duration * s.time_base for s in container.streams.audio]
    assert told == [("deu", 0), ("fra", 1)]
    given, copied = packets_of(named), packets_of(tmp_path / "out.mp4")
    assert [len(track) for track in copied] == [len(track) for track in given]
    assert seconds[0] == pytest.approx(40 / RATE, abs=0.1)

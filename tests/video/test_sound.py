"""Sound: copied packet by packet, in step with the pictures, or left out with a sentence."""

from __future__ import annotations

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest

from persondet.video.io import VideoReader, VideoWriter

RATE = Fraction(30000, 1001)


def clip_with_sound(path, codecs=("aac",), sound_start=Fraction(0), picture_start=0, frames=40):
    """A clip with one noisy sound track per codec; starts in seconds and in frames."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=RATE)
        pictures.width, pictures.height, pictures.pix_fmt = 96, 64, "yuv420p"
        pictures.codec_context.time_base = 1 / RATE
        tracks = []
        for codec in codecs:
            rate = 8000 if codec.startswith("pcm") else 48000
            track = container.add_stream(codec, rate=rate)
            track.layout = "mono"
            tracks.append(track)
        for track in tracks:
            rate = track.rate
            fifo = av.AudioFifo()
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
            del fifo
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(
                noise.integers(0, 255, (64, 96, 3), np.uint8), format="bgr24"
            )
            frame.pts, frame.time_base = number + picture_start, 1 / RATE
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
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


SHIFTS = ["together", "sound later", "pictures later"]
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
        picture_start=9 if shift == "pictures later" else 0,
    )
    writer = annotated(source, tmp_path / target)
    assert writer.notes == []
    given, copied = packets_of(source), packets_of(tmp_path / target)
    assert [[data for _, data in track] for track in copied] == [
        [data for _, data in track] for track in given
    ]
    assert all(len(track) > 5 for track in copied)
    coarser = Fraction(1, 1000)
    with VideoReader(source) as reader, VideoReader(tmp_path / target) as result:
        pictures = [a.time - b.time for a, b in zip(reader, result, strict=True)]
    sounds = [
        a[0] - b[0]
        for track, copy in zip(given, copied, strict=True)
        for a, b in zip(track, copy, strict=True)
    ]
    assert max(map(abs, pictures)) <= coarser / 2
    assert max(map(abs, sounds)) <= coarser


def test_sound_that_the_container_cannot_hold_is_left_out_and_said(tmp_path):
    source = clip_with_sound(tmp_path / "old.mkv", ["pcm_u8", "aac"])
    writer = annotated(source, tmp_path / "loud.mp4")
    assert writer.notes == [
        "the sound (pcm_u8) is left out, as .mp4 cannot hold it; name the output loud.mkv to "
        "keep it"
    ]
    assert len(packets_of(tmp_path / "loud.mp4")) == 1


def test_no_container_is_suggested_that_does_not_hold_the_sound_either(tmp_path):
    source = clip_with_sound(tmp_path / "telephone.avi", ["pcm_mulaw"])
    assert annotated(source, tmp_path / "out.mp4").notes == [
        "the sound (pcm_mulaw) is left out, as .mp4 cannot hold it"
    ]
    assert annotated(source, tmp_path / "out.mkv").notes == [
        "the sound (pcm_mulaw) is left out, as .mkv cannot hold it"
    ]
    assert len(packets_of(source)[0]) > 5
    assert list(tmp_path.glob("asked*")) == []


def test_adts_headers_are_all_that_changes_between_a_broadcast_and_mp4(tmp_path):
    source = clip_with_sound(tmp_path / "broadcast.ts")
    writer = annotated(source, tmp_path / "out.mp4")
    assert writer.notes == []
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


def test_without_a_source_there_is_no_sound(tmp_path):
    with VideoWriter(tmp_path / "mute.mp4", width=96, height=64, fps=Fraction(25)) as writer:
        writer.write(np.zeros((64, 96, 3), np.uint8))
    assert packets_of(tmp_path / "mute.mp4") == []
    assert not VideoReader(tmp_path / "mute.mp4").sound


def test_real_sound(real_data, tmp_path):
    source = real_data / "clips" / "legs.small.mp4"
    with VideoReader(source) as reader:
        assert reader.sound
        image = np.zeros((reader.height, reader.width, 3), np.uint8)
    with VideoWriter(
        tmp_path / "legs.mp4", width=image.shape[1], height=image.shape[0], fps=Fraction(25),
        sound_from=source,
    ) as writer:  # fmt: skip
        for _ in range(20):
            writer.write(image)
    (given,), (copied,) = packets_of(source), packets_of(tmp_path / "legs.mp4")
    assert copied == given

"""Sound: copied packet by packet, in step with the frames, or left out with a sentence."""

from fractions import Fraction

import av
import numpy as np
import pytest

from persondet.video.reader import VideoReader
from persondet.video.writer import VideoWriter
from tests.video.clips import RATE, squares, write_clip


def loud_clip(path, codecs=("aac",), frames=40, first=0, **choices):
    """A clip with a noisy track per codec; `first` is the number of the first frame."""
    times = range(first, first + frames)
    return write_clip(path, squares(frames), sound=codecs, times=times, **choices)


def packets_of(path):
    """Per sound track: (seconds from the clip's start, bytes) of each packet."""
    with av.open(str(path)) as container:
        # A warm-up of the sound before zero is no part of the clip.
        start = max(Fraction(0), Fraction(container.start_time or 0, av.time_base))
        tracks = {track.index: [] for track in container.streams.audio}
        for packet in container.demux(container.streams.audio) if tracks else ():
            if packet.size:
                time = packet.pts * packet.time_base - start
                tracks[packet.stream_index].append((time, bytes(packet)))
    return list(tracks.values())


def bytes_of(path):
    return [[data for _, data in track] for track in packets_of(path)]


def annotated(source, target):
    with VideoReader(source) as reader:
        size = {"width": reader.width, "height": reader.height, "fps": reader.frame_rate}
        with VideoWriter(target, **size, time_base=reader.time_base, sound_from=source) as writer:
            for frame in reader:
                writer.write(frame.image, frame.time)
    return writer


@pytest.mark.parametrize(
    ("source", "codecs", "target", "shift"),
    [
        ("a.mp4", ["aac"], "b.mp4", {}),
        ("a.mp4", ["mp3", "ac3"], "b.mkv", {"sound_start": Fraction(1, 4)}),
        ("a.mkv", ["libopus"], "b.mp4", {"first": 9}),
        ("a.avi", ["mp3"], "b.mov", {}),
    ],
)
def test_packets_are_copied_bit_for_bit_and_in_step(source, codecs, target, shift, tmp_path):
    source, target = loud_clip(tmp_path / source, codecs, **shift), tmp_path / target
    assert annotated(source, target).notes == []
    assert bytes_of(target) == bytes_of(source)
    given, copied = packets_of(source), packets_of(target)
    assert all(len(track) > 5 for track in copied)
    with VideoReader(source) as reader, VideoReader(target) as result:
        shifts = [a.time - b.time for a, b in zip(reader, result, strict=True)]
    for track, copy in zip(given, copied, strict=True):
        shifts += [a - b for (a, _), (b, _) in zip(track, copy, strict=True)]
    assert max(map(abs, shifts)) <= Fraction(1, 1000)


def samples_of(path):
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
        return np.concatenate([f.to_ndarray()[0].astype(float) for f in frames]), frames[0].rate


@pytest.mark.parametrize(
    ("source", "codec", "target"),
    [
        ("in.mkv", "pcm_s16le", "out.mp4"),  # no browser plays it
        ("in.avi", "pcm_mulaw", "out.mkv"),  # Matroska does not hold it
        ("in.mkv", "flac", "out.mov"),
    ],
)
def test_sound_that_is_not_played_becomes_aac(source, codec, target, tmp_path):
    source, target = loud_clip(tmp_path / source, [codec, "aac"]), tmp_path / target
    assert annotated(source, target).notes == [
        f"the sound ({codec}) becomes AAC, as few players know it in {target.suffix}"
    ]
    (given, rate), (coded, new_rate) = samples_of(source), samples_of(target)
    coded = coded[:: new_rate // rate][: len(given)]
    assert np.corrcoef(given[: len(coded)], coded)[0, 1] > 0.4  # noise: a sample off gives 0
    assert bytes_of(target)[1] == bytes_of(source)[1]
    assert {path.name for path in tmp_path.iterdir()} == {source.name, target.name}


@pytest.mark.parametrize(
    ("name", "choices", "header"),
    [("a.ts", {}, 7), ("a.avi", {"codecs": ["pcm_s16le"], "codec": "mpeg4"}, 0)],
)
def test_headers_and_layouts_become_the_usual_ones(name, choices, header, tmp_path):
    source, target = loud_clip(tmp_path / name, **choices), tmp_path / "out.mov"
    assert annotated(source, target).notes == []
    (given,), (copied,) = bytes_of(source), bytes_of(target)
    assert b"".join(copied) == b"".join(data[header:] for data in given)


def test_sound_of_a_source_that_breaks_off_is_copied_as_far_as_it_goes(tmp_path):
    source = loud_clip(tmp_path / "whole.mkv", frames=60)
    half = tmp_path / "half.mkv"
    half.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    annotated(half, tmp_path / "out.mkv")
    (given,), (copied,) = bytes_of(source), bytes_of(tmp_path / "out.mkv")
    assert 5 < len(copied) < len(given)
    assert copied == given[: len(copied)]


def test_language_default_and_lengths_stay(tmp_path):
    source, named = loud_clip(tmp_path / "in.mkv", ["alac", "aac"]), tmp_path / "named.mkv"
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
    assert bytes_of(tmp_path / "out.mp4") == bytes_of(named)  # the last packet, too
    assert seconds[0] == pytest.approx(40 / RATE, abs=0.1)

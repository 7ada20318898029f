"""The last step of writing a clip: its frames and the source's sound, copied packet by packet.

`remux` copies the crash-safe partial file and the sound into the final container, bit for bit:
nothing is decoded or encoded. `check_count` counts the frames of the result.
"""

from __future__ import annotations

import errno
import heapq
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
import av.error

from persondet.errors import MediaError
from persondet.video.source import clip_start, open_source, video_stream

FULL = {errno.ENOSPC, errno.EDQUOT}
CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
# Codecs that FFmpeg claims to write into a container, but then refuses.
_REFUSED_AFTER_ALL = {".mov": {"flac", "opus"}}
# The channel layout by number of channels, for sources that do not tell: mp4 must know it. As in
# FFmpeg's av_channel_layout_default.
_LAYOUTS = dict(enumerate(["mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1"], start=1))
# Sound may begin a moment before the frames, to warm up its decoder. Without this option the
# Matroska writer would move everything later, and the first frame would no longer be at zero.
_TIMES_AS_THEY_ARE = {"avoid_negative_ts": "disabled"}


def remux(
    partial: Path, draft: Path, target: Path, sound_from: str | Path | None, title: str = ""
) -> list[str]:
    """Copy the frames of `partial`, and sound, into `draft`, in the container of `target`'s name.

    mp4 and mov get their index in front (fast start). If one sound track cannot be copied, the
    others still are.

    Args:
        partial: the frames; draft: the file to write; target: the name that it will get.
        sound_from: the clip with the sound, or None.
        title: the clip's title in players.

    Returns: sentences on sound that was left out.

    Raises: av.error.FFmpegError: when a file cannot be written.
    """
    try:
        return _remux(partial, draft, target, sound_from, title, set())
    except (av.error.FFmpegError, MediaError) as error:
        if sound_from is None or getattr(error, "errno", None) in FULL:
            raise
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
    try:
        refused = _refused(draft, target, sound_from)
        return _remux(partial, draft, target, sound_from, title, refused)
    except (av.error.FFmpegError, MediaError) as error:
        if getattr(error, "errno", None) in FULL:
            raise
    notes = _remux(partial, draft, target, None, title, set())
    note = f"the sound is left out, as it could not be copied ({reason})"
    return [*notes, note + _use_matroska(target)]


def _use_matroska(target: Path) -> str:
    """Return the advice to use .mkv, "" if it is one already."""
    return (
        "" if target.suffix.lower() == ".mkv" else f"; name the output {target.stem}.mkv to keep it"
    )


def _refused(draft: Path, target: Path, sound_from: str | Path) -> set[int]:
    """Return the indices of the sound tracks that cannot be copied; tries each alone."""
    with open_source(sound_from) as source:
        tracks = {track.index for track in source.streams.audio}
    refused = set()
    for index in tracks:
        try:
            with (
                _new(draft, target, {}) as output,
                SoundSource(sound_from, output, target, refused=tracks - {index}) as sound,
            ):
                _mux(output, sound.copied_to(output))
        except av.error.FFmpegError as error:
            if error.errno in FULL:
                raise
            refused.add(index)
    return refused


def _new(draft: Path, target: Path, options: dict[str, str]) -> av.container.OutputContainer:
    """Open `draft` for writing in the container of `target`'s name."""
    container = CONTAINERS[target.suffix.lower()]
    return av.open(f"file:{draft.resolve()}", "w", format=container, options=options)


def _remux(
    partial: Path,
    draft: Path,
    target: Path,
    sound_from: str | Path | None,
    title: str,
    refused: set[int],
) -> list[str]:
    """Remux without the sound tracks whose indices are in `refused`."""
    with ExitStack() as stack:
        source = stack.enter_context(av.open(f"file:{partial.resolve()}"))
        original = source.streams.video[0]
        options = _TIMES_AS_THEY_ARE
        if target.suffix.lower() != ".mkv":
            options = {"movflags": "+faststart", **movie_clock(Fraction(original.time_base or 1))}
        output = stack.enter_context(_new(draft, target, options))
        if title:
            output.metadata["title"] = title
        copy = {0: _copy_of(output, original)}
        frames = _retargeted((packet for packet in source.demux(original) if packet.size), copy)
        if sound_from is None:
            _mux(output, frames)
            return []
        sound = stack.enter_context(SoundSource(sound_from, output, target, refused=refused))
        _mux(output, heapq.merge(frames, sound.copied_to(output), key=_seconds))
        return sound.notes


def movie_clock(tick: Fraction) -> dict[str, str]:
    """Return the mp4 option that lets tracks begin at any tick (seconds).

    The start of a track is stored in the clock of the whole file: milliseconds by default.
    """
    return {"movie_timescale": str(tick.denominator * -(-1000 // tick.denominator))}


def check_count(draft: Path, target: Path, expected: int) -> None:
    """Refuse a finished clip (to become `target`) that lacks frames or does not decode.

    Raises: MediaError: when it has another number of frames, or cannot be read.
    """
    try:
        with av.open(f"file:{draft.resolve()}") as container:
            stream = container.streams.video[0]
            count = sum(packet.size > 0 for packet in container.demux(stream))
            container.seek(0)
            next(container.decode(stream))
    except (av.error.FFmpegError, StopIteration, IndexError) as error:
        reason = getattr(error, "strerror", None) or "it holds no frame"
        raise MediaError(f"{target}: the finished clip cannot be read again ({reason}).") from error
    if count != expected:
        raise MediaError(f"{target}: the finished clip has {count} of {expected} frames.")


class SoundSource:
    """The sound tracks of a clip that a container can hold; a context manager.

    Attributes:
        tracks: the streams to copy.
        notes: one sentence for each track that is left out.
    """

    def __init__(
        self,
        source: str | Path,
        output: av.container.OutputContainer,
        target: Path,
        *,
        refused: Collection[int] = (),
    ):
        """Choose the tracks of `source` that `output`, which becomes `target`, can hold.

        Args:
            refused: indices of tracks that turned out not to be writable.

        Raises: MediaError: when the source cannot be opened any more.
        """
        self._container = open_source(source)
        self.notes: list[str] = []
        self.tracks: list[av.AudioStream] = []
        suffix = target.suffix.lower()
        if self._container.duration is None:
            self.notes.append("the sound is left out, as the source is live and was not recorded")
            return
        holds = output.supported_codecs - _REFUSED_AFTER_ALL.get(suffix, set())
        for track in self._container.streams.audio:
            codec = track.codec.canonical_name
            if codec in holds and track.index not in refused:
                self.tracks.append(track)
                continue
            note = f"the sound ({codec}) is left out, as {suffix} cannot hold it"
            # The container that is asked here is never written.
            if codec in av.open("file:asked.mkv", "w", format="matroska").supported_codecs:
                note += _use_matroska(target)
            if note not in self.notes:
                self.notes.append(note)

    def __enter__(self) -> SoundSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self._container.close()

    def copied_to(self, output: av.container.OutputContainer) -> Iterator[av.Packet]:
        """Return the packets of the tracks, ready for copies of these tracks in `output`."""
        copies = {track.index: _copy_of(output, track) for track in self.tracks}
        return _retargeted(self.packets(), copies)

    def packets(self) -> Iterator[av.Packet]:
        """Yield the tracks' packets in order, timed from the start of the clip.

        A source that breaks in the middle ends there.
        """
        if not self.tracks:
            return
        origin = clip_start(self._container, video_stream(self._container, ""))
        lengths: dict[int, int] = {}
        last: dict[int, int] = {}
        try:
            for packet in self._container.demux(self.tracks):
                if packet.size == 0:
                    continue
                # As the reader moves the frames: sound and frames stay in step.
                ticks = round(origin / packet.time_base)
                if packet.pts is not None:
                    packet.pts -= ticks
                # mp4 needs the duration of the last packet; the one before tells it if the
                # source does not.
                if packet.dts is not None:
                    packet.dts -= ticks
                    track = packet.stream_index
                    lengths[track] = packet.dts - last.get(track, packet.dts)
                    last[track] = packet.dts
                packet.duration = packet.duration or max(0, lengths.get(packet.stream_index, 0))
                yield packet
        except av.error.FFmpegError as error:
            self.notes.append(f"the sound ends early, as the source does ({error.strerror})")


def _copy_of(output: av.container.OutputContainer, stream: av.stream.Stream) -> av.stream.Stream:
    """Add a stream with the parameters and the clock of another; of sound, the language too."""
    copy = output.add_stream_from_template(stream)
    copy.time_base = stream.time_base
    if isinstance(stream, av.AudioStream) and isinstance(copy, av.AudioStream):
        layout = stream.codec_context.layout
        if layout.name == f"{layout.nb_channels} channels" and layout.nb_channels in _LAYOUTS:
            copy.codec_context.layout = av.AudioLayout(_LAYOUTS[layout.nb_channels])
        for key in ("language", "title"):
            if key in stream.metadata:
                copy.metadata[key] = stream.metadata[key]
        copy.disposition = stream.disposition
    return copy


def _retargeted(
    packets: Iterator[av.Packet], streams: dict[int, av.stream.Stream]
) -> Iterator[av.Packet]:
    """Move packets from their stream to the one with the same index in `streams`."""
    for packet in packets:
        packet.stream = streams[packet.stream_index]
        yield packet


def _seconds(packet: av.Packet) -> float:
    """Return the decoding time, which keeps sound and frames side by side in the file."""
    ticks = packet.dts if packet.dts is not None else packet.pts
    return 0.0 if ticks is None else float(ticks * packet.time_base)


def _mux(output: av.container.OutputContainer, packets: Iterator[av.Packet]) -> None:
    for packet in packets:
        output.mux_one(packet)

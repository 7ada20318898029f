"""From the crash-safe partial file to the clip that is handed over: remuxed and counted."""

from __future__ import annotations

import errno
import heapq
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
import av.error

from persondet.errors import MediaError
from persondet.video.io.sound import SoundSource
from persondet.video.io.source import open_source

FULL = {errno.ENOSPC, errno.EDQUOT}
CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
# Which speaker gets which channel where the source does not tell: mp4 must know it. As FFmpeg's
# av_channel_layout_default.
_LAYOUTS = dict(enumerate(["mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1"], start=1))
# Sound may begin a moment before the pictures, to warm its decoder up: left alone, the Matroska
# writer would move everything later, so that the first picture is at zero no more.
_TIMES_AS_THEY_ARE = {"avoid_negative_ts": "disabled"}


def remux(
    partial: Path, draft: Path, target: Path, sound_from: str | Path | None, title: str = ""
) -> list[str]:
    """Copy the pictures of `partial`, and sound, into `draft`, the container of `target`'s name.

    Packets are copied bit for bit; mp4 and mov get their index in front (fast start). A track of
    sound that cannot be copied is left out; the others are kept.

    Args:
        partial: the pictures; draft: the file to write; target: the name that it will get.
        sound_from: the clip whose sound is copied, or None.
        title: what a player shows as the clip's title.

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
        return _remux(
            partial, draft, target, sound_from, title, _refused(draft, target, sound_from)
        )
    except (av.error.FFmpegError, MediaError) as error:
        if getattr(error, "errno", None) in FULL:
            raise
    notes = _remux(partial, draft, target, None, title, set())
    note = f"the sound is left out, as it could not be copied ({reason})"
    if target.suffix.lower() != ".mkv":
        note += f"; name the output {target.stem}.mkv to keep it"
    return [*notes, note]


def _refused(draft: Path, target: Path, sound_from: str | Path) -> set[int]:
    """Return the indices of the sound tracks that cannot be copied, each tried alone."""
    suffix = target.suffix.lower()
    with open_source(sound_from) as source:
        tracks = {track.index for track in source.streams.audio}
    refused = set()
    for index in tracks:
        try:
            with (
                av.open(f"file:{draft.resolve()}", "w", format=CONTAINERS[suffix]) as output,
                SoundSource(sound_from, output, target, refused=tracks - {index}) as sound,
            ):
                copies = {track.index: _copy_of(output, track) for track in sound.tracks}
                _mux(output, _retargeted(sound.packets(), copies))
        except av.error.FFmpegError as error:
            if error.errno in FULL:
                raise
            refused.add(index)
    return refused


def _remux(
    partial: Path,
    draft: Path,
    target: Path,
    sound_from: str | Path | None,
    title: str,
    refused: set[int],
) -> list[str]:
    """Do what `remux` says, without the sound tracks with the indices `refused`."""
    suffix = target.suffix.lower()
    with ExitStack() as stack:
        pictures = stack.enter_context(av.open(f"file:{partial.resolve()}"))
        original = pictures.streams.video[0]
        options = _TIMES_AS_THEY_ARE
        if suffix != ".mkv":
            options = {"movflags": "+faststart", **movie_clock(Fraction(original.time_base or 1))}
        output = stack.enter_context(
            av.open(f"file:{draft.resolve()}", "w", format=CONTAINERS[suffix], options=options)
        )
        if title:
            output.metadata["title"] = title
        stream = _copy_of(output, original)
        if sound_from is None:
            _mux(output, _retargeted(_packets(pictures), {0: stream}))
            return []
        with SoundSource(sound_from, output, target, refused=refused) as sound:
            tracks = {track.index: _copy_of(output, track) for track in sound.tracks}
            _mux(
                output,
                heapq.merge(
                    _retargeted(_packets(pictures), {0: stream}),
                    _retargeted(sound.packets(), tracks),
                    key=_seconds,
                ),
            )
            return sound.notes


def movie_clock(tick: Fraction) -> dict[str, str]:
    """Return the option of an mp4 by which its tracks can begin at any tick (in seconds).

    The moment is told on the clock of the whole file, which has milliseconds when left alone.
    """
    return {"movie_timescale": str(tick.denominator * -(-1000 // tick.denominator))}


def count_pictures(path: Path) -> int:
    """Return the number of pictures in a finished clip, whose first one must decode.

    Raises: av.error.FFmpegError: when the file cannot be read.
    """
    with av.open(f"file:{path.resolve()}") as container:
        stream = container.streams.video[0]
        count = sum(packet.size > 0 for packet in container.demux(stream))
        container.seek(0)
        next(container.decode(stream))
    return count


def check_count(draft: Path, target: Path, expected: int) -> None:
    """Refuse a clip, to become `target`, that does not have all its pictures.

    Raises: MediaError: when it has another number of them, or cannot be read.
    """
    try:
        count = count_pictures(draft)
    except (av.error.FFmpegError, StopIteration, IndexError) as error:
        reason = getattr(error, "strerror", None) or "it holds no picture"
        raise MediaError(f"{target}: the finished clip cannot be read again ({reason}).") from error
    if count != expected:
        raise MediaError(f"{target}: the finished clip has {count} of {expected} frames.")


def _copy_of(output: av.container.OutputContainer, stream: av.stream.Stream) -> av.stream.Stream:
    """Add a stream with the parameters, the clock and, of sound, the language of another one."""
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


def _packets(container: av.container.InputContainer) -> Iterator[av.Packet]:
    """Yield the packets of the first picture stream, without the empty one at the end."""
    for packet in container.demux(container.streams.video[0]):
        if packet.size > 0:
            yield packet


def _retargeted(
    packets: Iterator[av.Packet], streams: dict[int, av.stream.Stream]
) -> Iterator[av.Packet]:
    """Hand packets over from their stream to the one with the same key in `streams`."""
    for packet in packets:
        packet.stream = streams[packet.stream_index]
        yield packet


def _seconds(packet: av.Packet) -> float:
    """Return when a packet is decoded, to keep sound and pictures side by side in the file."""
    ticks = packet.dts if packet.dts is not None else packet.pts
    return 0.0 if ticks is None else float(ticks * packet.time_base)


def _mux(output: av.container.OutputContainer, packets: Iterator[av.Packet]) -> None:
    for packet in packets:
        output.mux_one(packet)

"""From the crash-safe partial file to the clip that is handed over: remuxed and counted."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
import av.error

from persondet.errors import MediaError
from persondet.video.io.sound import SoundSource

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
# Sound may begin a moment before the pictures, to warm its decoder up: left alone, the Matroska
# writer would move everything later, so that the first picture is at zero no more.
_TIMES_AS_THEY_ARE = {"avoid_negative_ts": "disabled"}


def remux(partial: Path, draft: Path, target: Path, sound_from: str | Path | None) -> list[str]:
    """Copy the pictures of `partial`, and sound, into `draft`, the container of `target`'s name.

    Packets are copied bit for bit; mp4 and mov get their index in front (fast start).

    Returns: sentences on sound that was left out.

    Raises: av.error.FFmpegError: when a file cannot be written or the sound cannot be copied.
    """
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
        stream = _copy_of(output, original)
        if sound_from is None:
            _mux(output, _retargeted(_packets(pictures), {0: stream}))
            return []
        with SoundSource(sound_from, output, target) as sound:
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
    """Add a stream with the parameters and the clock of another one."""
    copy = output.add_stream_from_template(stream)
    copy.time_base = stream.time_base
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

"""Starting in the middle of a clip: what comes before is counted, not decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import av

# Codecs of which every packet is one picture, so that packets can be counted instead of pictures.
COUNTABLE = frozenset(
    "av1 dnxhd ffv1 h263 h264 hevc libdav1d mjpeg mpeg2video mpeg4 prores rawvideo vp9".split()
)
# With few key frames it is decoded from further ahead, rather than kept in memory.
MOST_BYTES_HELD = 64 * 2**20
# A decoding time this far (seconds) before the last one is another clock's.
_RESTART = 1


class UncountableError(Exception):
    """The packets do not tell the number of pictures: the clip must be decoded from its start."""


@dataclass(frozen=True)
class Skipped:
    """Where decoding begins.

    index: position of the first picture in the clip; pts: its time stamp in ticks of the stream;
    packets: what was read from its key frame on, to be decoded first.
    """

    index: int
    pts: int
    packets: list[av.Packet]


def skip_to(packets: Iterator[av.Packet], pts: int) -> Skipped:
    """Read packets up to the last key frame that is shown at `pts` or before.

    Raises: UncountableError: when a packet lacks a time stamp or is damaged, the clock begins
        again, or the clip begins with pictures that need earlier ones.
    """
    held: list[av.Packet] = []
    last: int | None = None
    before = size = 0
    for packet in packets:
        if packet.size == 0:  # the end of the clip
            held.append(packet)
            break
        if packet.pts is None or packet.is_corrupt:
            raise UncountableError
        if packet.dts is not None and packet.time_base is not None:
            if last is not None and (packet.dts - last) * packet.time_base < -_RESTART:
                raise UncountableError
            last = packet.dts
        if packet.is_keyframe:
            if packet.pts > pts:
                held.append(packet)
                break
            if held and not before:
                _check_beginning(held)
            before += sum(not other.is_discard for other in held)
            held, size = [], 0
        elif not held:
            raise UncountableError
        held.append(packet)
        size += packet.size
        # What is decoded later is shown later than this packet's decoding time.
        enough = packet.dts is not None and packet.dts > pts
        if enough or size > MOST_BYTES_HELD:
            break
    if not held or held[0].pts is None or held[0].pts > pts:
        raise UncountableError  # an empty clip, or one that begins later: nothing to skip
    if not before:
        _check_beginning(held)
    return Skipped(before + len(_leading(held)), held[0].pts, held)


def _leading(held: list[av.Packet]) -> list[av.Packet]:
    """Return what follows the key frame in the file and precedes it on the screen."""
    first = held[0].pts or 0
    return [p for p in held[1:] if p.pts is not None and p.pts < first and not p.is_discard]


def _check_beginning(held: list[av.Packet]) -> None:
    """Refuse a clip that begins with pictures which a decoder may show or leave out."""
    if _leading(held) or held[0].is_discard:
        raise UncountableError

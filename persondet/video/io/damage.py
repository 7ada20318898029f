"""What a clip lacks although FFmpeg read it without complaint: a cut end, a part that is broken."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import av

from persondet.errors import MediaError
from persondet.video.address import is_address, local_path, shown
from persondet.video.io.header import picture_stream
from persondet.video.io.truncation import BROKEN, CUT, file_damage, lacks_index

_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
# Durations are rounded, and the last picture may be shown for longer than the others.
_TOLERANCE = Fraction(1, 2)


def pictures_of(container: av.container.InputContainer, source: str | Path) -> av.VideoStream:
    """Return the main picture stream of a clip.

    Raises: MediaError: when there is none, or the index that tells where it is is cut off.
    """
    try:
        return picture_stream(container, shown(source))
    except MediaError as error:
        if is_address(source) or not lacks_index(local_path(source)):
            raise
        raise MediaError(
            f"{shown(source)}: cannot be read as a video; it is cut: its index ends early, so copy "
            "it again."
        ) from error


def silent_damage(
    source: str | Path,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    *,
    announced: int | None,
    found: int,
    until: Fraction,
) -> str:
    """Say in one sentence what is missing of a clip that was read to its end, or "".

    Args:
        source: the file or address.
        container, stream: what was read.
        announced: the number of frames that the header tells, or None.
        found: frames that were decoded; until: the moment (seconds) at which the last one ends.
    """
    if is_address(source):
        length = _length_of_pictures(container, stream)
        short = length is not None and until < length - _TOLERANCE
        damage = CUT if short else ""
    else:
        path = local_path(source)
        entries = stream.index_entries
        damage = file_damage(path)
        if len(entries) > 0 and entries[-1].pos + entries[-1].size > path.stat().st_size:
            damage = CUT
    if damage == BROKEN:
        return "the clip is damaged: a part of the file cannot be read, and frames are missing"
    if not damage:
        return ""
    if announced is None:
        return "the clip is cut: the file is shorter than it says itself"
    if found >= announced:
        return f"the file is cut at its end, but all its {announced} frames are there"
    return f"the clip is cut: it should have {announced} frames"


def _length_of_pictures(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Fraction | None:
    """Return how many seconds of pictures the header promises; None: unknown.

    The length of the whole file says nothing about the pictures where there is sound.
    """
    told = _CLOCK.fullmatch(stream.metadata.get("DURATION", "").strip())
    if told is not None:
        return int(told[1]) * 3600 + int(told[2]) * 60 + Fraction(told[3])
    if stream.duration and stream.time_base:
        return stream.duration * stream.time_base
    if container.duration and len(container.streams) == 1:
        return Fraction(container.duration, av.time_base)
    return None

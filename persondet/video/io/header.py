"""What the header of a clip tells, made the best of: its main stream, its rate, its length."""

from __future__ import annotations

from fractions import Fraction

import av

from persondet.errors import MediaError

DEFAULT_FRAME_RATE = Fraction(25)


def picture_stream(container: av.container.InputContainer, label: str) -> av.VideoStream:
    """Return the main picture stream; cover art of a sound file is none.

    Raises: MediaError: when there is none.
    """
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not streams:
        raise MediaError(f"{label}: the file has no picture stream; give a video file.")
    best = container.streams.best("video")
    return best if best in streams else streams[0]


def clip_start(container: av.container.InputContainer, pictures: av.VideoStream) -> Fraction:
    """Return the time stamp, in seconds, that counts as the start of a clip.

    Sound that begins before zero, to warm its decoder up, does not move the pictures.
    """
    start = Fraction(container.start_time or 0, av.time_base)
    if start >= 0 or pictures.start_time is None or pictures.time_base is None:
        return start
    return max(start, min(Fraction(0), pictures.start_time * pictures.time_base))


def title(container: av.container.InputContainer) -> str:
    """Return the title of a clip, or ""."""
    found = (value for key, value in container.metadata.items() if key.lower() == "title")
    return next(found, "")


def left_out(container: av.container.InputContainer, pictures: av.VideoStream) -> str:
    """Say what a clip has besides its main pictures and sound: "2 subtitle tracks", or ""."""
    further = [
        stream
        for stream in container.streams.video
        if stream.index != pictures.index
        and not stream.disposition & av.stream.Disposition.attached_pic
    ]
    counts = {"picture": len(further), "subtitle": len(container.streams.subtitles)}
    told = [
        f"{count} {'further ' if kind == 'picture' else ''}{kind} track{'s' * (count > 1)}"
        for kind, count in counts.items()
        if count
    ]
    return " and ".join(told)


def frame_rate(stream: av.VideoStream) -> Fraction:
    """Return the nominal rate where it agrees with the average one, else the average."""
    nominal, average = stream.base_rate, stream.average_rate
    if not average:
        average = stream.guessed_rate or nominal
    if nominal and average and abs(nominal / average - 1) < Fraction(1, 100):
        # The average of a short clip is off by its last frame's duration; the nominal is not.
        return Fraction(nominal)
    return Fraction(average).limit_denominator(100_000) if average else DEFAULT_FRAME_RATE


def expected_frames(
    announced: int | None,
    duration: Fraction | None,
    rate: Fraction,
    start: Fraction | None,
    end: Fraction | None,
) -> int | None:
    """Return how many of the announced frames lie between start and end (seconds), or None."""
    if start is None and end is None:
        return announced
    first = start or Fraction(0)
    if announced is None:
        return None if end is None else max(1, round((end - first) * rate))
    whole = duration or announced / rate
    until = whole if end is None else min(whole, end)
    return max(1, round(announced * max(Fraction(0), until - first) / whole))

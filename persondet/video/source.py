"""The source of a clip, a local file or a network address: opening it, what its header says.

FFmpeg opens both. Labels for logs and records never show the secrets of an address. The header
gives the main video stream, the frame rate and the length. `is_cut` tells what FFmpeg does not: a
clip lacks its end.
"""

from __future__ import annotations

import re
from contextlib import suppress
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from statistics import StatisticsError, median_low
from urllib.parse import unquote, urlsplit

import av
import av.error

from persondet.errors import MediaError
from persondet.files import describe_foreign_file

ANSWER_SECONDS = 30.0
DEFAULT_FRAME_RATE = Fraction(25)
_FASTEST = 240  # frames per second of a camera
_PACKETS_MEASURED = 200
# Nothing from the network may lead to a local file, and no file to the network.
_FILES = "file,crypto,data"
_NETWORK = (
    "http,https,httpproxy,tcp,tls,udp,udplite,rtp,srtp,rtsp,rtmp,rtmpe,rtmps,rtmpt,rtmpte,rtmpts,"
    "ffrtmphttp,ffrtmpcrypt,mmsh,mmst,ftp,hls,srt,rist,sctp,crypto,data"
)
_SCHEMES = set(_NETWORK.split(",")) - {"crypto", "data", "tls", "httpproxy"}
_ADDRESS = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+://", re.I)
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
# Lengths in headers are rounded, and the last frame may be shown for longer than the others.
_TOLERANCE = Fraction(1, 2)


def is_address(source: str | Path) -> bool:
    """Return whether `source` is a network address (`https://…`, `rtsp://…`) and not a file."""
    return isinstance(source, str) and _ADDRESS.match(source) is not None


def local_path(source: str | Path) -> Path:
    """Return the path of a file, given as a path or as `file://…`."""
    if isinstance(source, str) and source.lower().startswith("file://"):
        return Path(unquote(urlsplit(source).path))
    return Path(source)


def shown(source: str | Path) -> str:
    """Return a label for logs, errors and records: no user, password, query or fragment.

    If the parts of an address are ambiguous, the label is its scheme alone.
    """
    if not is_address(source):
        return str(local_path(source))
    scheme, _, rest = str(source).partition("://")
    scheme = scheme.lower()
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = re.split(r"[?#]", rest[len(host) :], maxsplit=1)[0]
    if "@" not in host and "@" in rest and ":" in host:
        return f"{scheme}://…"  # a password with an unescaped / ? or # in it
    return f"{scheme}://{host.rpartition('@')[2]}{path}"


def shown_name(source: str | Path) -> str:
    """Return the last part of the label: the name of a file or of an address."""
    label = shown(source)
    return label.rstrip("/").rpartition("/")[2] or label


def open_source(source: str | Path) -> av.container.InputContainer:
    """Open a clip for demuxing.

    Raises: MediaError: when it is missing, does not answer, or is not a clip.
    """
    return _open_address(str(source)) if is_address(source) else _open_file(local_path(source))


def _open_file(path: Path) -> av.container.InputContainer:
    """Open a local file; neither its name nor its content can lead to the network."""
    if not path.is_file():
        problem = "is a folder, not a clip" if path.is_dir() else "does not exist"
        raise MediaError(f"{path} {problem}; give the name of a video file.")
    try:
        return av.open(f"file:{path.resolve()}", container_options={"protocol_whitelist": _FILES})
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        known = describe_foreign_file(path) or (
            f"it is cut, damaged or no video ({reason}), so copy or download it again, or convert "
            "it"
        )
        raise MediaError(f"{path}: cannot be read as a video; {known}.") from error


def _open_address(address: str) -> av.container.InputContainer:
    """Open an address; FFmpeg's own message is not repeated, because it holds the password."""
    label = shown(address)
    scheme = label.partition(":")[0]
    if scheme not in _SCHEMES:
        raise MediaError(
            f"{label}: addresses that begin with {scheme}:// are not opened; use http, https, "
            "rtsp, rtmp, srt or ftp, or download the file."
        )
    try:
        return av.open(
            address,
            timeout=(ANSWER_SECONDS, ANSWER_SECONDS),
            container_options={"protocol_whitelist": _NETWORK},
        )
    except av.error.ExitError:
        reason = f"it did not answer within {ANSWER_SECONDS:.0f} seconds"
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not a valid address"
    # Raised here and not above: the first error's text would travel along as its context.
    raise MediaError(f"{label}: cannot be read as a video; {reason}.")


def _videos(container: av.container.InputContainer) -> list[av.VideoStream]:
    """Return the video streams, without the cover art of a sound file."""
    cover = av.stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & cover]


def video_stream(container: av.container.InputContainer, source: str | Path) -> av.VideoStream:
    """Return the main video stream of a clip.

    Raises: MediaError: when there is none.
    """
    streams = _videos(container)
    if not streams:
        raise MediaError(
            f"{shown(source)}: the file has no video stream, or is cut; give a whole video file."
        )
    best = container.streams.best("video")
    return best if best in streams else streams[0]


def clip_start(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction:
    """Return the time stamp, in seconds, that counts as the start of a clip.

    Sound that begins before zero, to warm up its decoder, does not move the frames.
    """
    start = Fraction(container.start_time or 0, av.time_base)
    if start >= 0 or stream.start_time is None or stream.time_base is None:
        return start
    return max(start, min(Fraction(0), stream.start_time * stream.time_base))


def left_out(container: av.container.InputContainer) -> str:
    """Name the tracks besides the main video and the sound: "2 subtitle tracks", or ""."""
    counts = {"further video": len(_videos(container)) - 1}
    counts["subtitle"] = len(container.streams.subtitles)
    return " and ".join(f"{n} {kind} track{'s' * (n > 1)}" for kind, n in counts.items() if n)


def frame_rate(stream: av.VideoStream, source: str | Path) -> Fraction:
    """Return the nominal rate if it agrees with the average one, else the average.

    Where the clip tells neither, FFmpeg takes each tick of its clock for a frame; the rate then
    follows from the time stamps.
    """
    nominal = stream.base_rate
    average = stream.average_rate or stream.guessed_rate or nominal
    if average and average > _FASTEST:
        return _measured_rate(source)
    if nominal and average and abs(nominal / average - 1) < Fraction(1, 100):
        # The average of a short clip is off by its last frame's duration; the nominal is not.
        return Fraction(nominal)
    return Fraction(average).limit_denominator(100_000) if average else DEFAULT_FRAME_RATE


def _measured_rate(source: str | Path) -> Fraction:
    """Return the rate of the usual step between a file's first time stamps."""
    if is_address(source):  # it may be live, or refuse a second reader
        return DEFAULT_FRAME_RATE
    with suppress(av.error.FFmpegError, StatisticsError), open_source(source) as container:
        packets = islice(container.demux(video_stream(container, source)), _PACKETS_MEASURED)
        stamps = sorted({p.pts * p.time_base for p in packets if p.pts is not None})
        return 1 / Fraction(median_low(later - earlier for earlier, later in pairwise(stamps)))
    return DEFAULT_FRAME_RATE


def is_cut(
    source: str | Path,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    until: Fraction,
) -> bool:
    """Return whether a clip is cut although FFmpeg reads it without complaint.

    Compares the file with its own index; or, of Matroska and behind an address, the end of the last
    frame with the length in the header. The headers of other files lie too often.

    Args:
        source: the file or address; container, stream: as they were read to the end.
        until: seconds at which the last frame ends.
    """
    if not is_address(source) and len(stream.index_entries) > 0:
        last = stream.index_entries[-1]
        if last.pos + last.size > local_path(source).stat().st_size:
            return True
    if not is_address(source) and not container.format.name.startswith("matroska"):
        return False
    length = length_in_header(container, stream)
    # FFmpeg's Matroska counts it from the zero of the time stamps, not from the first one.
    until += max(Fraction(0), clip_start(container, stream))
    return length is not None and until < length - _TOLERANCE


def length_in_header(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Fraction | None:
    """Return the length of the video in seconds according to the header; None: unknown.

    With sound in it, the length of the whole file says nothing about the video.
    """
    told = _CLOCK.fullmatch(stream.metadata.get("DURATION", "").strip())
    if told is not None:
        return int(told[1]) * 3600 + int(told[2]) * 60 + Fraction(told[3])
    if stream.duration and stream.time_base:
        return stream.duration * stream.time_base
    if container.duration and len(container.streams) == 1:
        return Fraction(container.duration, av.time_base)
    return None

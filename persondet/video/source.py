"""Opening what a clip is read from: a local file, or an address.

Where a clip lies: a file, or an address that FFmpeg opens; and what of it may be shown.

What the header of a clip tells, made the best of: its main stream, its rate, its length.

What a clip lacks although FFmpeg read it without complaint: a cut end, a part that is broken.

Files that are cut or broken, told by their own structure; FFmpeg keeps silent then.

Sources: ISO/IEC 14496-12 (boxes of an mp4), RFC 8794 and RFC 9559 (EBML and Matroska), Microsoft's
"Advanced Systems Format (ASF) Specification", revision 01.20.03, sections 3.1 and 3.2.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import av
import av.error

from persondet.errors import MediaError
from persondet.files import describe_foreign_file

ANSWER_SECONDS = 30.0
# Nothing that comes from the network may lead to a local file, and no file to the network.
_FILES = "file,crypto,data"
_NETWORK = (
    "http,https,httpproxy,tcp,tls,udp,udplite,rtp,srtp,rtsp,rtmp,rtmpe,rtmps,rtmpt,rtmpte,rtmpts,"
    "ffrtmphttp,ffrtmpcrypt,mmsh,mmst,ftp,hls,srt,rist,sctp,crypto,data"
)
_SCHEMES = set(_NETWORK.split(",")) - {"crypto", "data", "tls", "httpproxy"}


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
        known = describe_foreign_file(path)
        if not known and lacks_index(path):
            known = "it is cut: its index, at the end of the file, is missing, so copy it again"
        if not known:
            known = (
                f"it is cut, damaged or no video ({reason}), so copy or download it again, or "
                "convert it"
            )
        raise MediaError(f"{path}: cannot be read as a video; {known}.") from error


def _open_address(address: str) -> av.container.InputContainer:
    """Open an address; what FFmpeg says about it is not repeated, as it holds the password."""
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


_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.S)


def is_address(source: str | Path) -> bool:
    """Say whether `source` is a network address (`https://…`, `rtsp://…`), and not a file."""
    match = _ADDRESS.match(source) if isinstance(source, str) else None
    return match is not None and match[1].lower() != "file"


def local_path(source: str | Path) -> Path:
    """Return the path of a file that is given as a path or as `file://…`."""
    if isinstance(source, str) and source.lower().startswith("file://"):
        return Path(unquote(urlsplit(source).path))
    return Path(source)


def shown(source: str | Path) -> str:
    """Return what may stand in a log, an error or a record: no user, password, query, fragment.

    An address whose parts cannot be told apart for certain is shown by its scheme alone.
    """
    if not is_address(source):
        return str(local_path(source))
    match = _ADDRESS.match(str(source))
    assert match is not None
    scheme, rest = match[1].lower(), match[2]
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = re.split(r"[?#]", rest[len(host) :], maxsplit=1)[0]
    if "@" not in host and "@" in rest and ":" in host:
        return f"{scheme}://…"  # a password with an unescaped / ? or # in it
    return f"{scheme}://{host.rpartition('@')[2]}{path}"


def shown_name(source: str | Path) -> str:
    """Return the last part of what may be shown: a file's name, or that of an address."""
    if not is_address(source):
        return local_path(source).name
    address = shown(source)
    return address.rstrip("/").rpartition("/")[2] or address


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


CUT, BROKEN = "cut", "broken"
_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
# Seek head, info, tracks, cluster, cues, chapters, tags, attachments.
_PARTS = {
    *(0x114D9B74, 0x1549A966, 0x1654AE6B, _CLUSTER, 0x1C53BB6B, 0x1043A770, 0x1254C367, 0x1941A469)
}
# Time stamp, silent tracks, position, size of the one before; simple, grouped, encrypted block.
_IN_CLUSTER = {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF}
_ANYWHERE = {0xEC, 0xBF}  # void, checksum
# The header object and the file properties object, whose length of the file is the fourth field.
_ASF = bytes.fromhex("3026B2758E66CF11A6D900AA0062CE6C")
_ASF_PROPERTIES = bytes.fromhex("A1DCAB8C47A9CF118EE400C00C205365")
_ASF_HEAD = 65536


def file_damage(path: Path) -> str:
    """Return "cut" or "broken" for a Matroska, ASF or fragmented mp4 file that is, else "".

    Also "" for every other format, and where the file does not say how long it should be.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(16)
        file.seek(0)
        if head == _ASF:
            return CUT if _asf_length(file.read(_ASF_HEAD)) > size else ""
        if head[:4] == _EBML.to_bytes(4, "big"):
            return _matroska_damage(file, size)
        if head[4:8] in (b"ftyp", b"styp", b"moov", b"moof"):
            return CUT if _fragments_are_cut(file, size) else ""
    return ""


def _asf_length(head: bytes) -> int:
    """Return the length (bytes) that an ASF file says it has; 0: unknown, as in a live one."""
    place = head.find(_ASF_PROPERTIES)
    fields = head[place + 24 : place + 92] if place >= 0 else b""
    if len(fields) < 68 or fields[64] & 1:  # the broadcast flag: the other fields are invalid
        return 0
    return int.from_bytes(fields[16:24], "little")


def _matroska_damage(file: BinaryIO, size: int) -> str:
    """Follow the elements of the segment, and those of its clusters, from one to the next."""
    if _vint(file, keep_marker=True) != _EBML:
        return ""
    file.seek((_vint(file) or 0) + file.tell())
    if _vint(file, keep_marker=True) != _SEGMENT:
        return ""
    length = _vint(file)
    end = size if length is None else file.tell() + length
    cluster_end = 0
    while file.tell() < min(end, size):
        identity, length = _vint(file, keep_marker=True), _vint(file)
        known = identity in _PARTS or identity in _ANYWHERE
        if not known and not (identity in _IN_CLUSTER and file.tell() <= cluster_end):
            # The last head may be cut itself.
            return BROKEN if file.tell() < size else CUT
        if identity == _CLUSTER:
            cluster_end = end if length is None else file.tell() + length
        elif length is None:
            return ""  # a live recording, of which nothing can be said
        else:
            file.seek(length, 1)
    return CUT if max(end, file.tell()) > size else ""


def _vint(file: BinaryIO, *, keep_marker: bool = False) -> int | None:
    """Read a number of variable length (RFC 8794, section 4); None: unknown, or no number."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    width = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(width - 1), "big")
    if keep_marker:
        return value
    value &= (1 << 7 * width) - 1
    return None if value == (1 << 7 * width) - 1 else value


def lacks_index(path: Path) -> bool:
    """Say whether a file begins as an mp4 and ends before or in its index; without, none plays."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        position, kinds = 0, set()
        while position + 8 <= size:
            file.seek(position)
            length, kind = _box(file.read(16))
            if kind != b"moov" or position + length <= size:
                kinds.add(kind)
            if kind not in _BOXES or length < 8:
                break
            position += length
    return b"ftyp" in kinds and not kinds & {b"moov", b"moof"}


def _box(head: bytes) -> tuple[int, bytes]:
    """Return the length and the type of the box that begins with these 16 bytes."""
    length = int.from_bytes(head[:4], "big")
    return (int.from_bytes(head[8:16], "big") if length == 1 else length), head[4:8]


def _fragments_are_cut(file: BinaryIO, size: int) -> bool:
    """Walk the outermost boxes; only in a fragmented file do they tell where the media ends."""
    position, fragmented = 0, False
    while position + 8 <= size:
        file.seek(position)
        length, kind = _box(file.read(16))
        fragmented |= kind == b"moof"
        if length == 0 or kind not in _BOXES:
            return False
        if position + length > size:
            return fragmented and kind in (b"moof", b"mdat")
        if length < 8:
            return False
        position += length
    # Less than the head of a box is left over: it was being written when the program died.
    return fragmented and position < size


_BOXES = {
    b"ftyp",
    b"wide",
    b"styp",
    b"moov",
    b"moof",
    b"mdat",
    b"sidx",
    b"mfra",
    b"free",
    b"skip",
    b"uuid",
}

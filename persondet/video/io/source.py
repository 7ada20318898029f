"""Opening what a clip is read from: a local file, or an address."""

from __future__ import annotations

from pathlib import Path

import av
import av.error

from persondet.errors import MediaError
from persondet.video.address import is_address, local_path, shown
from persondet.video.io.truncation import lacks_index
from persondet.video.sniff import describe_foreign_file

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

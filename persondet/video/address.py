"""Where a clip lies: a file, or an address that FFmpeg opens; and what of it may be shown."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

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

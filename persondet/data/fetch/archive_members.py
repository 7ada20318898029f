"""What a zip says is in it, judged before anything is unpacked: names, kinds, sizes, number."""

from __future__ import annotations

import os
import stat
import struct
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from persondet.errors import DatasetError

MAX_DEPTH = 32
"""Folders in one another, of which an export has three."""


@dataclass(frozen=True)
class ArchiveLimits:
    """How much an archive may hold; a bomb exceeds one of these, an export none.

    Attributes:
        members: files in the archive.
        total_bytes: bytes of all files together, unpacked.
        ratio: unpacked bytes per byte of the archive. Pictures are about 1, annotations below 30.
        ratio_from_bytes: the ratio is not judged when less than this is unpacked.
        json_bytes: bytes of one annotation file, which is read into memory.
    """

    members: int = 500_000
    total_bytes: int = 200 * 1024**3
    ratio: float = 100.0
    ratio_from_bytes: int = 16 * 1024**2
    json_bytes: int = 1024**3


class DamagedArchiveError(DatasetError):
    """The bytes of an archive are not what its packer wrote: another download may be whole."""


@dataclass(frozen=True)
class Member:
    """One file of an archive: where it goes, below the folder that is unpacked into."""

    info: zipfile.ZipInfo
    path: PurePosixPath


DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    UnicodeDecodeError,
    ValueError,
    OverflowError,
)
"""What reading a damaged archive raises."""

_JUNK_FOLDERS = {"__MACOSX"}
_JUNK_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_UTF8 = 0x800
_END, _END64, _LOCATOR64, _ENTRY = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2"


def count_members(file: BinaryIO, label: str, limits: ArchiveLimits) -> int:
    """Count the entries of a zip's directory without keeping them.

    `zipfile` makes an object of each entry before it says how many there are; millions of entries
    fit in a small file.

    Args:
        file: the archive, seekable.
        label: what the archive is called in errors.
        limits: the number is judged by `members`.

    Raises: DatasetError: when there is no directory at the end (not a zip, or cut off), or it has
        too many entries.

    Source: PKWARE, APPNOTE.TXT 6.3.10, 4.3.12 to 4.3.16.
    """
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - 22 - 0xFFFF)
    file.seek(start)
    tail = file.read()
    found = tail.rfind(_END)
    if found < 0 or len(tail) - found < 22:
        file.seek(0)
        cut = file.read(2) == b"PK"
        what = "is cut off: its end is missing" if cut else "is not a zip archive"
        raise DamagedArchiveError(f"{label} {what}; download it again.")
    end = start + found
    length = struct.unpack_from("<L", tail, found + 12)[0]
    large = found >= 76 and tail[found - 20 : found - 16] == _LOCATOR64
    if large and tail[found - 76 : found - 72] == _END64:
        length = struct.unpack_from("<Q", tail, found - 76 + 40)[0]
        end -= 76
    position, count = end - length, 0
    if position < 0:
        raise damaged(label)
    while position < end:
        file.seek(position)
        header = file.read(46)
        if len(header) < 46 or not header.startswith(_ENTRY):
            raise damaged(label)
        position += 46 + sum(struct.unpack_from("<3H", header, 28))
        count += 1
        if count > limits.members:
            raise DatasetError(
                f"{label} holds more than {limits.members:,} files, which no export does; "
                "it is not unpacked."
            )
    return count


def judge_members(
    infos: list[zipfile.ZipInfo], label: str, packed: int, limits: ArchiveLimits
) -> list[Member]:
    """Return the files of an archive that are to be unpacked, once all of them are found harmless.

    Folders and the leavings of file managers are left out. Backslashes are read as slashes, as
    some packers on Windows write them.

    Args:
        infos: the archive's directory.
        label: what the archive is called in errors.
        packed: bytes of the archive itself.
        limits: judged by the sizes that the archive announces.

    Raises: DatasetError: when a name leads out of the folder, a member is a link, a device,
        encrypted or packed with an uncommon method, two names fall together (also when only case
        or Unicode form differs), or the announced sizes exceed a limit.
    """
    members = []
    seen: dict[str, PurePosixPath] = {}
    folders: set[str] = set()
    for info in infos:
        path = _safe_path(info, label)
        mode = info.external_attr >> 16
        if stat.S_ISLNK(mode):
            raise DatasetError(f"{label}: {str(path)!r} is a link; pack the file itself.")
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DatasetError(
                f"{label}: {str(path)!r} is not a plain file; pack pictures and annotations only."
            )
        if info.is_dir() or stat.S_ISDIR(mode) or _is_junk(path):
            continue
        _judge_packing(info, path, label)
        key = _key(path)
        if key in seen:
            raise DatasetError(
                f"{label} holds {str(seen[key])!r} and {str(path)!r}, which are one file on some "
                "computers; keep one of them and pack it again."
            )
        seen[key] = path
        folders.update(_key(parent) for parent in path.parents)
        members.append(Member(info, path))
    for key in folders & seen.keys():
        raise DatasetError(
            f"{label}: {str(seen[key])!r} is a file and a folder; pack the export again."
        )
    _judge_sizes(members, label, packed, limits)
    return members


def damaged(label: str) -> DamagedArchiveError:
    """Return the error for an archive whose bytes are not what they should be."""
    return DamagedArchiveError(f"{label} is damaged; download it again.")


def too_large(label: str, limits: ArchiveLimits) -> DatasetError:
    """Return the error for an archive that unpacks to more than `limits` allow."""
    return DatasetError(
        f"{label} unpacks to far more than an export of its size does (over "
        f"{limits.ratio:g} times its own size, or {limits.total_bytes / 1024**3:,.1f} GiB); "
        "it is not unpacked."
    )


def ratio_exceeded(unpacked: int, packed: int, limits: ArchiveLimits) -> bool:
    """Return whether so many bytes out of an archive of `packed` bytes are a bomb."""
    if unpacked > limits.total_bytes:
        return True
    return unpacked > limits.ratio_from_bytes and unpacked > limits.ratio * packed


def _safe_path(info: zipfile.ZipInfo, label: str) -> PurePosixPath:
    # `orig_filename` is the name before zipfile cut it at a NUL.
    name = _decoded(info).replace("\\", "/")
    shown = name if len(name) <= 120 else f"{name[:120]}…"
    outside = name.startswith("/") or (len(name) > 1 and name[1] == ":") or "\0" in name
    path = PurePosixPath(name)
    if outside or not path.parts or ".." in path.parts:
        raise DatasetError(
            f"{label}: the name {shown!r} leads out of the folder; the archive is not unpacked."
        )
    lengths = [len(part.encode("utf-8", "surrogatepass")) for part in path.parts]
    if max(lengths) > 255 or len(lengths) > MAX_DEPTH:
        raise DatasetError(f"{label}: the name {shown!r} is too long; pack it under a shorter one.")
    return path


def _decoded(info: zipfile.ZipInfo) -> str:
    """Return the name; without the flag for UTF-8 it is UTF-8 all the same if its bytes can be."""
    name = info.orig_filename
    if info.flag_bits & _UTF8:
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


def _judge_packing(info: zipfile.ZipInfo, path: PurePosixPath, label: str) -> None:
    if info.flag_bits & _ENCRYPTED:
        raise DatasetError(f"{label}: {str(path)!r} is encrypted; pack it without a password.")
    if info.compress_type not in _METHODS:
        raise DatasetError(
            f"{label}: {str(path)!r} is packed with an uncommon method ({info.compress_type}); "
            "pack it as a plain zip ('deflate')."
        )


def _judge_sizes(members: list[Member], label: str, packed: int, limits: ArchiveLimits) -> None:
    if not members:
        raise DatasetError(f"{label} holds no file; download it again.")
    if len(members) > limits.members:
        raise DatasetError(f"{label} holds more than {limits.members:,} files; not unpacked.")
    if ratio_exceeded(sum(member.info.file_size for member in members), packed, limits):
        raise too_large(label, limits)


def _is_junk(path: PurePosixPath) -> bool:
    return bool(_JUNK_FOLDERS & {*path.parts}) or path.name in _JUNK_FILES


def _key(path: PurePosixPath) -> str:
    """Return what two names share that some file systems take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())

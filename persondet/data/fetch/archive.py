"""A zip from a stranger: list it, judge it, unpack it inside a folder and within limits."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from persondet.environment import Progress
from persondet.errors import DatasetError, OutputExistsError
from persondet.files import leads_out

MAX_DEPTH = 32
"""Folders in one another, of which an export has three."""

_CHUNK = 1024 * 1024
_RESERVE = 64 * 1024**2
_JUNK_FOLDERS = {"__MACOSX"}
_JUNK_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_UTF8 = 0x800
_END, _END64, _LOCATOR64, _ENTRY = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2"
_DAMAGED = (  # what the reading of a damaged archive raises
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError),
    *(UnicodeDecodeError, ValueError, OverflowError),
)


@dataclass(frozen=True)
class ArchiveLimits:
    """How much an archive may hold; a bomb exceeds one of these, an export none.

    Attributes:
        members: files in the archive.
        total_bytes: bytes of all files together, unpacked.
        ratio: unpacked bytes per byte of the archive. Images are about 1, annotations below 30.
        ratio_from_bytes: the ratio does not count when less than this is unpacked.
        json_bytes: bytes of one annotation file, which has to fit into memory.
    """

    members: int = 500_000
    total_bytes: int = 200 * 1024**3
    ratio: float = 100.0
    ratio_from_bytes: int = 16 * 1024**2
    json_bytes: int = 1024**3

    def refuse_size(self, unpacked: int, packed: int, label: str) -> None:
        """Raise when so many bytes out of an archive of `packed` bytes are a bomb.

        Raises: DatasetError: naming both limits.
        """
        bomb = unpacked > self.ratio_from_bytes and unpacked > self.ratio * packed
        if bomb or unpacked > self.total_bytes:
            raise DatasetError(
                f"{label} unpacks to far more than an export of its size does (over "
                f"{self.ratio:g} times its own size, or {self.total_bytes / 1024**3:,.1f} GiB); "
                "it is not unpacked."
            )

    def refuse_number(self, members: int, label: str) -> None:
        """Raise when an archive or folder holds too many files.

        Raises: DatasetError: naming the limit.
        """
        if members > self.members:
            raise DatasetError(
                f"{label} holds more than {self.members:,} files, which no export does."
            )


class DamagedArchiveError(DatasetError):
    """The bytes of an archive are not what its packer wrote: another download may be whole."""


@dataclass(frozen=True)
class _Member:
    """One file of an archive: where it goes, below the folder that is unpacked into."""

    info: zipfile.ZipInfo
    path: PurePosixPath


def unpack(
    archive: str | Path,
    folder: str | Path,
    *,
    label: str = "",
    limits: ArchiveLimits | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Unpack a zip into a folder, after judging all of its names, kinds and sizes.

    The function first judges the announced sizes, then the bytes that really come out.

    Args:
        archive: the zip file.
        folder: an empty folder that exists.
        label: what errors call the archive; default its path.
        limits: what is too much; default `ArchiveLimits()`.
        progress: called with bytes unpacked and bytes in all.

    Returns:
        The unpacked files, in the order of the archive.

    Raises:
        DatasetError: when the archive is missing, cut off, damaged (each file's CRC-32 is
            checked), encrypted, a bomb, or would write outside `folder` or through a link.
        OutputExistsError: when the disk is too small or cannot be written.
    """
    folder, limits = Path(folder), limits or ArchiveLimits()
    label = label or str(archive)
    with _reading(label):
        file = open(archive, "rb")  # noqa: SIM115
    with file:
        packed = os.fstat(file.fileno()).st_size
        with _reading(label):
            _judge_number(file, label, limits)
            opened = zipfile.ZipFile(file)
        with opened:
            members = _judged_members(opened.infolist(), label, packed, limits)
            total, done = sum(member.info.file_size for member in members), 0
            require_space(folder, total)
            for member in members:
                for length in _unpack_one(opened, member, folder, label):
                    done += length
                    # A member's size is what its header says; this is what really came out.
                    limits.refuse_size(done, packed, label)
                    if progress is not None:
                        progress(done, total)
    return [folder / member.path for member in members]


def require_space(folder: str | Path, needed: int) -> None:
    """Raise when the disk of `folder` has less than `needed` bytes and a reserve left.

    Raises: OutputExistsError: with both numbers.
    """
    free = shutil.disk_usage(folder).free
    if needed + _RESERVE > free:
        raise OutputExistsError(
            f"the disk of the output has {free / 1024**2:,.0f} MiB left, but "
            f"{(needed + _RESERVE) / 1024**2:,.0f} MiB are needed; make room or choose another "
            "--output."
        )


@contextmanager
def writing() -> Iterator[None]:
    """Turn what the disk says to a write into one sentence.

    Raises: OutputExistsError: when something cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise OutputExistsError(
            f"the output cannot be written ({error.strerror or error}); make room or choose "
            "another --output."
        ) from None


@contextmanager
def _reading(label: str) -> Iterator[None]:
    """Turn what a zip's reader raises into one sentence."""
    try:
        yield
    except _DAMAGED:
        raise _damaged(label) from None
    except NotImplementedError:  # a feature of the format that zipfile does not know
        raise DatasetError(f"{label} needs another unpacker; pack it as a plain zip.") from None
    except (FileNotFoundError, IsADirectoryError):
        raise DatasetError(f"{label}: there is no such file; give an export's zip.") from None
    except OSError as error:
        raise DatasetError(f"{label} cannot be read ({error.strerror or error}).") from None


def _damaged(label: str) -> DamagedArchiveError:
    return DamagedArchiveError(f"{label} is damaged; download it again.")


def _unpack_one(
    opened: zipfile.ZipFile, member: _Member, folder: Path, label: str
) -> Iterator[int]:
    """Write one member to a file that is not there yet, and yield the bytes of each step."""
    target = folder / member.path
    with _reading(label):
        source = opened.open(member.info)
    with source:
        with writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            # Exclusive: whatever a name turns into, it never writes over a file or through a link.
            file = open(target, "xb")  # noqa: SIM115
        written = 0
        with file:
            while True:
                with _reading(label):
                    chunk = source.read(_CHUNK)
                if not chunk:
                    break
                with writing():
                    written += file.write(chunk)
                yield len(chunk)
            with writing():
                file.flush()
    if written != member.info.file_size:
        raise _damaged(label)


def _judge_number(file: BinaryIO, label: str, limits: ArchiveLimits) -> None:
    """Count the entries of a zip's directory without keeping them.

    `zipfile` makes an object of each entry before it says how many there are; millions of entries
    fit in a small file.

    Raises: DatasetError: when there is no directory at the end (not a zip, or cut off), or it has
        too many entries.

    Source: PKWARE, APPNOTE.TXT 6.3.10, 4.3.12 to 4.3.16.
    """
    position, end = _directory(file, label)
    count = 0
    while position < end:
        file.seek(position)
        header = file.read(46)
        if len(header) < 46 or not header.startswith(_ENTRY):
            raise _damaged(label)
        position += 46 + sum(struct.unpack_from("<3H", header, 28))
        count += 1
        limits.refuse_number(count, label)


def _directory(file: BinaryIO, label: str) -> tuple[int, int]:
    """Return where the directory of a zip begins and ends."""
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, size - 22 - 0xFFFF))
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
    if length > end:
        raise _damaged(label)
    return end - length, end


def _judged_members(
    infos: list[zipfile.ZipInfo], label: str, packed: int, limits: ArchiveLimits
) -> list[_Member]:
    """Return the files of an archive to unpack, once all of its entries are found harmless.

    Leaves out folders and the leavings of file managers.

    Args:
        infos: the archive's directory.
        label: what errors call the archive.
        packed: bytes of the archive itself.
        limits: for the sizes that the archive announces.

    Raises: DatasetError: when a name leads out of the folder, a member is a link, a device,
        encrypted or packed with an uncommon method, two names fall together (also when only case
        or Unicode form differs), or the announced sizes exceed a limit.
    """
    members = []
    seen: dict[str, PurePosixPath] = {}
    folders: set[str] = set()
    for info in infos:
        path = _safe_path(info, label)
        if not _judge_kind(info, path, label):
            continue
        key = _key(path)
        if key in seen:
            raise DatasetError(
                f"{label} holds {str(seen[key])!r} and {str(path)!r}, which are one file on some "
                "computers; keep one of them and pack it again."
            )
        seen[key] = path
        folders.update(_key(parent) for parent in path.parents)
        members.append(_Member(info, path))
    for key in folders & seen.keys():
        raise DatasetError(
            f"{label}: {str(seen[key])!r} is a file and a folder; pack the export again."
        )
    if not members:
        raise DatasetError(f"{label} holds no file; download it again.")
    limits.refuse_size(sum(member.info.file_size for member in members), packed, label)
    return members


def _safe_path(info: zipfile.ZipInfo, label: str) -> PurePosixPath:
    # Some packers on Windows write backslashes as separators.
    name = _decoded(info).replace("\\", "/")
    shown = name if len(name) <= 120 else f"{name[:120]}…"
    path = PurePosixPath(name)
    if leads_out(name) or not path.parts:
        raise DatasetError(
            f"{label}: the name {shown!r} leads out of the folder; the archive is not unpacked."
        )
    if max(len(part.encode()) for part in path.parts) > 255 or len(path.parts) > MAX_DEPTH:
        raise DatasetError(f"{label}: the name {shown!r} is too long; pack it under a shorter one.")
    return path


def _decoded(info: zipfile.ZipInfo) -> str:
    """Return the name; without the flag for UTF-8 it is UTF-8 all the same if its bytes can be."""
    name = info.orig_filename  # as it was before zipfile cut it at a NUL
    if info.flag_bits & _UTF8:
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


def _judge_kind(info: zipfile.ZipInfo, path: PurePosixPath, label: str) -> bool:
    """Return whether a member is a file to unpack; raise when it is something else than files."""
    mode = info.external_attr >> 16
    where = f"{label}: {str(path)!r}"
    if stat.S_ISLNK(mode):
        raise DatasetError(f"{where} is a link; pack the file itself.")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DatasetError(f"{where} is not a plain file; pack images and annotations only.")
    junk = bool(_JUNK_FOLDERS & {*path.parts}) or path.name in _JUNK_FILES
    if info.is_dir() or stat.S_ISDIR(mode) or junk:
        return False
    if info.flag_bits & _ENCRYPTED:
        raise DatasetError(f"{where} is encrypted; pack it without a password.")
    if info.compress_type not in _METHODS:
        raise DatasetError(
            f"{where} is packed with an uncommon method ({info.compress_type}); pack it as a plain "
            "zip ('deflate')."
        )
    return True


def _key(path: PurePosixPath) -> str:
    """Return what two names share that some file systems take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())

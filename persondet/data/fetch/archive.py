"""A zip from a stranger: list it, judge it, unpack it inside a folder and within limits."""

from __future__ import annotations

import io
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from persondet.environment import Progress
from persondet.errors import DatasetError, OutputExistsError
from persondet.files import folded, leads_out

MAX_FILES = 500_000
"""Files in an archive or a folder; this and the limits below stop a bomb, and no export."""

MAX_BYTES = 200 * 1024**3
"""Bytes of an archive, and of all its files together, unpacked."""

_MAX_RATIO = 100  # unpacked bytes per byte of the archive; images have 1, annotations below 30
_RATIO_FROM_BYTES = 16 * 1024**2  # the ratio does not count when less is unpacked
_MAX_DEPTH = 32  # folders in one another, of which an export has three
_MAX_ENTRY_BYTES = 200  # of the archive's directory for each file; 100 are common
_CHUNK = 1024 * 1024
_RESERVE = 64 * 1024**2
_JUNK_FOLDERS = {"__MACOSX"}
_JUNK_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_UTF8 = 0x800
_DAMAGED = (  # what the reading of a damaged archive raises
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError),
    *(UnicodeDecodeError, ValueError, OverflowError),
)


class DamagedArchiveError(DatasetError):
    """The bytes of an archive are not what its packer wrote: another download may be whole."""


def unpack(
    archive: str | Path, folder: str | Path, *, label: str = "", progress: Progress | None = None
) -> list[Path]:
    """Unpack a zip into a folder, after judging all of its names, kinds and sizes.

    The function first judges the announced sizes, then the bytes that really come out.

    Args:
        archive: the zip file.
        folder: an empty folder that exists.
        label: what errors call the archive; default its path.
        progress: called with bytes unpacked and bytes in all.

    Returns:
        The unpacked files, in the order of the archive.

    Raises:
        DatasetError: when the archive is missing, cut off, damaged (each file's CRC-32 is
            checked), encrypted, a bomb, or would write outside `folder` or through a link.
        OutputExistsError: when the disk is too small or cannot be written.
    """
    folder, label = Path(folder), label or str(archive)
    with _reading_zip(label):
        file = _Archive(archive, label)
    with file:
        packed = os.fstat(file.fileno()).st_size
        with _reading_zip(label):
            if not zipfile.is_zipfile(file):
                file.seek(0)
                cut = file.read(2) == b"PK"
                what = "is cut off: its end is missing" if cut else "is not a zip archive"
                raise DamagedArchiveError(f"{label} {what}; download it again.")
            opened = zipfile.ZipFile(file)
        with opened, writing():
            members = _judged_members(opened.infolist(), label, packed)
            total, done = sum(info.file_size for info, _ in members), 0
            require_space(folder, total)
            for info, path in members:
                for length in _unpack_one(opened, info, folder / path, label):
                    done += length
                    # A member's size is what its header says; this is what really came out.
                    refuse_size(done, packed, label)
                    if progress is not None:
                        progress(done, total)
    return [folder / path for _, path in members]


def refuse_size(unpacked: int, packed: int, label: str) -> None:
    """Raise when so many bytes out of an archive of `packed` bytes are a bomb.

    Raises: DatasetError: naming both limits.
    """
    bomb = unpacked > _RATIO_FROM_BYTES and unpacked > _MAX_RATIO * packed
    if bomb or unpacked > MAX_BYTES:
        raise DatasetError(
            f"{label} unpacks to far more than an export of its size does (over {_MAX_RATIO} times "
            f"its own size, or {MAX_BYTES / 1024**3:,.1f} GiB); it is not unpacked."
        )


def refuse_number(files: int, label: str) -> None:
    """Raise when an archive or folder holds too many files.

    Raises: DatasetError: naming the limit.
    """
    if files > MAX_FILES:
        raise DatasetError(f"{label} holds more than {MAX_FILES:,} files, which no export does.")


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
def reading(label: str) -> Iterator[None]:
    """Turn what the disk says to a read into one sentence.

    Raises: DatasetError: when something cannot be read.
    """
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{label} cannot be read ({error.strerror or error}).") from None


@contextmanager
def _reading_zip(label: str) -> Iterator[None]:
    """Turn what a zip's reader raises into one sentence."""
    try:
        with reading(label):
            yield
    except _DAMAGED:
        raise _damaged(label) from None
    except NotImplementedError:  # a feature of the format that zipfile does not know
        raise DatasetError(f"{label} needs another unpacker; pack it as a plain zip.") from None


def _damaged(label: str) -> DamagedArchiveError:
    return DamagedArchiveError(f"{label} is damaged; download it again.")


def _unpack_one(
    opened: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, label: str
) -> Iterator[int]:
    """Write one member to a file that is not there yet, and yield the bytes of each step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _reading_zip(label):
        source = opened.open(info)
    # Exclusive: whatever a name turns into, it never writes over a file or through a link.
    with source, open(target, "xb") as file:
        while True:
            with _reading_zip(label):
                chunk = source.read(_CHUNK)
            if not chunk:
                break
            file.write(chunk)
            yield len(chunk)
        if file.tell() != info.file_size:
            raise _damaged(label)


class _Archive(io.FileIO):
    """A zip from which nobody reads a directory of too many entries in one go.

    `zipfile` makes an object of each entry of the directory, which it reads whole. Millions of
    entries fit in a small file, and the number that is announced may be a lie; the size is none.
    """

    def __init__(self, path: str | Path, label: str) -> None:
        super().__init__(path)
        self._label = label

    def read(self, size: int | None = -1, /) -> bytes:
        refuse_number((size or 0) // _MAX_ENTRY_BYTES, self._label)
        return super().read(size)


def _judged_members(
    infos: list[zipfile.ZipInfo], label: str, packed: int
) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """Return the files of an archive to unpack, once all of its entries are found harmless.

    Leaves out folders and the leavings of file managers.

    Args:
        infos: the archive's directory.
        label: what errors call the archive.
        packed: bytes of the archive itself.

    Returns: each file, and where it goes below the folder that is unpacked into.

    Raises: DatasetError: when a name leads out of the folder, a member is a link, a device,
        encrypted or packed with an uncommon method, two names fall together (also when only case
        or Unicode form differs), or the number or the announced sizes exceed a limit.
    """
    refuse_number(len(infos), label)
    members: dict[str, tuple[zipfile.ZipInfo, PurePosixPath]] = {}
    for info in infos:
        path = _safe_path(info, label)
        if not _judge_kind(info, path, label):
            continue
        key = folded(str(path))
        if key in members:
            raise DatasetError(
                f"{label} holds {str(members[key][1])!r} and {str(path)!r}, which are one file on "
                "some computers; keep one of them and pack it again."
            )
        members[key] = info, path
    folders = {folded(str(parent)) for _, path in members.values() for parent in path.parents}
    for key in folders & members.keys():
        raise DatasetError(
            f"{label}: {str(members[key][1])!r} is a file and a folder; pack the export again."
        )
    if not members:
        raise DatasetError(f"{label} holds no file; download it again.")
    refuse_size(sum(info.file_size for info, _ in members.values()), packed, label)
    return list(members.values())


def _safe_path(info: zipfile.ZipInfo, label: str) -> PurePosixPath:
    # Some packers on Windows write backslashes as separators.
    name = _decoded(info).replace("\\", "/")
    shown = name if len(name) <= 120 else f"{name[:120]}…"
    path = PurePosixPath(name)
    if leads_out(name) or not path.parts:
        raise DatasetError(
            f"{label}: the name {shown!r} leads out of the folder; the archive is not unpacked."
        )
    if max(len(part.encode()) for part in path.parts) > 255 or len(path.parts) > _MAX_DEPTH:
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
    kind = stat.S_IFMT(info.external_attr >> 16)
    junk = bool(_JUNK_FOLDERS & {*path.parts}) or path.name in _JUNK_FILES
    wanted = not (info.is_dir() or kind == stat.S_IFDIR or junk)
    fault = ""
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        fault = "is a link or not a plain file; pack the files themselves"
    elif wanted and info.flag_bits & _ENCRYPTED:
        fault = "is encrypted; pack it without a password"
    elif wanted and info.compress_type not in _METHODS:
        fault = "is packed with an uncommon method; pack it as a plain zip ('deflate')"
    if fault:
        raise DatasetError(f"{label}: {str(path)!r} {fault}.")
    return wanted

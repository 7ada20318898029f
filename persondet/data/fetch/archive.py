"""Unpacking a zip that a stranger made: inside the folder, within limits, whole or refused."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from persondet.data.fetch.archive_members import (
    DAMAGED,
    ArchiveLimits,
    Member,
    count_members,
    damaged,
    judge_members,
    ratio_exceeded,
    too_large,
)
from persondet.errors import DatasetError, OutputExistsError

Progress = Callable[[int, int | None], None]
"""`progress(done, total)` in bytes; `total` is None while it is not known."""

_CHUNK = 1024 * 1024
_RESERVE = 64 * 1024**2


def unpack(
    archive: str | Path,
    folder: str | Path,
    *,
    label: str = "",
    limits: ArchiveLimits | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Unpack a zip into a folder, after judging all of its names, kinds and sizes.

    The announced sizes are judged first, the bytes that really come out while they come.

    Args:
        archive: the zip file.
        folder: an empty folder that is there.
        label: what the archive is called in errors; default its path.
        limits: what is too much; default `ArchiveLimits()`.
        progress: called with bytes unpacked and bytes in all.

    Returns:
        The files unpacked, in the order of the archive.

    Raises:
        DatasetError: when the archive is missing, cut off, damaged (each file's CRC-32 is
            checked), encrypted, a bomb, or would write outside `folder` or through a link.
        OutputExistsError: when the disk is too small or cannot be written.
    """
    folder, limits = Path(folder), limits or ArchiveLimits()
    label = label or str(archive)
    with _reading(label):
        file = _open(archive, "rb")
    with file:
        packed = os.fstat(file.fileno()).st_size
        with _reading(label):
            count_members(file, label, limits)
            opened = zipfile.ZipFile(file)
        with opened:
            members = judge_members(opened.infolist(), label, packed, limits)
            total, done = sum(member.info.file_size for member in members), 0
            require_space(folder, total)
            for member in members:
                for length in _unpack_one(opened, member, folder, label):
                    done += length
                    # A member's size is what its header says; this is what really came out.
                    if ratio_exceeded(done, packed, limits):
                        raise too_large(label, limits)
                    if progress is not None:
                        progress(done, total)
    return [folder.joinpath(*member.path.parts) for member in members]


def require_space(folder: str | Path, needed: int) -> None:
    """Raise when the disk that `folder` is on has not `needed` bytes and a reserve left.

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
    except DAMAGED:
        raise damaged(label) from None
    except NotImplementedError:  # a feature of the format that zipfile does not know
        raise DatasetError(f"{label} needs another unpacker; pack it as a plain zip.") from None
    except (FileNotFoundError, IsADirectoryError):
        raise DatasetError(f"{label}: there is no such file; give an export's zip.") from None
    except OSError as error:
        raise DatasetError(f"{label} cannot be read ({error.strerror or error}).") from None


def _open(path: str | Path, mode: Literal["rb", "xb"]) -> BinaryIO:
    """Open a file that is closed by another `with` than the one that words its errors."""
    return open(path, mode)


def _unpack_one(opened: zipfile.ZipFile, member: Member, folder: Path, label: str) -> Iterator[int]:
    """Write one member to a file that is not there yet, and yield the bytes of each step."""
    target = folder.joinpath(*member.path.parts)
    with _reading(label):
        source = opened.open(member.info)
    with source:
        with writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            # Exclusive: whatever a name turns into, it never writes over a file or through a link.
            file = _open(target, "xb")
        with file:
            written = 0
            while True:
                with _reading(label):
                    chunk = source.read(_CHUNK)
                if not chunk:
                    break
                with writing():
                    file.write(chunk)
                written += len(chunk)
                yield len(chunk)
            with writing():
                file.flush()
    if written != member.info.file_size:
        raise damaged(label)

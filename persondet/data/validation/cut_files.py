"""Does a JPEG or PNG file end before its own structure does? For files that no decoder opens."""

from __future__ import annotations

import os
from typing import BinaryIO

_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
_START_OF_SCAN = 0xDA
_SEGMENTS = 100_000
# Markers of a JPEG without a length behind them: fill bytes, TEM, RST, SOI and EOI.
_BARE = frozenset({0xFF, 0x01, *range(0xD0, 0xDA)})


def ends_early(file: BinaryIO) -> bool:
    """Return whether a file begins as JPEG or PNG and ends in the middle of a segment or chunk.

    The coded pixels of a JPEG are not looked at: its decoder knows. What is no JPEG or PNG, or is
    not built like one, does not end early: it is broken.

    Args:
        file: open for reading; it is left at any position.

    Raises: OSError: when the file cannot be read.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    head = file.read(len(_PNG))
    if head == _PNG:
        return _png_ends_early(file, size)
    if head[:2] == _JPEG:
        file.seek(2)
        return _jpeg_ends_early(file, size)
    return len(head) > 0 and _PNG.startswith(head)


def _png_ends_early(file: BinaryIO, size: int) -> bool:
    """Walk over the chunks: length (4 bytes), type (4 letters), data, check sum (4 bytes)."""
    for _ in range(_SEGMENTS):
        chunk = file.read(8)
        if len(chunk) < 8:
            return True
        if not chunk[4:].isalpha():
            return False
        if file.seek(int.from_bytes(chunk[:4]) + 4, os.SEEK_CUR) > size:
            return True
        if chunk[4:] == b"IEND":
            return False
    return False


def _jpeg_ends_early(file: BinaryIO, size: int) -> bool:
    """Walk over the segments before the pixels: FF, marker, length with itself (2 bytes), data."""
    for _ in range(_SEGMENTS):
        marker = file.read(2)
        if len(marker) < 2:
            return True
        if marker[0] != 0xFF or marker[1] == _START_OF_SCAN:
            return False
        if marker[1] == 0xFF:
            file.seek(-1, os.SEEK_CUR)
        elif marker[1] not in _BARE:
            length = file.read(2)
            if len(length) < 2 or file.seek(int.from_bytes(length) - 2, os.SEEK_CUR) > size:
                return True
    return False

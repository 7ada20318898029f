"""Files that are cut or broken, told by their own structure; FFmpeg keeps silent then.

Sources: ISO/IEC 14496-12 (boxes of an mp4), RFC 8794 and RFC 9559 (EBML and Matroska), Microsoft's
"Advanced Systems Format (ASF) Specification", revision 01.20.03, sections 3.1 and 3.2.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

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

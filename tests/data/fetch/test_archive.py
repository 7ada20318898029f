"""Zips that a stranger made: what is refused, in one sentence, and that nothing is left outside."""

from __future__ import annotations

import io
import os
import shutil
import stat
import struct
import unicodedata
import zipfile
from collections import namedtuple
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.data.fetch.archive import unpack
from persondet.data.fetch.archive_members import ArchiveLimits, DamagedArchiveError
from persondet.errors import DatasetError, OutputExistsError


def make(path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def refused(tmp_path: Path, archive: Path, match: str, **named) -> DatasetError:
    """Unpack, expect a sentence, and that nothing lies outside of the folder."""
    folder = tmp_path / "deep" / "down" / "folder"
    folder.mkdir(parents=True)
    before = {path for path in tmp_path.rglob("*") if folder not in path.parents}
    with pytest.raises((DatasetError, OutputExistsError), match=match) as caught:
        unpack(archive, folder, label="the zip", **named)
    assert {path for path in tmp_path.rglob("*") if folder not in path.parents} == before
    assert str(caught.value).count("\n") == 0 and str(caught.value).endswith(".")
    return caught.value


def unpacked(tmp_path: Path, archive: Path, **named) -> dict[str, bytes]:
    folder = tmp_path / "folder"
    folder.mkdir()
    files = unpack(archive, folder, **named)
    assert sorted(files) == sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_what_was_packed_comes_out(tmp_path):
    content = {"train/a b (1).jpg": os.urandom(3000), "train/ü.jpg": b"", "README.txt": b"hi"}
    archive = make(tmp_path / "a.zip", [*content.items(), ("empty/", b"")])
    seen: list[tuple[int, int | None]] = []
    assert (
        unpacked(tmp_path, archive, progress=lambda done, total: seen.append((done, total)))
        == content
    )
    assert seen == [(3000, 3002), (3002, 3002)]


@pytest.mark.parametrize(
    "name",
    [
        "../x.jpg",
        "train/../../x.jpg",
        "/etc/x.jpg",
        "//server/share/x.jpg",
        "C:/x.jpg",
        "C:x.jpg",
        "..\\x.jpg",
        "train\\..\\..\\x.jpg",
        "\\\\server\\x.jpg",
        "..",
    ],
)
def test_a_climbing_member(tmp_path, name):
    refused(tmp_path, make(tmp_path / "a.zip", [("ok.jpg", b"1"), (name, b"2")]), "leads out")


def test_a_name_with_nul(tmp_path):
    archive = make(tmp_path / "a.zip", [("evilQ../x.jpg", b"2")])
    archive.write_bytes(archive.read_bytes().replace(b"evilQ", b"evil\0"))
    refused(tmp_path, archive, "leads out")


def test_backslashes_of_a_packer_on_windows_are_folders(tmp_path):
    archive = make(tmp_path / "a.zip", [("train\\a.jpg", b"1")])
    assert unpacked(tmp_path, archive) == {"train/a.jpg": b"1"}


@pytest.mark.parametrize(
    ("kind", "match"), [(stat.S_IFLNK, "link"), (stat.S_IFIFO, "plain"), (stat.S_IFCHR, "plain")]
)
def test_a_link_or_a_special_file(tmp_path, kind, match):
    info = zipfile.ZipInfo("train/a.jpg")
    info.external_attr = (kind | 0o777) << 16
    refused(tmp_path, make(tmp_path / "a.zip", [(info, b"/etc/passwd")]), match)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a.jpg", "a.jpg"),
        ("a.jpg", "./a.jpg"),
        ("t/a.jpg", "T/A.JPG"),
        (unicodedata.normalize("NFC", "ü.jpg"), unicodedata.normalize("NFD", "Ü.jpg")),
        ("a", "a/b.jpg"),
    ],
)
def test_names_that_fall_together(tmp_path, one, other):
    archive = make(tmp_path / "a.zip", [(one, b"1"), (other, b"2")])
    refused(tmp_path, archive, "one file on some|a file and a folder")


def test_leavings_of_file_managers_are_left_out(tmp_path):
    junk = ["__MACOSX/train/._a.jpg", "train/.DS_Store", "train/Thumbs.db"]
    archive = make(tmp_path / "a.zip", [("train/a.jpg", b"1"), *((name, b"") for name in junk)])
    assert unpacked(tmp_path, archive) == {"train/a.jpg": b"1"}


def test_a_bomb_by_ratio(tmp_path):
    archive = make(tmp_path / "a.zip", [("a.json", bytes(20 * 1024**2))])
    refused(tmp_path, archive, "far more than an export")
    assert not any((tmp_path / "deep/down/folder").iterdir())  # by what it announces


def test_a_bomb_by_size_and_by_number(tmp_path):
    archive = make(tmp_path / "a.zip", [(f"{i}.jpg", os.urandom(100)) for i in range(20)])
    refused(tmp_path, archive, "far more", limits=ArchiveLimits(total_bytes=1999))
    shutil.rmtree(tmp_path / "deep")
    refused(tmp_path, archive, "more than 19 files", limits=ArchiveLimits(members=19))
    assert (
        len(unpacked(tmp_path, archive, limits=ArchiveLimits(members=20, total_bytes=2000))) == 20
    )


def test_the_number_is_found_before_the_directory_is_read(tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("opened")

    archive = make(tmp_path / "a.zip", [(f"{i}.jpg", b"") for i in range(20)])
    # The number that the end record announces is a lie; the entries are counted.
    end = archive.read_bytes()
    archive.write_bytes(end[:-22] + struct.pack("<4s4H2LH", *_lying(end[-22:])))
    monkeypatch.setattr(zipfile, "ZipFile", never)
    refused(tmp_path, archive, "more than 19 files", limits=ArchiveLimits(members=19))


def _lying(record: bytes) -> list:
    fields = list(struct.unpack("<4s4H2LH", record))
    fields[3] = fields[4] = 1
    return fields


@pytest.mark.parametrize("announced", [10, 3_000_000])
def test_a_lying_header(tmp_path, announced):
    """Less comes out than is packed, or more is announced than comes: either is found."""
    archive = make(tmp_path / "a.zip", [("a.json", bytes(2_000_000))])
    content = archive.read_bytes()
    assert content.count(struct.pack("<L", 2_000_000)) == 2
    archive.write_bytes(content.replace(struct.pack("<L", 2_000_000), struct.pack("<L", announced)))
    refused(tmp_path, archive, "damaged")


def test_members_that_share_their_bytes(tmp_path):
    """The bomb of Fifield, "A better zip bomb", 2019: many names over one kernel of bytes."""
    path = make(tmp_path / "a.zip", [("a.jpg", b"x" * 100), ("b.jpg", b"x" * 100)])
    with zipfile.ZipFile(path) as archive:
        second = archive.infolist()[1].header_offset
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\1\2")
    assert struct.unpack_from("<L", content, entry + 42) == (second,)
    struct.pack_into("<L", content, entry + 42, 0)
    path.write_bytes(content)
    refused(tmp_path, path, "damaged")


def test_a_truncated_zip(tmp_path):
    archive = make(tmp_path / "a.zip", [("a.jpg", os.urandom(5000))])
    archive.write_bytes(archive.read_bytes()[:-30])
    assert isinstance(refused(tmp_path, archive, "cut off"), DamagedArchiveError)


def test_no_zip_at_all(tmp_path):
    for content in (b"", b"PK", b"<html>", os.urandom(70_000)):
        (tmp_path / "a.zip").write_bytes(content)
        refused(tmp_path, tmp_path / "a.zip", "not a zip|cut off")
        shutil.rmtree(tmp_path / "deep")
    refused(tmp_path, tmp_path / "none.zip", "no such file")
    shutil.rmtree(tmp_path / "deep")
    refused(tmp_path, make(tmp_path / "b.zip", []), "holds no file")


def test_a_flipped_bit(tmp_path):
    archive = make(tmp_path / "a.zip", [("a.jpg", os.urandom(5000))])
    content = bytearray(archive.read_bytes())
    content[3000] ^= 1
    archive.write_bytes(content)
    refused(tmp_path, archive, "damaged")


@settings(max_examples=60)
@given(st.data())
def test_no_damage_ends_in_another_error(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("damaged")
    archive = make(tmp_path / "a.zip", [("t/a.jpg", b"abc" * 30), ("t/b.jpg", b"0123")])
    content = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    archive.write_bytes(content[: data.draw(st.integers(0, len(content)))] or content)
    (tmp_path / "folder").mkdir()
    with suppress(DatasetError, OutputExistsError):
        unpack(archive, tmp_path / "folder")
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "folder"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_an_encrypted_member(tmp_path):
    archive = make(tmp_path / "a.zip", [("a.jpg", b"secret")])
    content = bytearray(archive.read_bytes())
    for start in (content.index(b"PK\3\4") + 6, content.index(b"PK\1\2") + 8):
        content[start] |= 1
    archive.write_bytes(content)
    refused(tmp_path, archive, "encrypted")


def test_an_uncommon_method(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as opened:
        opened.writestr("a.jpg", b"1" * 100)
    refused(tmp_path, archive, "uncommon method")


def test_names_in_utf8_without_the_flag(tmp_path):
    """As `zip` on some systems packs them; zipfile reads them as code page 437."""
    names = ["żółw.jpg", "人.jpg", "plain.jpg"]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    bare = bytearray(content.getvalue())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = 0
        while (start := bare.find(mark, start)) >= 0:
            flags = struct.unpack_from("<H", bare, start + offset)[0]
            struct.pack_into("<H", bare, start + offset, flags & ~0x800)
            start += 4
    (tmp_path / "a.zip").write_bytes(bare)
    assert unpacked(tmp_path, tmp_path / "a.zip") == {name: name.encode() for name in names}


def test_a_name_in_a_code_page_stays_readable(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("Q.jpg", b"1")
    # 0x81 is ü in code page 437 and no UTF-8.
    (tmp_path / "a.zip").write_bytes(content.getvalue().replace(b"Q.jpg", b"\x81.jpg"))
    assert unpacked(tmp_path, tmp_path / "a.zip") == {"ü.jpg": b"1"}


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 70 * 1024**2))
    archive = make(tmp_path / "a.zip", [("a.jpg", os.urandom(7 * 1024**2))])
    assert isinstance(refused(tmp_path, archive, "70 MiB left.*71 MiB"), OutputExistsError)
    assert not any((tmp_path / "deep/down/folder").iterdir())


@pytest.mark.slow
def test_a_large_zip_in_the_64_bit_form(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for number in range(70_000):
            opened.writestr(zipfile.ZipInfo(f"{number}"), b"")
    with pytest.raises(DatasetError, match="more than 69,999 files"):
        unpack(archive, tmp_path, limits=ArchiveLimits(members=69_999))
    from persondet.data.fetch.archive_members import count_members

    with open(archive, "rb") as file:
        assert count_members(file, "", ArchiveLimits()) == 70_000


def test_the_bytes_that_come_out_are_judged_too(tmp_path, monkeypatch):
    """Should what a zip announces ever be believed too easily, unpacking stops all the same."""
    from persondet.data.fetch import archive as room

    judge = room.judge_members
    monkeypatch.setattr(
        room, "judge_members", lambda *given: judge(*given[:3], ArchiveLimits(total_bytes=10**12))
    )
    zipped = make(tmp_path / "a.zip", [(f"{i}.jpg", os.urandom(1000)) for i in range(9)])
    refused(tmp_path, zipped, "far more", limits=ArchiveLimits(total_bytes=5000))
    assert len(list((tmp_path / "deep/down/folder").iterdir())) == 6

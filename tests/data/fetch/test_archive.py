"""Zips from strangers: what is refused, in one sentence, and that nothing is left outside."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import unicodedata
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.data.fetch import archive as room
from persondet.data.fetch.archive import ArchiveLimits, DamagedArchiveError, unpack
from persondet.errors import DatasetError, OutputExistsError


def make(path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.fixture
def refused(tmp_path):
    """Unpack, expect a sentence, and that nothing lies outside of the folder; return what is in
    it.
    """

    def go(archive: Path, match: str, kind: type = DatasetError, **named) -> list[Path]:
        folder = tmp_path / "deep/down/folder"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        before = {path for path in tmp_path.rglob("*") if folder not in path.parents}
        with pytest.raises(kind, match=match) as caught:
            unpack(archive, folder, label="the zip", **named)
        assert {path for path in tmp_path.rglob("*") if folder not in path.parents} == before
        assert str(caught.value).count("\n") == 0 and str(caught.value).endswith(".")
        return list(folder.iterdir())

    return go


def unpacked(tmp_path: Path, archive: Path, **named) -> dict[str, bytes]:
    folder = tmp_path / "folder"
    folder.mkdir()
    files = unpack(archive, folder, **named)
    assert sorted(files) == sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def changed(archive: Path, *edits: tuple[bytes, int, str, int]) -> Path:
    """Write numbers into a zip: (signature of the record, offset in it, struct format, value)."""
    content = bytearray(archive.read_bytes())
    for signature, offset, form, value in edits:
        struct.pack_into(form, content, content.rindex(signature) + offset, value)
    archive.write_bytes(content)
    return archive


def test_what_was_packed_comes_out(tmp_path):
    content = {"train/a b (1).jpg": os.urandom(3000), "train/ü.jpg": b"", "README.txt": b"hi"}
    junk = ["__MACOSX/train/._a.jpg", "train/.DS_Store", "train/Thumbs.db", "empty/"]
    archive = make(tmp_path / "a.zip", [*content.items(), *((name, b"") for name in junk)])
    steps: list[tuple[int, int | None]] = []
    assert unpacked(tmp_path, archive, progress=lambda *step: steps.append(step)) == content
    assert steps == [(3000, 3002), (3002, 3002)]


@pytest.mark.parametrize(
    "name",
    [
        *("../x.jpg", "train/../../x.jpg", "/etc/x.jpg", "//server/share/x.jpg", "C:/x.jpg"),
        *("C:x.jpg", "..\\x.jpg", "train\\..\\..\\x.jpg", "\\\\server\\x.jpg", "..", "evilQ../x"),
    ],
)
def test_a_climbing_member(tmp_path, refused, name):
    archive = make(tmp_path / "a.zip", [("ok.jpg", b"1"), (name, b"2")])
    archive.write_bytes(archive.read_bytes().replace(b"evilQ", b"evil\0"))
    assert not refused(archive, "leads out")


@pytest.mark.parametrize(
    ("kind", "match"), [(stat.S_IFLNK, "link"), (stat.S_IFIFO, "plain"), (stat.S_IFCHR, "plain")]
)
def test_a_link_or_a_special_file(tmp_path, refused, kind, match):
    info = zipfile.ZipInfo("train/a.jpg")
    info.external_attr = (kind | 0o777) << 16
    assert not refused(make(tmp_path / "a.zip", [(info, b"/etc/passwd")]), match)


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
def test_names_that_fall_together(tmp_path, refused, one, other):
    archive = make(tmp_path / "a.zip", [(one, b"1"), (other, b"2")])
    refused(archive, "one file on some|a file and a folder")


def test_bombs_by_what_they_announce(tmp_path, refused):
    ratio = make(tmp_path / "b.zip", [("a.json", bytes(20 * 1024**2))])
    assert not refused(ratio, "far more than an export")
    archive = make(tmp_path / "a.zip", [(f"{i}.jpg", os.urandom(100)) for i in range(20)])
    assert not refused(archive, "far more", limits=ArchiveLimits(total_bytes=1999))
    assert not refused(archive, "more than 19 files", limits=ArchiveLimits(members=19))
    exact = ArchiveLimits(members=20, total_bytes=2000)
    assert len(unpacked(tmp_path, archive, limits=exact)) == 20


def test_the_bytes_that_come_out_are_judged_too(tmp_path, refused, monkeypatch):
    """Should what a zip announces ever be believed too easily, unpacking stops all the same."""
    judge = room._judged_members
    monkeypatch.setattr(
        room, "_judged_members", lambda *given: judge(*given[:3], ArchiveLimits(total_bytes=10**12))
    )
    archive = make(tmp_path / "a.zip", [(f"{i}.jpg", os.urandom(1000)) for i in range(9)])
    assert len(refused(archive, "far more", limits=ArchiveLimits(total_bytes=5000))) == 6


def test_the_number_is_found_before_the_directory_is_read(tmp_path, refused, monkeypatch):
    archive = make(tmp_path / "a.zip", [(f"{i}.jpg", b"") for i in range(20)])
    # The number that the end record announces is a lie; the entries are counted.
    changed(archive, (b"PK\5\6", 8, "<H", 1), (b"PK\5\6", 10, "<H", 1))
    monkeypatch.setattr(zipfile, "ZipFile", None)
    refused(archive, "more than 19 files", limits=ArchiveLimits(members=19))


@pytest.mark.slow
def test_a_large_zip_in_the_64_bit_form_is_counted_to_the_last(tmp_path, refused):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        for number in range(70_000):
            opened.writestr(zipfile.ZipInfo(f"{number}"), b"")
    refused(tmp_path / "a.zip", "more than 69,999", limits=ArchiveLimits(members=69_999))
    with open(tmp_path / "a.zip", "rb") as file:
        room._judge_number(file, "", ArchiveLimits(members=70_000))


@pytest.mark.parametrize("announced", [10, 3_000_000])
def test_a_lying_header(tmp_path, refused, announced):
    """Less comes out than is packed, or more is announced than comes: either is found."""
    archive = make(tmp_path / "a.zip", [("a.json", bytes(2_000_000))])
    changed(archive, (b"PK\3\4", 22, "<L", announced), (b"PK\1\2", 24, "<L", announced))
    refused(archive, "damaged")


def test_members_that_share_their_bytes(tmp_path, refused):
    """The bomb of Fifield, "A better zip bomb", 2019: many names over one kernel of bytes."""
    archive = make(tmp_path / "a.zip", [("a.jpg", b"x" * 100), ("b.jpg", b"x" * 100)])
    refused(changed(archive, (b"PK\1\2", 42, "<L", 0)), "damaged")


def test_what_cannot_be_read_is_told_in_one_sentence(tmp_path, refused):
    for content in (b"", b"PK", b"<html>", os.urandom(70_000)):
        (tmp_path / "a.zip").write_bytes(content)
        refused(tmp_path / "a.zip", "not a zip|cut off", DamagedArchiveError)
    refused(tmp_path / "none.zip", "no such file")
    refused(make(tmp_path / "a.zip", []), "holds no file")
    content = make(tmp_path / "a.zip", [("a.jpg", os.urandom(5000))]).read_bytes()
    (tmp_path / "a.zip").write_bytes(content[:-30])
    refused(tmp_path / "a.zip", "cut off", DamagedArchiveError)
    (tmp_path / "a.zip").write_bytes(content[:3000] + bytes([content[3000] ^ 1]) + content[3001:])
    refused(tmp_path / "a.zip", "damaged", DamagedArchiveError)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as opened:
        opened.writestr("a.jpg", b"1" * 100)
    refused(tmp_path / "a.zip", "uncommon method")
    archive = make(tmp_path / "a.zip", [("a.jpg", b"secret")])
    refused(changed(archive, (b"PK\3\4", 6, "<H", 1), (b"PK\1\2", 8, "<H", 1)), "encrypted")


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


@pytest.mark.parametrize(
    ("packed", "name"),
    [
        ("żółw.jpg".encode(), "żółw.jpg"),  # as `zip` on some systems packs them
        (b"\x81.jpg", "ü.jpg"),  # code page 437, and no UTF-8
        (b"train\\a.jpg", "train/a.jpg"),  # a packer on Windows
    ],
)
def test_a_name_without_the_flag_for_utf8(tmp_path, packed, name):
    archive = make(tmp_path / "a.zip", [("Q" * len(packed), b"1")])
    archive.write_bytes(archive.read_bytes().replace(b"Q" * len(packed), packed))
    assert unpacked(tmp_path, archive) == {name: b"1"}

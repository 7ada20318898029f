"""Zips from strangers: what is refused, in one sentence, and that nothing is left outside."""

import os
import shutil
import stat
import struct
import unicodedata
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.data.fetch import archive as room
from persondet.data.fetch.archive import DamagedArchiveError, unpack
from persondet.errors import DatasetError, OutputExistsError
from tests.data.fetch.conftest import contents


def make(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.fixture
def refused(tmp_path):
    """Unpack, expect one sentence and nothing outside of the folder; return what is in it."""

    def go(archive, match, kind=DatasetError):
        folder = tmp_path / "deep/down/folder"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        before = set(tmp_path.rglob("*"))
        with pytest.raises(kind, match=match) as caught:
            unpack(archive, folder, label="the zip")
        left = set(folder.rglob("*"))
        assert set(tmp_path.rglob("*")) - left == before
        assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
        return left

    return go


def unpacked(tmp_path, archive, **named):
    folder = tmp_path / "folder"
    folder.mkdir()
    files = unpack(archive, folder, **named)
    assert sorted(files) == sorted(path for path in folder.rglob("*") if path.is_file())
    return contents(folder)


def changed(archive, *edits):
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
    steps = []
    assert unpacked(tmp_path, archive, progress=lambda *step: steps.append(step)) == content
    assert steps == [(3000, 3002), (3002, 3002)]


@pytest.mark.parametrize(
    "name",
    [
        *("train/../../x.jpg", "/etc/x.jpg", "//server/share/x.jpg", "C:x.jpg"),
        *("train\\..\\..\\x.jpg", "..", "evilQ../x"),
    ],
)
def test_a_climbing_member(tmp_path, refused, name):
    archive = make(tmp_path / "a.zip", [("ok.jpg", b"1"), (name, b"2")])
    archive.write_bytes(archive.read_bytes().replace(b"evilQ", b"evil\0"))
    assert not refused(archive, "leads out")


@pytest.mark.parametrize(("kind", "match"), [(stat.S_IFLNK, "link"), (stat.S_IFIFO, "plain")])
def test_a_link_or_a_special_file(tmp_path, refused, kind, match):
    info = zipfile.ZipInfo("train/a.jpg")
    info.external_attr = (kind | 0o777) << 16
    assert not refused(make(tmp_path / "a.zip", [(info, b"/etc/passwd")]), match)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a.jpg", "./a.jpg"),
        ("t/a.jpg", "T/A.JPG"),
        (unicodedata.normalize("NFC", "ü.jpg"), unicodedata.normalize("NFD", "Ü.jpg")),
        ("a", "a/b.jpg"),
    ],
)
def test_names_that_fall_together(tmp_path, refused, one, other):
    archive = make(tmp_path / "a.zip", [(one, b"1"), (other, b"2")])
    refused(archive, "one file on some|a file and a folder")


def test_bombs_by_what_they_announce(tmp_path, refused, monkeypatch):
    ratio = make(tmp_path / "b.zip", [("a.json", bytes(20 * 1024**2))])
    assert not refused(ratio, "far more than an export")
    archive = make(tmp_path / "a.zip", [(f"{i}.jpg", os.urandom(100)) for i in range(20)])
    monkeypatch.setattr(room, "MAX_BYTES", 1999)
    assert not refused(archive, "far more")
    monkeypatch.setattr(room, "MAX_BYTES", 2000)
    monkeypatch.setattr(room, "MAX_FILES", 19)
    assert not refused(archive, "more than 19 files")
    monkeypatch.setattr(room, "MAX_FILES", 20)
    assert len(unpacked(tmp_path, archive)) == 20


def test_a_large_directory_is_refused_before_it_is_read(tmp_path, refused, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(zipfile.ZipInfo("a" * 154), b"")  # 200 bytes of the directory
        opened.filelist *= 30
    # The number that the end record announces is a lie.
    changed(tmp_path / "a.zip", (b"PK\5\6", 8, "<H", 1), (b"PK\5\6", 10, "<H", 1))
    monkeypatch.setattr(zipfile, "ZipInfo", None)
    monkeypatch.setattr(room, "MAX_FILES", 29)
    refused(tmp_path / "a.zip", "more than 29 files")


@pytest.mark.parametrize(
    "edits",
    [
        # Less comes out than is packed, or more is announced than comes.
        [(b"PK\3\4", 22, "<L", 10), (b"PK\1\2", 24, "<L", 10)],
        [(b"PK\3\4", 22, "<L", 3_000_000), (b"PK\1\2", 24, "<L", 3_000_000)],
        # Many names over one kernel of bytes: Fifield, "A better zip bomb", 2019.
        [(b"PK\1\2", 42, "<L", 0)],
    ],
)
def test_a_lying_header(tmp_path, refused, edits):
    archive = make(tmp_path / "a.zip", [("b.jpg", b"x" * 100), ("a.json", bytes(2_000_000))])
    refused(changed(archive, *edits), "damaged")


def test_what_cannot_be_read_is_told_in_one_sentence(tmp_path, refused):
    for content in (b"", b"PK", b"<html>", os.urandom(70_000)):
        (tmp_path / "a.zip").write_bytes(content)
        refused(tmp_path / "a.zip", "not a zip|cut off", DamagedArchiveError)
    refused(tmp_path / "none.zip", "No such file")
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


@settings(max_examples=25)
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

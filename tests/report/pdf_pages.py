"""The text of a PDF that ReportLab wrote, page by page: enough of the format for tests."""

import base64
import re
import zlib
from pathlib import Path

_OBJECT = re.compile(rb"(\d+) 0 obj\b(.*?)\bendobj", re.DOTALL)
_STREAM = re.compile(rb"stream\r?\n(.*?)endstream", re.DOTALL)
_SHOWN = re.compile(rb"/(F[\d+]+) [\d.]+ Tf|\(((?:\\.|[^\\()])*)\) Tj|(T\*|ET)", re.DOTALL)
_ESCAPED = re.compile(rb"\\([0-7]{1,3}|.)", re.DOTALL)
_CODE = re.compile(rb"<([0-9A-F]{2})> <([0-9A-F]{4,})>")


def pages_of(path: Path) -> list[str]:
    objects = {int(n): body for n, body in _OBJECT.findall(path.read_bytes())}
    tables: dict[bytes, dict[int, str]] = {}
    for body in objects.values():
        for name, number in re.findall(rb"/(F\d+\+\d+) (\d+) 0 R", body):
            tables[name] = _characters(objects, objects[int(number)])
    (tree,) = (body for body in objects.values() if re.search(rb"/Type /Pages\b", body))
    kids = re.search(rb"\[(.*?)\]", tree, re.S)[1]
    pages = [objects[int(n)] for n in re.findall(rb"(\d+) 0 R", kids)]
    return [_text(objects, page, tables) for page in pages]


def _stream(objects: dict[int, bytes], owner: bytes, key: bytes) -> bytes:
    body = objects[int(re.search(rb"/%s (\d+) 0 R" % key, owner)[1])]
    data = _STREAM.search(body)[1]
    if b"ASCII85Decode" in body:
        data = base64.a85decode(data.strip().removesuffix(b"~>"))
    # The decompressor stops at the end of the data, before the line feed that may follow.
    return zlib.decompressobj().decompress(data) if b"FlateDecode" in body else data


def _characters(objects: dict[int, bytes], font: bytes) -> dict[int, str]:
    """Return code → character, from the font's table for copying text."""
    return {
        int(code, 16): bytes.fromhex(character.decode()).decode("utf-16-be")
        for code, character in _CODE.findall(_stream(objects, font, b"ToUnicode"))
    }


def _text(objects: dict[int, bytes], page: bytes, tables: dict[bytes, dict[int, str]]) -> str:
    table: dict[int, str] = {}
    words: list[str] = []
    for font, shown, end in _SHOWN.findall(_stream(objects, page, b"Contents")):
        if font:
            table = tables.get(font, {})
        elif end:
            words.append(" ")
        else:
            words.append("".join(table.get(code, chr(code)) for code in _ESCAPED.sub(_byte, shown)))
    return re.sub(r"\s+", " ", "".join(words)).strip()


def _byte(match: re.Match[bytes]) -> bytes:
    named = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
    word = match[1]
    return bytes([int(word, 8)]) if word.isdigit() else named.get(word, word)

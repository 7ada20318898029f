"""The text of a PDF that ReportLab wrote, page by page: enough of the format for tests."""

from __future__ import annotations

import base64
import re
import zlib
from pathlib import Path

from reportlab.pdfbase.pdfmetrics import stringWidth

_OBJECT = re.compile(rb"(\d+) 0 obj\b(.*?)\bendobj", re.DOTALL)
_STREAM = re.compile(rb"stream\r?\n(.*?)endstream", re.DOTALL)
_SHOWN = re.compile(rb"/(F[\d+]+) [\d.]+ Tf|\(((?:\\.|[^\\()])*)\) Tj|(T\*|ET)", re.DOTALL)
_ESCAPED = re.compile(rb"\\([0-7]{1,3}|.)", re.DOTALL)
_CODE = re.compile(rb"<([0-9A-F]{2})> <([0-9A-F]{4,})>")


def pages_of(path: Path) -> list[str]:
    """Return the text of each page, its lines divided by spaces."""
    objects = {int(n): body for n, body in _OBJECT.findall(path.read_bytes())}
    tables: dict[bytes, dict[int, str]] = {}
    for body in objects.values():
        for name, number in re.findall(rb"/(F\d+\+\d+) (\d+) 0 R", body):
            tables[name] = _characters(objects, objects[int(number)])
    return [_text(objects, page, tables) for page in _pages(objects)]


def _stream(body: bytes) -> bytes:
    data = _STREAM.search(body)[1]
    if b"ASCII85Decode" in body:
        data = base64.a85decode(data.strip().removesuffix(b"~>"))
    # The decompressor stops at the end of the data, before the line feed that may follow.
    return zlib.decompressobj().decompress(data) if b"FlateDecode" in body else data


def _characters(objects: dict[int, bytes], font: bytes) -> dict[int, str]:
    """Return code → character, from the font's table for copying text."""
    table = _stream(objects[int(re.search(rb"/ToUnicode (\d+) 0 R", font)[1])])
    return {
        int(code, 16): bytes.fromhex(character.decode()).decode("utf-16-be")
        for code, character in _CODE.findall(table)
    }


def _text(objects: dict[int, bytes], page: bytes, tables: dict[bytes, dict[int, str]]) -> str:
    content = _stream(objects[int(re.search(rb"/Contents (\d+) 0 R", page)[1])])
    table: dict[int, str] = {}
    words: list[str] = []
    for font, shown, end in _SHOWN.findall(content):
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


def _pages(objects: dict[int, bytes]) -> list[bytes]:
    (tree,) = (body for body in objects.values() if re.search(rb"/Type /Pages\b", body))
    kids = re.search(rb"\[(.*?)\]", tree, re.S)[1]
    return [objects[int(n)] for n in re.findall(rb"(\d+) 0 R", kids)]


def extents_of(path: Path) -> list[tuple[float, float, float, float]]:
    """Return what each page's words and images reach: left, bottom, right, top, in points."""
    objects = {int(n): body for n, body in _OBJECT.findall(path.read_bytes())}
    widths: dict[bytes, list[float]] = {}
    for body in objects.values():
        for name, number in re.findall(rb"/(F\d+\+\d+) (\d+) 0 R", body):
            row = re.search(rb"/Widths \[(.*?)\]", objects[int(number)], re.S)[1]
            widths[name] = [float(width) for width in row.split()]
    return [_extent(objects, page, widths) for page in _pages(objects)]


def _width(codes: bytes, size: float, widths: list[float] | None) -> float:
    if widths is None:  # the points of a list
        return float(stringWidth(codes.decode("cp1252"), "Helvetica", size))
    return size / 1000 * sum(widths[code] for code in codes)


_TOKEN = re.compile(
    rb"\((?:\\.|[^\\()])*\)|/[^\s/()<>\[\]]+|-?\d*\.?\d+|[A-Za-z*]+|[^\s\d]", re.DOTALL
)


def _extent(
    objects: dict[int, bytes], page: bytes, widths: dict[bytes, list[float]]
) -> tuple[float, float, float, float]:
    """Follow the drawing operators; every transformation that ReportLab uses here is upright."""
    content = _stream(objects[int(re.search(rb"/Contents (\d+) 0 R", page)[1])])
    place, saved = (1.0, 1.0, 0.0, 0.0), []  # scale x, scale y, shift x, shift y
    x = y = start = size = leading = 0.0
    font, operands = b"", []
    spots: list[tuple[float, float]] = []
    for token in _TOKEN.findall(content):
        if token[:1] in b"(/-.0123456789":
            operands.append(token)
            continue
        match token:
            case b"q":
                saved.append(place)
            case b"Q":
                place = saved.pop()
            case b"cm":
                a, b, c, d, e, f = map(float, operands[-6:])
                assert b == c == 0
                place = (
                    place[0] * a,
                    place[1] * d,
                    place[2] + place[0] * e,
                    place[3] + place[1] * f,
                )
            case b"Tm":
                start = x = float(operands[-2])
                y = float(operands[-1])
            case b"Td":
                start = x = start + float(operands[-2])
                y += float(operands[-1])
            case b"Tf":
                font, size = operands[-2][1:], float(operands[-1])
            case b"TL":
                leading = float(operands[-1])
            case b"T*":
                x, y = start, y - leading
            case b"Tj":
                codes = _ESCAPED.sub(_byte, operands[-1][1:-1])
                seen, whole = (
                    x + _width(part, size, widths.get(font)) for part in (codes.rstrip(), codes)
                )
                spots += [
                    (place[2] + x, place[3] + y),
                    (place[2] + seen, place[3] + y + 0.7 * size),
                ]
                x = whole
            case b"Do":
                spots += [place[2:], (place[2] + place[0], place[3] + place[1])]
        operands = []
    across, up = zip(*spots, strict=True)
    return min(across), min(up), max(across), max(up)

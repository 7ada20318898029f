"""The PDF: pages with numbers, contents that are right, names of every kind, nothing cut off."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given, settings
from hypothesis import strategies as st
from reportlab.lib.pagesizes import A4

from persondet.report import pdf
from persondet.report.build import build_document
from persondet.report.document import (
    Block,
    Document,
    Heading,
    Listing,
    Note,
    Paragraph,
    Section,
    Table,
)
from persondet.report.pdf import MARGIN, WIDTH, column_widths, markup, write_pdf
from tests.report.finished_run import write_finished_run
from tests.report.pdf_pages import extents_of, pages_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Document, Path]:
    folder = tmp_path_factory.mktemp("runs")
    document = build_document(write_finished_run(folder / "finished", classes=("<i>person", "b")))
    write_pdf(document, folder / "report.pdf")
    return document, folder / "report.pdf"


def pages(tmp_path: Path, *blocks: Block) -> list[str]:
    section = Section("only", "Only", tuple(blocks))
    write_pdf(Document("Title", "Subtitle", (section,)), tmp_path / "x.pdf")
    return pages_of(tmp_path / "x.pdf")


def test_every_page_has_its_number_and_the_size_of_a4(finished: tuple[Document, Path]) -> None:
    _, path = finished
    texts = pages_of(path)
    assert len(texts) > 10
    for number, text in enumerate(texts, start=1):
        assert f"Page {number} of {len(texts)}" in text
    sizes = set(re.findall(rb"/MediaBox \[ ?([\d. ]+?) ?\]", path.read_bytes()))
    assert sizes == {b"0 0 595.2756 841.8898"}


def test_the_contents_name_the_page_of_each_section(finished: tuple[Document, Path]) -> None:
    document, path = finished
    first, *rest = pages_of(path)
    assert "Contents" in first
    for number, section in enumerate(document.sections, start=1):
        title = f"{number}. {section.title}"
        # ReportLab writes the dots and the number of an entry before its words.
        told = re.search(rf"(\d+) *{re.escape(title)}", first)
        assert told is not None, title
        assert title in rest[int(told[1]) - 2]


def test_the_viewer_gets_an_outline(finished: tuple[Document, Path]) -> None:
    data = finished[1].read_bytes()
    assert b"/Outlines" in data
    assert data.count(b"/Parent") > 9


def test_pdf_and_document_say_the_same(finished: tuple[Document, Path]) -> None:
    document, path = finished
    text = " ".join(pages_of(path))
    for block in document.blocks():
        if isinstance(block, Paragraph):
            assert " ".join(block.text.split()[:6]) in text
        elif isinstance(block, Table):
            assert " ".join(block.caption.split()[:4]) in text
    assert "<i>person" in text


def test_no_heading_is_left_alone_at_the_foot_of_a_page(tmp_path: Path) -> None:
    table = Table("Caption", ("a",), tuple((str(n),) for n in range(12)))
    for filler in range(29, 34):
        texts = pages(tmp_path, *[Paragraph("filler")] * filler, Heading("Lonely"), table)
        (page,) = (text for text in texts[1:] if "Lonely" in text)
        assert "Caption" in page


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Ωμέγα Прохожий", "Ωμέγα Прохожий"),
        ("emoji \U0001f9cd!", "emoji [U+1F9CD]!"),
        ("שלום", "םולש"),
    ],
)
def test_names_in_other_scripts_are_shown(tmp_path: Path, name: str, shown: str) -> None:
    assert shown in pages(tmp_path, Paragraph(name))[1]


@pytest.fixture
def fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder as the only one in which this machine has fonts."""
    monkeypatch.setattr(pdf, "FONT_FOLDERS", (str(tmp_path / "fonts"),))
    pdf._more_fonts.cache_clear()
    yield tmp_path / "fonts"
    pdf._more_fonts.cache_clear()


def test_what_no_font_has_is_shown_as_its_numbers(fonts: Path, tmp_path: Path) -> None:
    """And never as an empty cell: every font of the file is embedded in it."""
    table = Table("Caption", ("class",), (("日本語",), ("행인",)))
    text = pages(tmp_path, table)[1]
    assert "[U+65E5 U+672C U+8A9E]" in text
    assert "[U+D589 U+C778]" in text
    data = (tmp_path / "x.pdf").read_bytes()
    described = set(re.findall(rb"/BaseFont /([\w+-]+)", data)) - {b"Helvetica"}
    assert described
    assert all(b"+DejaVuSans" in name for name in described)


def test_a_font_of_this_machine_shows_them(fonts: Path, tmp_path: Path) -> None:
    fonts.mkdir()
    (fonts / "ipag.ttf").write_bytes(b"no font")
    write_font(fonts / "wqy-zenhei.ttc", "日本語")
    shown = pages(tmp_path, Table("Caption", ("class",), (("日本語人",),)))[1]
    assert "日本語" in shown
    assert "[U+4EBA]" in shown
    assert b"/FontFile2" in (tmp_path / "x.pdf").read_bytes()


def write_font(path: Path, letters: str) -> None:
    """Write a TrueType font in which every letter is a square."""
    names = [".notdef", *(f"uni{ord(letter):04X}" for letter in letters)]
    pen = TTGlyphPen(None)
    for number, point in enumerate([(0, 0), (0, 700), (700, 700), (700, 0)]):
        (pen.lineTo if number else pen.moveTo)(point)
    pen.closePath()
    glyph = pen.glyph()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(letter): f"uni{ord(letter):04X}" for letter in letters})
    font.setupGlyf(dict.fromkeys(names, glyph))
    font.setupHorizontalMetrics(dict.fromkeys(names, (800, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Squares", "styleName": "Regular", "psName": "Squares"})
    font.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    font.setupPost()
    font.save(path)


@settings(max_examples=50)
@given(st.text(max_size=60))
def test_any_text_is_markup_that_says_that_text(text: str) -> None:
    shown = re.sub(r"</?font[^>]*>", "", markup(text))
    assert "<" not in shown
    assert ">" not in shown
    assert not re.search(r"&(?!amp;|lt;|gt;)", shown)


def test_endless_names_fit(tmp_path: Path) -> None:
    name = "x" * 400
    table = Table("Caption", ("a", "b", name[:60]), ((name, "1", name),) * 3)
    texts = pages(tmp_path, table, Listing((name,)), Paragraph(name), Heading(name))
    assert sum(text.count("x") for text in texts[1:]) >= 400 * 8 + 60


def test_nothing_lies_outside_the_margins(finished: tuple[Document, Path], tmp_path: Path) -> None:
    """Words and images; in the usual report, and with names that are far too long."""
    name = "W" * 400
    rows = ((name, "日本語" * 40, name, "1"),) * 3
    table = Table(name, ("a", name[:60], "c", name[:60]), rows, (3,))
    pages(
        tmp_path,
        table,
        Listing((name, "  " + name)),
        Paragraph(name),
        Heading(name),
        Note("warning", name),
    )
    for path in (finished[1], tmp_path / "x.pdf"):
        for left, bottom, right, top in extents_of(path):
            assert left >= MARGIN - 0.1
            assert right <= MARGIN + WIDTH + 4  # ReportLab sets up to a space more
            assert bottom >= 20  # the foot line
            assert top <= A4[1] - MARGIN + 0.1


@settings(max_examples=40)
@given(st.lists(st.lists(st.text("mil W", max_size=60), min_size=3, max_size=3), min_size=1))
def test_the_columns_of_a_table_fit_the_page(rows: list[list[str]]) -> None:
    widths = column_widths(Table("", ("a", "b", "c"), tuple(map(tuple, rows))))
    assert sum(widths) <= WIDTH + 1e-6
    assert all(width >= 34 for width in widths)

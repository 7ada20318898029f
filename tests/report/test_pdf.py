"""The PDF: pages with numbers, contents that are right, names of every kind, nothing cut off."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.report.build import build_document
from persondet.report.document import Document, Heading, Listing, Paragraph, Section, Table
from persondet.report.pdf import write_pdf
from persondet.report.pdf_style import WIDTH
from persondet.report.pdf_table import column_widths
from persondet.report.pdf_text import markup
from tests.report.finished_run import write_finished_run
from tests.report.pdf_pages import pages_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Document, Path]:
    folder = tmp_path_factory.mktemp("runs")
    document = build_document(write_finished_run(folder / "finished", classes=("<i>person", "b")))
    write_pdf(document, folder / "report.pdf")
    return document, folder / "report.pdf"


def pages(tmp_path: Path, *blocks: Paragraph | Table | Listing | Heading) -> list[str]:
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


def test_chinese_japanese_and_korean_get_a_font_of_their_own() -> None:
    assert markup("行人") == '<font name="STSong-Light">行人</font>'
    assert "HeiseiKakuGo-W5" in markup("ひと")
    assert "HYGothic-Medium" in markup("사람")


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


@settings(max_examples=40)
@given(st.lists(st.lists(st.text("mil W", max_size=60), min_size=3, max_size=3), min_size=1))
def test_the_columns_of_a_table_fit_the_page(rows: list[list[str]]) -> None:
    widths = column_widths(Table("", ("a", "b", "c"), tuple(map(tuple, rows))))
    assert sum(widths) <= WIDTH + 1e-6
    assert all(width >= 34 for width in widths)

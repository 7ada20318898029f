"""The PDF: pages with numbers, contents that are right, names of every kind, nothing cut off."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import matplotlib.font_manager
import pytest
from hypothesis import example, given, settings
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
from tests.report.pdf_pages import pages_of


def pages(tmp_path: Path, *blocks: Block) -> list[str]:
    section = Section("only", "Only", tuple(blocks))
    write_pdf(Document("Title", "Subtitle", (section,)), tmp_path / "x.pdf")
    return pages_of(tmp_path / "x.pdf")


@pytest.mark.slow
def test_pages_have_numbers_the_contents_name_them_and_all_is_said(tmp_path: Path) -> None:
    document = build_document(write_finished_run(tmp_path / "run", classes=("<i>person", "b")))
    path = tmp_path / "report.pdf"
    write_pdf(document, path)
    texts = pages_of(path)
    assert len(texts) > 10
    for number, text in enumerate(texts, start=1):
        assert f"Page {number} of {len(texts)}" in text
    for number, section in enumerate(document.sections, start=1):
        title = f"{number}. {section.title}"
        # ReportLab writes the dots and the number of an entry before its words.
        told = re.search(rf"(\d+) *{re.escape(title)}", texts[0])
        assert told is not None, title
        assert title in texts[int(told[1]) - 1]
    data = path.read_bytes()
    sizes = set(re.findall(rb"/MediaBox \[ ?([\d. ]+?) ?\]", data))
    assert sizes == {b"0 0 595.2756 841.8898"}
    assert b"/Outlines" in data and data.count(b"/Parent") > 9  # for the viewer
    whole = " ".join(texts)
    for block in document.blocks():
        if isinstance(block, Paragraph | Table):
            said = block.text if isinstance(block, Paragraph) else block.caption
            assert " ".join(said.split()[:4]) in whole
    assert "<i>person" in whole


def test_no_heading_is_left_alone_at_the_foot_of_a_page(tmp_path: Path) -> None:
    table = Table("Caption", ("a",), tuple((str(n),) for n in range(12)))
    for filler in range(29, 34):
        texts = pages(tmp_path, *[Paragraph("filler")] * filler, Heading("Lonely"), table)
        (page,) = (text for text in texts[1:] if "Lonely" in text)
        assert "Caption" in page


@pytest.fixture
def fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder as the only one in which this machine has fonts."""
    folder = tmp_path / "fonts"
    folder.mkdir()
    find = lambda: [str(path) for path in folder.iterdir()]  # noqa: E731
    monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", find)
    pdf._more_fonts.cache_clear()
    yield folder
    pdf._more_fonts.cache_clear()


def test_names_in_other_scripts_are_shown(fonts: Path, tmp_path: Path) -> None:
    """What no font has is shown as its numbers, and every font of the file is embedded in it."""
    names = ("Ωμέγα Прохожий", "emoji \U0001f9cd!", "שלום", "日本語⌒")
    text = pages(tmp_path, Table("Caption", ("class",), tuple((name,) for name in names)))[1]
    for shown in ("Ωμέγα Прохожий", "emoji [U+1F9CD]!", "םולש", "[U+65E5 U+672C U+8A9E U+2312]"):
        assert shown in text
    described = set(re.findall(rb"/BaseFont /([\w+-]+)", (tmp_path / "x.pdf").read_bytes()))
    assert all(b"+DejaVuSans" in name for name in described - {b"Helvetica"})


def test_a_font_of_this_machine_shows_them(fonts: Path, tmp_path: Path) -> None:
    (fonts / "ipag.ttf").write_bytes(b"no font")
    mono = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSansMono.ttf")
    shutil.copy(mono, fonts / "wqy-zenhei.ttc")
    (shown,) = pages(tmp_path, Table("Caption", ("class",), (("⌒人",),)))[1:]
    assert "⌒" in shown and "[U+4EBA]" in shown


@settings(max_examples=50)
@given(st.text("<>&;a\u05d0\u0301\u65e5\x00 -\U0001f9cd", max_size=30))
def test_any_text_is_markup_that_says_that_text(text: str) -> None:
    shown = re.sub(r"</?font[^>]*>", "", markup(text))
    assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", shown)


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext is not on PATH")
def test_names_that_are_far_too_long_fit_between_the_margins(tmp_path: Path) -> None:
    name = "W" * 400
    table = Table(
        name, ("a", name[:60], "c", name[:60]), ((name, "日本語" * 40, name, "1"),) * 2, (3,)
    )
    blocks = (table, Listing((name, "  " + name)), Paragraph(name), Note("warning", name))
    texts = pages(tmp_path, *blocks, Heading(name))
    assert sum(text.count("W") for text in texts[1:]) >= 400 * 10  # nothing is cut off
    command = ["pdftotext", "-bbox", str(tmp_path / "x.pdf"), "-"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    places = re.findall(r'<word xMin="(.*?)" yMin="(.*?)" xMax="(.*?)" yMax="(.*?)"', found)
    assert places
    for left, top, right, bottom in (map(float, place) for place in places):
        # ReportLab sets up to a space more; below is the foot line.
        assert left >= MARGIN - 0.1 and right <= MARGIN + WIDTH + 4
        assert top >= MARGIN - 4 and bottom <= A4[1] - 20


@settings(max_examples=30)
@given(st.lists(st.lists(st.text("mil W", max_size=60), min_size=3, max_size=3), min_size=1))
@example([["W" * 60, "m", "W" * 30]])
def test_the_columns_of_a_table_fit_the_page(rows: list[list[str]]) -> None:
    widths = column_widths(Table("", ("a", "b", "c"), tuple(map(tuple, rows))))
    assert sum(widths) <= WIDTH + 1e-6
    assert all(width >= 34 for width in widths)

"""The report as PDF: A4, contents with page numbers, bookmarks; the same bytes for the same report.

DejaVu Sans comes with matplotlib and has Latin, Greek, Cyrillic, Hebrew, Arabic and much else. What
it lacks, such as Chinese, Japanese and Korean, is set in the first font of this machine that has it
(`FONT_FILES`); what no font has is shown as its code points: [U+65E5 U+672C]. Every font is
embedded, so that the PDF looks the same in every viewer.
"""

from __future__ import annotations

import functools
import io
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import yaml
from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFError, TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    CondPageBreak,
    Flowable,
    Frame,
    Image,
    KeepTogether,
    PageBreak,
    PageTemplate,
    Spacer,
    TableStyle,
)
from reportlab.platypus import Paragraph as Set
from reportlab.platypus import Table as Grid
from reportlab.platypus.tableofcontents import TableOfContents

from persondet.files import atomic_path
from persondet.report import document as doc
from persondet.report.facts import one_line, read_template

SANS, BOLD, ITALIC, MONO = "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono"
# Fonts with Chinese, Japanese or Korean and TrueType outlines, which ReportLab can embed; those of
# Noto CJK have others.
FONT_FILES = (
    *("wqy-zenhei.ttc", "wqy-microhei.ttc", "DroidSansFallbackFull.ttf", "DroidSansFallback.ttf"),
    *("NotoSansSC-Regular.ttf", "NotoSansJP-Regular.ttf", "NotoSansKR-Regular.ttf"),
    *("ipagp.ttf", "ipag.ttf", "NanumGothic.ttf", "unifont.ttf", "Arial Unicode.ttf"),
    *("msyh.ttc", "simsun.ttc", "msgothic.ttc", "malgun.ttf"),
)
_RIGHT_TO_LEFT = re.compile(
    r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff](?:[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff \-]*"
    r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff])?"
)
_HIGHEST = 96 * mm  # of an image: two and their captions share a page
_NARROW = re.compile(r" {2,}")  # runs of spaces, which a paragraph would close up
_ROOM_FOR_A_SECTION = 60 * mm

MARGIN = 20 * mm
WIDTH = A4[0] - 2 * MARGIN  # points, of the text

# Close lines, so that the contents are one page.
CONTENTS = TableStyle(
    [(f"{side}PADDING", (0, 0), (-1, -1), 0) for side in ("LEFT", "RIGHT", "TOP")]
    + [("BOTTOMPADDING", (0, 0), (-1, -1), 1.5)]
)


def _styles() -> dict[str, ParagraphStyle]:
    """Return the paragraph styles of `templates/pdf_styles.yaml` by their names."""
    sheet: dict[str, dict[str, Any]] = yaml.safe_load(read_template("pdf_styles.yaml"))
    styles: dict[str, ParagraphStyle] = {}
    for name, changes in sheet.items():
        colours = {key: HexColor(value) for key, value in changes.items() if str(value)[0] == "#"}
        styles[name] = ParagraphStyle(name, parent=styles.get("text"), **(changes | colours))
    return styles


STYLES = _styles()
_PADDING = 4  # points on either side of a cell
_NARROWEST = 34  # points
_SHORT = 14  # rows; such a table stays on one page
_LOOK = TableStyle(
    [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("VALIGN", (0, 0), (-1, 0), "BOTTOM"),
        ("LEFTPADDING", (0, 0), (-1, -1), _PADDING),
        ("RIGHTPADDING", (0, 0), (-1, -1), _PADDING),
        ("TOPPADDING", (0, 0), (-1, -1), 2.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
        ("LINEBELOW", (0, 0), (-1, 0), 0.9, HexColor("#777777")),
        ("LINEBELOW", (0, 1), (-1, -1), 0.4, HexColor("#CCCCCC")),
    ]
)


def write_pdf(document: doc.Document, path: str | Path) -> None:
    """Write the report, whole or not at all.

    Raises: OutputExistsError: when `path` cannot be written.
    """
    _register_fonts()
    with atomic_path(path) as temporary:
        pages = _Pages(str(temporary), document)
        pages.multiBuild(_story(document))


class _Pages(BaseDocTemplate):
    """Pages with a foot line; tells the contents where the headings are."""

    def __init__(self, path: str, document: doc.Document) -> None:
        super().__init__(
            path,
            pagesize=A4,
            title=document.title,
            author="persondet",
            subject=document.subtitle,
            invariant=1,  # no date and no random number in the file
            pageCompression=1,
        )
        self._foot = document.title
        self._total = 0
        frame = Frame(MARGIN, MARGIN, WIDTH, A4[1] - 2 * MARGIN, 0, 0, 0, 0)
        self.addPageTemplates([PageTemplate("page", [frame], onPage=self._number)])

    def _number(self, canvas: Canvas, _: BaseDocTemplate) -> None:
        canvas.saveState()
        text = f"Page {canvas.getPageNumber()}" + (f" of {self._total}" if self._total else "")
        number = Set(markup(text), STYLES["number"])
        title = Set(markup(one_line(self._foot, 90)), STYLES["foot"])
        for line in (title, number):
            _, height = line.wrap(WIDTH, 20 * mm)
            line.drawOn(canvas, MARGIN, 12 * mm - height + 4)
        canvas.restoreState()

    def afterFlowable(self, flowable: Flowable) -> None:
        """Note the page of a heading: for the contents and for the viewer's outline."""
        told = getattr(flowable, "told", None)
        if told:
            level, key, text = told
            self.canv.bookmarkPage(key)
            self.canv.addOutlineEntry(text, key, level, closed=level > 0)
            self.notify("TOCEntry", (level, markup(text), self.page, key))

    def afterPage(self) -> None:
        """Remember how many pages the last pass had: the next one names it on each page."""
        self._seen = self.page

    def _endBuild(self) -> None:
        super()._endBuild()
        self._total = self._seen


def _story(document: doc.Document) -> list[Flowable]:
    contents = TableOfContents(
        levelStyles=[STYLES["contents 1"], STYLES["contents 2"]],
        dotsMinLevel=0,
        tableStyle=CONTENTS,
    )
    story: list[Flowable] = [
        Set(markup(document.title), STYLES["title"]),
        Set(markup(document.subtitle), STYLES["subtitle"]),
        Set("Contents", STYLES["contents"]),
        contents,
        PageBreak(),
    ]
    labels = document.labels()
    for number, section in enumerate(document.sections, start=1):
        story += _section(section, number, labels)
    return story


def _section(section: doc.Section, number: int, labels: dict[int, str]) -> list[Flowable]:
    title = f"{number}. {section.title}"
    story: list[Flowable] = [
        CondPageBreak(_ROOM_FOR_A_SECTION),
        _heading(title, 0, f"section-{number}"),
    ]
    headings = 0
    waiting: list[Flowable] = []  # a heading goes to the page of what follows it
    for block in section.blocks:
        if isinstance(block, doc.Heading):
            headings += 1
            waiting.append(_heading(block.text, 1, f"section-{number}-{headings}"))
            continue
        first, *rest = _WRITERS[type(block)](block, labels.get(id(block), ""))
        if waiting:
            parts = first._content if isinstance(first, KeepTogether) else [first]
            first = KeepTogether([*waiting, *parts])
            waiting = []
        story += [first, *rest]
    return story + waiting


def _heading(text: str, level: int, key: str) -> Flowable:
    heading = Set(markup(text), STYLES[f"heading {level + 1}"])
    heading.told = (level, key, text)
    return heading


def _bullets(block: doc.Bullets, _: str) -> list[Flowable]:
    return [
        Set(_led(lead, text), STYLES["point"], bulletText="•") for lead, text in block.items
    ] + [Spacer(0, 4)]


def _led(lead: str, text: str) -> str:
    if not lead:
        return markup(text)
    space = "" if text[:1] in (":", ",", ";") else " "
    return f"<b>{markup(lead)}</b>{space}{markup(text)}"


def _listing(block: doc.Listing, _: str) -> list[Flowable]:
    # Each line by itself, so that a long listing can go on over the page.
    lines = []
    for number, line in enumerate(block.lines):
        indent = len(line) - len(line.lstrip(" "))
        style = STYLES["first line" if number == 0 else "line"]
        spaced = _NARROW.sub(lambda match: "\u00a0" * len(match[0]), line.lstrip(" "))
        lines.append(Set("\u00a0" * indent + markup(spaced, MONO), style))
    return [*lines, Spacer(0, 10)]


def _table(block: doc.Table, label: str) -> list[Flowable]:
    """Set a table under its caption; a short one is kept on one page."""
    caption = f"<b>{label}.</b> {markup(block.caption)}."
    rows = [_row(block.header, block.numeric, "head")]
    rows += [_row(row, block.numeric, "cell") for row in block.rows]
    widths: Any = {"colWidths": column_widths(block), "repeatRows": 1, "splitInRow": 0}
    grid = Grid(rows, hAlign="LEFT", style=_LOOK, **widths)
    parts = [Set(caption, STYLES["table caption"]), grid, Spacer(0, 12)]
    return [KeepTogether(parts)] if len(block.rows) <= _SHORT else parts


def _figure(block: doc.Figure, label: str) -> list[Flowable]:
    shown = block.image
    # Not blown up: a small image has no more than 72 pixels per inch.
    scale = min(WIDTH / shown.width, _HIGHEST / shown.height, 1.0)
    image = Image(
        io.BytesIO(shown.data), shown.width * scale, shown.height * scale, hAlign="CENTER"
    )
    reading = f" <i>How to read it:</i> {markup(block.reading)}" if block.reading else ""
    caption = f"<b>{label}.</b> {markup(block.caption)}{reading}"
    return [KeepTogether([Spacer(0, 6), image, Set(caption, STYLES["caption"])])]


_WRITERS: dict[type[doc.Block], Callable[[Any, str], list[Flowable]]] = {
    doc.Paragraph: lambda block, _: [Set(_led(block.lead, block.text), STYLES["text"])],
    doc.Bullets: _bullets,
    doc.Note: lambda block, _: [Set(markup(block.text), STYLES[block.kind])],
    doc.Listing: _listing,
    doc.Table: _table,
    doc.Figure: _figure,
}


def column_widths(table: doc.Table, available: float = WIDTH) -> list[float]:
    """Return the widths of the columns, points; together at most `available`.

    Each gets what its longest text needs. Where that is too much, the wide ones give way down to
    one common width, and their cells wrap.
    """
    fonts = (BOLD, *(SANS for _ in table.rows))
    size, around = STYLES["cell"].fontSize, 2 * _PADDING + 1
    needs = [
        max(
            _NARROWEST,
            *(width_of(*cell, size) + around for cell in zip(column, fonts, strict=True)),
        )
        for column in zip(table.header, *table.rows, strict=True)
    ]
    # The narrowest get what they need, and those wider share the rest.
    narrowest, count = sorted(needs), len(needs)
    limit = max((available - sum(narrowest[:n])) / (count - n) for n in range(count))
    return [min(need, limit) for need in needs]


def _row(cells: Sequence[str], numeric: Sequence[int], style: str) -> list[Flowable]:
    return [
        Set(markup(cell), STYLES[f"numeric {style}" if place in numeric else style])
        for place, cell in enumerate(cells)
    ]


@functools.cache
def _register_fonts() -> None:
    """Make the fonts known to ReportLab; they come with matplotlib."""
    from matplotlib import get_data_path

    folder = Path(get_data_path()) / "fonts" / "ttf"
    for name in (SANS, BOLD, ITALIC, MONO):
        pdfmetrics.registerFont(TTFont(name, str(folder / f"{name}.ttf")))
    pdfmetrics.registerFontFamily(SANS, normal=SANS, bold=BOLD, italic=ITALIC, boldItalic=BOLD)
    pdfmetrics.registerFontFamily(MONO, normal=MONO, bold=MONO, italic=MONO, boldItalic=MONO)


def markup(text: str, font: str = SANS) -> str:
    """Return plain text as the markup of a ReportLab paragraph that shows exactly that text.

    Words written from right to left are turned around, since ReportLab sets from left to right;
    Arabic letters are not joined.
    """
    return "".join(
        escape(run) if name is None else f'<font name="{name}">{escape(run)}</font>'
        for run, name in _runs(text, font)
    )


def width_of(text: str, font: str, size: float) -> float:
    """Return how wide a text is, as `markup` sets it, in a font of `size` points, in points."""
    runs = _runs(text, font)
    return float(sum(pdfmetrics.stringWidth(run, name or font, size) for run, name in runs))


def _runs(text: str, font: str) -> Iterator[tuple[str, str | None]]:
    """Yield (letters to set, their font) along a text; None: the paragraph's own font."""
    _register_fonts()
    known = pdfmetrics.getFont(font).face.charToGlyph
    text = _RIGHT_TO_LEFT.sub(_turned, unicodedata.normalize("NFC", text))
    for name, characters in itertools.groupby(text, lambda letter: _font_of(letter, known)):
        if name == "":
            yield f"[{' '.join(f'U+{ord(character):04X}' for character in characters)}]", None
        else:
            yield "".join(characters), name


def _font_of(character: str, known: dict[int, int]) -> str | None:
    """Return the font of a character: None for the paragraph's own, "" when no font has it."""
    if ord(character) in known or character == " ":
        return None
    fonts = (name for name, letters in _more_fonts().items() if ord(character) in letters)
    return next(fonts, "")


@functools.cache
def _more_fonts() -> dict[str, dict[int, int]]:
    """Register the fonts of this machine and return each one's characters, the best font first."""
    from matplotlib.font_manager import findSystemFonts

    there = {Path(path).name: path for path in findSystemFonts()}
    found = {}
    for number, name in enumerate(file for file in FONT_FILES if file in there):
        try:
            font = TTFont(f"More{number}", there[name], subfontIndex=0)
        except (TTFError, OSError, ValueError, LookupError):
            continue
        pdfmetrics.registerFont(font)
        found[font.fontName] = font.face.charToGlyph
    return found


def _turned(match: re.Match[str]) -> str:
    """Turn a run of words around; marks stay behind the letter that they belong to."""
    letters: list[str] = []
    for character in match[0]:
        if unicodedata.combining(character) and letters:
            letters[-1] += character
        else:
            letters.append(character)
    return "".join(reversed(letters))

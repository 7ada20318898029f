"""The report as PDF: A4, contents with page numbers, bookmarks; the same bytes for the same report."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
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
)
from reportlab.platypus import Paragraph as Set
from reportlab.platypus.tableofcontents import TableOfContents

from persondet.files import atomic_path
from persondet.report.document import (
    Block,
    Bullets,
    Document,
    Figure,
    Heading,
    Listing,
    Note,
    Paragraph,
    Section,
    Table,
)
from persondet.report.own_files import MARK
from persondet.report.pdf_style import CONTENTS, MARGIN, STYLES, WIDTH
from persondet.report.pdf_table import set_table
from persondet.report.pdf_text import MONO, markup, register_fonts

_HIGHEST = 96 * mm  # of a picture: two and their captions share a page
_NARROW = re.compile(r" {2,}")  # runs of spaces, which a paragraph would close up
_ROOM_FOR_A_SECTION = 60 * mm


def write_pdf(document: Document, path: str | Path) -> None:
    """Write the report, whole or not at all.

    Raises: OutputExistsError: when `path` cannot be written.
    """
    register_fonts()
    with atomic_path(path) as temporary:
        pages = _Pages(str(temporary), document)
        pages.multiBuild(_story(document))


class _Pages(BaseDocTemplate):
    """Pages with a foot line; tells the contents where the headings are."""

    def __init__(self, path: str, document: Document) -> None:
        super().__init__(
            path,
            pagesize=A4,
            title=document.title,
            author=MARK,
            subject=document.subtitle,
            invariant=1,  # no date and no random number in the file
            pageCompression=1,
        )
        self._foot = document.title
        self._total = 0
        frame = Frame(
            *(MARGIN, MARGIN, WIDTH, A4[1] - 2 * MARGIN),
            *(0, 0, 0, 0),
        )
        self.addPageTemplates([PageTemplate("page", [frame], onPage=self._number)])

    def _number(self, canvas: Canvas, _: BaseDocTemplate) -> None:
        canvas.saveState()
        text = f"Page {canvas.getPageNumber()}" + (f" of {self._total}" if self._total else "")
        number = Set(markup(text), STYLES["number"])
        title = Set(markup(_cut(self._foot, 90)), STYLES["foot"])
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


def _story(document: Document) -> list[Flowable]:
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


def _section(section: Section, number: int, labels: dict[int, str]) -> list[Flowable]:
    title = f"{number}. {section.title}"
    story: list[Flowable] = [
        CondPageBreak(_ROOM_FOR_A_SECTION),
        _heading(title, 0, f"section-{number}"),
    ]
    headings = 0
    waiting: list[Flowable] = []  # a heading goes to the page of what follows it
    for block in section.blocks:
        if isinstance(block, Heading):
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


def _paragraph(block: Paragraph, _: str) -> list[Flowable]:
    return [Set(_led(block.lead, block.text), STYLES["text"])]


def _bullets(block: Bullets, _: str) -> list[Flowable]:
    return [
        Set(_led(lead, text), STYLES["point"], bulletText="•") for lead, text in block.items
    ] + [Spacer(0, 4)]


def _led(lead: str, text: str) -> str:
    if not lead:
        return markup(text)
    space = "" if text[:1] in (":", ",", ";") else " "
    return f"<b>{markup(lead)}</b>{space}{markup(text)}"


def _note(block: Note, _: str) -> list[Flowable]:
    return [Set(markup(block.text), STYLES[block.kind])]


def _listing(block: Listing, _: str) -> list[Flowable]:
    # Each line by itself, so that a long listing can go on over the page.
    lines = []
    for number, line in enumerate(block.lines):
        indent = len(line) - len(line.lstrip(" "))
        style = STYLES["first line" if number == 0 else "line"]
        spaced = _NARROW.sub(lambda match: "\u00a0" * len(match[0]), line.lstrip(" "))
        lines.append(Set("\u00a0" * indent + markup(spaced, MONO), style))
    return [*lines, Spacer(0, 10)]


def _table(block: Table, label: str) -> list[Flowable]:
    caption = f"<b>{label}.</b> {markup(block.caption)}."
    return set_table(block, Set(caption, STYLES["table caption"]))


def _figure(block: Figure, label: str) -> list[Flowable]:
    picture = block.picture
    # Not blown up: a small picture has no more than 72 pixels per inch.
    scale = min(WIDTH / picture.width, _HIGHEST / picture.height, 1.0)
    image = Image(
        io.BytesIO(picture.data), picture.width * scale, picture.height * scale, hAlign="CENTER"
    )
    reading = f" <i>How to read it:</i> {markup(block.reading)}" if block.reading else ""
    caption = f"<b>{label}.</b> {markup(block.caption)}{reading}"
    return [KeepTogether([Spacer(0, 6), image, Set(caption, STYLES["caption"])])]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


_WRITERS: dict[type[Block], Callable[[Any, str], list[Flowable]]] = {
    Paragraph: _paragraph,
    Bullets: _bullets,
    Note: _note,
    Listing: _listing,
    Table: _table,
    Figure: _figure,
}

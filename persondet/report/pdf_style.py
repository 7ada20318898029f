"""How the PDF looks: page, letters, colours."""

from __future__ import annotations

from reportlab.lib.colors import HexColor
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.platypus import TableStyle

from persondet.report.pdf_text import BOLD, MONO, SANS

MARGIN = 20 * mm
WIDTH = A4[0] - 2 * MARGIN  # points, of the text
CELL_SIZE = 8.0  # points

# Close lines, so that the contents are one page.
CONTENTS = TableStyle(
    [(f"{side}PADDING", (0, 0), (-1, -1), 0) for side in ("LEFT", "RIGHT", "TOP")]
    + [("BOTTOMPADDING", (0, 0), (-1, -1), 1.5)]
)
_INK, _GREY, _BLUE, _VERMILION = "#222222", "#555555", "#0072B2", "#D55E00"
_TEXT = ParagraphStyle(
    "text",
    fontName=SANS,
    fontSize=9.5,
    leading=13.8,
    spaceAfter=7,
    textColor=HexColor(_INK),
    splitLongWords=1,
    allowWidows=0,
    allowOrphans=0,
)


def _style(name: str, **changes: object) -> ParagraphStyle:
    return ParagraphStyle(name, parent=_TEXT, **changes)


def _box(name: str, line: str, ground: str) -> ParagraphStyle:
    return _style(
        name,
        backColor=HexColor(ground),
        borderColor=HexColor(line),
        borderWidth=0.7,
        borderPadding=(5, 7, 6, 7),
        leftIndent=8,
        rightIndent=8,
        spaceBefore=13,
        spaceAfter=15,
        fontSize=9,
        leading=13,
    )


_LINE = {"fontName": MONO, "fontSize": 7.6, "leading": 11, "spaceAfter": 0}
_LINE |= {"leftIndent": 8, "backColor": HexColor("#F4F4F4"), "borderPadding": (1, 4, 2, 4)}
_SMALL = {"fontSize": 8.5, "leading": 12, "textColor": HexColor("#444444")}
_CELL = {"fontSize": CELL_SIZE, "leading": 10.6, "spaceAfter": 0}

STYLES = {
    style.name: style
    for style in (
        _TEXT,
        _style("title", fontName=BOLD, fontSize=21, leading=26, spaceBefore=0, spaceAfter=6),
        _style("subtitle", fontSize=11, leading=15, spaceAfter=16, textColor=HexColor(_GREY)),
        _style("contents", fontName=BOLD, fontSize=13, leading=17, spaceAfter=8),
        _style("contents 1", fontName=BOLD, fontSize=9, leading=12, spaceBefore=3, spaceAfter=0),
        _style("contents 2", fontSize=8, leading=10.6, leftIndent=14, spaceAfter=0),
        _style(
            "heading 1",
            fontName=BOLD,
            fontSize=15,
            leading=19,
            spaceBefore=16,
            spaceAfter=9,
            textColor=HexColor(_BLUE),
            keepWithNext=1,
        ),
        _style(
            "heading 2",
            fontName=BOLD,
            fontSize=11,
            leading=14.5,
            spaceBefore=9,
            spaceAfter=5,
            keepWithNext=1,
        ),
        _style("point", leftIndent=13, bulletIndent=2, spaceAfter=4),
        _box("answer", _BLUE, "#EEF5FA"),
        _box("warning", _VERMILION, "#FDF1EA"),
        _box("missing", "#999999", "#F3F3F3"),
        _style("caption", **_SMALL, spaceBefore=4, spaceAfter=12),
        _style("table caption", **_SMALL, spaceBefore=6, spaceAfter=4, keepWithNext=1),
        _style("line", **_LINE),
        _style("first line", **{**_LINE, "spaceBefore": 5}),
        _style("cell", **_CELL),
        _style("head", **_CELL, fontName=BOLD),
        _style("numeric cell", **_CELL, alignment=TA_RIGHT),
        _style("numeric head", **_CELL, fontName=BOLD, alignment=TA_RIGHT),
        _style("foot", fontSize=7.5, leading=9, textColor=HexColor(_GREY)),
        _style("number", fontSize=7.5, leading=9, textColor=HexColor(_GREY), alignment=TA_RIGHT),
    )
}

"""Tables in the PDF: columns as wide as their text, cells that wrap, the header on every page."""

from __future__ import annotations

from collections.abc import Sequence

from reportlab.lib.colors import HexColor
from reportlab.platypus import Flowable, KeepTogether, Spacer, TableStyle
from reportlab.platypus import Paragraph as Set
from reportlab.platypus import Table as Grid

from persondet.report.document import Table
from persondet.report.pdf_style import CELL_SIZE, STYLES, WIDTH
from persondet.report.pdf_text import BOLD, SANS, markup, width_of

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


def set_table(table: Table, caption: Flowable) -> list[Flowable]:
    """Return a table under its caption; a short one is kept on one page."""
    rows = [_row(table.header, table.numeric, "head")]
    rows += [_row(row, table.numeric, "cell") for row in table.rows]
    grid = Grid(
        rows,
        colWidths=column_widths(table),
        repeatRows=1,
        hAlign="LEFT",
        splitInRow=0,
        style=_LOOK,
    )
    parts = [caption, grid, Spacer(0, 12)]
    return [KeepTogether(parts)] if len(table.rows) <= _SHORT else parts


def column_widths(table: Table, available: float = WIDTH) -> list[float]:
    """Return the widths of the columns, points; together at most `available`.

    Each gets what its longest text needs. Where that is too much, the wide ones give way down to
    one common width, and their cells wrap.
    """
    needs = [
        max(
            _NARROWEST, *(_need(cell, BOLD if row is table.header else SANS) for row, cell in cells)
        )
        for cells in _columns(table)
    ]
    if sum(needs) <= available:
        return needs
    # Fill up from the narrowest: the first that does not fit shares the rest with those wider.
    limit, left = 0.0, available
    for place, need in enumerate(sorted(needs)):
        limit = left / (len(needs) - place)
        if need > limit:
            break
        left -= need
    return [min(need, limit) for need in needs]


def _columns(table: Table) -> list[list[tuple[tuple[str, ...], str]]]:
    rows = (table.header, *table.rows)
    return [[(row, row[place]) for row in rows] for place in range(len(table.header))]


def _need(text: str, font: str) -> float:
    return width_of(text, font, CELL_SIZE) + 2 * _PADDING + 1


def _row(cells: Sequence[str], numeric: Sequence[int], style: str) -> list[Flowable]:
    return [
        Set(markup(cell), STYLES[f"numeric {style}" if place in numeric else style])
        for place, cell in enumerate(cells)
    ]

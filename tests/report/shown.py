"""What a document shows: its notes, tables and words."""

from typing import Any

from persondet.report.document import Document, Note, Table


def notes(document: Document, kind: str) -> list[str]:
    return [b.text for b in document.blocks() if isinstance(b, Note) and b.kind == kind]


def tables(document: Document) -> dict[str, Table]:
    return {b.caption: b for b in document.blocks() if isinstance(b, Table)}


def rows(document: Document, caption: str) -> dict[str, tuple[str, ...]]:
    """Return the first cell → the other cells of the table whose caption begins so."""
    table = next(t for c, t in tables(document).items() if c.startswith(caption))
    return {row[0]: row[1:] for row in table.rows}


def words(value: Any, key: str = "") -> str:
    if key:
        value = next(section for section in value.sections if section.key == key)
    return repr(value)

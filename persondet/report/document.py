"""The report as data: sections of paragraphs, tables, figures and notes.

Both writers, `persondet.report.html` and `persondet.report.pdf`, get this and nothing else, so that
the two reports cannot say different things. All text is plain text: a writer escapes it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, TypeVar

import PIL.Image

from persondet.text import LONGEST, plain_text

WIDEST = 1600  # pixels; a page shows no more
T = TypeVar("T")


@dataclass(frozen=True)
class EncodedImage:
    """An encoded image: `data` is a PNG or JPEG file of `width` × `height` pixels.

    Attributes:
        media_type: "image/png" or "image/jpeg".
    """

    data: bytes
    media_type: str
    width: int
    height: int

    @classmethod
    def of(cls, path: Path) -> EncodedImage | None:
        """Return a PNG or JPEG file, scaled down when it is wider than `WIDEST` pixels.

        Returns: None when the file is missing, damaged, or of another kind.
        """
        try:
            data = path.read_bytes()
            with warnings.catch_warnings():
                warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
                image: PIL.Image.Image = PIL.Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
                image.load()
        except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError, Warning):
            return None  # Pillow raises SyntaxError for a broken PNG
        kind = image.format or ""
        if image.width > WIDEST:
            height = max(1, round(image.height * WIDEST / image.width))
            image = image.convert("RGB").resize((WIDEST, height), PIL.Image.Resampling.LANCZOS)
            target = io.BytesIO()
            image.save(target, kind, **({"quality": 88} if kind == "JPEG" else {}))
            data = target.getvalue()
        return cls(data, f"image/{kind.lower()}", image.width, image.height)


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; `lead` are its first words, in bold."""

    text: str
    lead: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list of points: (lead, text) each; an empty lead is none."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """A table with its caption; every row has as many cells as `header`.

    Attributes:
        numeric: the numbers of the columns that are set flush right.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[int, ...] = ()


@dataclass(frozen=True)
class Figure:
    """An image with its caption, and how to read it (may be empty)."""

    image: EncodedImage
    caption: str
    reading: str = ""


@dataclass(frozen=True)
class Listing:
    """Lines of a command or of a file, in letters of one width."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Note:
    """A sentence that stands out: a piece that is `missing`, a `warning`, or an `answer`."""

    kind: Literal["missing", "warning", "answer"]
    text: str


Block = Heading | Paragraph | Bullets | Table | Figure | Listing | Note


@dataclass(frozen=True)
class Section:
    """A chapter of the report; `key` is its name in links."""

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """The whole report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks of all sections in their order."""
        for section in self.sections:
            yield from section.blocks

    def labels(self) -> dict[int, str]:
        """Return `id(block)` → "Figure 3" or "Table 2", each kind counted through the report."""
        counts = {Figure: 0, Table: 0}
        found: dict[int, str] = {}
        for block in self.blocks():
            if isinstance(block, Figure | Table):
                counts[type(block)] += 1
                found[id(block)] = f"{type(block).__name__} {counts[type(block)]}"
        return found


def as_plain_text(value: T, most: int = LONGEST) -> T:
    """Return a document, or a part of one, with every string in it made fit to be shown.

    Secrets are hidden, control characters removed and endless names shortened, by
    `persondet.text.plain_text`; nothing else changes.

    Args:
        value: a dataclass of this module, a tuple, a string; anything else is returned as it is.
        most: length of the longest string that is kept whole.
    """
    shown: object = value
    if isinstance(value, str):
        shown = plain_text(value, most)
    elif isinstance(value, tuple):
        shown = tuple(as_plain_text(item, most) for item in value)
    elif isinstance(value, Table):
        # A row that is higher than a page fits on none.
        shown = replace(
            value,
            caption=plain_text(value.caption),
            header=as_plain_text(value.header, 60),
            rows=as_plain_text(value.rows, 400),
        )
    elif isinstance(value, Document | Section | Block):
        shown = replace(
            value,
            **{f.name: as_plain_text(getattr(value, f.name), most) for f in fields(value)},
        )
    return shown  # type: ignore[return-value]

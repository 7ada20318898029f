"""Text for the PDF: the embedded fonts, and plain text as ReportLab's markup.

DejaVu Sans comes with matplotlib and knows Latin, Greek, Cyrillic, Hebrew, Arabic and much else.
What it lacks, such as Chinese, Japanese and Korean, is set in the first font of this machine that
has it (`FONT_FILES`), and what none has is shown as its numbers: [U+65E5 U+672C]. Every font is
embedded, so that the PDF looks the same in every viewer.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFError, TTFont

from persondet.errors import InstallationError

SANS, BOLD, ITALIC, MONO = "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono"
# Fonts with Chinese, Japanese or Korean and TrueType outlines, which ReportLab can embed; those of
# Noto CJK have others.
FONT_FILES = (
    *("wqy-zenhei.ttc", "wqy-microhei.ttc", "DroidSansFallbackFull.ttf", "DroidSansFallback.ttf"),
    *("NotoSansSC-Regular.ttf", "NotoSansJP-Regular.ttf", "NotoSansKR-Regular.ttf"),
    *("ipagp.ttf", "ipag.ttf", "NanumGothic.ttf", "unifont.ttf", "Arial Unicode.ttf"),
    *("msyh.ttc", "simsun.ttc", "msgothic.ttc", "malgun.ttf"),
)
FONT_FOLDERS = (
    *("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"),
    *("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts", "C:/Windows/Fonts"),
)
_RIGHT_TO_LEFT = re.compile(
    r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff](?:[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff \-]*"
    r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff])?"
)


@functools.cache
def register_fonts() -> None:
    """Make the fonts known to ReportLab.

    Raises: InstallationError: when matplotlib, whose fonts these are, is not installed.
    """
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise InstallationError("matplotlib is not installed; run `make install`.")
    folder = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
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
    register_fonts()
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
    there: dict[str, Path] = {}
    for place in FONT_FOLDERS:
        for folder, _, names in os.walk(Path(place).expanduser()):
            for name in names:
                there.setdefault(name, Path(folder) / name)
    found = {}
    for number, name in enumerate(file for file in FONT_FILES if file in there):
        try:
            font = TTFont(f"More{number}", str(there[name]), subfontIndex=0)
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

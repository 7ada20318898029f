"""Text for the PDF: the embedded fonts, and plain text as ReportLab's markup.

DejaVu Sans comes with matplotlib and knows Latin, Greek, Cyrillic, Hebrew, Arabic and much else.
Chinese, Japanese and Korean are set in fonts that every PDF viewer brings; a character that none of
these knows is shown as its number.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import re
import unicodedata
from pathlib import Path
from xml.sax.saxutils import escape

from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFont

from persondet.errors import InstallationError

SANS, BOLD, ITALIC, MONO = "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono"
_CHINESE, _JAPANESE, _KOREAN = "STSong-Light", "HeiseiKakuGo-W5", "HYGothic-Medium"
_KANA = re.compile(r"[\u3040-\u30ff]")
_CJK = re.compile(
    r"[\u2e80-\u303f\u3040-\u30ff\u3100-\u312f\u31a0-\u9fff\uf900-\ufaff\uff00-\uffef]"
)
_HANGUL = re.compile(r"[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]")
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
    for name in (_CHINESE, _JAPANESE, _KOREAN):
        pdfmetrics.registerFont(UnicodeCIDFont(name))
    pdfmetrics.registerFontFamily(SANS, normal=SANS, bold=BOLD, italic=ITALIC, boldItalic=BOLD)
    pdfmetrics.registerFontFamily(MONO, normal=MONO, bold=MONO, italic=MONO, boldItalic=MONO)


def markup(text: str, font: str = SANS) -> str:
    """Return plain text as the markup of a ReportLab paragraph that shows exactly that text.

    Words written from right to left are turned around, since ReportLab sets from left to right;
    Arabic letters are not joined.
    """
    register_fonts()
    known = pdfmetrics.getFont(font).face.charToGlyph
    japanese = bool(_KANA.search(text))
    text = _RIGHT_TO_LEFT.sub(_turned, unicodedata.normalize("NFC", text))
    runs = itertools.groupby(text, lambda character: _font_of(character, known, japanese))
    return "".join(_run("".join(characters), name) for name, characters in runs)


def width_of(text: str, font: str, size: float) -> float:
    """Return how wide a text is in a font of `size` points, in points."""
    register_fonts()
    return float(pdfmetrics.stringWidth(text, font, size))


def _run(text: str, font: str | None) -> str:
    if font == "":
        return "".join(f"[U+{ord(character):04X}]" for character in text)
    shown = escape(text)
    return shown if font is None else f'<font name="{font}">{shown}</font>'


def _font_of(character: str, known: dict[int, int], japanese: bool) -> str | None:
    """Return the font of a character: None for the paragraph's own, "" when no font has it."""
    if ord(character) in known or character == " ":
        return None
    if _HANGUL.match(character):
        return _KOREAN
    if _CJK.match(character):
        return _JAPANESE if japanese else _CHINESE
    return ""


def _turned(match: re.Match[str]) -> str:
    """Turn a run of words around; marks stay behind the letter that they belong to."""
    letters: list[str] = []
    for character in match[0]:
        if unicodedata.combining(character) and letters:
            letters[-1] += character
        else:
            letters.append(character)
    return "".join(reversed(letters))

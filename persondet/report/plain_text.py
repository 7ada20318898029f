"""Text of strangers and of the command line made fit to be shown: no secrets, no control characters.

Names of datasets, classes and files come from outside, and so do addresses in a config.
"""

from __future__ import annotations

import unicodedata

from persondet.redaction import without_secrets

LONGEST = 3000


def plain_text(text: str, most: int = LONGEST) -> str:
    """Return `text` as one line that may be shown: secrets hidden, at most `most` characters.

    Control characters and those that turn the direction of writing become spaces, so that a name
    cannot reorder the words around it. What is too long keeps its beginning and its end.
    """
    if len(text) > 20 * LONGEST:
        text = f"{text[: 10 * LONGEST]} {text[-10 * LONGEST :]}"
    shown = without_secrets(text)
    if not shown.isprintable():
        shown = "".join(_visible(character) for character in shown)
    if len(shown) <= most:
        return shown
    tail = most // 4
    return f"{shown[: most - tail - 3]} … {shown[-tail:]}"


def _visible(character: str) -> str:
    kind = unicodedata.category(character)
    return " " if kind in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") else character

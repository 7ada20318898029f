"""Text of strangers for a terminal: what does not print is escaped, and widths are in columns."""

from __future__ import annotations

import unicodedata

_CUT = "…"


def printable(value: object, most: int) -> str:
    """Return a text that stays on its line and takes at most `most` columns.

    What is not printable (control characters, line ends, marks that turn the direction of
    writing, halves of surrogate pairs) is written as an escape; a long text is cut in its middle,
    since names of files differ at their ends.
    """
    text = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in str(value)
    )
    if columns(text) <= most:
        return text
    room = most - columns(_CUT)
    head = _cut(text, room - room // 2)
    tail = _cut(text[::-1], room // 2)[::-1]
    return head + _CUT + tail


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Return a text filled with spaces to `width` columns; `right`: to the right."""
    spaces = " " * max(0, width - columns(text))
    return spaces + text if right else text + spaces


def _columns_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cut(text: str, most: int) -> str:
    taken = 0
    for index, character in enumerate(text):
        taken += _columns_of(character)
        if taken > most:
            return text[:index]
    return text

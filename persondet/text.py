"""Text from outside, made fit to show: no secrets, no control characters.

Names of datasets, classes and files come from outside, and so do the addresses in a config.
"""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from collections.abc import Sequence

LONGEST = 3000
_CUT = "…"


def printable(value: object, most: int) -> str:
    """Return a text that stays on its line and takes at most `most` columns of a terminal.

    Escapes replace what does not print: control characters, line ends, marks that turn the
    direction of writing, halves of surrogate pairs. A long text loses its middle, because names
    of files differ at their ends.
    """
    shown = (c if c.isprintable() else ascii(c)[1:-1] for c in str(value))
    return _shortened("".join(shown), most)


def listed(names: Sequence[str]) -> str:
    """Return the first twelve names of a list as printable text, and how many more there are."""
    shown = ", ".join(printable(name, 40) for name in names[:12])
    return (shown or "none") + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def count_of(number: int, noun: str) -> str:
    """Return "1 image", "2 images"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def one_line(value: object, most: int) -> str:
    """Return a name as one line for a figure, a table or an image, at most `most` columns wide.

    As `printable`, but one space replaces what does not print, and any run of spaces.
    """
    return _shortened(" ".join(_blanked(str(value)).split()), most)


def plain_text(text: str, most: int = LONGEST) -> str:
    """Return `text` as one line for a report: no secrets, at most `most` characters.

    Spaces replace control characters and those that turn the direction of writing, so that a name
    cannot reorder the words around it. A text that is too long keeps its beginning and its end.
    """
    if len(text) > 20 * LONGEST:
        text = f"{text[: 10 * LONGEST]} {text[-10 * LONGEST :]}"
    shown = _blanked(without_secrets(text))
    if len(shown) <= most:
        return shown
    tail = most // 4
    return f"{shown[: most - tail - 3]} … {shown[-tail:]}"


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Return a text filled with spaces to `width` columns; `right`: to the right."""
    spaces = " " * max(0, width - columns(text))
    return spaces + text if right else text + spaces


def _blanked(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else " " for c in text)


def _shortened(text: str, most: int) -> str:
    if columns(text) <= most:
        return text
    room = most - columns(_CUT)
    head = _beginning(text, room - room // 2)
    tail = _beginning(text[::-1], room // 2)[::-1]
    return head + _CUT + tail


def _beginning(text: str, most: int) -> str:
    taken = 0
    for index, character in enumerate(text):
        taken += _columns_of(character)
        if taken > most:
            return text[:index]
    return text


def _columns_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


_HIDDEN = "***"
_NAME = (
    r"(?:(?<![a-z])|(?<=api))keys?(?![a-z])|token|secret|passw|credential|signature"
    r"|(?<![a-z])sig(?![a-z])|auth(?!or)"
)
_SECRET = re.compile(_NAME, re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/@\s]+@")
# Whatever follows the `?` of an address: a link is signed there, under a name of the host's choice.
_ADDRESS = re.compile(r"(?<!\w)\w++://[^\s'\"<>]*+")
# Names come from strangers and may be endless. Each pattern looks at a word from its beginning
# only, and takes all of it (`++`), so that the work grows with the length of the text and no
# faster.
_ASSIGNED = re.compile(
    rf"(?<![\w.-])(?=[\w.-]*?(?:{_NAME}))([\w.-]++)(\s*+[=:]\s*+)([^\s,;'\"“”‘’]+)", re.IGNORECASE
)
_FLAG = re.compile(rf"(?<![\w-])(?=\w*+-[\w-]*?(?i:{_NAME}))([\w-]++)(\s++)([^\s-]\S*+)")
_CONFIG_KEY = re.compile(
    r"(?<![A-Z0-9_.])(?=[A-Z0-9_.]*?(?<![A-Z])(?:API)?"
    r"(?:KEY(?![A-Z])|TOKEN|SECRET|PASSW|CREDENTIAL|SIGNATURE))([A-Z0-9_.]++)(\s++)([^\s-]\S*+)"
)
_FIELD = re.compile(r"([?&;][^=&;?\s]++=)([^&\s]*)")


def without_secrets(text: str) -> str:
    """Return `text` with what looks like a secret replaced by `***`.

    Replaces the user and the query of an address, and the value of a flag, key or assignment with
    a name that speaks of keys, tokens, passwords or signatures. Replaces the values of environment
    variables with such a name wherever they stand.
    """
    for value in _secret_values():
        text = text.replace(value, _HIDDEN)
    text = _ADDRESS.sub(_without_query, _USER.sub(f"{_HIDDEN}@", text))
    for pattern in (_ASSIGNED, _FLAG, _CONFIG_KEY):
        text = pattern.sub(rf"\1\2{_HIDDEN}", text)
    return text


def words_without_secrets(words: Sequence[str]) -> list[str]:
    """Return command-line words with what looks like a secret replaced by `***`.

    As `without_secrets`, with two differences: the query of an address keeps what is no secret, so
    that the command can be given again, and a flag or key hides the word after it, whatever it is.
    """
    kept: list[str] = []
    hide_next = False
    for word in words:
        for value in _secret_values():
            word = word.replace(value, _HIDDEN)
        name, equals, _ = word.partition("=")
        is_address = "://" in word
        if hide_next and not word.startswith("-"):
            kept.append(_HIDDEN)
        elif equals and not is_address and _SECRET.search(name):
            kept.append(f"{name}={_HIDDEN}")
        else:
            kept.append(_FIELD.sub(_hide_value, _USER.sub(f"{_HIDDEN}@", word)))
        named = word.startswith("-") or word.isupper()
        hide_next = named and not equals and bool(_SECRET.search(word))
    return kept


def _without_query(match: re.Match[str]) -> str:
    address, *query = re.split("[?#]", match[0], maxsplit=1)
    return f"{address}?{_HIDDEN}" if query else address


def _hide_value(match: re.Match[str]) -> str:
    return match[1] + (_HIDDEN if _SECRET.search(match[1]) else match[2])


def _secret_values() -> list[str]:
    # Read anew for every text, so that a variable that is set later is hidden too.
    values = [os.environ.get(name, "") for name in _secret_names(frozenset(os.environ))]
    return sorted((value for value in values if len(value) >= 8), key=len, reverse=True)


@functools.lru_cache(maxsize=4)
def _secret_names(names: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name in names if _SECRET.search(name))

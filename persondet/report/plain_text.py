"""Text of strangers and of the command line made fit to be shown: no secrets, no control characters.

Names of datasets, classes and files come from outside, and so do addresses in a config.
"""

from __future__ import annotations

import functools
import os
import re
import unicodedata

LONGEST = 3000
_HIDDEN = "***"
_NAME = (
    r"(?:(?<![a-z])|(?<=api))keys?(?![a-z])|token|secret|passw|credential|signature"
    r"|(?<![a-z])sig(?![a-z])|auth(?!or)"
)
_SECRET = re.compile(_NAME, re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/@\s]+@")
# Whatever follows the `?` of an address: a link is signed there, under a name of the host's choice.
_QUERY = re.compile(r"(\w+://[^\s?#'\"<>]*)[?#][^\s'\"<>]*")
_ASSIGNED = re.compile(rf"([\w.-]*(?:{_NAME})[\w.-]*)(\s*[=:]\s*)([^\s,;'\"]+)", re.IGNORECASE)
_FLAG = re.compile(rf"(--?(?i:[\w-]*(?:{_NAME})[\w-]*))(\s+)([^\s-]\S*)")
_CONFIG_KEY = re.compile(
    r"(\b[A-Z][A-Z0-9_.]*(?<![A-Z])(?:API)?(?:KEY(?![A-Z])|TOKEN|SECRET|PASSW|CREDENTIAL|SIGNATURE)"
    r"[A-Z0-9_.]*)(\s+)([^\s-]\S*)"
)


def plain_text(text: str, most: int = LONGEST) -> str:
    """Return `text` as one line that may be shown: secrets hidden, at most `most` characters.

    Control characters and those that turn the direction of writing become spaces, so that a name
    cannot reorder the words around it. What is too long keeps its beginning and its end.
    """
    shown = without_secrets(text[: 20 * LONGEST])
    if not shown.isprintable():
        shown = "".join(_visible(character) for character in shown)
    if len(shown) <= most:
        return shown
    tail = most // 4
    return f"{shown[: most - tail - 3]} … {shown[-tail:]}"


def without_secrets(text: str) -> str:
    """Return `text` with what looks like a secret replaced by `***`.

    Hidden are: the user and the query of an address, the value of a flag, key or assignment whose
    name speaks of keys, tokens, passwords or signatures, and the values of environment variables of
    such a name, wherever they stand.
    """
    for value in _secret_values(frozenset(os.environ.items())):
        text = text.replace(value, _HIDDEN)
    text = _QUERY.sub(rf"\1?{_HIDDEN}", _USER.sub(f"{_HIDDEN}@", text))
    for pattern in (_ASSIGNED, _FLAG, _CONFIG_KEY):
        text = pattern.sub(rf"\1\2{_HIDDEN}", text)
    return text


@functools.lru_cache(maxsize=4)
def _secret_values(variables: frozenset[tuple[str, str]]) -> tuple[str, ...]:
    found = [value for name, value in variables if len(value) >= 8 and _SECRET.search(name)]
    return tuple(sorted(found, key=len, reverse=True))


def _visible(character: str) -> str:
    kind = unicodedata.category(character)
    return " " if kind in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") else character

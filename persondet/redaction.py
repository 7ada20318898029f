"""What may be shown of a text that could hold a secret: a command, a config, a message."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence

_HIDDEN = "***"
_NAME = (
    r"(?:(?<![a-z])|(?<=api))keys?(?![a-z])|token|secret|passw|credential|signature"
    r"|(?<![a-z])sig(?![a-z])|auth(?!or)"
)
_SECRET = re.compile(_NAME, re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/@\s]+@")
# Whatever follows the `?` of an address: a link is signed there, under a name of the host's choice.
_ADDRESS = re.compile(r"(?<!\w)\w++://[^\s'\"<>]*+")
# Names come from strangers and may be endless. Each pattern looks at a word from its beginning only,
# and takes all of it (`++`), so that the work grows with the length of the text and no faster.
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

    Hidden are: the user and the query of an address, the value of a flag, key or assignment whose
    name speaks of keys, tokens, passwords or signatures, and the values of environment variables of
    such a name, wherever they stand.
    """
    for value in _secret_values(frozenset(os.environ.items())):
        text = text.replace(value, _HIDDEN)
    text = _ADDRESS.sub(_without_query, _USER.sub(f"{_HIDDEN}@", text))
    for pattern in (_ASSIGNED, _FLAG, _CONFIG_KEY):
        text = pattern.sub(rf"\1\2{_HIDDEN}", text)
    return text


def words_without_secrets(words: Sequence[str]) -> list[str]:
    """Return command-line words with what looks like a secret replaced by `***`.

    As `without_secrets`, but what is no secret is kept in the query of an address too, so that the
    command can be given again; and a flag or key hides the word after it, whatever that is.
    """
    kept: list[str] = []
    hide_next = False
    for word in words:
        for value in _secret_values(frozenset(os.environ.items())):
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


@functools.lru_cache(maxsize=4)
def _secret_values(variables: frozenset[tuple[str, str]]) -> tuple[str, ...]:
    found = [value for name, value in variables if len(value) >= 8 and _SECRET.search(name)]
    return tuple(sorted(found, key=len, reverse=True))

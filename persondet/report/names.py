"""Names that anybody may have chosen, as a figure or a table can show them."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_NAME = 40


def one_line(name: object, limit: int = LONGEST_NAME) -> str:
    """Return a name as one printable line of at most `limit` characters, its middle left out.

    Characters that print nothing, or turn the writing direction, become a space.
    """
    text = "".join(c if c.isprintable() else " " for c in str(name)).strip() or "(no name)"
    tail = limit // 2 - 1
    return text if len(text) <= limit else f"{text[: limit - tail - 1]}…{text[-tail:]}"


def distinct(names: Sequence[str], limit: int = LONGEST_NAME) -> list[str]:
    """Return `names`, each as `one_line`, with a number behind those that look alike then."""
    short = [one_line(name, limit) for name in names]
    return [
        f"{name} ({short[:i].count(name) + 1})" if short.count(name) > 1 else name
        for i, name in enumerate(short)
    ]

"""Names that anybody may have chosen, as a figure or a table can show them."""

from __future__ import annotations

from collections.abc import Sequence

from persondet import text

LONGEST_NAME = 40


def one_line(name: object, limit: int = LONGEST_NAME) -> str:
    """Return a name as `persondet.text.one_line` does; "(no name)" for one without letters."""
    return text.one_line(name, limit) or "(no name)"


def distinct(names: Sequence[str], limit: int = LONGEST_NAME) -> list[str]:
    """Return `names`, each as `one_line`, with a number behind those that look alike then."""
    short = [one_line(name, limit) for name in names]
    return [
        f"{name} ({short[:i].count(name) + 1})" if short.count(name) > 1 else name
        for i, name in enumerate(short)
    ]

"""The words of the report: numbers and names as a reader wants them, and its standing text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from persondet import text

DASH = "–"
LONGEST_NAME = 40
TEMPLATES = Path(__file__).parent / "templates"


def points(value: float | None) -> str:
    """Return an average precision, 0 to 100, with one decimal."""
    return DASH if value is None else f"{round(value, 1) + 0.0:.1f}"  # no "-0.0"


def share(value: float | None) -> str:
    """Return a share, 0 to 1, in percent; one that is neither 0 nor 1 is not rounded to them."""
    if value is None:
        return DASH
    percent = 100 * value
    near = 0 < percent < 0.95 or 99.05 < percent < 100
    return f"{percent:.1f} %" if near else f"{percent:.0f} %"


def whole(value: float | None) -> str:
    """Return a count with commas between the thousands."""
    return DASH if value is None else f"{value:,.0f}"


def plain(value: float | None, digits: int = 4) -> str:
    """Return a number with `digits` figures that count, without an exponent where it can be."""
    if value is None:
        return DASH
    shown = f"{value:.{digits}g}"
    if "e" not in shown or not 1e-8 < abs(value) < 1e15:
        return shown
    return f"{value:,.0f}" if abs(value) >= 1 else f"{value:.10f}".rstrip("0")


def several(count: float, noun: str, plural: str = "") -> str:
    """Return a count with its noun: "1 image", "60 images"."""
    return f"{whole(count)} {noun if count == 1 else plural or noun + 's'}"


def duration(seconds: float | None) -> str:
    """Return seconds as a reader would say them: "41 seconds", "14 minutes", "2 h 5 min"."""
    if seconds is None:
        return DASH
    if seconds < 9.95:
        return f"{seconds:.1f} seconds"
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def listed(words: Sequence[str], *, last: str = "and", most: int = 12) -> str:
    """Return words as an enumeration; of more than `most` only the first are named."""
    words = [*words]
    if len(words) > most:
        words = [*words[: most - 1], f"{len(words) - most + 1} more"]
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


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


def read_template(name: str) -> str:
    """Return a file of `templates/`."""
    return (TEMPLATES / name).read_text(encoding="utf-8")

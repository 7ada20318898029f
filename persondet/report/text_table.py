"""Tables out of text files: `parameters.txt` and `weights.txt`, as tabulate writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RULE = re.compile(r"-+(?: +-+)+")


@dataclass(frozen=True)
class TextTable:
    """The first table of a text, and the lines before and after it (without empty ones).

    A table ends at an empty line, or at a line that runs across its columns. A row whose first cell
    is empty continues the row above. Without a table, all lines are in `before`.
    """

    before: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    after: tuple[str, ...]


def read_table(text: str) -> TextTable:
    """Find the columns by the rule of dashes under the header."""
    lines = text.splitlines()
    rule = next((n for n, line in enumerate(lines) if _RULE.fullmatch(line.strip())), 0)
    if rule < 1:
        return TextTable(_filled(lines), (), (), ())
    starts = [match.start() for match in re.finditer(r"-+", lines[rule])]
    spans = list(zip(starts, [*starts[1:], None], strict=True))

    def cells(line: str) -> list[str]:
        return [line[start:end].strip() for start, end in spans]

    rows: list[list[str]] = []
    end = rule + 1
    for end in range(rule + 1, len(lines) + 1):
        line = lines[end] if end < len(lines) else ""
        across = any(start and line[start - 1 : start].strip() for start in starts)
        if not line.strip() or across:
            break
        row = cells(line)
        if row[0] or not rows:
            rows.append(row)
        else:
            rows[-1] = [
                f"{above}; {cell}" if above and cell else above or cell
                for above, cell in zip(rows[-1], row, strict=True)
            ]
    return TextTable(
        _filled(lines[: rule - 1]),
        tuple(cells(lines[rule - 1])),
        tuple(tuple(row) for row in rows),
        _filled(lines[end:]),
    )


def _filled(lines: list[str]) -> tuple[str, ...]:
    return tuple(line.rstrip() for line in lines if line.strip())

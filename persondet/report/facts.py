"""What a file of a run folder says, read so that nothing in it can be of the wrong kind.

A run may be old, half done, or made by another version. `Facts` answers every question, with
nothing where the file has nothing of that kind; so a section of the report needs no exceptions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Facts:
    """A value out of JSON or YAML, or of nothing; `facts["a"]["b"]` never fails."""

    value: Any = None

    def __getitem__(self, key: str | int) -> Facts:
        if isinstance(self.value, dict):
            return Facts(self.value.get(key))
        if isinstance(self.value, list) and isinstance(key, int):
            return Facts(self.value[key] if -len(self.value) <= key < len(self.value) else None)
        return Facts()

    def __bool__(self) -> bool:
        """Return whether there is a value, and it is not empty."""
        return self.value is not None and self.value not in ("", [], {})

    def number(self) -> float | None:
        """Return a finite number, None where there is none."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            return None
        return float(self.value) if abs(self.value) < 1e300 and math.isfinite(self.value) else None

    def count(self) -> int | None:
        """Return a whole number that is not negative, None where there is none."""
        number = self.number()
        return int(number) if number is not None and number >= 0 and number % 1 == 0 else None

    def text(self) -> str:
        """Return a string, empty where there is none."""
        return self.value if isinstance(self.value, str) else ""

    def shown(self) -> str:
        """Return a plain value or a flat list of such as text; empty for anything else."""
        if isinstance(self.value, list):
            return ", ".join(item for entry in self.entries() if (item := entry.shown()))
        if isinstance(self.value, float):
            return f"{self.value:.6g}"
        return str(self.value) if isinstance(self.value, str | int) else ""

    def entries(self) -> list[Facts]:
        """Return the items of a list, none where there is no list."""
        return [Facts(item) for item in self.value] if isinstance(self.value, list) else []

    def items(self) -> list[tuple[str, Facts]]:
        """Return the (key, value) pairs of an object, none where there is no object."""
        pairs = self.value.items() if isinstance(self.value, dict) else ()
        return [(str(key), Facts(value)) for key, value in pairs]

    def texts(self) -> list[str]:
        """Return the strings of a list."""
        return [text for entry in self.entries() if (text := entry.text())]

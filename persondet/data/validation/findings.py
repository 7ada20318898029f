"""Findings: which faults an export has, how often, and where to look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from persondet.data.validation.codes import CODES, Code

EXAMPLES = 3


@dataclass(frozen=True)
class Example:
    """Where a fault was seen: split, image file (or ""), annotation id (or None), and what."""

    split: str
    file: str = ""
    annotation: Any = None
    detail: str = ""


@dataclass
class Finding:
    """One code: how often it was seen, in which splits, and the first examples."""

    code: Code
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How often, over all splits."""
        return self.counts.total()


class Findings:
    """All findings of an export. An annotation or image counts once per code."""

    def __init__(self) -> None:
        """Start with nothing found."""
        self._by_code: dict[str, Finding] = {}

    def add(
        self,
        code: str,
        split: str,
        file: str = "",
        annotation: Any = None,
        detail: str = "",
    ) -> None:
        """Count one fault, and keep it as an example if it is among the first of its code.

        Args:
            code: a name of `persondet.data.validation.codes.CODES`.
            split: `train`, `valid` or `test`.
            file: the image's `file_name` as the json has it, or "".
            annotation: the annotation's id as the json has it, or None.
            detail: a few words, e.g. "641 x 480 in the json, 640 x 480 in the file".

        Raises: KeyError: when the code is not in the table.
        """
        finding = self._by_code.get(code)
        if finding is None:
            finding = self._by_code[code] = Finding(CODES[code])
        finding.counts[split] += 1
        if len(finding.examples) < EXAMPLES:
            finding.examples.append(Example(split, file, annotation, detail))

    def count(self, code: str) -> int:
        """Return how often a code was found."""
        return self._by_code[code].count if code in self._by_code else 0

    def counts(self) -> dict[str, int]:
        """Return code to count, of all codes found, in the order of the table."""
        return {finding.code.name: finding.count for finding in self}

    def update(self, other: Findings) -> None:
        """Add the findings of `other` to these."""
        for finding in other:
            mine = self._by_code.setdefault(finding.code.name, Finding(finding.code))
            mine.counts.update(finding.counts)
            mine.examples = (mine.examples + finding.examples)[:EXAMPLES]

    def of(self, severity: str) -> list[Finding]:
        """Return the findings of one severity, in the order of the table."""
        return [finding for finding in self if finding.code.severity == severity]

    def refused(self) -> list[Finding]:
        """Return the findings for which training on the folder as it is is refused."""
        return [finding for finding in self if finding.code.training == "refused"]

    def __iter__(self) -> Iterator[Finding]:
        """Iterate over the findings in the order of the table."""
        return (self._by_code[name] for name in CODES if name in self._by_code)

    def __len__(self) -> int:
        """Return how many codes were found."""
        return len(self._by_code)

    def as_json(self) -> list[Mapping[str, Any]]:
        """Return the findings as plain lists and dicts."""
        return [
            {
                "code": finding.code.name,
                "severity": finding.code.severity,
                "count": finding.count,
                "splits": dict(finding.counts),
                "meaning": finding.code.meaning,
                "clean": finding.code.mend,
                "training": finding.code.training,
                "examples": [
                    {
                        "split": example.split,
                        "file": example.file,
                        "annotation": example.annotation,
                        "detail": example.detail,
                    }
                    for example in finding.examples
                ],
            }
            for finding in self
        ]

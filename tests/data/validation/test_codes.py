"""The table of codes: whole, documented, and what findings count by."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from persondet.data.clean import CHANGES
from persondet.data.findings import CODES, Findings, codes_table

DOCUMENT = Path(__file__).parents[3] / "docs" / "dataset.md"


def test_the_document_is_the_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert codes_table() in text
    assert all(f"- `{name}`: {meaning}" in text for name, meaning in CHANGES.items())


def test_codes_are_stable_names_and_imply_known_ones() -> None:
    for name, code in CODES.items():
        assert name == code.name
        assert re.fullmatch(r"[a-z]+(-[a-z]+)+", name)
        assert code.severity in ("error", "warning")
        assert code.training in ("mended", "refused", "kept")
        assert set(code.implies) <= CODES.keys() - {name}
        assert not code.meaning.endswith(".")
        # What nobody mends cannot be an error: a cleaned dataset has none.
        assert code.severity == "warning" or code.changes or code.mend.startswith("refused")


def test_findings_count_by_split_and_keep_three_examples() -> None:
    findings = Findings()
    for number in range(5):
        findings.add("box-zero", "train" if number < 4 else "test", f"{number}.jpg", number)
    findings.add("split-missing", "valid")
    other = Findings()
    other.add("box-zero", "valid", "x.jpg", 9)
    findings.update(other)
    assert list(findings.counts().items()) == [("split-missing", 1), ("box-zero", 6)]
    (box,) = findings.of("error")
    assert dict(box.counts) == {"train": 4, "test": 1, "valid": 1}
    assert [example.annotation for example in box.examples] == [0, 1, 2]
    assert other.count("box-zero") == 1
    report = findings.as_json()
    assert report[1]["examples"][2]["file"] == "2.jpg"
    assert report[1]["clean"] == CODES["box-zero"].mend
    with pytest.raises(KeyError):
        findings.add("box-odd", "train")

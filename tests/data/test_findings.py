"""The table of codes: whole, documented, and what findings count by."""

import re
from pathlib import Path

import pytest

from persondet.data.findings import CHANGES, CODES, Findings

DOCUMENT = Path(__file__).parents[2] / "docs" / "dataset.md"


def test_codes_are_stable_names_imply_known_ones_and_stand_in_the_document() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = []
    for name, code in CODES.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)+", name)
        assert set(code.implies) <= CODES.keys() - {name}
        # What nobody mends cannot be an error: a cleaned dataset has none.
        assert code.severity == "warning" or code.changes or code.mend.startswith("refused")
        cells = [f"`{name}`", code.severity, code.meaning, code.mend, code.training]
        rows.append(" | ".join(["", *cells, ", ".join(f"`{n}`" for n in code.implies), ""]).strip())
    assert "\n".join(rows) + "\n" in text
    assert all(f"- `{name}`: {meaning}" in text for name, meaning in CHANGES.items())


def test_findings_count_by_split_and_keep_all_examples() -> None:
    findings = Findings()
    for number in range(5):
        findings.add("box-zero", "train" if number < 4 else "test", f"{number}.jpg", number)
    findings.add("split-missing", "valid")
    assert list(findings.counts().items()) == [("split-missing", 1), ("box-zero", 5)]
    (box,) = findings.of("error")
    assert dict(box.counts) == {"train": 4, "test": 1}
    assert [example.annotation for example in box.examples] == [0, 1, 2, 3, 4]
    report = findings.as_json()
    assert report[1]["examples"][2]["file"] == "2.jpg"
    assert report[1]["clean"] == CODES["box-zero"].mend
    with pytest.raises(KeyError):
        findings.add("box-odd", "train")

"""The table of codes: whole and documented."""

import re
from pathlib import Path

from persondet.data.findings import CHANGES, CODES

DOCUMENT = Path(__file__).parents[2] / "docs" / "dataset.md"


def test_codes_are_stable_names_imply_known_ones_and_stand_in_the_document() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = []
    for name, code in CODES.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)+", name)
        assert set(code.implies) <= CODES.keys() - {name}
        # What no command mends cannot be an error: a cleaned dataset has none.
        mended = code.changes or code.remedy or code.mend.startswith("refused")
        assert code.severity == "warning" or mended
        cells = [f"`{name}`", code.severity, code.meaning, code.mend, code.training]
        rows.append(" | ".join(["", *cells, ", ".join(f"`{n}`" for n in code.implies), ""]).strip())
    assert "\n".join(rows) + "\n" in text
    assert all(f"- `{name}`: {meaning}" in text for name, meaning in CHANGES.items())

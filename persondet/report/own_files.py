"""Which files are ours: what somebody else made is not replaced unasked.

A PNG and a page carry the name of this package, a PDF has it as its author, and a table begins with
the columns that only ours has.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from persondet.errors import OutputExistsError

MARK = "persondet"
GENERATOR = f'<meta name="generator" content="{MARK}">'
TABLE_HEAD = "run,steps,best_step,best_score"
_HEAD = 4000  # bytes in which the mark of a page or a table lies


def is_ours(path: Path) -> bool:
    """Return whether a PNG, HTML, PDF or CSV file was written by this package."""
    try:
        if path.suffix == ".png":
            with Image.open(path, formats=("PNG",)) as picture:
                return picture.info.get("Software") == MARK
        if path.suffix == ".pdf":
            data = path.read_bytes()
            return data.startswith(b"%PDF-") and f"/Author ({MARK})".encode() in data
        with path.open("rb") as file:
            head = file.read(_HEAD).decode("utf-8", "replace")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False  # Pillow raises SyntaxError for a broken PNG
    return head.startswith(TABLE_HEAD) if path.suffix == ".csv" else GENERATOR in head


def refuse_foreign(paths: Iterable[Path], *, overwrite: bool = False) -> None:
    """Refuse to replace files of somebody else.

    Raises: OutputExistsError: naming the first one, unless `overwrite`.
    """
    for path in () if overwrite else paths:
        if os.path.lexists(path) and not is_ours(path):
            raise OutputExistsError(
                f"{path} is there already and was not made by this tool; choose another --output, "
                "or add --overwrite to replace it."
            )

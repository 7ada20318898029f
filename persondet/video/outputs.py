"""The files that an annotated clip consists of, and which of them must not be written."""

from __future__ import annotations

import os
import re
from pathlib import Path

from persondet.errors import MediaError
from persondet.files import refuse_existing
from persondet.video.address import is_address, local_path
from persondet.video.io.writer import CONTAINERS, draft_path, partial_path
from persondet.video.mot import mot_path
from persondet.video.partial_text import partial_path as unfinished_path

_MOT_LINE = re.compile(r"\d+,-?\d+(,-?\d+\.\d+){5}(,-1){3}\n")


def records_path(output: str | Path) -> Path:
    """Return where the records of an annotated clip lie: beside it, named .jsonl."""
    return Path(output).with_suffix(".jsonl")


def earlier_mot(output: str | Path) -> Path | None:
    """Return the MOT-challenge text that an earlier run wrote beside its records, None without.

    A text of the user's own is told by its first line: the last three fields are -1 in ours.
    """
    path = mot_path(output)
    if not path.is_file() or not records_path(output).is_file():
        return None
    with open(path, encoding="ascii", errors="replace") as file:
        first = file.readline(200)
    return path if _MOT_LINE.fullmatch(first) else None


def _is_there(path: Path) -> bool:
    """Say whether something is there, as far as it may be looked up."""
    try:
        return path.exists()
    except OSError:
        return False


def _refuse_unwritable(folder: Path) -> None:
    """Refuse a folder in which nothing can be written, or that cannot be made.

    Raises: MediaError: when it is so.
    """
    parents = (folder, *folder.absolute().parents)
    there = next(parent for parent in parents if _is_there(parent))
    if not there.is_dir():
        raise MediaError(f"{folder} cannot be made, as {there} is a file; choose another --output.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise MediaError(f"{there} must not be written by you; choose another --output.")


def check_output(
    source: str | Path, output: str | Path, *, save_mot: bool = False, overwrite: bool = False
) -> None:
    """Refuse targets that cannot or must not be written; call it before a model is loaded.

    Args:
        source: a file, or an address.
        output: the annotated clip; looked at are its records, too, and what a killed run left.
        save_mot: whether MOT-challenge text is written.
        overwrite: allow files that exist; never the source itself.

    Raises: MediaError: when `output` is `source`, its name promises no known container, or its
        folder cannot be written.
        OutputExistsError: when one of the files is there already.
    """
    output = Path(output)
    if output.suffix.lower() not in CONTAINERS:
        known = ", ".join(CONTAINERS)
        raise MediaError(f"{output}: cannot write this format; use a name in {known}.")
    _refuse_unwritable(output.parent)  # first: in a closed folder not even names can be looked up
    records = records_path(output)
    unfinished = [partial_path(output), unfinished_path(records)]
    targets = [output, records, *([mot_path(output)] if save_mot else []), *unfinished]
    clip = None if is_address(source) else local_path(source)
    for target in (*targets, draft_path(output)):
        if clip is not None and clip.exists() and target.exists() and target.samefile(clip):
            raise MediaError(f"{target} is the source itself; choose another --output.")
        if target.is_dir():
            raise MediaError(f"{target} is a folder; choose another --output.")
        refuse_existing(target, overwrite=overwrite)

"""The files that an annotated clip consists of, and which of them must not be written."""

from __future__ import annotations

from pathlib import Path

from persondet.errors import MediaError
from persondet.files import refuse_existing
from persondet.video.address import is_address, local_path
from persondet.video.io.writer import CONTAINERS, draft_path, partial_path
from persondet.video.mot import mot_path
from persondet.video.partial_text import partial_path as unfinished_path


def records_path(output: str | Path) -> Path:
    """Return where the records of an annotated clip lie: beside it, named .jsonl."""
    return Path(output).with_suffix(".jsonl")


def check_output(
    source: str | Path, output: str | Path, *, save_mot: bool = False, overwrite: bool = False
) -> None:
    """Refuse targets that cannot or must not be written; call it before a model is loaded.

    Args:
        source: a file, or an address.
        output: the annotated clip; looked at are its records, too, and what a killed run left.
        save_mot: whether MOT-challenge text is written.
        overwrite: allow files that exist; never the source itself.

    Raises: MediaError: when `output` is `source`, or its name promises no known container.
        OutputExistsError: when one of the files is there already.
    """
    output = Path(output)
    if output.suffix.lower() not in CONTAINERS:
        known = ", ".join(CONTAINERS)
        raise MediaError(f"{output}: cannot write this format; use a name in {known}.")
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

"""What a dataset was, in digests: enough to tell whether another copy is the same."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from persondet.data.register import image_count, registered_files
from persondet.files import sha256_of_file


def dataset_fingerprint(name: str) -> dict[str, Any]:
    """Return the counts and digests of a registered dataset.

    Returns: `images`, `annotations`, `json_sha256` of the json that is read, and `files_sha256` of
    the names and sizes of all files in the image folder; of a dataset that was registered elsewhere
    `images` alone.
    """
    facts: dict[str, Any] = {"images": image_count(name)}
    try:
        json_file, image_root, annotations = registered_files(name)
    except AttributeError:
        return facts
    return facts | {
        "annotations": annotations,
        "json_sha256": sha256_of_file(json_file),
        "files_sha256": names_and_sizes_digest(image_root),
    }


def names_and_sizes_digest(folder: str | Path) -> str:
    """Return a SHA-256 over the names (below `folder`) and sizes of all files in it."""
    lines = []
    waiting = [(str(folder), "")]
    while waiting:
        where, prefix = waiting.pop()
        with os.scandir(where) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, f"{prefix}{entry.name}/"))
                else:
                    lines.append(f"{prefix}{entry.name}\t{entry.stat().st_size}\n")
    return hashlib.sha256("".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()

"""COCO's run-length encoded masks from an unknown hand: read them checked.

An RLE is `{"size": [height, width], "counts": runs}`; the runs go down the columns and are a list
of whole numbers, or the text that pycocotools writes.
"""

from __future__ import annotations

from typing import Any

import pycocotools.mask as mask_util


def rle_fault(rle: dict[str, Any], width: int, height: int) -> str:
    """Return the code of what is wrong with an RLE for an image of this size, "" when nothing is.

    Returns: "", `"rle-size"`, `"rle-invalid"` or `"rle-empty"`.
    """
    size = rle.get("size")
    if not isinstance(size, list) or len(size) != 2 or any(type(side) is not int for side in size):
        return "rle-invalid"
    if size != [height, width]:
        return "rle-size"
    runs = _runs(rle.get("counts"))
    if runs is None or sum(runs) != height * width:
        return "rle-invalid"
    return "" if any(runs[1::2]) else "rle-empty"


def compressed_rle(rle: dict[str, Any]) -> dict[str, Any]:
    """Return a faultless RLE with its runs as text, itself when they are."""
    if isinstance(rle["counts"], str):
        return rle
    height, width = rle["size"]
    encoded = mask_util.frPyObjects(
        {"size": [height, width], "counts": rle["counts"]}, height, width
    )
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def _runs(counts: Any) -> list[int] | None:
    """Return the lengths of the runs, None when they cannot be read."""
    if isinstance(counts, list):
        whole = all(type(count) is int and 0 <= count < 2**32 for count in counts)
        return counts if whole and counts else None
    return _decoded_runs(counts) if isinstance(counts, str) else None


def _decoded_runs(counts: str) -> list[int] | None:
    """Return the runs of the text form; the C code of pycocotools does not check what it reads.

    Source: the LEB128-like code of COCO's RLE: 5 bits a character from 48 on, 0x20 says that more
    follow, and from the fourth run on the difference to the run before last is stored.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            return None
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            return None
        runs.append(value)
        value = shift = 0
    return runs if runs and shift == 0 else None

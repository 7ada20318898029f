"""COCO json on disk: read it checked, write it whole."""

from __future__ import annotations

import gc
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from persondet.errors import DatasetError
from persondet.files import atomic_path

CocoDict = dict[str, Any]

_LISTS = ("images", "annotations", "categories")
_AGAIN = "export the dataset again, or mend the file."


def read_coco(path: str | Path) -> CocoDict:
    """Read a COCO instances json and check its outline: an object with three lists.

    What is inside the records is not judged here (see `persondet.data.inspection`); NaN and
    infinities, which Python's own writer produces, are read as such.

    Args:
        path: the json file, UTF-8.

    Returns:
        dict with the lists `images`, `annotations`, `categories`, and whatever else the file holds.

    Raises:
        DatasetError: when the file is missing, is not JSON (the line is named), or is not COCO.
    """
    content = _content(path, str(path))
    with collector_paused():
        coco = _parse(str(path), content)
    _check_outline(str(path), coco, _LISTS)
    return coco


def read_file_names(path: str | Path, label: str, most_bytes: int) -> list[str]:
    """Read each `file_name` of a COCO json once.

    The function judges nothing but the list of images: the rest of the json may be anything.

    Args:
        path: the json file, UTF-8.
        label: what errors call it.
        most_bytes: refuse a larger file.

    Raises: DatasetError: when the file cannot be read, is larger or not JSON, or has no images.
    """
    coco = _parse(label, _content(path, label, most_bytes))
    _check_outline(label, coco, ("images",))
    names = [image.get("file_name") for image in coco["images"] if isinstance(image, dict)]
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))


def _content(path: str | Path, label: str, most_bytes: float = math.inf) -> bytes:
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > most_bytes:
                size = f"{most_bytes / 1024**2:,.0f} MiB"
                raise DatasetError(f"{label} is larger than {size}, which no export's json is.")
            return file.read()
    except FileNotFoundError:
        raise DatasetError(f"{label}: there is no such file; expected a COCO json.") from None
    except OSError as error:
        raise DatasetError(
            f"{label} cannot be read ({error.strerror}); expected a COCO json."
        ) from None


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's garbage collector while many records are made.

    It would walk millions of objects again and again, none of which can be garbage yet.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def write_coco(path: str | Path, coco: CocoDict) -> None:
    """Write a COCO dict as compact JSON to `path`, whole or not at all; see `coco_bytes`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(coco_bytes(coco))


def coco_bytes(coco: CocoDict) -> bytes:
    """Return a COCO dict as compact JSON; NaN and infinities, which JSON lacks, become null."""
    try:
        content = msgspec.json.encode(coco)
    except UnicodeEncodeError:  # half of a surrogate pair: no UTF-8, but an escape can say it
        content = json.dumps(_finite(coco), allow_nan=False, separators=(",", ":")).encode()
    return content + b"\n"


def _finite(value: Any) -> Any:
    """Return a copy of a JSON value with null in the place of NaN and infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return value


def _parse(label: str, content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)  # faster than json, and in less memory than orjson
    except (ValueError, RecursionError):
        pass  # not JSON, or Python's dialect of it (NaN): the slow reader knows
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{label} is not a text file in UTF-8 (byte {error.start}); export it again as COCO "
            "json."
        ) from None
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{label} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}; "
            f"{_AGAIN}"
        ) from None
    except RecursionError:
        raise DatasetError(f"{label} is nested too deeply to be COCO; {_AGAIN}") from None
    except ValueError:  # an integer of thousands of digits
        raise DatasetError(f"{label} holds a number with too many digits; {_AGAIN}") from None


def _check_outline(label: str, coco: Any, lists: Sequence[str]) -> None:
    if not isinstance(coco, dict):
        raise DatasetError(
            f"{label} is not COCO: the file holds a {type(coco).__name__}, "
            "but COCO is an object with images, annotations and categories."
        )
    missing = [key for key in lists if key not in coco]
    if missing:
        raise DatasetError(
            f"{label} is not COCO: it has no {', no '.join(repr(key) for key in missing)} list; "
            "export the dataset in the format 'COCO' or 'COCO Segmentation'."
        )
    for key in lists:
        if not isinstance(coco[key], list):
            raise DatasetError(f"{label} is not COCO: {key!r} is not a list; {_AGAIN}")

"""COCO json on disk: read it checked, write it whole."""

from __future__ import annotations

import gc
import hashlib
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
    """Read each `file_name` of a COCO json once, in little memory.

    The function judges nothing but the list of images: the rest of the json may be anything.

    Args:
        path: the json file, UTF-8.
        label: what errors call it.
        most_bytes: refuse a larger file.

    Raises: DatasetError: when the file cannot be read, is larger or not JSON, or has no images.
    """
    content = _content(path, label, most_bytes)
    try:
        names = [image.file_name for image in msgspec.json.decode(content, type=_Images).images]
    except (ValueError, RecursionError):  # odd records, Python's dialect, or no JSON
        coco = _parse(label, content)
        _check_outline(label, coco, ("images",))
        names = [image.get("file_name") for image in coco["images"] if isinstance(image, dict)]
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))


class _Image(msgspec.Struct):
    file_name: Any = None


class _Images(msgspec.Struct):
    images: list[_Image]


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
    """Write a COCO dict as compact JSON to `path`, whole or not at all.

    NaN and infinities, which JSON does not have, become null.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.writelines(coco_chunks(coco))


def coco_digest(coco: CocoDict) -> str:
    """Return the SHA-256, in hexadecimal digits, of the bytes that `write_coco` writes."""
    digest = hashlib.sha256()
    for chunk in coco_chunks(coco):
        digest.update(chunk)
    return digest.hexdigest()


def coco_chunks(coco: CocoDict) -> Iterator[bytes]:
    """Yield the bytes that `write_coco` writes, a few thousand records at a time."""
    opening = b"{"
    for key, value in coco.items():
        yield opening + _dumps(str(key)) + b":"
        opening = b","
        if not isinstance(value, list) or len(value) <= _RECORDS:
            yield _dumps(value)
            continue
        for start in range(0, len(value), _RECORDS):
            chunk = _dumps(value[start : start + _RECORDS])
            yield (b"," if start else b"[") + chunk[1:-1]
        yield b"]"
    yield b"}\n" if coco else b"{}\n"


_RECORDS = 4096


def _dumps(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)  # writes NaN as null
    except UnicodeEncodeError:  # half of a surrogate pair: no UTF-8, but an escape can say it
        return json.dumps(_finite(value), allow_nan=False, separators=(",", ":")).encode()


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

"""COCO json on disk: read it checked, write it whole."""

from __future__ import annotations

import gc
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from persondet.errors import DatasetError
from persondet.files import atomic_path

CocoDict = dict[str, Any]

_LISTS = ("images", "annotations", "categories")
_MOST_BYTES = 4 * 1024**3
_AGAIN = "export the dataset again, or mend the file."

_VIA = (
    "of the VGG Image Annotator; export it there with 'Export Annotations (COCO format)', or turn "
    "its rectangles into COCO with the package globox"
)
_OTHER_TOOLS = (  # keys of a json or of its first record, whose it is, and what converts it
    ({"_via_img_metadata"}, _VIA),
    ({"filename", "regions"}, _VIA),
    (
        {"shapes", "imagePath"},
        "of LabelMe; turn its folder into COCO with the package labelme2coco",
    ),
    ({"data", "annotations"}, "of Label Studio; export the project there in the format 'COCO'"),
)


class OtherToolError(DatasetError):
    """The json of another tool, which has to be converted first."""


def read_coco(path: str | Path, label: str = "") -> CocoDict:
    """Read a COCO instances json and check its outline: an object with three lists.

    What is inside the records is not judged here (see `persondet.data.inspection`); NaN and
    infinities, which Python's own writer produces, are read as such.

    Args:
        path: the json file, UTF-8.
        label: what errors call it; default `path`.

    Returns:
        dict with the lists `images`, `annotations`, `categories`, and whatever else the file holds.

    Raises:
        DatasetError: when the file is missing or over 4 GiB, is not JSON (the line is named), or is
            not COCO; `OtherToolError` when it is known whose it is.
    """
    label = label or str(path)
    content = _content(path, label)
    with collector_paused():
        coco = _parse(label, content)
    _check_outline(label, coco)
    return coco


def _content(path: str | Path, label: str) -> bytes:
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > _MOST_BYTES:
                size = f"{_MOST_BYTES / 1024**2:,.0f} MiB"
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


def _check_outline(label: str, coco: Any) -> None:
    records = coco.values() if isinstance(coco, dict) else coco if isinstance(coco, list) else ()
    first = next(iter(records), None)
    for keys, whose in _OTHER_TOOLS:
        if any(isinstance(one, dict) and keys <= one.keys() for one in (coco, first)):
            raise OtherToolError(f"{label} is not COCO but {whose}.")
    if not isinstance(coco, dict):
        raise DatasetError(
            f"{label} is not COCO: the file holds a {type(coco).__name__}, "
            "but COCO is an object with images, annotations and categories."
        )
    missing = [key for key in _LISTS if key not in coco]
    if missing:
        raise DatasetError(
            f"{label} is not COCO: it has no {', no '.join(repr(key) for key in missing)} list; "
            "export the dataset in the format 'COCO' or 'COCO Segmentation'."
        )
    for key in _LISTS:
        if not isinstance(coco[key], list):
            raise DatasetError(f"{label} is not COCO: {key!r} is not a list; {_AGAIN}")

"""COCO json on disk: read it checked, write it whole."""

from __future__ import annotations

import gc
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
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


_NUMBERS: dict[str, dict[str, bool]] = {  # field to: is it a whole number?
    "images": {"id": True, "width": True, "height": True},
    "categories": {"id": True},
    "annotations": {
        **dict.fromkeys(("id", "image_id", "category_id", "iscrowd"), True),
        **dict.fromkeys(("area", "bbox", "segmentation", "keypoints"), False),
    },
}
_NUMBER = re.compile(r"\s*[-+]?(\d{1,30}(\.\d*)?|\.\d+)([eE][-+]?\d{1,2})?\s*", re.ASCII)


def with_numbers(coco: CocoDict) -> tuple[CocoDict, list[tuple[dict[str, Any], str]]]:
    """Return a COCO dict in which text that is a number is that number, and an id 1.0 is 1.

    Args:
        coco: with the three lists, of any content; not changed, and returned if all is well.

    Returns: the dict, and each mended record with its first field of that kind, as in the json.
    """
    mended: dict[str, list[Any]] = {}
    spelled: list[tuple[dict[str, Any], str]] = []
    for key, fields in _NUMBERS.items():
        for index, record in enumerate(coco[key]):
            if type(record) is not dict:
                continue
            new = {
                field: number
                for field, whole in fields.items()
                if (number := _as_number(value := record.get(field), whole)) is not value
            }
            if new:
                records = mended.setdefault(key, list(coco[key]))
                records[index] = record | new
                field = next(iter(new))
                spelled.append((records[index], f"{field} {record[field]!r}"[:60]))
    return ({**coco, **mended} if mended else coco), spelled


def _as_number(value: Any, whole: bool, depth: int = 0) -> Any:
    """Return the number that a value is, in lists too; the very same value if it is one or none."""
    kind = type(value)
    if kind is str and depth < 3 and _NUMBER.fullmatch(value):
        exact = Decimal(value.strip())
        return int(exact) if exact == exact.to_integral_value() else float(exact)
    if kind is float and whole and value.is_integer():
        return int(value)
    if kind is list and depth < 3 and not set(map(type, value)) <= ({int} if whole else _REAL):
        numbers = [_as_number(one, whole, depth + 1) for one in value]
        return numbers if any(a is not b for a, b in zip(numbers, value, strict=True)) else value
    if kind is dict and depth == 0:  # an RLE: sizes and runs are whole; runs may be one text
        lists = {key: inner for key, inner in value.items() if type(inner) is list}
        new = {key: _as_number(inner, True, 1) for key, inner in lists.items()}
        return value | new if any(new[key] is not lists[key] for key in new) else value
    return value


_REAL = {int, float}


def _content(path: str | Path, label: str) -> bytes:
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > _MOST_BYTES:
                size = f"{_MOST_BYTES / 1024**2:,.0f} MiB"
                raise DatasetError(f"{label} is larger than {size}, which no export's json is.")
            return file.read()
    except OSError as error:
        reason = str(error.strerror).lower()
        raise DatasetError(f"{label} cannot be read ({reason}); expected a COCO json.") from None


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
        finite = json.loads(json.dumps(coco), parse_constant=lambda _: None)
        content = json.dumps(finite, separators=(",", ":")).encode()
    return content + b"\n"


def _parse(label: str, content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)  # faster than json, and in less memory than orjson
    except (ValueError, RecursionError):
        pass  # not JSON, or Python's dialect of it (NaN): the slow reader knows
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = str(error).split(";")[0]
        raise DatasetError(f"{label} is not JSON in UTF-8: {reason}; {_AGAIN}") from None


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
    if missing := [key for key in _LISTS if not isinstance(coco.get(key), list)]:
        raise DatasetError(
            f"{label} is not COCO: it has no list {', no list '.join(map(repr, missing))}; export "
            "the dataset in the format 'COCO' or 'COCO Segmentation'."
        )

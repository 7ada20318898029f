"""COCO json on disk: read it checked, write it whole."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from persondet.errors import DatasetError
from persondet.files import write_text

CocoDict = dict[str, Any]

_REQUIRED: dict[str, dict[str, type]] = {
    "images": {"id": int, "file_name": str, "width": int, "height": int},
    "annotations": {"id": int, "image_id": int, "category_id": int},
    "categories": {"id": int, "name": str},
}
_TYPE_NAMES = {int: "a whole number", str: "a text"}


def read_coco(path: str | Path) -> CocoDict:
    """Read a COCO instances json and check its outline: lists of records with typed ids and names.

    What is inside `bbox` and `segmentation` is not judged here (see `persondet.data.clean`).

    Args:
        path: the json file, UTF-8.

    Returns:
        dict with the lists `images`, `annotations`, `categories`, and whatever else the file holds.

    Raises:
        DatasetError: when the file is missing, is not JSON (the line is named), holds NaN or an
            infinity, or is not COCO (the first wrong entry is named).
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DatasetError(f"{path}: there is no such file; expected a COCO json.") from None
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is not a text file in UTF-8 (byte {error.start}); export it again as COCO json."
        ) from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from None
    coco = _parse(path, text)
    _check_outline(path, coco)
    return coco


def write_coco(path: str | Path, coco: CocoDict) -> None:
    """Write a COCO dict as compact JSON to `path`, whole or not at all.

    Raises: ValueError: when it holds NaN or an infinity.
    """
    write_text(path, coco_text(coco))


def coco_text(coco: CocoDict) -> str:
    """Return a COCO dict as one line of JSON, the bytes that `write_coco` writes.

    Raises: ValueError: when it holds NaN or an infinity.
    """
    return json.dumps(coco, allow_nan=False, ensure_ascii=False) + "\n"


def _parse(path: Path, text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise DatasetError(f"{path} holds {constant}, which is not a number in JSON; {_AGAIN}")

    def finite(digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            refuse(digits)
        return value

    try:
        return json.loads(text, parse_constant=refuse, parse_float=finite)
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}; {_AGAIN}"
        ) from None
    except RecursionError:
        raise DatasetError(f"{path} is nested too deeply to be COCO; {_AGAIN}") from None
    except ValueError:  # an integer of thousands of digits
        raise DatasetError(f"{path} holds a number with too many digits; {_AGAIN}") from None


_AGAIN = "export the dataset again, or mend the file."


def _check_outline(path: Path, coco: Any) -> None:
    if not isinstance(coco, dict):
        raise DatasetError(
            f"{path} is not COCO: the file holds a {type(coco).__name__}, "
            "but COCO is an object with images, annotations and categories."
        )
    missing = [key for key in _REQUIRED if key not in coco]
    if missing:
        raise DatasetError(
            f"{path} is not COCO: it has no {', no '.join(repr(key) for key in missing)} list; "
            "export the dataset in the format 'COCO' or 'COCO Segmentation'."
        )
    for key, fields in _REQUIRED.items():
        if not isinstance(coco[key], list):
            raise DatasetError(f"{path} is not COCO: {key!r} is not a list; {_AGAIN}")
        for index, record in enumerate(coco[key]):
            if not isinstance(record, dict):
                raise DatasetError(f"{path}: {key}[{index}] is not an object; {_AGAIN}")
            for field, kind in fields.items():
                # `True` is an int for Python, not for COCO.
                if type(record.get(field)) is not kind:
                    raise DatasetError(
                        f"{path}: {key}[{index}] needs {field!r} as {_TYPE_NAMES[kind]}, "
                        f"but has {_short(record.get(field))}; {_AGAIN}"
                    )
    for index, image in enumerate(coco["images"]):
        if image["width"] < 1 or image["height"] < 1:
            raise DatasetError(
                f"{path}: images[{index}] ({image['file_name']!r}) says it is "
                f"{_short(image['width'])} x {_short(image['height'])} pixels; {_AGAIN}"
            )


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."

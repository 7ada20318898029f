"""Several COCO jsons become one: ids, classes and file names that collide are told apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from persondet.data.coco_json import CocoDict
from persondet.errors import DatasetError


@dataclass(frozen=True)
class Merged:
    """One COCO dict, and where its images come from.

    Attributes:
        coco: the dict; the records of `images` and `annotations` stand in the order of the sources.
        origins: for each record of `images`, which source it is from and its `file_name` there.
    """

    coco: CocoDict
    origins: list[tuple[int, Any]]


def merge_coco(cocos: Sequence[CocoDict]) -> Merged:
    """Merge COCO dicts into one; a single one is returned as it is.

    Image and annotation ids of later dicts are moved behind those of earlier ones, where any
    collide. Categories are one when id and name agree, or the name does; a file name that an
    earlier dict has gets a number (`a_2.jpg`). Faults inside one dict stay what they are. Other
    keys (`info`, `licenses`, …) are those of the first dict that has them.

    Args:
        cocos: at least one; not changed.

    Raises: DatasetError: when an id stands for two images of one dict, so that nobody knows whose
        the annotations are.
    """
    for coco in cocos:
        _refuse_ambiguous(coco)
    if len(cocos) == 1:
        return Merged(cocos[0], [(0, _get(image, "file_name")) for image in cocos[0]["images"]])
    merged: CocoDict = {}
    for coco in reversed(cocos):
        merged = {**{key: value for key, value in merged.items() if key not in coco}, **coco}
    merged = {**{key: merged[key] for key in cocos[0]}, **merged}
    images: list[Any] = []
    annotations: list[Any] = []
    categories: list[Any] = []
    origins: list[tuple[int, Any]] = []
    taken: set[str] = set()
    image_shifts = _shifts([list(_image_ids(coco)) for coco in cocos])
    annotation_shifts = _shifts([list(_ids(coco["annotations"], "id")) for coco in cocos])
    for source, coco in enumerate(cocos):
        classes = _add_categories(categories, coco["categories"])
        names = _free_names(coco, taken)
        taken |= set(names.values())
        by, by_annotation = image_shifts[source], annotation_shifts[source]
        for image in coco["images"]:
            name = _get(image, "file_name")
            origins.append((source, name))
            images.append(_changed(image, {"id": (by, {}), "file_name": (0, names)}))
        changes = {"id": (by_annotation, {}), "image_id": (by, {}), "category_id": (0, classes)}
        annotations += [_changed(annotation, changes) for annotation in coco["annotations"]]
    merged |= {"images": images, "annotations": annotations, "categories": categories}
    return Merged(merged, origins)


def image_id(record: Any) -> int | None:
    """Return the id of an image record, None when it is no whole number."""
    value = _get(record, "id")
    return value if type(value) is int else None


def _get(record: Any, key: str) -> Any:
    return record.get(key) if isinstance(record, dict) else None


def _ids(records: Sequence[Any], key: str) -> Iterator[int]:
    return (value for record in records if type(value := _get(record, key)) is int)


def _image_ids(coco: CocoDict) -> Iterator[int]:
    yield from _ids(coco["images"], "id")
    yield from _ids(coco["annotations"], "image_id")


def _refuse_ambiguous(coco: CocoDict) -> None:
    names: dict[int, Any] = {}
    for image in coco["images"]:
        number = image_id(image)
        if number is not None and names.setdefault(number, image.get("file_name")) != image.get(
            "file_name"
        ):
            raise DatasetError(
                f"the image id {number} stands for {names[number]!r} and for "
                f"{image.get('file_name')!r}, so that nobody knows whose the annotations are; "
                "run clean first, which drops both."
            )


def _shifts(ids: Sequence[Sequence[int]]) -> list[int]:
    """What to add to the ids of each source so that those of different sources differ."""
    counts = Counter(number for source in ids for number in set(source))
    if not counts or max(counts.values()) == 1:
        return [0] * len(ids)
    shifts, end = [], None
    for source in ids:
        shift = 0 if end is None or not source else max(0, end - min(source) + 1)
        shifts.append(shift)
        if source:
            end = max(max(source) + shift, end if end is not None else max(source))
    return shifts


def _add_categories(known: list[Any], categories: Sequence[Any]) -> dict[Any, Any]:
    """Add those that are new to `known`, and return how ids change."""
    ids = {category_id: _get(c, "name") for c in known for category_id in _ids([c], "id")}
    named = Counter(_get(c, "name") for c in known if isinstance(_get(c, "name"), str))
    changes: dict[Any, Any] = {}
    for category in categories:
        number, name = _get(category, "id"), _get(category, "name")
        if type(number) is not int or not isinstance(name, str):
            if category not in known:
                known.append(category)
        elif ids.get(number) == name:
            continue
        elif named[name] == 1 and name in ids.values():
            changes[number] = next(i for i, other in ids.items() if other == name)
        else:
            new = number if number not in ids else max(ids) + 1
            changes[number] = new
            ids[new] = name
            known.append({**category, "id": new})
    return changes


def _free_names(coco: CocoDict, taken: set[str]) -> dict[Any, Any]:
    """The file names of a source, to names that no earlier source has."""
    names = dict.fromkeys(
        name for image in coco["images"] if isinstance(name := _get(image, "file_name"), str)
    )
    free: dict[Any, Any] = {}
    used = taken | set(names)
    for name in names:
        new, number = name, 2
        while new in taken or (new != name and new in used):
            path = PurePosixPath(name)
            new = name.removesuffix(path.name) + f"{path.stem}_{number}{path.suffix}"
            number += 1
        free[name] = new
        used.add(new)
    return free


def _changed(record: Any, changes: dict[str, tuple[int, dict[Any, Any]]]) -> Any:
    """A record with whole numbers moved, and values replaced where a table has them."""
    if not isinstance(record, dict):
        return record
    result = dict(record)
    for key, (shift, table) in changes.items():
        value = record.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool):
            if shift and isinstance(value, int):
                value += shift
            if key in record:
                result[key] = table.get(value, value)
    return result

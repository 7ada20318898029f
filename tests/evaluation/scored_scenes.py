"""Ground truth and predictions made of rectangles: their boxes, and masks that fill them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Rectangle = tuple[int, int, int, int]  # x, y, width, height


def person(box: Rectangle, category: int = 1, *, crowd: int = 0) -> dict[str, Any]:
    """An annotated rectangle."""
    return {
        "category_id": category,
        "bbox": list(box),
        "area": box[2] * box[3],
        "iscrowd": crowd,
        "segmentation": _outline(box),
    }


def found(
    box: Rectangle, score: float, category: int = 1, *, mask: Rectangle | None = None
) -> dict[str, Any]:
    """A predicted rectangle; `mask`: another one is its mask."""
    return {
        "category_id": category,
        "bbox": list(box),
        "score": score,
        "segmentation": _outline(mask or box),
    }


def scene(
    truth: Sequence[Sequence[dict[str, Any]]],
    predictions: Sequence[Sequence[dict[str, Any]]],
    *,
    classes: Sequence[str] = ("person",),
    size: tuple[int, int] = (200, 100),
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A COCO dict and COCO results, one image of `size` (width, height) per list of `truth`."""
    coco: dict[str, Any] = {
        "info": {},
        "images": [
            {"id": 10 + n, "file_name": f"{n}.jpg", "width": size[0], "height": size[1]}
            for n in range(len(truth))
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(classes, start=1)],
        "annotations": [],
    }
    for number, people in enumerate(truth):
        for one in people:
            entry = {**one, "image_id": 10 + number, "id": len(coco["annotations"]) + 1}
            coco["annotations"].append(entry)
    results = [
        {**one, "image_id": 10 + number} for number, row in enumerate(predictions) for one in row
    ]
    return coco, results


def _outline(box: Rectangle) -> list[list[float]]:
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]

"""From visible masks to the json of a Roboflow COCO export, with its conventions.

Those are: image and annotation ids from 0, a grouping category with id 0 that is named after the
project, `area` as box width times height, polygons that repeat their first point.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Polygon = list[float]

_ZOOM = 4
_DATE = "2025-01-15T09:00:00+00:00"


def mask_to_polygons(
    mask: NDArray[np.bool_], x: int = 0, y: int = 0, *, tolerance: float = 0.45
) -> list[Polygon]:
    """Return the outlines of a mask as COCO polygons [x0, y0, x1, y1, …], the first point repeated.

    `mask`: bool (h, w), placed at (`x`, `y`) in the image. Coordinates are continuous image
    pixels: the mask's pixel (0, 0) covers [x, x + 1). `tolerance` (pixels) is the largest
    distance between an outline and its simplified form. Polygons cannot have holes: where a
    mask has one, it is cut in two through the hole. Parts below six pixels are dropped.
    """
    polygons: list[Polygon] = []
    height, width = mask.shape
    for part, left in _without_holes(np.ascontiguousarray(mask).view(np.uint8)):
        # Contours run through pixel centres; on an enlarged mask that costs only 1/8 pixel.
        large = cv2.copyMakeBorder(part, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
        large = cv2.resize(large, None, fx=_ZOOM, fy=_ZOOM, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for contour in sorted(contours, key=lambda contour: -cv2.contourArea(contour)):
            if cv2.contourArea(contour) < 6 * _ZOOM**2:
                continue
            simple = cv2.approxPolyDP(contour, tolerance * _ZOOM, True)[:, 0].astype(np.float64)
            if len(simple) < 3:
                continue
            points: NDArray[Any] = (simple + 0.5) / _ZOOM - 1.0 + (left, 0)
            points = np.clip(points, 0.0, (width, height)) + (x, y)
            points = np.round(np.vstack([points, points[:1]]), 3)
            polygons.append([float(value) for value in points.ravel()])
    return polygons


def _without_holes(mask: NDArray[np.uint8]) -> list[tuple[NDArray[np.uint8], int]]:
    """Return pieces (mask, left column) without holes of five pixels or more."""
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if hierarchy is not None:
        for contour, links in zip(contours, hierarchy[0], strict=True):
            left, _, width, _ = cv2.boundingRect(contour)
            # The contour of a hole runs on the mask's pixels around it.
            if links[3] >= 0 and cv2.contourArea(contour) - 0.5 * len(contour) + 1 >= 5:
                cut = left + width // 2
                first, last = (
                    _without_holes(np.ascontiguousarray(mask[:, :cut])),
                    _without_holes(np.ascontiguousarray(mask[:, cut:])),
                )
                return first + [(piece, at + cut) for piece, at in last]
    return [(mask, 0)]


def polygon_box(polygons: list[Polygon]) -> list[float]:
    """Return [x, y, width, height] of all `polygons` together."""
    points = np.concatenate([np.asarray(polygon).reshape(-1, 2) for polygon in polygons])
    low, high = points.min(axis=0), points.max(axis=0)
    return [round(float(value), 3) for value in (*low, *(high - low))]


def categories(project: str, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the grouping category 0 named after the project, and the classes from 1."""
    group = [{"id": 0, "name": project, "supercategory": "none"}]
    return group + [
        {"id": k, "name": name, "supercategory": project} for k, name in enumerate(names, 1)
    ]


def coco_json(
    project: str, names: tuple[str, ...], pictures: list[dict[str, Any]], size: tuple[int, int]
) -> dict[str, Any]:
    """Return the content of `_annotations.coco.json`.

    `pictures`: one dict per image, with `file_name`, `original` (its name before the export) and
    `objects`, a list of (category id, polygons). `size` is (width, height).
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures):
        images.append(
            {
                "id": number,
                "license": 1,
                "file_name": picture["file_name"],
                "height": size[1],
                "width": size[0],
                "date_captured": _DATE,
                "extra": {"name": picture["original"]},
            }
        )
        for category, polygons in picture["objects"]:
            box = polygon_box(polygons)
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": category,
                    "bbox": box,
                    "area": round(box[2] * box[3], 3),
                    "segmentation": polygons,
                    "iscrowd": 0,
                }
            )
    return {
        "info": {
            "year": "2025",
            "version": "1",
            "description": "Rendered by persondet in the layout of a Roboflow export",
            "contributor": "persondet",
            "url": "",
            "date_created": _DATE,
        },
        "licenses": [
            {
                "id": 1,
                "url": "https://creativecommons.org/publicdomain/zero/1.0/",
                "name": "Public Domain",
            }
        ],
        "categories": categories(project, names),
        "images": images,
        "annotations": annotations,
    }

"""What cleaning changed, before beside after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from persondet.errors import MediaError
from persondet.picture_file import read_picture_file
from persondet.visualization.contact_sheet import contact_sheet
from persondet.visualization.drawing import draw_box, draw_mask, line_width, palette_color
from persondet.visualization.ground_truth import segmentation_to_mask

MARGIN = 0.08  # of the picture's longer side: what leaves the picture is seen in it
_GREY = (120, 120, 120)


@dataclass(frozen=True)
class CleanedImage:
    """An image before and after cleaning.

    Attributes:
        path: the picture; None: there is none to read.
        before: COCO annotations of any content.
        after: the cleaned ones; None: the image is dropped.
        origins: index into `before` of each of `after`: what belongs together has one colour.
        found: what was found, in words.
    """

    path: Path | None
    before: Sequence[Mapping[str, Any]]
    after: Sequence[Mapping[str, Any]] | None
    origins: Sequence[int]
    found: str


def cleaning_sheet(
    images: Sequence[CleanedImage], *, tile_size: tuple[int, int] = (480, 360)
) -> np.ndarray:
    """Return a contact sheet with a row per image: its annotations before and after cleaning.

    Args:
        images: what to show.
        tile_size: width and height of a picture on the sheet, in pixels.

    Returns: uint8, (H, W, 3), BGR. A picture that cannot be read is grey.
    """
    tiles, captions = [], []
    for one in images:
        image = _readable(one.path)
        tiles.append(draw_annotations(image, one.before))
        captions.append(f"before: {len(one.before)}; {one.found or 'class or mask left out'}")
        tiles.append(draw_annotations(image, one.after or (), one.origins))
        name = one.path.name if one.path else "outside of its folder"
        captions.append(f"after: {'dropped' if one.after is None else len(one.after)}; {name}")
        if one.after is None:
            tiles[-1] = cv2.addWeighted(tiles[-1], 0.25, np.full_like(tiles[-1], 255), 0.75, 0)
    return contact_sheet(tiles, captions, columns=2, tile_size=tile_size)


def draw_annotations(
    image: np.ndarray,
    annotations: Sequence[Mapping[str, Any]],
    colors: Sequence[int] | None = None,
) -> np.ndarray:
    """Return `image` with a margin, and on it COCO annotations of any content.

    Args:
        image: uint8, (H, W, 3), BGR.
        annotations: with `bbox` (XYWH, pixels) and `segmentation` (polygons, a flat polygon, or
            RLE); what cannot be drawn is left out.
        colors: number of each one's colour; by default its index.

    Returns: uint8, (H + 2 m, W + 2 m, 3), BGR, with m = `MARGIN` of the longer side.
    """
    height, width = image.shape[:2]
    margin = round(MARGIN * max(height, width))
    canvas = cv2.copyMakeBorder(
        image, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=_GREY
    )
    thick = max(2, line_width(image))
    numbered = list(
        zip(range(len(annotations)) if colors is None else colors, annotations, strict=False)
    )
    for index, annotation in numbered:
        mask = _mask(annotation.get("segmentation"), canvas.shape[:2], (height, width), margin)
        if mask is not None:
            draw_mask(canvas, mask, palette_color(index), outline=thick)
    for index, annotation in numbered:
        box = _numbers(annotation.get("bbox"))
        if box is not None and len(box) == 4:
            x, y, w, h = np.clip(box + [margin, margin, 0, 0], -32768, 32767)
            draw_box(canvas, (x, y, x + w, y + h), palette_color(index), width=thick)
    return canvas


def _mask(
    segmentation: Any, canvas: tuple[int, int], size: tuple[int, int], margin: int
) -> np.ndarray | None:
    if isinstance(segmentation, Mapping):
        if segmentation.get("size") != list(size):
            return None
        try:
            inner = segmentation_to_mask(segmentation, *size)
        except (TypeError, ValueError, KeyError, OverflowError):
            return None
        return None if inner is None else np.pad(inner, margin)
    if not isinstance(segmentation, list) or not segmentation:
        return None
    parts = [segmentation] if _numbers(segmentation) is not None else segmentation
    shifted = []
    for part in parts:
        numbers = _numbers(part)
        if numbers is not None and len(numbers) >= 6:
            points = numbers[: len(numbers) // 2 * 2].reshape(-1, 2) + margin
            shifted.append(np.clip(points, 0, (canvas[1], canvas[0])).reshape(-1).tolist())
    return segmentation_to_mask(shifted, *canvas) if shifted else None


def _numbers(value: Any) -> np.ndarray | None:
    """Return a list of finite numbers as float64, None for anything else."""
    plain = isinstance(value, list) and value
    if not plain or not all(type(one) in (int, float) and abs(one) < 1e9 for one in value):
        return None
    return np.asarray(value, np.float64)


def _readable(path: Path | None) -> np.ndarray:
    try:
        if path is not None:
            return read_picture_file(path)
    except MediaError:
        pass
    return np.full((360, 480, 3), _GREY, np.uint8)

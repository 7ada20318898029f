"""Sheets of several images: grids with captions, ground truth, and before beside after.

Annotations are drawn from Detectron2's two forms: a dict with `annotations`, or a dict with a
tensor `image` and `Instances`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask
from detectron2.structures import BoxMode

from persondet.data.image_file import read_image_file
from persondet.data.shapes import rle_runs
from persondet.errors import DatasetError, MediaError
from persondet.text import count_of
from persondet.visualization import drawing
from persondet.visualization.labels import draw_label, plate_size

BACKGROUND = (245, 245, 245)
MARGIN = 8
CAPTION_HEIGHT = 22
CAPTION_SCALE = 0.45
LABEL_SIZE = 13  # pixels


def contact_sheet(
    tiles: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    columns: int,
    tile_size: tuple[int, int] = (320, 240),
) -> np.ndarray:
    """Return `tiles` in rows of `columns`, each in the middle of its cell, its caption below.

    Args:
        tiles: images, uint8, (H, W, 3), BGR, none larger than `tile_size`, at least one.
        captions: one text per tile; one that is wider than its tile is cut off.
        columns: tiles per row, at least 1.
        tile_size: (width, height) in pixels of a cell.

    Returns:
        The sheet, uint8, (H, W, 3), BGR.

    Raises: ValueError: when there is not one caption per tile.
    """
    width, height = tile_size
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    cell_width, cell_height = width + MARGIN, height + CAPTION_HEIGHT + MARGIN
    shape = (rows * cell_height + MARGIN, columns * cell_width + MARGIN, 3)
    sheet = np.full(shape, BACKGROUND, dtype=np.uint8)
    for index, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        row, column = divmod(index, columns)
        x, y = MARGIN + column * cell_width, MARGIN + row * cell_height
        tall, wide = tile.shape[:2]
        left, top = x + (width - wide) // 2, y + (height - tall) // 2
        sheet[top : top + tall, left : left + wide] = tile
        below = sheet[y + height : y + height + CAPTION_HEIGHT, x : x + width]
        place, ink = (0, CAPTION_HEIGHT - 7), drawing.contrasting(BACKGROUND)
        cv2.putText(below, caption, place, drawing.FONT, CAPTION_SCALE, ink, 1, cv2.LINE_AA)
    return sheet


# (dataset dict, seed) → what the model is trained on, or None when nothing is left of the image.
SampleMapper = Callable[[dict[str, Any], Sequence[int]], dict[str, Any] | None]
Window = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels of the image; it may reach beyond

# Width and height, in pixels, into which an image is fitted.
TILE, LARGE_TILE = (360, 270), (480, 360)
PANEL = (628, 480)  # the same of one side of a pair
# Colour-blind readers tell these two apart; width and label say the same once more.
RIGHT, WRONG, CROWD = drawing.PALETTE[1], drawing.PALETTE[5], (150, 150, 150)
_GREY = 120


@dataclass(frozen=True)
class Shown:
    """One object of an image.

    Attributes:
        box: XYXY_ABS, pixels of the image, or None.
        segmentation: what `segmentation_to_mask` takes.
        label: written beside it; empty: nothing.
        wrong: whether it stands out.
        crowd: whether it is a region of people whom nobody counted.
        color: number of its colour in the palette; None: it follows from `wrong` and `crowd`.
    """

    box: Sequence[float] | np.ndarray | None
    segmentation: Any = None
    label: str = ""
    wrong: bool = False
    crowd: bool = False
    color: int | None = None

    @classmethod
    def of(cls, one: Mapping[str, Any], label: str = "", **more: Any) -> Shown:
        """Return the object of an annotation or a detection, COCO's or Detectron2's dict."""
        mode = one.get("bbox_mode", BoxMode.XYWH_ABS)
        box = BoxMode.convert(list(one["bbox"]), mode, BoxMode.XYXY_ABS)
        crowd = bool(one.get("iscrowd"))
        return cls(box, one.get("segmentation"), label, crowd=crowd, **more)


def draw_shown(
    image: np.ndarray, objects: Sequence[Shown], size: tuple[int, int], window: Window | None = None
) -> np.ndarray:
    """Return an image, or a part of it, fitted into `size`, with objects drawn at that size.

    A label is left out where it would hide its object.

    Args:
        image: uint8, (H, W, 3), BGR.
        size: most pixels of the result: width, height.
        window: the part; what lies beyond the image is grey.

    Returns: uint8, (h, w, 3), BGR.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = window = window or (0, 0, width, height)
    factor = min(size[0] / (x1 - x0), size[1] / (y1 - y0))
    shape = (max(1, round((x1 - x0) * factor)), max(1, round((y1 - y0) * factor)))
    part = image[max(0, y0) : y1, max(0, x0) : x1]
    beyond = ((-y0, y1 - height), (-x0, x1 - width), (0, 0))
    if np.max(beyond) > 0:
        part = np.pad(part, np.maximum(beyond, 0), constant_values=_GREY)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    panel = cv2.resize(part, shape, interpolation=method)
    # What is wrong is drawn last, on top.
    ordered = sorted(objects, key=lambda shown: (shown.wrong, not shown.crowd))
    for shown in ordered:
        mask = segmentation_to_mask(shown.segmentation, window, shape)
        if mask is not None:
            drawing.draw_region(panel, mask, (0, 0), _color(shown), alpha=0.35)
    scaled = [
        ((np.asarray(shown.box, np.float64) - (x0, y0, x0, y0)) * factor, shown)
        for shown in ordered
        if shown.box is not None
    ]
    for box, shown in scaled:
        drawing.draw_box(panel, box, _color(shown), width=2.5 if shown.wrong else 1.5)
    for box, shown in scaled:
        seen = (box[2:] > 0).all() and (box[:2] < shape).all()
        if shown.label and seen and box[3] - box[1] >= 2 * plate_size(shown.label, LABEL_SIZE)[1]:
            draw_label(panel, shown.label, box, _color(shown), size=LABEL_SIZE)
    return panel


def _color(shown: Shown) -> drawing.Color:
    if shown.color is not None:
        return drawing.palette_color(shown.color)
    return WRONG if shown.wrong else CROWD if shown.crowd else RIGHT


def segmentation_to_mask(
    segmentation: Any, window: Window, shape: tuple[int, int]
) -> np.ndarray | None:
    """Return a segmentation as a bool mask, at the cost of the mask's size; None when it is empty.

    Source of the outlines: the rasteriser of pycocotools, which the COCO evaluation uses.

    Args:
        segmentation: a list of polygons [x0, y0, x1, y1, …] in pixels, or a run-length code,
            compressed or not.
        window: the part of the image that the mask shows.
        shape: width and height of the mask.
    """
    x0, y0, x1, y1 = window
    scale = np.array([shape[0] / (x1 - x0), shape[1] / (y1 - y0)])
    if not isinstance(segmentation, Mapping):
        points = [np.asarray(p, np.float64).reshape(-1, 2) for p in segmentation or ()]
        polygons = [((p - (x0, y0)) * scale).ravel().tolist() for p in points if len(p) > 2]
        if not polygons:
            return None
        codes = pycocotools.mask.frPyObjects(polygons, *shape[::-1])
        return pycocotools.mask.decode(pycocotools.mask.merge(codes)).astype(bool)
    height, width = segmentation["size"]
    ends = np.cumsum(rle_runs(segmentation["counts"]) or [0])  # of the runs, column by column
    columns = np.floor(x0 + (np.arange(shape[0]) + 0.5) / scale[0]).astype(np.int64)
    rows = np.floor(y0 + (np.arange(shape[1]) + 0.5) / scale[1]).astype(np.int64)
    # Between the first and the last object pixel, so that a small object costs little.
    low, high = ends[0] // height, min(width - 1, ends[len(ends) // 2 * 2 - 1] // height)
    x = np.flatnonzero((columns >= low) & (columns <= high))
    y = np.flatnonzero((rows >= 0) & (rows < height))
    places = columns[x] * height + rows[y][:, None]
    mask = np.zeros(shape[::-1], bool)
    mask[np.ix_(y, x)] = np.searchsorted(ends, places, "right") % 2
    return mask


def draw_dataset_dict(
    image: np.ndarray,
    dataset_dict: Mapping[str, Any],
    class_names: Sequence[str] = (),
    size: tuple[int, int] = TILE,
) -> np.ndarray:
    """Return `image` (uint8, (H, W, 3), BGR), fitted into `size`, with its dict's annotations.

    Each object has its own colour; a class name is written where `class_names` has more than one.
    """
    objects = [
        Shown.of(one, _label(one["category_id"], class_names), color=number)
        for number, one in enumerate(dataset_dict.get("annotations", ()))
    ]
    return draw_shown(image, objects, size)


def draw_training_sample(
    sample: Mapping[str, Any],
    class_names: Sequence[str] = (),
    size: tuple[int, int] = TILE,
    *,
    image_format: str = "BGR",
) -> np.ndarray:
    """Return the image (uint8, (h, w, 3), BGR), fitted into `size`, that the model is given.

    `sample` holds `image`, a uint8 or float tensor (3, H, W) in `image_format` ("BGR" or "RGB"),
    and `instances` with `gt_boxes`, `gt_classes` and, in either mask format, `gt_masks`.
    """
    image = sample["image"].numpy().transpose(1, 2, 0).clip(0, 255).astype(np.uint8)
    if image_format == "RGB":
        image = image[:, :, ::-1]
    instances = sample["instances"]
    boxes, classes = instances.gt_boxes.tensor.numpy(), instances.gt_classes.tolist()
    masks: Sequence[Any] = [None] * len(boxes)
    if instances.has("gt_masks") and hasattr(instances.gt_masks, "polygons"):
        masks = instances.gt_masks.polygons
    elif instances.has("gt_masks"):
        whole = instances.gt_masks.tensor.numpy().astype(np.uint8).transpose(1, 2, 0)
        masks = pycocotools.mask.encode(np.asfortranarray(whole))
    labels = [_label(number, class_names) for number in classes]
    rows = enumerate(zip(boxes, masks, labels, strict=True))
    return draw_shown(image, [Shown(*row, color=number) for number, row in rows], size)


def _label(category: int, class_names: Sequence[str]) -> str:
    return class_names[category] if len(class_names) > 1 else ""


def ground_truth_sheet(
    dataset_dicts: Sequence[Mapping[str, Any]],
    mapper: SampleMapper,
    class_names: Sequence[str] = (),
    *,
    versions: int = 3,
    seed: int = 0,
    image_format: str = "BGR",
    late: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Return a contact sheet with a row per image: as annotated, then `versions` times augmented.

    `mapper` turns a dataset dict and a seed into a training sample (see `draw_training_sample`);
    the seeds follow from `seed`, the row and the version. The left column is drawn from the dataset
    dict without the mapper, so that the two can be compared. The sheet is uint8, (H, W, 3), BGR.
    Once `late` says so, nothing further is begun.

    Raises: DatasetError: when an image is missing or cannot be read.
    """
    tiles, captions = [], []
    for row, dataset_dict in enumerate(dataset_dicts):
        if row and late():
            break
        tile, caption = _annotated(dataset_dict, class_names)
        tiles.append(tile)
        captions.append(caption)
        for version in range(versions):
            sample = None if late() else mapper(dict(dataset_dict), (seed, row, version))
            drawn, text = np.zeros_like(tile), "left out by the mapper, or as it takes long"
            if sample is not None:
                height, width = sample["image"].shape[1:]
                text = f"{count_of(len(sample['instances']), 'object')}, {width} x {height}"
                drawn = draw_training_sample(sample, class_names, image_format=image_format)
            tiles.append(drawn)
            captions.append(f"augmented {version + 1}: {text}")
    return contact_sheet(tiles, captions, columns=versions + 1, tile_size=TILE)


def annotation_sheet(
    dataset_dicts: Sequence[Mapping[str, Any]],
    class_names: Sequence[str] = (),
    *,
    late: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Return a contact sheet of images with their annotations: uint8, (H, W, 3), BGR.

    Once `late` says so, nothing further is begun.

    Raises: DatasetError: when an image is missing or cannot be read.
    """
    numbered = enumerate(dataset_dicts)
    pairs = [_annotated(one, class_names) for n, one in numbered if not (n and late())]
    tiles, captions = zip(*pairs, strict=True)
    return contact_sheet(tiles, captions, columns=4, tile_size=TILE)


def _annotated(record: Mapping[str, Any], class_names: Sequence[str]) -> tuple[np.ndarray, str]:
    """Return the image of a dataset dict with its annotations, and its caption."""
    try:
        image = read_image_file(record["file_name"])
    except MediaError as error:
        raise DatasetError(str(error)) from error
    count = count_of(len(record.get("annotations", ())), "object")
    tile = draw_dataset_dict(image, record, class_names)
    return tile, f"{count}: {Path(record['file_name']).name}"


def evenly_spaced(items: Sequence[Any], count: int) -> list[Any]:
    """Return at most `count` of `items`, spread over all of them, the first one included."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def draw_side_by_side(
    image: np.ndarray,
    left: Sequence[Shown],
    right: Sequence[Shown],
    *,
    around: Sequence[float] | None = None,
    panel: tuple[int, int] = PANEL,
) -> np.ndarray:
    """Return one image with two panels.

    Args:
        image: uint8, (H, W, 3), BGR.
        left, right: what is drawn on each panel.
        around: box (XYXY_ABS, pixels) to cut out with as much again around it; default: all.
        panel: the most pixels of each: width, height.

    Returns: uint8, (H, W, 3), BGR.
    """
    window = None if around is None else _window(image, around)
    panels = [draw_shown(image, objects, panel, window) for objects in (left, right)]
    size = panels[0].shape[1], panels[0].shape[0]
    return contact_sheet(panels, ("annotated", "found"), columns=2, tile_size=size)


def _window(image: np.ndarray, around: Sequence[float]) -> Window:
    height, width = image.shape[:2]
    x0, y0, x1, y1 = around
    margin = max(x1 - x0, y1 - y0) / 2 + 8
    left, top = np.clip((x0 - margin, y0 - margin), 0, (width - 1, height - 1)).tolist()
    right, bottom = np.clip((x1 + margin, y1 + margin), 1, (width, height)).tolist()
    return int(left), int(top), math.ceil(right), math.ceil(bottom)


MARGIN_OF_CLEANING_SHEET = 0.08  # of the image's longer side: what leaves the image is seen in it


@dataclass(frozen=True)
class CleanedImage:
    """An image before and after cleaning.

    Attributes:
        path: the image; None: there is none to read.
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


def cleaning_sheet(images: Sequence[CleanedImage]) -> np.ndarray:
    """Return a contact sheet with a row per image: its annotations before and after cleaning.

    The sheet is uint8, (H, W, 3), BGR. An image that cannot be read is grey.
    """
    tiles, captions = [], []
    for one in images:
        image = _readable(one.path)
        tiles.append(draw_annotations(image, one.before, size=LARGE_TILE))
        captions.append(f"before: {len(one.before)}; {one.found or 'class or mask left out'}")
        tiles.append(draw_annotations(image, one.after or (), one.origins, size=LARGE_TILE))
        name = one.path.name if one.path else "outside of its folder"
        captions.append(f"after: {'dropped' if one.after is None else len(one.after)}; {name}")
        if one.after is None:
            tiles[-1] = cv2.addWeighted(tiles[-1], 0.25, np.full_like(tiles[-1], 255), 0.75, 0)
    return contact_sheet(tiles, captions, columns=2, tile_size=LARGE_TILE)


def draw_annotations(
    image: np.ndarray,
    annotations: Sequence[Mapping[str, Any]],
    colors: Sequence[int] | None = None,
    *,
    size: tuple[int, int] = TILE,
) -> np.ndarray:
    """Return `image` with a margin, fitted into `size`, and on it COCO annotations of any content.

    Args:
        image: uint8, (H, W, 3), BGR.
        annotations: with `bbox` (XYWH, pixels) and `segmentation` (polygons, a flat polygon, or
            RLE); what cannot be drawn is left out.
        colors: number of each one's colour; by default its index.
        size: width and height, in pixels.

    Returns: uint8, (h, w, 3), BGR; the margin is `MARGIN_OF_CLEANING_SHEET` of the longer side.
    """
    height, width = image.shape[:2]
    margin = round(MARGIN_OF_CLEANING_SHEET * max(height, width))
    window = (-margin, -margin, width + margin, height + margin)
    objects = []
    for one, number in zip(annotations, colors or range(len(annotations)), strict=False):
        shape = _loose_segmentation(one.get("segmentation"), window)
        objects.append(Shown(_loose_box(one.get("bbox")), shape, color=number))
    return draw_shown(image, objects, size, window)


def _loose_box(box: Any) -> np.ndarray | None:
    """Return the corners XYXY of a box of any content, kept near the image; None without one."""
    try:
        x, y, width, height = np.asarray(box, np.float64)
    except (TypeError, ValueError):
        return None
    corners = np.array([x, y, x + width, y + height])
    return corners.clip(-32768, 32767) if np.isfinite(corners).all() else None


def _loose_segmentation(segmentation: Any, window: Window) -> Any:
    """Return a segmentation of any content as one that can be drawn, kept near the image."""
    x0, y0, x1, y1 = window
    try:
        if isinstance(segmentation, Mapping):
            fits = segmentation["size"] == [y1 + y0, x1 + x0]
            return segmentation if fits and rle_runs(segmentation["counts"]) else None
        parts = segmentation if isinstance(segmentation[0], list) else [segmentation]
        points = [np.asarray(part, np.float64).reshape(-1, 2) for part in parts]
        return [np.clip(np.nan_to_num(part), (x0, y0), (x1, y1)) for part in points]
    except (TypeError, ValueError, LookupError, OverflowError):
        return None


def _readable(path: Path | None) -> np.ndarray:
    with suppress(MediaError):
        if path is not None:
            return read_image_file(path)
    return np.full((360, 480, 3), _GREY, np.uint8)

"""Sheets of several images: grids with captions, ground truth, and before beside after.

Annotations are drawn from Detectron2's two forms: a dict with `annotations`, or a dict with a
tensor `image` and `Instances`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask
from detectron2.structures import BoxMode

from persondet.data.image_file import read_image_file
from persondet.errors import DatasetError, MediaError
from persondet.files import atomic_path
from persondet.visualization import drawing
from persondet.visualization.labels import draw_label

BACKGROUND = (245, 245, 245)
MARGIN = 8
CAPTION_HEIGHT = 22
CAPTION_SCALE = 0.45


def contact_sheet(
    tiles: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    columns: int,
    tile_size: tuple[int, int] = (320, 240),
) -> np.ndarray:
    """Return `tiles` in rows of `columns`, each letterboxed and with its caption below.

    Args:
        tiles: images, uint8, (H, W, 3), BGR, of any size, at least one.
        captions: one text per tile; one that is wider than its tile is cut off.
        columns: tiles per row, at least 1.
        tile_size: (width, height) in pixels that each image is fitted into, keeping its shape.

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
        sheet[y : y + height, x : x + width] = letterbox(tile, tile_size)
        below = sheet[y + height : y + height + CAPTION_HEIGHT, x : x + width]
        place, ink = (0, CAPTION_HEIGHT - 7), drawing.contrasting(BACKGROUND)
        cv2.putText(below, caption, place, drawing.FONT, CAPTION_SCALE, ink, 1, cv2.LINE_AA)
    return sheet


def write_sheet(path: str | Path, sheet: np.ndarray) -> Path:
    """Write an image (uint8, (H, W, 3), BGR) whole or not at all, and return its path.

    Raises: MediaError: when OpenCV cannot write the format that the name ends in.
    """
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), sheet):
            raise MediaError(f"{path}: the image cannot be written; end its name in .png.")
    return Path(path)


def letterbox(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return `image` (uint8, (H, W, 3), BGR) fitted into the middle of `size` (width, height).

    The shape of the image is kept; `BACKGROUND` fills what it leaves free.
    """
    height, width = image.shape[:2]
    factor = min(size[0] / width, size[1] / height)
    fitted = (max(1, round(width * factor)), max(1, round(height * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    canvas = np.full((size[1], size[0], 3), BACKGROUND, dtype=np.uint8)
    x, y = (size[0] - fitted[0]) // 2, (size[1] - fitted[1]) // 2
    canvas[y : y + fitted[1], x : x + fitted[0]] = cv2.resize(image, fitted, interpolation=method)
    return canvas


# (dataset dict, seed) → what the model is trained on, or None when nothing is left of the image.
SampleMapper = Callable[[dict[str, Any], Sequence[int]], dict[str, Any] | None]


def draw_dataset_dict(
    image: np.ndarray, dataset_dict: Mapping[str, Any], class_names: Sequence[str] = ()
) -> np.ndarray:
    """Return a copy of `image` (uint8, (H, W, 3), BGR) with the annotations of its dataset dict.

    Each object has its own colour; a class name is written where `class_names` has more than one.
    """
    objects = []
    for annotation in dataset_dict.get("annotations", ()):
        box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
        mask = segmentation_to_mask(annotation.get("segmentation"), *image.shape[:2])
        objects.append((box, annotation["category_id"], mask))
    return _draw_objects(image, objects, class_names)


def draw_training_sample(
    sample: Mapping[str, Any], class_names: Sequence[str] = (), *, image_format: str = "BGR"
) -> np.ndarray:
    """Return the image (uint8, (H, W, 3), BGR) of what a mapper gives to the model.

    `sample` holds `image`, a uint8 or float tensor (3, H, W) in `image_format` ("BGR" or "RGB"),
    and `instances` with `gt_boxes`, `gt_classes` and, in either mask format, `gt_masks`.
    """
    image = sample["image"].numpy().transpose(1, 2, 0).clip(0, 255).astype(np.uint8)
    if image_format == "RGB":
        image = image[:, :, ::-1]
    instances = sample["instances"]
    boxes, classes = instances.gt_boxes.tensor.numpy(), instances.gt_classes.tolist()
    masks: Sequence[np.ndarray | None] = [None] * len(boxes)
    if instances.has("gt_masks") and hasattr(instances.gt_masks, "polygons"):
        polygons = instances.gt_masks.polygons
        masks = [segmentation_to_mask(parts, *image.shape[:2]) for parts in polygons]
    elif instances.has("gt_masks"):
        masks = instances.gt_masks.tensor.numpy()
    objects = list(zip(boxes, classes, masks, strict=True))
    return _draw_objects(image, objects, class_names)


def segmentation_to_mask(segmentation: Any, height: int, width: int) -> np.ndarray | None:
    """Return a COCO segmentation as a bool mask of (height, width); None when it is empty.

    `segmentation` is a list of polygons [x0, y0, x1, y1, …] in pixels, or a run-length code,
    compressed or not. Source: the rasteriser of pycocotools, which the COCO evaluation uses.
    """
    if isinstance(segmentation, Mapping):
        code = dict(segmentation)
        if isinstance(code["counts"], list):
            code = pycocotools.mask.frPyObjects(code, height, width)
        return pycocotools.mask.decode(code).astype(bool)
    polygons = [np.asarray(p, dtype=np.float64).tolist() for p in segmentation or ()]
    polygons = [polygon for polygon in polygons if len(polygon) >= 6]
    if not polygons:
        return None
    codes = pycocotools.mask.frPyObjects(polygons, height, width)
    return pycocotools.mask.decode(pycocotools.mask.merge(codes)).astype(bool)


def ground_truth_sheet(
    dataset_dicts: Sequence[Mapping[str, Any]],
    mapper: SampleMapper,
    class_names: Sequence[str] = (),
    *,
    versions: int = 3,
    seed: int = 0,
    tile_size: tuple[int, int] = (360, 270),
    image_format: str = "BGR",
) -> np.ndarray:
    """Return a contact sheet with a row per image: as annotated, then `versions` times augmented.

    `mapper` turns a dataset dict and a seed into a training sample (see `draw_training_sample`);
    the seeds follow from `seed`, the row and the version. The left column is drawn from the dataset
    dict without the mapper, so that the two can be compared. The sheet is uint8, (H, W, 3), BGR.

    Raises: DatasetError: when an image is missing or cannot be read.
    """
    tiles, captions = [], []
    for row, dataset_dict in enumerate(dataset_dicts):
        tile, caption = _annotated(dataset_dict, class_names)
        tiles.append(tile)
        captions.append(caption)
        for version in range(versions):
            sample = mapper(dict(dataset_dict), (seed, row, version))
            if sample is None:
                tiles.append(np.zeros_like(tile))
                text = "left out by the mapper"
            else:
                tiles.append(draw_training_sample(sample, class_names, image_format=image_format))
                height, width = tiles[-1].shape[:2]
                text = f"{_count(len(sample['instances']))}, {width} x {height}"
            captions.append(f"augmented {version + 1}: {text}")
    return contact_sheet(tiles, captions, columns=versions + 1, tile_size=tile_size)


def annotation_sheet(
    dataset_dicts: Sequence[Mapping[str, Any]],
    class_names: Sequence[str] = (),
    *,
    columns: int = 4,
    tile_size: tuple[int, int] = (360, 270),
) -> np.ndarray:
    """Return a contact sheet of images with their annotations: uint8, (H, W, 3), BGR.

    Raises: DatasetError: when an image is missing or cannot be read.
    """
    tiles, captions = zip(*(_annotated(one, class_names) for one in dataset_dicts), strict=True)
    return contact_sheet(tiles, captions, columns=columns, tile_size=tile_size)


def _annotated(
    dataset_dict: Mapping[str, Any], class_names: Sequence[str]
) -> tuple[np.ndarray, str]:
    """Return an image with its annotations, and its caption."""
    try:
        image = read_image_file(dataset_dict["file_name"])
    except MediaError as error:
        raise DatasetError(str(error)) from error
    count = _count(len(dataset_dict.get("annotations", ())))
    tile = draw_dataset_dict(image, dataset_dict, class_names)
    return tile, f"{count}: {Path(dataset_dict['file_name']).name}"


def evenly_spaced(items: Sequence[Any], count: int) -> list[Any]:
    """Return at most `count` of `items`, spread over all of them, the first one included."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def _count(objects: int) -> str:
    return "1 object" if objects == 1 else f"{objects} objects"


def _draw_objects(
    image: np.ndarray,
    objects: Sequence[tuple[Any, int, np.ndarray | None]],
    class_names: Sequence[str] = (),
    colors: Sequence[int] | None = None,
) -> np.ndarray:
    """Return a copy of `image` with (box XYXY_ABS or None, class, mask or None) per object.

    The number of an object's colour is its index, or stands in `colors`.
    """
    image = np.array(image, order="C")
    width = max(2, round(drawing.stroke_width(image)))  # the sheet makes images smaller
    palette = [drawing.palette_color(number) for number in colors or range(len(objects))]
    for color, (_, _, mask) in zip(palette, objects, strict=False):
        if mask is not None:
            drawing.draw_mask(image, mask, color, outline=width)
    for color, (box, category, _) in zip(palette, objects, strict=False):
        if box is not None:
            drawing.draw_box(image, box, color, width=width)
        if len(class_names) > 1:
            draw_label(image, class_names[category], box, color)
    return image


# Colour-blind readers tell these two apart; width and label say the same once more.
RIGHT, WRONG, CROWD = drawing.PALETTE[1], drawing.PALETTE[5], (150, 150, 150)
PANEL = (628, 480)  # the most pixels of one side: width, height
ENLARGED = 4.0  # times, at most


@dataclass(frozen=True)
class Shown:
    """One object of a panel.

    Attributes:
        box: XYXY_ABS, pixels of the image.
        mask: bool, (H, W) of the image, or None.
        label: written beside it; empty: nothing.
        wrong: whether it stands out.
        crowd: whether it is a region of people whom nobody counted.
    """

    box: Sequence[float]
    mask: np.ndarray | None = None
    label: str = ""
    wrong: bool = False
    crowd: bool = False


def draw_side_by_side(
    image: np.ndarray,
    left: Sequence[Shown],
    right: Sequence[Shown],
    *,
    titles: tuple[str, str] = ("annotated", "found"),
    around: Sequence[float] | None = None,
) -> np.ndarray:
    """Return one image with two panels, at most 1,280 pixels wide.

    Args:
        image: uint8, (H, W, 3), BGR.
        left, right: what is drawn on each panel.
        titles: written below the panels.
        around: box (XYXY_ABS, pixels) to cut out with as much again around it; default: all.

    Returns: uint8, (H, W, 3), BGR.
    """
    window = _window(image, around)
    panels = [_panel(image, objects, window) for objects in (left, right)]
    size = panels[0].shape[1], panels[0].shape[0]
    return contact_sheet(panels, titles, columns=2, tile_size=size)


def _window(image: np.ndarray, around: Sequence[float] | None) -> tuple[int, int, int, int]:
    height, width = image.shape[:2]
    if around is None:
        return 0, 0, width, height
    x0, y0, x1, y1 = around
    margin = max(x1 - x0, y1 - y0) / 2 + 8
    left, top = np.clip((x0 - margin, y0 - margin), 0, (width - 1, height - 1)).tolist()
    right, bottom = np.clip((x1 + margin, y1 + margin), 1, (width, height)).tolist()
    return int(left), int(top), math.ceil(right), math.ceil(bottom)


def _panel(
    image: np.ndarray, objects: Sequence[Shown], window: tuple[int, int, int, int]
) -> np.ndarray:
    x0, y0, x1, y1 = window
    factor = min(PANEL[0] / (x1 - x0), PANEL[1] / (y1 - y0), ENLARGED)
    size = (max(1, round((x1 - x0) * factor)), max(1, round((y1 - y0) * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    panel = cv2.resize(image[y0:y1, x0:x1], size, interpolation=method)
    # What is wrong is drawn last, on top.
    ordered = sorted(objects, key=lambda shown: (shown.wrong, not shown.crowd))
    for shown in ordered:
        if shown.mask is not None:
            part = shown.mask[y0:y1, x0:x1].astype(np.uint8)
            mask = cv2.resize(part, size, interpolation=cv2.INTER_NEAREST)
            drawing.draw_mask(panel, mask, _color(shown), alpha=0.25)
    scaled = [((np.asarray(s.box, np.float64) - [x0, y0, x0, y0]) * factor, s) for s in ordered]
    for box, shown in scaled:
        drawing.draw_box(panel, box, _color(shown), width=2 if shown.wrong else 1)
    for box, shown in scaled:
        if shown.label and (box[2:] > 0).all() and (box[:2] < size).all():
            draw_label(panel, shown.label, box, _color(shown))
    return panel


def _color(shown: Shown) -> drawing.Color:
    return WRONG if shown.wrong else CROWD if shown.crowd else RIGHT


MARGIN_OF_CLEANING_SHEET = 0.08  # of the image's longer side: what leaves the image is seen in it
_GREY = (120, 120, 120)


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


def cleaning_sheet(
    images: Sequence[CleanedImage], *, tile_size: tuple[int, int] = (480, 360)
) -> np.ndarray:
    """Return a contact sheet with a row per image: its annotations before and after cleaning.

    Args:
        images: what to show.
        tile_size: width and height of an image on the sheet, in pixels.

    Returns: uint8, (H, W, 3), BGR. An image that cannot be read is grey.
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
    margin = round(MARGIN_OF_CLEANING_SHEET * max(height, width))
    canvas = cv2.copyMakeBorder(
        image, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=_GREY
    )
    objects = []
    for one in annotations:
        box = _loose_box(one.get("bbox"))
        mask = _loose_mask(one.get("segmentation"), (height, width), margin)
        objects.append((None if box is None else box + margin, 0, mask))
    return _draw_objects(canvas, objects, colors=colors)


def _loose_box(box: Any) -> np.ndarray | None:
    """Return the corners XYXY of a box of any content, kept near the image; None without one."""
    try:
        x, y, width, height = np.asarray(box, np.float64)
    except (TypeError, ValueError):
        return None
    corners = np.array([x, y, x + width, y + height])
    return corners.clip(-32768, 32767) if np.isfinite(corners).all() else None


def _loose_mask(segmentation: Any, size: tuple[int, int], margin: int) -> np.ndarray | None:
    """Return a segmentation of any content as a mask of the image with its margin, or None."""
    try:
        if isinstance(segmentation, Mapping):
            fits = segmentation["size"] == list(size)
            mask = segmentation_to_mask(segmentation, *size) if fits else None
            return None if mask is None else np.pad(mask, margin)
        limit = size[1] + 2 * margin, size[0] + 2 * margin
        parts = segmentation if isinstance(segmentation[0], list) else [segmentation]
        points = [np.asarray(part, np.float64).reshape(-1, 2) + margin for part in parts]
        polygons = [np.clip(np.nan_to_num(part), 0, limit).ravel() for part in points]
        return segmentation_to_mask(polygons, limit[1], limit[0])
    except (TypeError, ValueError, LookupError, OverflowError):
        return None


def _readable(path: Path | None) -> np.ndarray:
    try:
        if path is not None:
            return read_image_file(path)
    except MediaError:
        pass
    return np.full((360, 480, 3), _GREY, np.uint8)

"""Sheets of several images: grids with captions, ground truth, and before beside after.

Annotations are drawn from Detectron2's two forms: a dict with `annotations`, or a dict with a
tensor `image` and `Instances`.
"""

from __future__ import annotations

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
from persondet.visualization.drawing import (
    FONT,
    PALETTE,
    Color,
    contrasting,
    draw_box,
    draw_mask,
    line_width,
    palette_color,
)
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
    background: tuple[int, int, int] = BACKGROUND,
) -> np.ndarray:
    """Return `tiles` in rows of `columns`, each letterboxed and with its caption below.

    Args:
        tiles: images, uint8, (H, W, 3), BGR, of any size, at least one.
        captions: one text per tile; a longer one than its tile is cut off with "...".
        columns: tiles per row, at least 1.
        tile_size: (width, height) in pixels that each image is fitted into, keeping its shape.
        background: BGR colour around the tiles.

    Returns:
        The sheet, uint8, (H, W, 3), BGR.

    Raises: ValueError: when there is no tile, or not one caption per tile.
    """
    if not tiles or len(tiles) != len(captions) or columns < 1:
        raise ValueError(
            f"cannot lay out {len(tiles)} tiles with {len(captions)} captions in {columns} columns"
        )
    width, height = tile_size
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    cell_width, cell_height = width + MARGIN, height + CAPTION_HEIGHT + MARGIN
    shape = (rows * cell_height + MARGIN, columns * cell_width + MARGIN, 3)
    sheet = np.full(shape, background, dtype=np.uint8)
    for index, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        row, column = divmod(index, columns)
        x, y = MARGIN + column * cell_width, MARGIN + row * cell_height
        sheet[y : y + height, x : x + width] = letterbox(tile, tile_size, background=background)
        cv2.putText(
            sheet,
            _shortened(caption, width),
            (x, y + height + CAPTION_HEIGHT - 7),
            FONT,
            CAPTION_SCALE,
            contrasting(background),
            1,
            cv2.LINE_AA,
        )
    return sheet


def write_sheet(path: str | Path, sheet: np.ndarray) -> Path:
    """Write an image (uint8, (H, W, 3), BGR) whole or not at all, and return its path.

    Raises: MediaError: when OpenCV cannot write the format that the name ends in.
    """
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), sheet):
            raise MediaError(f"{path}: the image cannot be written; end its name in .png.")
    return Path(path)


def letterbox(
    image: np.ndarray,
    size: tuple[int, int],
    *,
    background: tuple[int, int, int] = BACKGROUND,
) -> np.ndarray:
    """Return `image` (uint8, (H, W, 3), BGR) fitted into the middle of `size` (width, height).

    The shape of the image is kept; `background` (BGR) fills what it leaves free.
    """
    height, width = image.shape[:2]
    factor = min(size[0] / width, size[1] / height)
    fitted = (max(1, round(width * factor)), max(1, round(height * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    canvas = np.full((size[1], size[0], 3), background, dtype=np.uint8)
    x, y = (size[0] - fitted[0]) // 2, (size[1] - fitted[1]) // 2
    canvas[y : y + fitted[1], x : x + fitted[0]] = cv2.resize(image, fitted, interpolation=method)
    return canvas


def _shortened(text: str, width: int) -> str:
    """Return `text`, or its beginning and "...", so that it is at most `width` pixels wide."""
    if cv2.getTextSize(text, FONT, CAPTION_SCALE, 1)[0][0] <= width:
        return text
    while text and cv2.getTextSize(text + "...", FONT, CAPTION_SCALE, 1)[0][0] > width:
        text = text[:-1]
    return text + "..."


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
    masks = getattr(instances, "gt_masks", None)
    objects = []
    for index, box in enumerate(instances.gt_boxes.tensor.numpy()):
        mask = None
        if masks is not None and hasattr(masks, "polygons"):
            mask = segmentation_to_mask(masks.polygons[index], *image.shape[:2])
        elif masks is not None:
            mask = masks.tensor[index].numpy()
        objects.append((box, int(instances.gt_classes[index]), mask))
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
        samples = [mapper(dict(dataset_dict), (seed, row, version)) for version in range(versions)]
        tile, caption = _annotated(dataset_dict, class_names)
        tiles.append(tile)
        captions.append(caption)
        for version, sample in enumerate(samples, start=1):
            if sample is None:
                tiles.append(np.zeros_like(tile))
                captions.append(f"augmented {version}: left out by the mapper")
                continue
            tiles.append(draw_training_sample(sample, class_names, image_format=image_format))
            height, width = tiles[-1].shape[:2]
            objects = len(sample["instances"])
            captions.append(f"augmented {version}: {_count(objects)}, {width} x {height}")
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
    width = max(2, line_width(image))  # the sheet makes images smaller
    palette = [palette_color(number) for number in colors or range(len(objects))]
    for color, (_, _, mask) in zip(palette, objects, strict=False):
        if mask is not None:
            draw_mask(image, mask, color, outline=width)
    for color, (box, category, _) in zip(palette, objects, strict=False):
        if box is not None:
            draw_box(image, box, color, width=width)
        if len(class_names) > 1:
            draw_label(image, class_names[category], box, color)
    return image


# Colour-blind readers tell these two apart; width and label say the same once more.
RIGHT, WRONG, CROWD = PALETTE[1], PALETTE[5], (150, 150, 150)
PANEL = (632, 480)  # the most pixels of one side: width, height
ENLARGED = 4.0  # times, at most
_HEADER = 26


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
        titles: written above the panels.
        around: box (XYXY_ABS, pixels) to cut out with as much again around it; default: all.

    Returns: uint8, (H, W, 3), BGR.
    """
    window = _window(image, around)
    panels = [_panel(image, objects, window) for objects in (left, right)]
    height, width = panels[0].shape[:2]
    sheet = np.full((height + _HEADER, 2 * width + 2 * MARGIN, 3), BACKGROUND, dtype=np.uint8)
    for number, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        x = number * (width + 2 * MARGIN)
        sheet[_HEADER:, x : x + width] = panel
        position, ink = (x + 2, _HEADER - 8), contrasting(BACKGROUND)
        cv2.putText(sheet, title, position, FONT, 0.5, ink, 1, cv2.LINE_AA)
    return sheet


def _window(image: np.ndarray, around: Sequence[float] | None) -> tuple[int, int, int, int]:
    height, width = image.shape[:2]
    if around is None:
        return 0, 0, width, height
    x0, y0, x1, y1 = around
    margin = max(x1 - x0, y1 - y0) / 2 + 8
    return (
        int(np.clip(x0 - margin, 0, width - 1)),
        int(np.clip(y0 - margin, 0, height - 1)),
        int(np.clip(np.ceil(x1 + margin), 1, width)),
        int(np.clip(np.ceil(y1 + margin), 1, height)),
    )


def _panel(
    image: np.ndarray, objects: Sequence[Shown], window: tuple[int, int, int, int]
) -> np.ndarray:
    x0, y0, x1, y1 = window
    factor = min(PANEL[0] / (x1 - x0), PANEL[1] / (y1 - y0), ENLARGED)
    size = (max(1, round((x1 - x0) * factor)), max(1, round((y1 - y0) * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    panel = cv2.resize(image[y0:y1, x0:x1], size, interpolation=method)
    # What is wrong is drawn last, on top.
    visible = [shown for shown in objects if _meets(shown.box, window)]
    ordered = sorted(visible, key=lambda shown: (shown.wrong, not shown.crowd))
    for shown in ordered:
        if shown.mask is not None:
            part = shown.mask[y0:y1, x0:x1].astype(np.uint8)
            mask = cv2.resize(part, size, interpolation=cv2.INTER_NEAREST)
            draw_mask(panel, mask, _color(shown), alpha=0.25)
    scaled = [((np.asarray(s.box, np.float64) - [x0, y0, x0, y0]) * factor, s) for s in ordered]
    for box, shown in scaled:
        draw_box(panel, box, _color(shown), width=2 if shown.wrong else 1)
    for box, shown in scaled:
        if shown.label:
            draw_label(panel, shown.label, box, _color(shown))
    return panel


def _meets(box: Sequence[float], window: tuple[int, int, int, int]) -> bool:
    return box[0] < window[2] and box[2] > window[0] and box[1] < window[3] and box[3] > window[1]


def _color(shown: Shown) -> Color:
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
    for annotation in annotations:
        mask = _mask(annotation.get("segmentation"), canvas.shape[:2], (height, width), margin)
        box = _numbers(annotation.get("bbox"))
        if box is not None and len(box) == 4:
            x, y, w, h = np.clip(box + [margin, margin, 0, 0], -32768, 32767)
            box = np.array([x, y, x + w, y + h])
        else:
            box = None
        objects.append((box, 0, mask))
    return _draw_objects(canvas, objects, colors=colors)


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
            return read_image_file(path)
    except MediaError:
        pass
    return np.full((360, 480, 3), _GREY, np.uint8)

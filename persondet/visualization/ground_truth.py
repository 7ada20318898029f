"""Annotations drawn on their image: as a dataset dict holds them, or as the mapper gives them.

Both are Detectron2's forms: a dict with `annotations`, and a dict with a tensor `image` and
`Instances`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
from detectron2.structures import BoxMode

from persondet.errors import DatasetError, MediaError
from persondet.picture_file import read_picture_file
from persondet.visualization.contact_sheet import contact_sheet
from persondet.visualization.drawing import (
    draw_box,
    draw_label,
    draw_mask,
    line_width,
    palette_color,
)

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
    """Return the picture (uint8, (H, W, 3), BGR) of what a mapper gives to the model.

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
        image = _read_bgr(dataset_dict["file_name"])
        tiles.append(draw_dataset_dict(image, dataset_dict, class_names))
        count = len(dataset_dict.get("annotations", ()))
        captions.append(f"{_count(count)}: {Path(dataset_dict['file_name']).name}")
        for version, sample in enumerate(samples, start=1):
            if sample is None:
                tiles.append(np.zeros_like(image))
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
    """Return a contact sheet of pictures with their annotations: uint8, (H, W, 3), BGR.

    Raises: DatasetError: when an image is missing or cannot be read.
    """
    tiles, captions = [], []
    for record in dataset_dicts:
        tiles.append(draw_dataset_dict(_read_bgr(record["file_name"]), record, class_names))
        count = _count(len(record.get("annotations", ())))
        captions.append(f"{count}: {Path(record['file_name']).name}")
    return contact_sheet(tiles, captions, columns=columns, tile_size=tile_size)


def evenly_spaced(items: Sequence[Any], count: int) -> list[Any]:
    """Return at most `count` of `items`, spread over all of them, the first one included."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def _read_bgr(path: str) -> np.ndarray:
    """Return an image as uint8, (H, W, 3), BGR, turned as its EXIF tag says."""
    try:
        return read_picture_file(path)
    except MediaError as error:
        raise DatasetError(str(error)) from error


def _count(objects: int) -> str:
    return "1 object" if objects == 1 else f"{objects} objects"


def _draw_objects(
    image: np.ndarray,
    objects: Sequence[tuple[Any, int, np.ndarray | None]],
    class_names: Sequence[str],
) -> np.ndarray:
    """Return a copy of `image` with (box XYXY_ABS, class, mask or None) per object."""
    image = np.ascontiguousarray(image).copy()
    width = max(2, line_width(image))  # the sheet makes pictures smaller
    for index, (_, _, mask) in enumerate(objects):
        if mask is not None:
            draw_mask(image, mask, palette_color(index), outline=width)
    for index, (box, category, _) in enumerate(objects):
        draw_box(image, box, palette_color(index), width=width)
        if len(class_names) > 1:
            draw_label(image, class_names[category], (box[0], box[1]), palette_color(index))
    return image

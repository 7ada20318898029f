"""Single pictures: which ones are meant, reading them strictly, annotating them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.structures import Instances

from persondet.errors import MediaError
from persondet.files import atomic_path, refuse_existing, write_json
from persondet.masks import encode_mask
from persondet.picture_file import read_picture_file
from persondet.video.sniff import describe_foreign_file

logger = logging.getLogger(__name__)

PICTURE_SUFFIXES = frozenset(".bmp .jpeg .jpg .png .tif .tiff .webp".split())
PREDICTIONS = "predictions.json"
IMAGES = "images.json"
JPEG_QUALITY = 92


@dataclass(frozen=True)
class PictureSummary:
    """What was done: pictures annotated, people found, and (path, reason) of those skipped."""

    pictures: int
    people: int
    skipped: tuple[tuple[Path, str], ...]


def find_pictures(inputs: Sequence[str | Path]) -> list[tuple[Path, str]]:
    """Return (path, name of the result) of the pictures in files, folders and glob patterns.

    A file keeps its name, a file in a folder its path relative to that folder (searched in depth).

    Raises: MediaError: when an input matches nothing, or two results would get the same name.
    """
    found: dict[str, Path] = {}
    for entry in inputs:
        matches = list(_matches(Path(entry)))
        if not matches:
            known = " ".join(sorted(PICTURE_SUFFIXES))
            raise MediaError(
                f"{entry}: there is no picture; give files, folders or globs ({known})."
            )
        for path, name in matches:
            other = found.setdefault(name, path)
            if other != path and not other.samefile(path):
                raise MediaError(
                    f"{other} and {path} would both be written as {name}; "
                    "give their common folder as --input."
                )
    return [(path, name) for name, path in found.items()]


def _matches(entry: Path) -> Iterator[tuple[Path, str]]:
    """Yield (path, name of the result) of one input."""
    if entry.is_dir():
        for path in sorted(entry.rglob("*")):
            if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file():
                yield path, path.relative_to(entry).as_posix()
    elif entry.is_file():
        if entry.suffix.lower() in PICTURE_SUFFIXES:
            yield entry, entry.name
    else:
        root = Path(entry.anchor or ".")
        pattern = str(entry.relative_to(root)) if entry.anchor else str(entry)
        for match in sorted(root.glob(pattern)):
            yield from _matches(match)


def read_picture(path: str | Path) -> np.ndarray:
    """Read a whole picture, upright as its EXIF says: uint8, (H, W, 3), BGR.

    Raises: MediaError: when the file is missing, truncated, or no picture; it says what else the
        file is, where that can be seen.
    """
    path = Path(path)
    try:
        return read_picture_file(path)
    except MediaError as error:
        reason = describe_foreign_file(path)
        if not reason:
            raise
        raise MediaError(f"{path}: the picture cannot be read ({reason}).") from error


def check_picture_output(
    pictures: Sequence[tuple[Path, str]], output: str | Path, *, overwrite: bool = False
) -> None:
    """Refuse an output folder that must not be written; call it before a model is loaded.

    Raises: OutputExistsError: when the folder is used and `overwrite` is False.
        MediaError: when it is a file, or a result would replace its own source.
    """
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise MediaError(f"{output} is a file; give a folder as --output.")
    for path, name in pictures:
        target = output / name
        if target.exists() and target.samefile(path):
            raise MediaError(f"{target} is the source itself; choose another --output.")
    refuse_existing(output, overwrite=overwrite)


def predict_pictures(
    pictures: Sequence[tuple[Path, str]],
    output: str | Path,
    predictor: Any,
    draw: Callable[[np.ndarray, Instances], np.ndarray],
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> PictureSummary:
    """Annotate pictures and write what was found; a broken picture is reported and skipped.

    Writes into `output` the annotated pictures under their names, `predictions.json` (COCO results:
    a list of `image_id category_id bbox score [segmentation]`, boxes XYWH in pixels) and
    `images.json` (COCO images and categories, so that `COCO(images.json).loadRes(…)` works).

    Args:
        pictures: (path, name of the result), as `find_pictures` returns them.
        predictor: as `persondet.predictor.Predictor`.
        draw: returns an annotated copy of a BGR picture.

    Raises: MediaError, OutputExistsError: as `check_picture_output`; MediaError when no picture
        can be read.
    """
    output = Path(output)
    check_picture_output(pictures, output, overwrite=overwrite)
    category_ids = _category_ids(predictor.metadata)
    images: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    skipped: list[tuple[Path, str]] = []
    for number, (path, name) in enumerate(pictures, start=1):
        try:
            image = read_picture(path)
        except MediaError as error:
            skipped.append((path, str(error)))
        else:
            instances = predictor(image)
            height, width = image.shape[:2]
            images.append({"id": number, "file_name": name, "width": width, "height": height})
            results += coco_results(instances, number, category_ids)
            _write_picture(output / name, draw(image, instances))
        if progress is not None:
            progress(number, len(pictures))
    if not images:
        raise MediaError(f"none of the {len(pictures)} pictures can be read; {skipped[0][1]}")
    names = predictor.metadata.thing_classes
    categories = [{"id": i, "name": name} for i, name in zip(category_ids, names, strict=True)]
    # pycocotools needs "info" and "annotations" to load a file.
    listing = {"info": {}, "images": images, "categories": categories, "annotations": []}
    write_json(output / PREDICTIONS, results, indent=None)
    write_json(output / IMAGES, listing)
    return PictureSummary(len(images), len(results), tuple(skipped))


def coco_results(
    instances: Instances, image_id: int, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return a picture's people in COCO's results format; boxes XYWH, pixels."""
    boxes = instances.pred_boxes.tensor.numpy().astype(np.float64)
    masks = np.asarray(instances.pred_masks) if instances.has("pred_masks") else None
    results: list[dict[str, Any]] = []
    for i, box in enumerate(boxes):
        if not np.isfinite(box).all():
            logger.warning("image %d: a detection with the box %s is left out", image_id, box)
            continue
        x0, y0, x1, y1 = box.tolist()
        result = {
            "image_id": image_id,
            "category_id": category_ids[int(instances.pred_classes[i])],
            "bbox": [round(value, 3) for value in (x0, y0, x1 - x0, y1 - y0)],
            "score": round(float(instances.scores[i]), 5),
        }
        if masks is not None:
            result["segmentation"] = encode_mask(masks[i], box)
        results.append(result)
    return results


def _category_ids(metadata: Any) -> list[int]:
    """Return the dataset's category id of each class; 1, 2, … where the model knows none."""
    classes = metadata.thing_classes
    mapping = metadata.get("thing_dataset_id_to_contiguous_id", None)
    if not mapping:
        return list(range(1, len(classes) + 1))
    by_class = {number: category for category, number in mapping.items()}
    return [by_class[number] for number in range(len(classes))]


def _write_picture(path: Path, image: np.ndarray) -> None:
    """Write a BGR picture in the format of its name, whole or not at all."""
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
            raise MediaError(f"{path}: the annotated picture cannot be written.")

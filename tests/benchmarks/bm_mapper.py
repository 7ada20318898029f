"""Training samples per second on one core: our mapper, the straightforward one, and
Detectron2's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from bm_pairs import Progress, Row, Turns, medians
from bm_scenes import same_objects, write_export
from bm_stock import RasterisingMapper, resize_and_flip
from detectron2.structures import Instances, polygons_to_bitmask

from persondet.data.augmentation import PIPELINE_FOLDER, build_augmentation
from persondet.data.dataset_mapper import AlbumentationsDatasetMapper
from persondet.data.register import load_dataset_dicts

_SIZE, _MAX_SIZE = 800, 1333
_MIN_VISIBILITY = 0.2
_ZOOM = 4  # masks are compared in cells of a quarter of a pixel, to which distances are exact
_MARGIN = 8  # pixels around a person
_FLIP = "- HorizontalFlip: {p: 0.5}\n"
_GEOMETRY = _FLIP + (
    "- Affine: {scale: [0.8, 1.2], translate_percent: [-0.06, 0.06], rotate: [-5, 5], "
    "keep_ratio: true, fill: [124, 116, 104], p: 1.0}\n"
)
_ROWS = {
    "street": "mapper, street pipeline, against rasterised masks",
    "geometry": "mapper, flip and affine, against rasterised masks",
    "flip": "mapper, resize and flip, against stock DatasetMapper",
}


def main(*, pairs: int = 10, images: int = 16, progress: Progress | None = None) -> dict[str, Any]:
    """Measure `AlbumentationsDatasetMapper` on one core against two others.

    JPEGs of 1280 x 720 pixels with ten people of thirty corners each become samples whose shorter
    side is 800 pixels. `street` and `geometry` (a flip, and an affine in every sample) are
    measured against the straightforward mapper, which rasterises; both draw the same random
    numbers. `flip` is measured against Detectron2's `DatasetMapper`, polygons on both sides.

    Args:
        pairs: turns of each side through all images.
        images: images of a turn.
        progress: called with the turns done and of all.

    Returns: for each of the three the statistics of `PairedTimes`, ours the first side, with
    `images` and both sides' `…_images_per_second`; for the first two also
    `boundary_mean` and `boundary_max` (pixels between our outlines and the masks of the other
    side, after the resize), `boundary_within_1` (share that is within one pixel) and `people`
    (how many were compared).
    """
    found: dict[str, Any] = {}
    turns = Turns(pairs, rows=len(_ROWS), progress=progress)
    with tempfile.TemporaryDirectory() as scratch, _one_thread():
        folder = Path(scratch)
        write_export(folder, {"train": images})
        train = folder / "train"
        dicts = load_dataset_dicts(train / "_annotations.coco.json", train)
        for name in _ROWS:
            file = folder / f"{name}.yaml"
            text = {"geometry": _GEOMETRY, "flip": _FLIP}.get(name)
            file.write_text(text or (PIPELINE_FOLDER / f"{name}.yaml").read_text("utf-8"), "utf-8")
            ours, theirs = _ours(file), _theirs(name, file)
            figures = turns.time(_all(ours, dicts), _all(theirs, dicts)).as_json()
            for side in ("first", "second"):
                median = float(np.median(figures[f"{side}_seconds"]))
                figures[f"{side}_images_per_second"] = images / median
            apart = _compare(ours, theirs, dicts, outlines=name != "flip")
            found[name] = {"images": images, **figures, **apart}
    return found


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the lines of the table."""
    lines = []
    for name, what in _ROWS.items():
        one = found[name]
        rates = medians(one, "{:.1f} images/s", lambda seconds: one["images"] / seconds)  # noqa: B023
        if "boundary_mean" in one:
            rates += (
                f", outlines {one['boundary_mean']:.2f} px apart on average, "
                f"{100 * one['boundary_within_1']:.0f} % within 1 px"
            )
        lines.append((what, one, rates))
    return lines


Mapper = Callable[[dict[str, Any], int], dict[str, Any]]


def _ours(pipeline: Path) -> Mapper:
    return AlbumentationsDatasetMapper(
        augmentation=build_augmentation(
            str(pipeline), min_visibility=_MIN_VISIBILITY, min_box_size=1.0
        ),
        min_sizes=(_SIZE,),
        max_size=_MAX_SIZE,
        mask_format="polygon",
        min_visibility=_MIN_VISIBILITY,
        min_box_size=1.0,
    )


def _theirs(name: str, pipeline: Path) -> Mapper:
    if name != "flip":
        return RasterisingMapper(
            yaml.safe_load(pipeline.read_text("utf-8")),
            size=_SIZE,
            max_size=_MAX_SIZE,
            min_visibility=_MIN_VISIBILITY,
        )
    mapper = resize_and_flip(_SIZE, _MAX_SIZE)

    def seeded(dataset_dict: dict[str, Any], seed: int) -> dict[str, Any]:
        np.random.seed(seed)
        return dict(mapper(dataset_dict))

    return seeded


def _all(mapper: Mapper, dicts: list[dict[str, Any]]) -> Callable[[], None]:
    def turn() -> None:
        for seed, dataset_dict in enumerate(dicts):
            mapper(dataset_dict, seed)

    return turn


def _compare(
    ours: Mapper, theirs: Mapper, dicts: list[dict[str, Any]], *, outlines: bool
) -> dict[str, Any]:
    """Return how far the outlines are apart.

    Raises: ValueError: when the images that come out differ in size.
    """
    distances = []
    for seed, dataset_dict in enumerate(dicts):
        mine, other = ours(dataset_dict, seed), theirs(dataset_dict, seed)
        if mine["image"].shape != other["image"].shape:
            raise ValueError(
                f"{dataset_dict['file_name']}: {tuple(mine['image'].shape)} on our side, "
                f"{tuple(other['image'].shape)} on the other"
            )
        if outlines:
            distances += _outline_distances(mine["instances"], other["instances"])
    if not distances:
        return {}
    pixels = np.concatenate(distances)
    return {
        "boundary_mean": float(pixels.mean()),
        "boundary_within_1": float((pixels <= 1).mean()),
        "boundary_max": float(pixels.max()),
        "people": len(distances),
    }


def _outline_distances(polygons: Instances, rasters: Instances) -> list[np.ndarray]:
    """Return the distances between the boundaries of each person that both samples have, pixels."""
    found = []
    for row, column in same_objects(polygons.gt_boxes, rasters.gt_boxes, 0.5):
        both = (polygons.gt_boxes.tensor[row], rasters.gt_boxes.tensor[column])
        height, width = rasters.image_size
        left, top = (torch.minimum(*both)[:2] - _MARGIN).clamp(min=0).int().tolist()
        right, bottom = (torch.maximum(*both)[2:] + _MARGIN).ceil().int().tolist()
        right, bottom = min(right, width), min(bottom, height)
        parts = [
            ((np.reshape(part, (-1, 2)) - (left, top)) * _ZOOM).ravel()
            for part in polygons.gt_masks.polygons[row]
        ]
        mine = polygons_to_bitmask(parts, (bottom - top) * _ZOOM, (right - left) * _ZOOM)
        cut = rasters.gt_masks.tensor[column, top:bottom, left:right].numpy().astype(np.uint8)
        other = cut.repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1)
        found.append(_boundary_distances(mine.astype(np.uint8), other) / _ZOOM)
    return found


def _boundary_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the distances between the boundaries of two masks: uint8, (H, W), 0 or 1.

    Returns: float64, (N,), in cells: from each cell at the boundary of either mask to the boundary
    of the other one; 0 where they agree.
    """
    distances = []
    for one, other in ((first, second), (second, first)):
        inside = cv2.distanceTransform(other, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        outside = cv2.distanceTransform(1 - other, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        # A cell next to the boundary is one cell from the nearest one beyond it.
        away = np.maximum(inside - 1, outside)
        edge = one - cv2.erode(one, np.ones((3, 3), np.uint8), borderValue=1)
        distances.append(away[edge == 1])
    return np.concatenate(distances).astype(np.float64)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])

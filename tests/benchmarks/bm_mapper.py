"""Training samples per second on one core: our mapper against two others."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from bm_pairs import Progress, Row, Turns, medians
from bm_scenes import same_objects, write_export
from bm_stock import RasterisingMapper, resize_and_flip
from detectron2.structures import polygons_to_bitmask

from persondet.data.augmentation import PIPELINE_FOLDER, build_augmentation
from persondet.data.dataset_mapper import AlbumentationsDatasetMapper
from persondet.data.register import load_dataset_dicts

_SIZE, _MAX_SIZE = 800, 1333
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


def main(*, pairs: int = 10, images: int = 16, progress: Progress | None = None) -> dict[str, Row]:
    """Measure `AlbumentationsDatasetMapper` on one core against two others.

    JPEGs of 1280 x 720 pixels with ten people of thirty corners each become samples whose shorter
    side is 800 pixels. `street` and `geometry` (a flip, and an affine in every sample) are
    measured against the straightforward mapper, which rasterises; both draw the same random
    numbers. `flip` is measured against Detectron2's `DatasetMapper`, polygons on both sides.
    """
    found: dict[str, Row] = {}
    turns = Turns(pairs, rows=len(_ROWS), progress=progress)
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_export(folder, {"train": images})
        train = folder / "train"
        dicts = load_dataset_dicts(train / "_annotations.coco.json", train)
        for name, what in _ROWS.items():
            ours, theirs = _sides(name, folder / f"{name}.yaml")
            times = turns.time(partial(_all, ours, dicts), partial(_all, theirs, dicts))
            rates = medians(times, "{:.1f} images/s", lambda seconds: images / seconds)
            found[name] = {"what": what, "details": rates, **times}
            if name != "flip":
                found[name] |= (apart := _apart(ours, theirs, dicts))
                told = f", outlines {apart['boundary_mean']:.2f} px apart on average"
                found[name]["details"] += told
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])
    return found


Mapper = Callable[[dict[str, Any], int], dict[str, Any]]


def _sides(name: str, pipeline: Path) -> tuple[Mapper, Mapper]:
    text = {"geometry": _GEOMETRY, "flip": _FLIP}.get(name)
    pipeline.write_text(text or (PIPELINE_FOLDER / pipeline.name).read_text("utf-8"), "utf-8")
    keep = {"min_visibility": 0.2, "min_box_size": 1.0}
    edges = {"min_sizes": (_SIZE,), "max_size": _MAX_SIZE, "mask_format": "polygon"}
    build = partial(build_augmentation, str(pipeline), **keep)
    ours = AlbumentationsDatasetMapper(augmentation=build(), **edges, **keep)
    if name != "flip":
        return ours, RasterisingMapper(build(), size=_SIZE, max_size=_MAX_SIZE)
    mapper = resize_and_flip()

    def seeded(dataset_dict: dict[str, Any], seed: int) -> dict[str, Any]:
        np.random.seed(seed)
        return dict(mapper(dataset_dict))

    return ours, seeded


def _all(mapper: Mapper, dicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [mapper(dataset_dict, seed) for seed, dataset_dict in enumerate(dicts)]


def _apart(ours: Mapper, theirs: Mapper, dicts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return `boundary_mean`: how far the outlines of both sides are apart, pixels, on average.

    That is the area between them over their length; `people` were compared.
    """
    distances = []
    for mine, other in zip(_all(ours, dicts), _all(theirs, dicts), strict=True):
        assert mine["image"].shape == other["image"].shape
        polygons, rasters = mine["instances"], other["instances"]
        for row, column in same_objects(polygons.gt_boxes, rasters.gt_boxes, 0.5):
            outlines = polygons.gt_masks.polygons[row]
            drawn = polygons_to_bitmask(outlines, *rasters.image_size)
            between = int((drawn ^ rasters.gt_masks.tensor[column].numpy()).sum())
            points = [np.float32(outline).reshape(-1, 1, 2) for outline in outlines]
            distances.append(between / sum(cv2.arcLength(part, True) for part in points))
    return {"boundary_mean": float(np.mean(distances or [0])), "people": len(distances)}

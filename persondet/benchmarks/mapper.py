"""Training samples per second on one core: our mapper, the straightforward one, and Detectron2's."""

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

from persondet.benchmarks.boundary import boundary_distances
from persondet.benchmarks.export import write_export
from persondet.benchmarks.pairs import Progress, interleaved, part_of
from persondet.benchmarks.stock_mapper import RasterisingMapper, resize_and_flip
from persondet.data.augmentation import PIPELINE_FOLDER, build_augmentation
from persondet.data.dataset_mapper import AlbumentationsDatasetMapper
from persondet.data.register import load_dataset_dicts

_SIZE, _MAX_SIZE = 800, 1333
_MIN_VISIBILITY = 0.2
_FLIP = "- HorizontalFlip: {p: 0.5}\n"
_GEOMETRY = _FLIP + (
    "- Affine: {scale: [0.8, 1.2], translate_percent: [-0.06, 0.06], rotate: [-5, 5], "
    "keep_ratio: true, fill: [124, 116, 104], p: 1.0}\n"
)


def benchmark_mapper(
    *, pairs: int = 10, images: int = 16, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure `AlbumentationsDatasetMapper` on one core against two others.

    JPEGs of 1280 x 720 pixels with ten people of thirty corners each become samples whose shorter
    side is 800 pixels. `street` and `geometry` (a flip, and an affine in every sample) are
    measured against the straightforward mapper, which rasterises; both draw the same random
    numbers. `flip` is measured against Detectron2's `DatasetMapper`, polygons on both sides.

    Args:
        pairs: turns of each side through all pictures.
        images: pictures of a turn.
        progress: called with the turns done and of all.

    Returns: for each of the three the statistics of `PairedTimes`, ours the first side, with
    `first_images_per_second` and `second_images_per_second`; for the first two also
    `boundary_mean` and `boundary_max` (pixels between our outlines and the masks of the other
    side, after the resize), `boundary_within_1` (share that is within one pixel) and `people`
    (how many were compared).
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch, _one_thread():
        folder = Path(scratch)
        write_export(folder, {"train": images})
        train = folder / "train"
        dicts = load_dataset_dicts(train / "_annotations.coco.json", train)
        for number, name in enumerate(("street", "geometry", "flip")):
            file = folder / f"{name}.yaml"
            text = {"geometry": _GEOMETRY, "flip": _FLIP}.get(name)
            file.write_text(text or (PIPELINE_FOLDER / f"{name}.yaml").read_text("utf-8"), "utf-8")
            ours, theirs = _ours(file), _theirs(name, file)
            times = interleaved(
                _all(ours, dicts),
                _all(theirs, dicts),
                pairs=pairs,
                progress=part_of(progress, number, 3),
            )
            found[name] = {
                "images": images,
                **times.as_json(),
                "first_images_per_second": images / times.first,
                "second_images_per_second": images / times.second,
                **_compare(ours, theirs, dicts, outlines=name != "flip"),
            }
    return found


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
        np.random.seed(seed)  # noqa: NPY002 - where Detectron2 takes its decisions from
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

    Raises: ValueError: when the pictures that come out differ in size.
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
            distances += boundary_distances(mine["instances"], other["instances"])
    if not distances:
        return {}
    pixels = np.concatenate(distances)
    return {
        "boundary_mean": float(pixels.mean()),
        "boundary_within_1": float((pixels <= 1).mean()),
        "boundary_max": float(pixels.max()),
        "people": len(distances),
    }


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

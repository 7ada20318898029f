"""Register a Roboflow export with Detectron2: the only file that touches its catalogs."""

from __future__ import annotations

import colorsys
import functools
import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from persondet.data.clean import clean_export
from persondet.data.coco_json import CocoDict, coco_text, read_coco
from persondet.data.roboflow import ANNOTATION_FILE, find_splits
from persondet.errors import DatasetError
from persondet.files import path_inside, write_text

logger = logging.getLogger(__name__)

# What this process registered: dataset name to (json file, image folder).
_registered: dict[str, tuple[Path, Path]] = {}


@dataclass(frozen=True)
class RoboflowDatasets:
    """What `register_roboflow_coco` registered; the dicts' keys are `train`, `valid`, `test`.

    Attributes:
        names: split to the name in Detectron2's `DatasetCatalog`.
        classes: class names, by contiguous class number.
        has_masks: whether every annotation has a mask (otherwise none has).
        mask_format: `"polygon"`, `"bitmask"` or `""`; what `INPUT.MASK_FORMAT` should be.
        image_counts: split to its number of images, those without annotations included.
        json_files: split to the cleaned json that loader and evaluator read.
    """

    names: dict[str, str]
    classes: tuple[str, ...]
    has_masks: bool
    mask_format: str
    image_counts: dict[str, int]
    json_files: dict[str, Path]


def register_roboflow_coco(
    name: str,
    root: str | Path,
    *,
    classes: Sequence[str] = (),
    masks: str = "auto",
    output_dir: str | Path,
) -> RoboflowDatasets:
    """Clean a Roboflow COCO export in memory and register each split as `<name>_<split>`.

    The cleaned json is written to `<output_dir>/datasets/<name>_<split>_<digest of content>.json`,
    so that Detectron2's loader and its `COCOEvaluator` read the same truth and no cache of an
    older truth can be met. The export itself is not touched. Loading is lazy. Registering the same
    content again changes nothing; other content replaces what was registered under the name.

    Args:
        name: the datasets are called `<name>_train`, `<name>_valid`, `<name>_test`.
        root: the export's folder (see `persondet.data.roboflow.find_splits`).
        classes, masks: see `persondet.data.clean.clean_export`.
        output_dir: the run folder.

    Raises:
        DatasetError: when the export, a split's json or a class is missing or unusable, an image
            file is missing or lies outside its folder, or the name belongs to another dataset.
    """
    folders = find_splits(root)
    raw = {split: read_coco(folder / ANNOTATION_FILE) for split, folder in folders.items()}
    for split, coco in list(raw.items()):
        if not coco["images"]:
            logger.warning("%s names no image; the split is left out.", folders[split])
            del raw[split]
    if not raw:
        raise DatasetError(f"{root}: no split names an image; export the dataset again.")
    for split, coco in raw.items():
        check_image_files(coco, folders[split])
    try:
        clean = clean_export(raw, classes=classes, masks=masks)
    except DatasetError as error:
        raise DatasetError(f"{root}: {error}") from None
    json_files = {}
    for split, coco in clean.splits.items():
        text = coco_text(coco)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        json_files[split] = (
            Path(output_dir).resolve() / "datasets" / f"{name}_{split}_{digest}.json"
        )
        if not json_files[split].exists():
            write_text(json_files[split], text)
    names = {split: f"{name}_{split}" for split in clean.splits}
    for stale in {f"{name}_{split}" for split in ("train", "valid", "test")} - set(names.values()):
        if stale in _registered:
            _forget(stale)
    for split, dataset_name in names.items():
        _register(dataset_name, json_files[split], folders[split].resolve(), clean.classes)
    datasets = RoboflowDatasets(
        names=names,
        classes=clean.classes,
        has_masks=bool(clean.mask_format),
        mask_format=clean.mask_format,
        image_counts={split: len(coco["images"]) for split, coco in clean.splits.items()},
        json_files=json_files,
    )
    _log(root, datasets, clean.report)
    return datasets


def class_names(dataset_name: str) -> tuple[str, ...]:
    """Return the classes of a registered dataset, by contiguous class number."""
    return tuple(MetadataCatalog.get(dataset_name).thing_classes)


def is_registered(dataset_name: str) -> bool:
    """Return whether Detectron2 knows a dataset of this name."""
    return dataset_name in DatasetCatalog


def image_count(dataset_name: str) -> int:
    """Return the number of images of a registered dataset, those without annotations included."""
    return len(DatasetCatalog.get(dataset_name))


def load_dataset_dicts(json_file: Path, image_root: Path) -> list[dict[str, Any]]:
    """Return Detectron2's standard dicts of a cleaned json, ordered by image id.

    The same as `detectron2.data.datasets.load_coco_json` returns for it: absolute `file_name`,
    `height`, `width`, `image_id`, `annotations` with `bbox` (XYWH_ABS), contiguous `category_id`,
    `iscrowd` and, where the dataset has masks, `segmentation`.
    """
    coco = read_coco(json_file)
    contiguous = _contiguous_ids(coco)
    records = {
        image["id"]: {
            "file_name": str(image_root / image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "annotations": [],
        }
        for image in sorted(coco["images"], key=lambda image: image["id"])
    }
    for annotation in coco["annotations"]:
        instance = {
            "iscrowd": annotation["iscrowd"],
            "bbox": annotation["bbox"],
            "category_id": contiguous[annotation["category_id"]],
            "bbox_mode": BoxMode.XYWH_ABS,
        }
        if annotation["segmentation"]:
            instance["segmentation"] = annotation["segmentation"]
        records[annotation["image_id"]]["annotations"].append(instance)
    return list(records.values())


def check_image_files(coco: CocoDict, folder: Path) -> None:
    """Check that every image of a COCO dict is a file inside `folder`.

    Raises: DatasetError: when a name leads out of the folder, or files are missing.
    """
    # One listing instead of a system call (or ten, with links) per image.
    plain = {entry.name for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)}
    missing = [
        image["file_name"]
        for image in coco["images"]
        if image["file_name"] not in plain and not path_inside(folder, image["file_name"]).is_file()
    ]
    if missing:
        raise DatasetError(
            f"{folder / ANNOTATION_FILE}: the image {missing[0]!r} is not in the folder "
            f"({len(missing)} of {len(coco['images'])} are missing); unpack the export again."
        )


def class_colors(count: int) -> list[tuple[int, int, int]]:
    """Return `count` distinct colours as RGB, 0..255, for drawing; the first is the same always."""
    golden_ratio = 0.618033988749895  # spreads hues evenly for any count
    colors = []
    for index in range(count):
        red, green, blue = colorsys.hsv_to_rgb((0.58 + index * golden_ratio) % 1.0, 0.75, 0.95)
        colors.append((round(red * 255), round(green * 255), round(blue * 255)))
    return colors


def _contiguous_ids(coco: CocoDict) -> dict[int, int]:
    return {
        number: index
        for index, number in enumerate(sorted(category["id"] for category in coco["categories"]))
    }


def _register(name: str, json_file: Path, image_root: Path, classes: tuple[str, ...]) -> None:
    if name in DatasetCatalog and _registered.get(name) == (json_file, image_root):
        return
    if name in _registered:
        _forget(name)
    elif name in DatasetCatalog:
        raise DatasetError(
            f"the name {name!r} belongs to another dataset already; choose another NAME."
        )
    # Not a lambda: processes that are spawned pickle it.
    DatasetCatalog.register(name, functools.partial(load_dataset_dicts, json_file, image_root))
    MetadataCatalog.get(name).set(
        json_file=str(json_file),
        image_root=str(image_root),
        evaluator_type="coco",
        thing_classes=list(classes),
        thing_dataset_id_to_contiguous_id={index + 1: index for index in range(len(classes))},
        thing_colors=class_colors(len(classes)),
    )
    _registered[name] = (json_file, image_root)


def _forget(name: str) -> None:
    del _registered[name]
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog:  # somebody else may have removed it
            catalog.remove(name)


def _log(root: str | Path, datasets: RoboflowDatasets, report: dict[str, int]) -> None:
    counts = ", ".join(f"{n} {split}" for split, n in datasets.image_counts.items())
    mended = "; ".join(f"{key}: {n}" for key, n in report.items()) or "nothing to mend"
    logger.info(
        "%s: %s images, classes %s, %s. Cleaned: %s.",
        root,
        counts,
        ", ".join(datasets.classes),
        f"{datasets.mask_format} masks" if datasets.has_masks else "boxes only",
        mended,
    )
    filled = report.get("masks filled from the box")
    if filled:
        logger.warning(
            "%s: %d annotations have no mask and got their filled box as one; "
            "masks learned from them are boxes.",
            root,
            filled,
        )

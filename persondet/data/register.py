"""Register a Roboflow export with Detectron2. Only this file touches its catalogs.

It also answers questions about a registered dataset: classes, counts, digests, epoch size."""

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

import pycocotools.mask as mask_util
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from persondet.data.check import look_at_images
from persondet.data.clean import CleanExport, clean_coco
from persondet.data.coco_json import coco_bytes, read_coco
from persondet.data.roboflow import read_export
from persondet.errors import DatasetError
from persondet.files import atomic_path, sha256_of_file
from persondet.text import listed

logger = logging.getLogger(__name__)

# What training keeps, and a person may want to know of before it starts.
_TOLD = ("crowds-many", "class-not-in-train", "objects-many")

# What this process registered: dataset name to json file, image folder, classes not in train.
_registered: dict[str, tuple[Path, Path, list[str]]] = {}


@dataclass(frozen=True)
class RoboflowDatasets:
    """What `register_roboflow_coco` registered; the dicts' keys are `train`, `valid`, `test`.

    Attributes:
        names: split to the name in Detectron2's `DatasetCatalog`.
        classes: class names, by contiguous class number.
        mask_format: `"polygon"`, `"bitmask"` or `""`; what `INPUT.MASK_FORMAT` should be.
        image_counts: split to its number of images, those without annotations included.
        json_files: split to the cleaned json that loader and evaluator read.
        annotation_counts: split to its number of annotations.
    """

    names: dict[str, str]
    classes: tuple[str, ...]
    mask_format: str
    image_counts: dict[str, int]
    json_files: dict[str, Path]
    annotation_counts: dict[str, int]

    @property
    def has_masks(self) -> bool:
        """Whether every annotation has a mask (otherwise none has)."""
        return bool(self.mask_format)


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
    so that Detectron2's loader and its `COCOEvaluator` read the same ground truth and never meet a
    cache of an older one. This reads the headers of all images, not their pixels, and leaves the
    export as it is. Loading is lazy. Registering the same content again changes nothing; other
    content replaces what was registered under the name.

    Args:
        name: the datasets are called `<name>_train`, `<name>_valid`, `<name>_test`.
        root: the export's folder (see `persondet.data.roboflow.find_export`).
        classes, masks: see `persondet.data.clean.clean_coco`.
        output_dir: the run folder.

    Raises:
        DatasetError: when the export, a split's json or a class is missing or unusable, when an
            image cannot be used (missing, outside its folder, no image, of another size, its id
            used twice), or when the name belongs to another dataset.

    Example:
        >>> datasets = register_roboflow_coco("street", "datasets/person", output_dir="output/run")
        >>> datasets.names["train"], len(DatasetCatalog.get("street_train"))
        ('street_train', 6)
    """
    try:
        export = read_export(root)
        facts = look_at_images(export, decode=False)
        clean = clean_coco(export.splits, classes=classes, masks=masks, facts=facts, refuse=True)
    except DatasetError as error:
        raise DatasetError(f"{root}: {error}") from None
    for split in sorted(export.splits.keys() - clean.splits.keys()):
        logger.warning("%s names no image; the split is left out.", export.folders[split])
    json_files = {}
    for split, coco in clean.splits.items():
        content = coco_bytes(coco)
        digest = hashlib.sha256(content).hexdigest()[:12]
        path = Path(output_dir).resolve() / "datasets" / f"{name}_{split}_{digest}.json"
        if not path.exists():
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)
        json_files[split] = path
    names = {split: f"{name}_{split}" for split in clean.splits}
    for stale in {f"{name}_{split}" for split in ("train", "valid", "test")} - set(names.values()):
        if stale in _registered:
            _forget(stale)
    for split, dataset_name in names.items():
        _register(dataset_name, json_files[split], export.folders[split].resolve(), clean, split)
    datasets = RoboflowDatasets(
        names=names,
        classes=clean.classes,
        mask_format=clean.mask_format,
        image_counts={split: len(coco["images"]) for split, coco in clean.splits.items()},
        json_files=json_files,
        annotation_counts={split: len(coco["annotations"]) for split, coco in clean.splits.items()},
    )
    _log(root, datasets, export.changes | clean.changes)
    for finding in clean.findings:
        if finding.code.name in _TOLD:
            details = dict.fromkeys(example.detail for example in finding.examples)
            logger.warning("%s: %s (%s).", root, finding.code.meaning, listed(list(details)))
    return datasets


def class_names(dataset_name: str) -> tuple[str, ...]:
    """Return the classes of a registered dataset, by contiguous class number.

    Raises: DatasetError: when whoever registered it did not name them.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("thing_classes") is None and is_registered(dataset_name):
        DatasetCatalog.get(dataset_name)  # Detectron2's COCO loader names them when it reads
    if metadata.get("thing_classes") is None:
        raise DatasetError(f"{dataset_name}: not registered, or without thing_classes; set them.")
    return tuple(metadata.thing_classes)


def ground_truth(dataset_name: str) -> tuple[Path, tuple[int, ...]]:
    """Return the json that the evaluator reads, and its category id of each contiguous class.

    Of a dataset that does not name its category ids, Detectron2 takes the class numbers for them.
    """
    metadata = MetadataCatalog.get(dataset_name)
    ids = metadata.get("thing_dataset_id_to_contiguous_id")
    if ids is None:
        return Path(metadata.json_file), tuple(range(len(class_names(dataset_name))))
    return Path(metadata.json_file), tuple(sorted(ids, key=ids.__getitem__))


def is_registered(dataset_name: str) -> bool:
    """Return whether Detectron2 knows a dataset of this name."""
    return dataset_name in DatasetCatalog


def image_count(dataset_name: str, *, annotated: bool = False) -> int:
    """Return the number of images of a registered dataset.

    What was registered here is not read again; other datasets are.

    Args:
        annotated: leave out those without an annotation that can be learnt, which the loader
            leaves out with `DATALOADER.FILTER_EMPTY_ANNOTATIONS`.
    """
    known = MetadataCatalog.get(dataset_name).get("image_counts")
    if known is not None:
        return known["annotated" if annotated else "all"]
    dicts = DatasetCatalog.get(dataset_name)
    return sum(not annotated or _is_annotated(record["annotations"]) for record in dicts)


def load_dataset_dicts(json_file: Path, image_root: Path) -> list[dict[str, Any]]:
    """Return Detectron2's standard dicts of a cleaned json, ordered by image id.

    The same as `detectron2.data.datasets.load_coco_json` returns for it: absolute `file_name`,
    `height`, `width`, `image_id`, `annotations` with `bbox` (XYWH_ABS), contiguous `category_id`,
    `iscrowd` and, where the dataset has masks, `segmentation`.
    """
    coco = read_coco(json_file)
    ids = sorted(category["id"] for category in coco["categories"])
    contiguous = {number: index for index, number in enumerate(ids)}
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
            "iscrowd": int(annotation["iscrowd"]),
            "bbox": annotation["bbox"],
            "category_id": contiguous[annotation["category_id"]],
            "bbox_mode": BoxMode.XYWH_ABS,
        }
        mask = annotation["segmentation"]
        if isinstance(mask, dict) and isinstance(mask["counts"], list):  # as `load_coco_json`
            mask = mask_util.frPyObjects(mask, *mask["size"])
        if mask:
            instance["segmentation"] = mask
        records[annotation["image_id"]]["annotations"].append(instance)
    return list(records.values())


def class_colors(count: int) -> list[tuple[int, int, int]]:
    """Return `count` distinct colours as RGB, 0..255, for drawing; the first is the same always."""
    golden_ratio = 0.618033988749895  # spreads hues evenly for any count
    colors = []
    for index in range(count):
        red, green, blue = colorsys.hsv_to_rgb((0.58 + index * golden_ratio) % 1.0, 0.75, 0.95)
        colors.append((round(red * 255), round(green * 255), round(blue * 255)))
    return colors


def _register(name: str, json_file: Path, image_root: Path, clean: CleanExport, split: str) -> None:
    coco, classes, never_learned = clean.splits[split], clean.classes, []
    if train := clean.splits.get("train"):
        learned = {one["category_id"] for one in train["annotations"] if not one["iscrowd"]}
        never_learned = [c["name"] for c in train["categories"] if c["id"] not in learned]
    what = json_file, image_root, never_learned
    if name in DatasetCatalog and _registered.get(name) == what:
        return
    if name in _registered:
        _forget(name)
    elif name in DatasetCatalog:
        raise DatasetError(
            f"the name {name!r} belongs to another dataset already; choose another NAME."
        )
    ids = [category["id"] for category in coco["categories"]]
    learnt = {a["image_id"] for a in coco["annotations"] if _is_annotated([a])}
    # Not a lambda: processes that are spawned pickle it.
    DatasetCatalog.register(name, functools.partial(load_dataset_dicts, json_file, image_root))
    MetadataCatalog.get(name).set(
        json_file=str(json_file),
        image_root=str(image_root),
        evaluator_type="coco",
        thing_classes=list(classes),
        thing_dataset_id_to_contiguous_id={number: index for index, number in enumerate(ids)},
        never_learned=never_learned,
        thing_colors=class_colors(len(classes)),
        image_counts={"all": len(coco["images"]), "annotated": len(learnt)},
        annotation_count=len(coco["annotations"]),
    )
    _registered[name] = what


def _is_annotated(annotations: Sequence[dict[str, Any]]) -> bool:
    """Return whether an image's annotations teach something: crowds alone do not (Detectron2)."""
    return any(not annotation.get("iscrowd", 0) for annotation in annotations)


def _forget(name: str) -> None:
    del _registered[name]
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog:  # somebody else may have removed it
            catalog.remove(name)


def _log(root: str | Path, datasets: RoboflowDatasets, changes: dict[str, int]) -> None:
    counts = ", ".join(f"{n} {split}" for split, n in datasets.image_counts.items())
    mended = "; ".join(f"{key}: {n}" for key, n in changes.items()) or "nothing to mend"
    logger.info(
        "%s: %s images, classes %s, %s. Cleaned: %s.",
        root,
        counts,
        ", ".join(datasets.classes),
        f"{datasets.mask_format} masks" if datasets.has_masks else "boxes only",
        mended,
    )
    filled = changes.get("mask-from-box")
    if filled:
        logger.warning(
            "%s: %d annotations have no mask and got their filled box as one; "
            "masks learned from them are boxes.",
            root,
            filled,
        )


def dataset_fingerprint(name: str) -> dict[str, Any]:
    """Return the counts and digests of a registered dataset.

    Returns: `images`, `annotations`, `json_sha256` of the json that is read, and `files_sha256` of
    the names and sizes of all files in the image folder; of a dataset that was registered elsewhere
    `images` alone.
    """
    facts: dict[str, Any] = {"images": image_count(name)}
    metadata = MetadataCatalog.get(name)
    if metadata.get("annotation_count") is None:
        return facts
    return facts | {
        "annotations": metadata.annotation_count,
        "json_sha256": sha256_of_file(metadata.json_file),
        "files_sha256": _names_and_sizes_digest(metadata.image_root),
    }


def _names_and_sizes_digest(folder: str) -> str:
    """Return a SHA-256 over the names (below `folder`) and sizes of all files in it."""
    files = (Path(base, name) for base, _, names in os.walk(folder) for name in names)
    lines = sorted(f"{path.relative_to(folder)}\t{path.stat().st_size}\n" for path in files)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def epoch_size(cfg: CfgNode) -> int:
    """Return how many images the training loader gives in one epoch, over `DATASETS.TRAIN`.

    As `persondet.data.loaders.build_train_loader` sees them: without those that have no annotation
    where `DATALOADER.FILTER_EMPTY_ANNOTATIONS` says so, and a share of them where the sampler
    takes a subset. Repeats of rare classes do not count.
    """
    annotated = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    count = sum(image_count(name, annotated=annotated) for name in cfg.DATASETS.TRAIN)
    if cfg.DATALOADER.SAMPLER_TRAIN == "RandomSubsetTrainingSampler":
        count = int(count * cfg.DATALOADER.RANDOM_SUBSET_RATIO)
    return count

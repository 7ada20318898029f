"""A Roboflow export on disk: which folders are its splits."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from persondet.data.coco_json import CocoDict, read_coco
from persondet.errors import DatasetError

ANNOTATION_FILE = "_annotations.coco.json"
SPLIT_FOLDERS: dict[str, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("valid", "val", "validation"),
    "test": ("test",),
}
"""Our name of a split, and the folder names that exports use for it."""

_EXPECTED = (
    "expected a Roboflow export in COCO format: a folder with train/, valid/ and test/, each with "
    f"its images and {ANNOTATION_FILE} (on Roboflow: Download Dataset, format 'COCO' or "
    "'COCO Segmentation', 'zip to computer', then unpack the zip here)"
)


@dataclass(frozen=True)
class Export:
    """An export as it lies on disk.

    Attributes:
        root: its folder, as it was given.
        folders: split to the folder with the json and the images.
        splits: split to the COCO dict of its json, as it is.
    """

    root: Path
    folders: dict[str, Path]
    splits: dict[str, CocoDict]


def read_export(root: str | Path) -> Export:
    """Find and read the jsons of an export.

    Raises: DatasetError: as `find_splits` and `read_coco`.
    """
    folders = find_splits(root)
    splits = {split: read_coco(folder / ANNOTATION_FILE) for split, folder in folders.items()}
    return Export(Path(root), folders, splits)


def file_names(coco: CocoDict) -> list[str]:
    """Return the file names that a json lists, each once, those that are no text left out."""
    names = (image.get("file_name") for image in coco["images"] if isinstance(image, dict))
    return list(dict.fromkeys(name for name in names if isinstance(name, str) and name))


def copy_readmes(folders: Iterable[Path], target: Path) -> None:
    """Copy the README texts of an export (its licence stands in them) to the folder `target`."""
    for folder in folders:
        for readme in sorted(folder.glob("README*.txt")):
            if readme.is_file() and not readme.is_symlink():
                shutil.copyfile(readme, target / readme.name)


def find_splits(root: str | Path) -> dict[str, Path]:
    """Return the split folders of an export, in the order train, valid, test.

    `valid`, `val` and `validation` are one split; splits may be missing as long as one is there.
    A folder that holds the json itself (a flat export) is one split, train. An export that was
    unpacked into one sub-folder of `root` is found there.

    Args:
        root: the export's folder.

    Returns:
        dict from `"train"`, `"valid"`, `"test"` (those that exist) to the folder with the images
        and `_annotations.coco.json`.

    Raises:
        DatasetError: when `root` is missing or holds no split, when a split folder is without its
            json, or when two folders claim to be the same split.
    """
    root = Path(root)
    if root.suffix.lower() == ".zip" and root.is_file():
        raise DatasetError(f"{root} is a zip file; unpack it with `prepare_dataset.py import`.")
    if not root.is_dir():
        raise DatasetError(f"{root}: there is no such folder; {_EXPECTED}.")
    splits = _splits_of(root)
    if not splits:
        nested = [
            folder
            for folder in sorted(root.iterdir())
            if folder.is_dir() and not folder.name.startswith((".", "__")) and _splits_of(folder)
        ]
        if len(nested) > 1:
            names = " and ".join(str(folder) for folder in nested[:2])
            raise DatasetError(f"{root} holds several exports; give one of them, e.g. {names}.")
        if nested:
            splits = _splits_of(nested[0])
    if not splits:
        raise DatasetError(f"{root} has no split folder; {_EXPECTED}.")
    for folder in splits.values():
        if not (folder / ANNOTATION_FILE).is_file():
            raise DatasetError(
                f"{folder} has no {ANNOTATION_FILE}; export the dataset as COCO, "
                "or remove the folder if the split is not wanted."
            )
    return splits


def _splits_of(folder: Path) -> dict[str, Path]:
    splits: dict[str, Path] = {}
    flat = (folder / ANNOTATION_FILE).is_file()
    for split, names in SPLIT_FOLDERS.items():
        found = [folder / name for name in names if (folder / name).is_dir()]
        if flat:  # folders beside its json are folders of images
            found = [path for path in found if (path / ANNOTATION_FILE).is_file()]
        if found and flat:
            raise DatasetError(
                f"{folder} has {ANNOTATION_FILE} itself and in {found[0].name}/; keep one of them."
            )
        if len(found) > 1:
            raise DatasetError(
                f"{folder} has {' and '.join(path.name + '/' for path in found)}, which are the "
                f"same split ({split}); keep one of them."
            )
        if found:
            splits[split] = found[0]
    return {"train": folder} if flat else splits

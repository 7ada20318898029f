"""A Roboflow export on disk: which folders are its splits."""

from __future__ import annotations

from pathlib import Path

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


def find_splits(root: str | Path) -> dict[str, Path]:
    """Return the split folders of an export, in the order train, valid, test.

    `valid`, `val` and `validation` are one split; splits may be missing as long as one is there.
    An export that was unpacked into one sub-folder of `root` is found there.

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
        raise DatasetError(f"{root} is a zip file; unpack it and give the folder.")
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
    for split, names in SPLIT_FOLDERS.items():
        found = [folder / name for name in names if (folder / name).is_dir()]
        if len(found) > 1:
            raise DatasetError(
                f"{folder} has {' and '.join(path.name + '/' for path in found)}, which are the "
                f"same split ({split}); keep one of them."
            )
        if found:
            splits[split] = found[0]
    return splits

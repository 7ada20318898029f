"""A Roboflow export on disk: where it lies, which folders are its splits, what its jsons hold."""

from __future__ import annotations

import os
import shutil
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
"""Our name of a split, and the folder names that exports use for it, in any case."""

_SPLIT_OF = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}
_DEEPEST = 5
_MOST_FOLDERS = 2_000
_EXPECTED = (
    "expected a Roboflow export in COCO format: a folder with train/, valid/ and test/ (one is "
    f"enough), each with its images and {ANNOTATION_FILE} (on Roboflow: Download Dataset, format "
    "'COCO' or 'COCO Segmentation', 'zip to computer')"
)


@dataclass(frozen=True)
class Export:
    """An export as it lies on disk.

    Attributes:
        root: the folder that holds it: the one that was given, or a folder below that.
        folders: split to the folder with the json and the images.
        splits: split to the COCO dict of its json, as it is.
    """

    root: Path
    folders: dict[str, Path]
    splits: dict[str, CocoDict]


def read_export(root: str | Path) -> Export:
    """Find and read the jsons of an export.

    Raises: DatasetError: as `find_export` and `read_coco`.
    """
    found, folders = find_export(root)
    splits = {split: read_coco(folder / ANNOTATION_FILE) for split, folder in folders.items()}
    return Export(found, folders, splits)


def file_names(coco: CocoDict) -> list[str]:
    """Return the file names that a json lists, each once, without those that are no text."""
    names = (image.get("file_name") for image in coco["images"] if isinstance(image, dict))
    return list(dict.fromkeys(name for name in names if isinstance(name, str) and name))


def find_readmes(root: Path) -> list[Path]:
    """Return the README texts in an export's folder: where it comes from, and its licence."""
    paths = sorted(root.iterdir())
    return [p for p in paths if p.name.lower().startswith("readme") and p.suffix == ".txt"]


def copy_readmes(root: Path, target: Path) -> None:
    """Copy the README texts of the export in the folder `root` to the folder `target`."""
    for readme in find_readmes(root):
        if readme.is_file() and not readme.is_symlink():
            shutil.copyfile(readme, target / readme.name)


def find_export(root: str | Path, label: str = "") -> tuple[Path, dict[str, Path]]:
    """Find the one export in a folder: there itself, or up to four folders down.

    `valid`, `val` and `validation` are one split, in any case. Splits may be missing as long as
    one is there; empty split folders do not count. A folder with the json itself (a flat export)
    is the split train; folders without a json beside it hold images. The search follows no link.

    Args:
        root: where to look.
        label: what errors call the export; default `root`.

    Returns:
        The folder that holds the export, and a dict from `"train"`, `"valid"`, `"test"` (in this
        order, those that exist) to the folder with the images and `_annotations.coco.json`.

    Raises:
        DatasetError: when `root` is missing, holds no export or several, when a split folder is
            without its json, or when two folders claim to be the same split.
    """
    root, label = Path(root), label or str(root)
    if root.suffix.lower() == ".zip" and root.is_file():
        raise DatasetError(f"{root} is a zip file; unpack it with `prepare_dataset.py import`.")
    if not root.is_dir():
        raise DatasetError(f"{label}: there is no such folder; {_EXPECTED}.")
    try:
        found = _search(root, label)
        if found is not None:
            return found, _splits_of(found, label)
        for _, folder in _split_folders(root):
            raise _without_json(label, folder)
    except OSError as error:
        raise DatasetError(f"{label} cannot be read ({error.strerror or error}).") from None
    raise DatasetError(f"{label} holds no export; {_EXPECTED}.")


def _search(root: Path, label: str) -> Path | None:
    """Return the highest folder with annotations, None when there is none."""
    level, looked = [root], 0
    for _ in range(_DEEPEST):
        found = [place for place in level if _holds_annotations(place)]
        if len(found) > 1:
            names = " and ".join(repr(str(place.relative_to(root))) for place in found[:2])
            raise DatasetError(f"{label} holds several exports, e.g. {names}; give one of them.")
        if found:
            return found[0]
        level = [child for place in level for child in _folders(place) if _may_be_entered(child)]
        looked += len(level)
        if looked > _MOST_FOLDERS:
            break
    return None


def _holds_annotations(folder: Path) -> bool:
    places = [folder, *(place for _, place in _split_folders(folder))]
    return any(map(_has_json, places))


def _has_json(folder: Path) -> bool:
    return os.path.lexists(folder / ANNOTATION_FILE)


def _splits_of(root: Path, label: str) -> dict[str, Path]:
    splits: dict[str, Path] = {}
    flat = _has_json(root)
    for split, folder in _split_folders(root):
        if not _has_json(folder):
            if flat or not any(folder.iterdir()):
                continue
            raise _without_json(label, folder)
        if flat:
            raise DatasetError(
                f"{label} has {ANNOTATION_FILE} itself and in {folder.name}/; keep one of them."
            )
        if split in splits:
            raise DatasetError(
                f"{label}: {splits[split].name}/ and {folder.name}/ are the same split ({split}); "
                "keep one of them."
            )
        splits[split] = folder
    if flat:
        return {"train": root}
    return {split: splits[split] for split in SPLIT_FOLDERS if split in splits}


def _without_json(label: str, folder: Path) -> DatasetError:
    return DatasetError(
        f"{label}: {folder.name}/ has no {ANNOTATION_FILE}; export the dataset as COCO, or remove "
        "the folder if the split is not wanted."
    )


def _split_folders(root: Path) -> list[tuple[str, Path]]:
    """Return (split, folder) of the folders, or links to folders, with the name of a split."""
    known = [(_SPLIT_OF.get(path.name.lower()), path) for path in _folders(root)]
    return [(split, path) for split, path in known if split is not None]


def _folders(place: Path) -> list[Path]:
    with os.scandir(place) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir())


def _may_be_entered(folder: Path) -> bool:
    hidden = folder.name.startswith((".", "__"))
    return not hidden and not folder.is_symlink() and os.access(folder, os.R_OK | os.X_OK)

"""Where an export lies in a folder that may hold more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from persondet.data.roboflow import ANNOTATION_FILE, SPLIT_FOLDERS
from persondet.errors import DatasetError

_DEEPEST = 5
_MOST_FOLDERS = 2_000
_EXPECTED = (
    "expected train/, valid/ and test/ (one is enough), each with its pictures and "
    f"{ANNOTATION_FILE}; on Roboflow choose the format 'COCO' or 'COCO Segmentation'"
)


@dataclass(frozen=True)
class Export:
    """An export in a folder: its root and, for each split of it, the folder."""

    root: Path
    splits: dict[str, Path]


def find_export(folder: str | Path, label: str) -> Export:
    """Find the one export in `folder`: there itself, or in the only sub-folder that holds one.

    A json in the folder itself and no split folders make a `train` split. `valid`, `val` and
    `validation` are one split, in any case; split folders that are empty are left out.

    Args:
        folder: where to look, not through links.
        label: what the export is called in errors.

    Raises: DatasetError: when there is none, there are several, two folders are the same split,
        or a split has pictures but no json.
    """
    level = [Path(folder)]
    looked = 0
    for _ in range(_DEEPEST):
        found = [place for place in level if _holds_annotations(place)]
        if len(found) > 1:
            names = " and ".join(repr(str(place.relative_to(folder))) for place in found[:2])
            raise DatasetError(f"{label} holds several exports, e.g. {names}; import one of them.")
        if found:
            return Export(found[0], _splits(found[0], label))
        level = [child for place in level for child in _folders(place)]
        looked += len(level)
        if looked > _MOST_FOLDERS:
            break
    raise DatasetError(f"{label} holds no export in COCO format: {_EXPECTED}.")


def _holds_annotations(folder: Path) -> bool:
    places = [folder, *(place for _, place in _split_folders(folder))]
    return any(os.path.lexists(place / ANNOTATION_FILE) for place in places)


def _splits(root: Path, label: str) -> dict[str, Path]:
    splits: dict[str, Path] = {}
    for split, folder in _split_folders(root):
        if folder.is_symlink():
            raise DatasetError(f"{label}: {folder.name!r} is a link; put the folder in its place.")
        if not any(folder.iterdir()):
            continue
        if not os.path.lexists(folder / ANNOTATION_FILE):
            raise DatasetError(
                f"{label}: {folder.name}/ has no {ANNOTATION_FILE}; export the dataset as COCO, or "
                "remove the folder if the split is not wanted."
            )
        if split in splits:
            raise DatasetError(
                f"{label}: {splits[split].name}/ and {folder.name}/ are the same split ({split}); "
                "keep one of them."
            )
        splits[split] = folder
    if splits and os.path.lexists(root / ANNOTATION_FILE):
        raise DatasetError(
            f"{label} has {ANNOTATION_FILE} beside split folders; remove it, or import a folder "
            "that holds only it and its pictures."
        )
    return {split: splits[split] for split in SPLIT_FOLDERS if split in splits} or {"train": root}


def _split_folders(root: Path) -> list[tuple[str, Path]]:
    """Return (split, folder) of the folders, or links to folders, that are named as a split."""
    names = {name: split for split, folders in SPLIT_FOLDERS.items() for name in folders}
    with reading(str(root)):
        folders = sorted(path for path in root.iterdir() if path.is_dir())
    known = [(names.get(path.name.lower()), path) for path in folders]
    return [(split, path) for split, path in known if split is not None]


def _folders(place: Path) -> list[Path]:
    try:
        paths = sorted(place.iterdir())
    except OSError:  # a folder that may not be read holds nothing for us
        return []
    return [
        path
        for path in paths
        if path.is_dir() and not path.is_symlink() and not path.name.startswith((".", "__"))
    ]


@contextmanager
def reading(label: str) -> Iterator[None]:
    """Turn what the disk says to a read into one sentence.

    Raises: DatasetError: when something cannot be read.
    """
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{label} cannot be read ({error.strerror or error}).") from None

"""Which files belong to an export, and whether those that its json names are there."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from persondet.data.fetch.archive_members import ArchiveLimits
from persondet.data.fetch.export_layout import Export, reading
from persondet.data.roboflow import ANNOTATION_FILE
from persondet.errors import DatasetError

_PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".heic"}
_AGAIN = "export the dataset again as 'COCO' or 'COCO Segmentation'."


class IncompleteExportError(DatasetError):
    """Pictures that the json names are missing; what is there may still be of use."""


@dataclass
class Belongings:
    """What is taken of an export.

    Attributes:
        files: where each file goes, relative and with slashes, and where it lies now.
        total_bytes: of all files together.
        images: how many images the json of each split lists.
    """

    files: dict[str, Path] = field(default_factory=dict)
    total_bytes: int = 0
    images: dict[str, int] = field(default_factory=dict)


def find_belongings(export: Export, label: str, limits: ArchiveLimits, mend: str) -> Belongings:
    """Return the files of an export, and verify that every picture of its json is there.

    Taken are each split's json, the pictures that it names, other pictures in the split's folder,
    and README*.txt. A picture whose name on disk has another Unicode form (NFC, NFD) than in the
    json gets the json's.

    Args:
        export: what `find_export` found.
        label: what the export is called in errors.
        limits: for the number of files and the size of a json.
        mend: what to do when pictures are missing, the end of that sentence.

    Raises: DatasetError: when a json cannot be read, names a file outside of its folder or one
        that is missing, or something that belongs to the export is a link or no plain file.
    """
    belongings = Belongings()
    for split, folder in export.splits.items():
        names = _image_names(folder, label, export.root, limits)
        belongings.images[split] = len(names)
        where = _shown(folder, export.root)
        listing = _Listing(folder, label, limits, deep=any("/" in name for name in names))
        annotations = listing.take(ANNOTATION_FILE)
        assert annotations is not None
        _add(belongings, f"{split}/{ANNOTATION_FILE}", annotations)
        missing = []
        for name in names:
            path = _relative(name, label, where)
            entry = listing.take(path)
            if entry is None:
                missing.append(name)
            else:
                _add(belongings, f"{split}/{path}", entry)
        if missing:
            raise IncompleteExportError(
                f"{label}: {len(missing)} of the {len(names)} pictures that {where} names are "
                f"missing, the first is {missing[0]!r}; {mend}."
            )
        for path, entry in listing.others():
            _add(belongings, f"{split}/{path}", entry)
    root = _Listing(export.root, label, limits)
    for path in root.readmes():
        entry = root.take(path)
        assert entry is not None
        _add(belongings, path, entry)
    return belongings


class _Listing:
    """The files in a folder, found by name in either Unicode form, never through a link."""

    def __init__(
        self, folder: Path, label: str, limits: ArchiveLimits, *, deep: bool = False
    ) -> None:
        self._label = label
        self._entries: dict[str, os.DirEntry[str]] = {}
        self._folder = folder
        for path, entry in _walk(folder, label, "", deep):
            self._entries[path] = entry
            if len(self._entries) > limits.members:
                raise DatasetError(f"{label}: {folder.name}/ holds over {limits.members:,} files.")
        self._composed = {_composed(path): path for path in self._entries}
        self._taken: set[str] = set()

    def take(self, path: str) -> os.DirEntry[str] | None:
        """Return a file as it is or in another Unicode form, None when there is none."""
        found = path if path in self._entries else self._composed.get(_composed(path))
        if found is None:
            return None
        self._taken.add(found)
        entry = self._entries[found]
        if entry.is_symlink():
            raise DatasetError(
                f"{self._label}: {found!r} is a link; put the file itself in its place."
            )
        if not entry.is_file(follow_symlinks=False):
            raise DatasetError(f"{self._label}: {found!r} is not a plain file; remove it.")
        return entry

    def others(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield the pictures in the folder itself that nobody took."""
        for path in sorted(self._entries.keys() - self._taken):
            if "/" not in path and PurePosixPath(path).suffix.lower() in _PICTURES:
                entry = self.take(path)
                assert entry is not None
                yield path, entry

    def readmes(self) -> list[str]:
        """Return the names of the files that tell where the export comes from."""
        names = sorted(self._entries)
        return [
            name for name in names if name.lower().startswith("readme") and name.endswith(".txt")
        ]


def _walk(
    folder: Path, label: str, above: str, deep: bool
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield (path with slashes, entry) of what is in a folder and, if `deep`, below it."""
    with reading(label), os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if not entry.is_dir(follow_symlinks=False):
            yield above + entry.name, entry
        elif deep:
            yield from _walk(Path(entry.path), label, f"{above}{entry.name}/", deep)


def _add(belongings: Belongings, target: str, entry: os.DirEntry[str]) -> None:
    belongings.files[target] = Path(entry.path)
    with reading(entry.path):
        belongings.total_bytes += entry.stat(follow_symlinks=False).st_size


def _image_names(folder: Path, label: str, root: Path, limits: ArchiveLimits) -> list[str]:
    """Return each `file_name` of a split's json once; what else is in the json is not judged."""
    where = f"{label}: {_shown(folder, root)}"
    path = folder / ANNOTATION_FILE
    if path.is_symlink() or not path.is_file():
        raise DatasetError(f"{where} is not a plain file; put the json itself in its place.")
    with reading(label):
        if path.stat().st_size > limits.json_bytes:
            size = limits.json_bytes / 1024**2
            raise DatasetError(f"{where} is larger than {size:,.0f} MiB, which no export's is.")
        content = path.read_bytes()
    try:
        coco: Any = json.loads(content.decode("utf-8-sig"), object_hook=_names_only)
    except RecursionError:
        raise DatasetError(f"{where} is nested too deeply to be COCO; {_AGAIN}") from None
    except ValueError as error:  # not UTF-8, not JSON, a number of thousands of digits
        reason = str(error).partition(";")[0]
        raise DatasetError(f"{where} is not JSON ({reason}); {_AGAIN}") from None
    images = coco.get("images") if isinstance(coco, dict) else None
    if not isinstance(images, list):
        raise DatasetError(f"{where} is not COCO: it has no list of images; {_AGAIN}")
    names = (image.get("file_name") for image in images if isinstance(image, dict))
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))


def _names_only(record: dict[str, Any]) -> dict[str, Any]:
    """Drop all of a json's object but what is asked for, which saves most of the memory."""
    return {key: record[key] for key in ("images", "file_name") if key in record}


def _relative(name: str, label: str, where: str) -> str:
    """Return a `file_name` as a path with slashes below its folder."""
    path = PurePosixPath(name)
    parts = {*path.parts, *PureWindowsPath(name).parts}
    nameable = name.encode(errors="ignore").decode() == name and "\0" not in name
    rooted = path.is_absolute() or PureWindowsPath(name).anchor
    if not path.parts or rooted or ".." in parts or not nameable:
        raise DatasetError(
            f"{label}: the file_name {name!r} in {where} leads out of its folder; name the picture "
            "relative to the json, without '..'."
        )
    return str(path)


def _shown(folder: Path, root: Path) -> str:
    return (folder.relative_to(root) / ANNOTATION_FILE).as_posix()


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)

"""An export from a zip or a folder: whole, verified, under our names of the splits."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from persondet.data.coco_json import read_file_names
from persondet.data.fetch import archive
from persondet.data.fetch.archive import reading, refuse_number, require_space, unpack, writing
from persondet.data.roboflow import ANNOTATION_FILE, find_export, find_readmes
from persondet.environment import Progress
from persondet.errors import DatasetError, OutputExistsError
from persondet.files import atomic_folder, leads_out, link_or_copy, refuse_existing

_UNPACKED = ".unpacked"
_CHUNK = 1024 * 1024
_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".heic"}


class IncompleteExportError(DatasetError):
    """Images that the json names are missing; what is there may still be of use."""


def import_export(
    source: str | Path,
    output: str | Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Copy an export to `output` as `train/`, `valid/`, `test/`, each with its json and images.

    The folder appears under its name only when every image of every json is there. The source
    does not change and shares no file with the result.

    Args:
        source: a zip or a folder; see `find_export` for what it may hold.
        output: the folder to make.
        overwrite: replace `output` if it exists.
        progress: called with bytes done and bytes in all.

    Returns:
        dict from each split of the export to the number of images in its json.

    Raises:
        DatasetError: when the source is no export, is damaged or incomplete, or holds links or
            names that lead out of it.
        OutputExistsError: when `output` exists already or cannot be written.
    """
    source, output = Path(source), Path(output)
    _refuse_overlap(source, output)
    refuse_existing(output, overwrite=overwrite)
    if not source.is_dir():
        mend = (
            "unpack the zip by hand and run `python tools/prepare_dataset.py clean` on the folder, "
            "or export it again"
        )
        return import_archive(
            source, output, str(source), mend, overwrite=overwrite, progress=progress
        )
    mend = (
        f"run `python tools/prepare_dataset.py clean {shlex.quote(str(source))} --output "
        f"{shlex.quote(str(output))}` to go on without them, or export it again"
    )
    taken = _take_export(source, str(source), mend)
    with atomic_folder(output, overwrite=overwrite) as draft, writing():
        require_space(draft, taken.total_bytes)
        done = 0
        for target, path in taken.files.items():
            done += _copy(path, draft / target)
            if progress is not None:
                progress(done, taken.total_bytes)
    return taken.images


def import_archive(
    source: Path,
    output: Path,
    label: str,
    mend: str,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    finish: Callable[[], None] | None = None,
) -> dict[str, int]:
    """Unpack an export's zip to `output`; the part of `import_export` that a download shares.

    Args:
        source: the zip.
        output: the folder to make.
        label: what errors call the archive.
        mend: what to do when images are missing, the end of that sentence.
        overwrite, progress: as for `import_export`.
        finish: called after verification, just before the folder gets its name.

    Returns, Raises: as `import_export`.
    """
    if not source.is_file():
        raise DatasetError(
            f"{label}: there is no such file; give an export's zip, or the folder it was unpacked "
            "into."
        )
    with atomic_folder(output, overwrite=overwrite) as draft, writing():
        unpacked = draft / _UNPACKED
        unpacked.mkdir()
        unpack(source, unpacked, label=label, progress=progress)
        taken = _take_export(unpacked, label, mend)
        for target, path in taken.files.items():
            link_or_copy(path, draft / target)
        shutil.rmtree(unpacked)
        if finish is not None:
            finish()
    return taken.images


@dataclass
class _Taken:
    """What the import takes of an export.

    Attributes:
        files: where each file goes, relative and with slashes, and where it lies now.
        total_bytes: of all files together.
        images: how many images the json of each split lists.
    """

    files: dict[str, Path] = field(default_factory=dict)
    total_bytes: int = 0
    images: dict[str, int] = field(default_factory=dict)

    def add(self, target: str, entry: os.DirEntry[str]) -> None:
        """Take a file."""
        self.files[target] = Path(entry.path)
        with reading(entry.path):
            self.total_bytes += entry.stat(follow_symlinks=False).st_size


def _take_export(folder: Path, label: str, mend: str) -> _Taken:
    """Return the files of the export in a folder, after verifying that every image is there.

    These are each split's json, the images that it names, other images in the split's folder,
    and README*.txt. An image with another Unicode form (NFC, NFD) of its name on disk than in the
    json gets the json's.

    Args:
        folder: where the export lies.
        label: what errors call the export.
        mend: what to do when images are missing, the end of that sentence.

    Raises: DatasetError: when there is no export, a json cannot be read, names a file outside of
        its folder or one that is missing, or part of the export is a link or no plain file.
    """
    taken = _Taken()
    root, splits = find_export(folder, label)
    for split, place in splits.items():
        if place != folder and place.is_symlink():
            raise DatasetError(f"{label}: {place.name!r} is a link; put the folder in its place.")
        json_file = place / ANNOTATION_FILE
        where = json_file.relative_to(root).as_posix()
        if json_file.is_symlink() or not json_file.is_file():
            raise DatasetError(
                f"{label}: {where} is not a plain file; put the json itself in its place."
            )
        names = read_file_names(json_file, f"{label}: {where}", archive.MAX_JSON_BYTES)
        taken.images[split] = len(names)
        listing = _Listing(place, label, deep=any("/" in name for name in names))
        taken.add(f"{split}/{ANNOTATION_FILE}", listing.take(ANNOTATION_FILE))
        missing = []
        for name in names:
            if leads_out(name):
                raise DatasetError(
                    f"{label}: the file_name {name!r} in {where} leads out of its folder; name the "
                    "image relative to the json, without '..'."
                )
            path = str(PurePosixPath(name))
            try:
                taken.add(f"{split}/{path}", listing.take(path))
            except KeyError:
                missing.append(name)
        if missing:
            raise IncompleteExportError(
                f"{label}: {len(missing)} of the {len(names)} images that {where} names are "
                f"missing, the first is {missing[0]!r}; {mend}."
            )
        for path in listing.other_images():
            taken.add(f"{split}/{path}", listing.take(path))
    for readme in find_readmes(root):
        taken.add(readme.name, _Listing(root, label).take(readme.name))
    return taken


class _Listing:
    """The files in a folder, found by name in either Unicode form, never through a link."""

    def __init__(self, folder: Path, label: str, *, deep: bool = False) -> None:
        self._label = label
        self._entries: dict[str, os.DirEntry[str]] = {}
        for path, entry in _walk(folder, label, "", deep):
            self._entries[path] = entry
            refuse_number(len(self._entries), f"{label}: {folder.name}/")
        self._composed = {_composed(path): path for path in self._entries}
        self._taken: set[str] = set()

    def take(self, path: str) -> os.DirEntry[str]:
        """Return a file as it is or in another Unicode form.

        Raises: KeyError: when there is none. DatasetError: when it is not a plain file.
        """
        found = path if path in self._entries else self._composed[_composed(path)]
        self._taken.add(found)
        entry = self._entries[found]
        if entry.is_symlink():
            raise DatasetError(
                f"{self._label}: {found!r} is a link; put the file itself in its place."
            )
        if not entry.is_file(follow_symlinks=False):
            raise DatasetError(f"{self._label}: {found!r} is not a plain file; remove it.")
        return entry

    def other_images(self) -> list[str]:
        """Return the images in the folder itself that nobody took."""
        left = sorted(self._entries.keys() - self._taken)
        return [p for p in left if "/" not in p and PurePosixPath(p).suffix.lower() in _IMAGES]


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


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _copy(path: Path, target: Path) -> int:
    """Copy a plain file's bytes to a file that is not there yet, and return their number."""
    with reading(str(path)):
        # Between the look at the folder and now a link or a pipe may have taken the file's place.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as source:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise DatasetError(f"{path} is not a plain file; remove it.")
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as copy:
            shutil.copyfileobj(source, copy, _CHUNK)
            return copy.tell()


def _refuse_overlap(source: Path, output: Path) -> None:
    """Raise when one of the two lies in the other: overwriting would remove the source."""
    inner, outer = source.resolve(), output.resolve()
    if source.exists() and (inner.is_relative_to(outer) or outer.is_relative_to(inner)):
        raise OutputExistsError(
            f"{output} and {source} lie in each other; choose an --output outside of the export."
        )

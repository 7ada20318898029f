"""An export from a zip or a folder: whole, verified, under our names of the splits."""

from __future__ import annotations

import logging
import shlex
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from persondet.data.coco_json import CocoDict, write_coco
from persondet.data.fetch.archive import reading, refuse_number, require_space, unpack, writing
from persondet.data.image_file import is_image_name
from persondet.data.roboflow import (
    ANNOTATION_FILE,
    Layout,
    file_names,
    find_readmes,
    list_files,
    read_export,
)
from persondet.environment import Progress
from persondet.errors import DatasetError
from persondet.files import atomic_folder, leads_out, link_or_copy, refuse_existing, refuse_nesting

logger = logging.getLogger(__name__)

_UNPACKED = ".unpacked"
_CHUNK = 1024 * 1024
_PUT_THERE = "put them there, or export the dataset again"


class IncompleteExportError(DatasetError):
    """Images that the json names are missing; what is there may still be of use."""


def import_export(
    source: str | Path,
    output: str | Path,
    *,
    layout: Layout = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
    label: str = "",
    mend: str = "",
    finish: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Copy an export to `output` as `train/`, `valid/`, `test/`, each with its json and images.

    The folder appears under its name only when every image of every json is there. The source
    does not change and shares no file with the result.

    Args:
        source: a zip or a folder; see `read_export` for what it may hold.
        output: the folder to make.
        layout: see `read_export`.
        overwrite: replace `output` if it exists.
        progress: called with bytes done and bytes in all.
        label: what errors call the source; default its path.
        mend: what to do when images are missing, the end of that sentence.
        finish: called after verification, just before the folder gets its name.

    Returns:
        dict from each split of the export to the number of images in its json.

    Raises:
        DatasetError: when the source is no export, is damaged or incomplete, or holds links or
            names that lead out of it.
        OutputExistsError: when `output` exists already or cannot be written.
    """
    source, output, label = Path(source), Path(output), label or str(source)
    refuse_nesting(source, output)
    refuse_existing(output, overwrite=overwrite)
    is_folder = source.is_dir()
    if not is_folder and not source.is_file():
        raise DatasetError(f"{label}: there is no such file; give an export's zip or its folder.")
    with atomic_folder(output, overwrite=overwrite) as draft, writing():
        folder = source if is_folder else draft / _UNPACKED
        if not is_folder:
            folder.mkdir()
            unpack(source, folder, label=label, progress=progress)
        taken = _take_export(folder, label, mend or _mend(source, output), layout)
        if is_folder:
            require_space(draft, taken.total_bytes)
        done = 0
        for target, path in taken.files.items():
            if not is_folder:
                link_or_copy(path, draft / target)
                continue
            done += _copy(path, draft / target)
            if progress is not None:
                progress(done, taken.total_bytes)
        for target, coco in taken.jsons.items():
            write_coco(draft / target, coco)
        if not is_folder:
            shutil.rmtree(folder)
        finish()
    return taken.images


def _mend(source: Path, output: Path) -> str:
    """Return what to do when images of a Roboflow export are missing."""
    first, folder = ("", source) if source.is_dir() else ("unpack the zip and ", source.stem)
    command = shlex.join(["clean", str(folder), "--output", str(output)])
    return (
        f"{first}run `python tools/prepare_dataset.py {command}` to go on without them, or export "
        "the dataset again"
    )


@dataclass
class _Taken:
    """What the import takes of an export.

    Attributes:
        files: where each file goes, relative and with slashes, and where it lies now.
        jsons: where the jsons go that are not copied as they are.
        total_bytes: of all files together.
        images: how many images the json of each split lists.
    """

    files: dict[str, Path] = field(default_factory=dict)
    jsons: dict[str, CocoDict] = field(default_factory=dict)
    total_bytes: int = 0
    images: dict[str, int] = field(default_factory=dict)

    def add(self, target: str, path: Path, label: str) -> None:
        """Take a file.

        Raises: DatasetError: when it is not a plain file.
        """
        with reading(str(path)):
            found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            what = "a link; put the file itself in its place" if path.is_symlink() else "no file"
            raise DatasetError(f"{label}: {path.name!r} is {what}.")
        self.files[target] = path
        self.total_bytes += found.st_size


def _take_export(folder: Path, label: str, mend: str, layout: Layout) -> _Taken:
    """Return the files of the export in a folder, after verifying that every image is there.

    These are each split's json, the images that it names, other images in the split's folder in
    Roboflow's layout, and README*.txt. A json of another layout or with names that differ from
    those of the files is written anew.

    Args:
        folder: where the export lies.
        label: what errors call the export.
        mend: what to do when images are missing, the end of that sentence.
        layout: see `read_export`.

    Raises: DatasetError: when there is no export, a json cannot be read, names a file outside of
        its folder or one that is missing, or part of the export is a link or no plain file.
    """
    taken = _Taken()
    export = read_export(folder, label, layout)
    for split, place in export.folders.items():
        if place != folder and place.is_symlink():
            raise DatasetError(f"{label}: {place.name!r} is a link; put the folder in its place.")
        json_file, coco = export.jsons[split], export.splits[split]
        where, roboflow = json_file.relative_to(export.root), json_file.name == ANNOTATION_FILE
        target = f"{split}/{ANNOTATION_FILE}"
        taken.add(target, json_file, label)
        if export.respelled[split] or not roboflow:
            taken.jsons[target] = coco
        files, names = set(list_files(place)), file_names(coco)
        refuse_number(len(files), f"{label}: {place.name}/")
        taken.images[split] = len(names)
        if outside := [name for name in names if leads_out(name)]:
            raise DatasetError(
                f"{label}: the file_name {outside[0]!r} in {where} leads out of its folder; name "
                "the image relative to the json, without '..'."
            )
        paths = dict.fromkeys(str(PurePosixPath(name)) for name in names)
        if missing := [path for path in paths if path not in files]:
            raise IncompleteExportError(
                f"{label}: {len(missing)} of the {len(paths)} images that {where} names are "
                f"missing, the first is {missing[0]!r}; {mend if roboflow else _PUT_THERE}."
            )
        beside = [path for path in files if roboflow and "/" not in path and is_image_name(path)]
        for path in sorted({*paths, *beside}):
            taken.add(f"{split}/{path}", place / path, label)
    images = {path for path in list_files(export.root) if is_image_name(path)}
    if left := images - {path.relative_to(export.root).as_posix() for path in taken.files.values()}:
        logger.warning(
            "%s: no json names %d images, e.g. %s; left out.", label, len(left), min(left)
        )
    for readme in find_readmes(export.root):
        taken.add(readme.name, readme, label)
    return taken


def _copy(path: Path, target: Path) -> int:
    """Copy a file's bytes to a file that is not there yet, and return their number."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with reading(str(path)):
        source = open(path, "rb")  # noqa: SIM115
    with source, open(target, "xb") as copy:
        shutil.copyfileobj(source, copy, _CHUNK)
        return copy.tell()

"""An export from a zip or a folder: whole, verified, under our names of the splits."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from persondet.data.fetch.archive import Progress, require_space, unpack, writing
from persondet.data.fetch.archive_members import ArchiveLimits
from persondet.data.fetch.export_files import Belongings, find_belongings
from persondet.data.fetch.export_layout import find_export, reading
from persondet.errors import DatasetError, OutputExistsError
from persondet.files import atomic_folder, refuse_existing

_UNPACKED = ".unpacked"
_CHUNK = 1024 * 1024


def import_export(
    source: str | Path,
    output: str | Path,
    *,
    overwrite: bool = False,
    limits: ArchiveLimits | None = None,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Copy an export to `output` as `train/`, `valid/`, `test/`, each with its json and pictures.

    The folder appears under its name only when every picture of every json is there. The source
    is not changed and shares no file with the result.

    Args:
        source: a zip or a folder, see `find_export` for what may be in it.
        output: the folder to make.
        overwrite: replace `output` if it is there.
        limits: what an archive may hold; default `ArchiveLimits()`.
        progress: called with bytes done and bytes in all.

    Returns:
        dict from each split that is there to the number of images its json lists.

    Raises:
        DatasetError: when the source is no export, is damaged or incomplete, or holds links or
            names that lead out of it.
        OutputExistsError: when `output` is there already or cannot be written.
    """
    source, output = Path(source), Path(output)
    _refuse_overlap(source, output)
    refuse_existing(output, overwrite=overwrite)
    if not source.is_dir():
        mend = (
            "unpack the zip by hand and run `python tools/prepare_dataset.py clean` on the folder, or "
            "export it again"
        )
        return import_archive(
            source,
            output,
            label=str(source),
            mend=mend,
            overwrite=overwrite,
            limits=limits,
            progress=progress,
        )
    label, limits = str(source), limits or ArchiveLimits()
    export = find_export(source, label)
    mend = (
        f"run `python tools/prepare_dataset.py clean {shlex.quote(str(export.root))} --output "
        f"{shlex.quote(str(output))}` to go on without them, or export it again"
    )
    belongings = find_belongings(export, label, limits, mend)
    with atomic_folder(output, overwrite=overwrite) as draft:
        require_space(draft, belongings.total_bytes)
        done = 0
        for target, path in belongings.files.items():
            done += _copy(path, draft / target)
            if progress is not None:
                progress(done, belongings.total_bytes)
    return belongings.images


def import_archive(
    archive: Path,
    output: Path,
    *,
    label: str,
    mend: str,
    overwrite: bool = False,
    limits: ArchiveLimits | None = None,
    progress: Progress | None = None,
    finish: Callable[[], None] | None = None,
) -> dict[str, int]:
    """Unpack an export's zip to `output`; the part of `import_export` that a download shares.

    Args:
        archive: the zip.
        output: the folder to make.
        label: what the archive is called in errors.
        mend: what to do when pictures are missing, the end of that sentence.
        overwrite: replace `output` if it is there.
        limits: what the archive may hold; default `ArchiveLimits()`.
        progress: called with bytes unpacked and bytes in all.
        finish: called when all is verified, just before the folder gets its name.

    Returns:
        dict from each split that is there to the number of images its json lists.

    Raises: as `import_export`.
    """
    limits = limits or ArchiveLimits()
    if not archive.is_file():
        raise DatasetError(
            f"{label}: there is no such file; give an export's zip, or the folder it was unpacked "
            "into."
        )
    with atomic_folder(output, overwrite=overwrite) as draft:
        unpacked = draft / _UNPACKED
        with writing():
            unpacked.mkdir()
        unpack(archive, unpacked, label=label, limits=limits, progress=progress)
        belongings = find_belongings(find_export(unpacked, label), label, limits, mend)
        _move(belongings, draft)
        with writing():
            shutil.rmtree(unpacked)
        if finish is not None:
            finish()
    return belongings.images


def _move(belongings: Belongings, draft: Path) -> None:
    """Move the files to their places; one that is wanted under two names is copied but for the last."""
    wanted = Counter(belongings.files.values())
    for target, path in belongings.files.items():
        wanted[path] -= 1
        if wanted[path]:
            _copy(path, draft / target)
            continue
        with writing():
            (draft / target).parent.mkdir(parents=True, exist_ok=True)
            path.rename(draft / target)


def _copy(path: Path, target: Path) -> int:
    """Copy a plain file's bytes to a file that is not there yet, and return their number."""
    with reading(str(path)):
        # Between the look at the folder and now a link or a pipe may have taken the file's place.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as source:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise DatasetError(f"{path} is not a plain file; remove it.")
        with writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "xb") as copy:
                shutil.copyfileobj(source, copy, _CHUNK)
                return copy.tell()


def _refuse_overlap(source: Path, output: Path) -> None:
    """Raise when one of the two lies in the other: overwriting would remove what is read."""
    inner, outer = source.resolve(), output.resolve()
    if source.exists() and (inner.is_relative_to(outer) or outer.is_relative_to(inner)):
        raise OutputExistsError(
            f"{output} and {source} lie in each other; choose an --output outside of the export."
        )

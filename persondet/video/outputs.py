"""Input clips and output files: which clips are meant, and which files must not be written."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from persondet.errors import MediaError
from persondet.files import partial_path as partial_records_path
from persondet.files import refuse_existing
from persondet.records import mot_path, records_path
from persondet.video.reader import VideoReader
from persondet.video.source import is_address, local_path, shown
from persondet.video.writer import check_container, draft_path, partial_path

Source = str | Path  # a str if it is an address

CLIP_SUFFIXES = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ts .webm .wmv".split()
)
_ANNOTATED = "_annotated"
_UNFINISHED = (".partial", ".finishing")
_MOT_LINE = re.compile(r"\d+,-?\d+(,-?\d+\.\d+){5}(,-1){3}\n")


def earlier_mot(output: str | Path) -> Path | None:
    """Return the MOT-challenge text that an earlier run wrote beside its records, or None.

    The first line distinguishes it from the user's own text: it ends in three fields of -1.
    """
    path = mot_path(output)
    if not path.is_file() or not records_path(output).is_file():
        return None
    with open(path, encoding="ascii", errors="replace") as file:
        first = file.readline(200)
    return path if _MOT_LINE.fullmatch(first) else None


def _is(path: Path, *, folder: bool) -> bool:
    """Return whether a path exists, or is a folder; False if nobody may look it up."""
    try:
        return path.is_dir() if folder else path.exists()
    except OSError:
        return False


def _refuse_unwritable(folder: Path) -> None:
    """Refuse a folder in which nothing can be written, or that cannot be made.

    Raises: MediaError: in either case.
    """
    parents = (folder, *folder.absolute().parents)
    there = next(parent for parent in parents if _is(parent, folder=False))
    if not there.is_dir():
        raise MediaError(f"{folder} cannot be made, as {there} is a file; choose another --output.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise MediaError(f"{there} must not be written by you; choose another --output.")


def check_output(
    source: str | Path, output: str | Path, *, save_mot: bool = False, overwrite: bool = False
) -> None:
    """Refuse targets that cannot or must not be written; call it before loading a model.

    Args:
        source: a file, or an address.
        output: the annotated clip; its records and the files of a killed run are checked too.
        save_mot: MOT-challenge text will also be written.
        overwrite: allow files that exist; never the source itself.

    Raises: MediaError: when `output` is `source`, its suffix is of no known container, or its
        folder cannot be written.
        OutputExistsError: when one of the files exists.
    """
    output = Path(output)
    check_container(output)
    _refuse_unwritable(output.parent)  # first: a closed folder does not even let us look up names
    records = records_path(output)
    unfinished = [partial_path(output), partial_records_path(records)]
    targets = [output, records, *([mot_path(output)] if save_mot else []), *unfinished]
    clip = None if is_address(source) else local_path(source)
    for target in (*targets, draft_path(output)):
        if clip is not None and clip.exists() and target.exists() and target.samefile(clip):
            raise MediaError(f"{target} is the source itself; choose another --output.")
        if target.is_dir():
            raise MediaError(f"{target} is a folder; choose another --output.")
        refuse_existing(target, overwrite=overwrite)


def plan_clips(video_input: Source, output: str | Path) -> list[tuple[Source, Path]]:
    """Return (clip, target) pairs for a file, a folder of clips, or an address.

    The target of a file is `output` if that has a suffix and is no folder, else
    `output/<stem>_annotated.mp4`; the clips of a folder, sorted by name, always go into the folder
    `output`. An address needs a file name as `output`. Results of earlier calls (`…_annotated`) and
    unfinished ones (`….partial`) are no input.

    Raises: MediaError: when the input is missing, a folder has no clip, the output of a folder is
        a file, that of an address is none, or two clips would get the same target.
    """
    target = Path(output)
    if is_address(video_input):
        if _is(target, folder=True) or not target.suffix:
            raise MediaError(
                f"{target} names no file, and {shown(video_input)} has no name to take; "
                "give --output a name that ends in .mp4, .mov or .mkv."
            )
        return [(str(video_input), target)]
    source = local_path(video_input)
    if not source.exists():
        raise MediaError(f"{source} does not exist; give a video file or a folder of clips.")
    if not source.is_dir():
        if target.suffix and not _is(target, folder=True):
            return [(source, target)]
        return [(source, _inside(target, source))]
    if target.is_file():
        raise MediaError(
            f"{target} is a file, but {source} is a folder; give a folder as --output."
        )
    clips = sorted(
        path
        for path in source.iterdir()
        if path.suffix.lower() in CLIP_SUFFIXES
        and path.is_file()
        and not path.stem.endswith((_ANNOTATED, *_UNFINISHED))
        and not path.name.startswith(".")
    )
    if not clips:
        known = " ".join(sorted(CLIP_SUFFIXES))
        raise MediaError(f"{source}: the folder has no clip; names must end in one of {known}.")
    plan: dict[Path, Path] = {}
    for clip in clips:
        place = _inside(target, clip)
        if place in plan:
            raise MediaError(
                f"{plan[place].name} and {clip.name} in {source} would both become {place.name}; "
                "rename one of them."
            )
        plan[place] = clip
    return [(clip, place) for place, clip in plan.items()]


def check_clips(
    plan: Sequence[tuple[Source, Path]],
    *,
    save_mot: bool = False,
    overwrite: bool = False,
    start: Fraction | None = None,
    end: Fraction | None = None,
) -> tuple[list[tuple[Source, Path]], list[str]]:
    """Check all clips and targets before loading a model.

    Args:
        plan: (clip, target) pairs.
        save_mot: MOT-challenge text will also be written.
        overwrite: allow targets that exist.
        start, end: seconds; a clip without a frame between them is unreadable.

    Returns: the pairs with a readable clip, and a sentence for each of the others.

    Raises: MediaError: when no clip is readable, or a target cannot be written.
        OutputExistsError: when a target exists.
    """
    readable, unreadable = [], []
    for clip, target in plan:
        check_output(clip, target, save_mot=save_mot, overwrite=overwrite)
        try:
            VideoReader(clip, start=start, end=end).close()
            readable.append((clip, target))
        except MediaError as error:
            unreadable.append(str(error))
    if not readable:
        more = f" (and {len(unreadable) - 1} more clips)" if len(unreadable) > 1 else ""
        raise MediaError(f"{unreadable[0]}{more}")
    return readable, unreadable


def _inside(folder: Path, clip: Path) -> Path:
    """Return the target of a clip in a folder."""
    return folder / f"{clip.stem}{_ANNOTATED}.mp4"

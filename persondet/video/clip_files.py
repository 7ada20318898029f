"""The files around a clip: which clips are meant, which files must not be written, and stills.

Stills of the annotated clips of a run, for its report, lie in `plots/video_still_<n>.jpg`, and
`plots/video_stills.json` says what they show:

    {"schema": 1, "stills": [{"file": "video_still_1.jpg", "clip": "walk_annotated.mp4",
     "time": 2.5, "index": 62, "people": 4}]}
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from persondet.errors import MediaError, OutputExistsError
from persondet.files import atomic_path, refuse_existing, write_json
from persondet.files import partial_path as partial_records_path
from persondet.records import FrameRecord, mot_path, read_records, records_path
from persondet.video.reader import VideoReader
from persondet.video.source import is_address, local_path, shown
from persondet.video.writer import CONTAINERS, check_container, draft_path, partial_path

logger = logging.getLogger(__name__)

Source = str | Path  # a str if it is an address

CLIP_SUFFIXES = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ts .webm .wmv".split()
)
ANNOTATED = "_annotated"
_UNFINISHED = (".partial", ".finishing")
_LONGEST_NAME = 255  # bytes, of the file systems of Linux
STILLS_FOLDER, STILLS_INDEX, STILLS_SCHEMA = "plots", "video_stills.json", 1
_WIDEST = 1280  # pixels of a still
_QUALITY = 90
_CLIPS = 2  # the first by name; a report is no cinema
_MOST_FRAMES = 3000  # to decode of a clip: two minutes of video, about ten seconds of work


class LongNameError(MediaError):
    """The name of a result is longer than file systems allow."""


def _refuse_unwritable(folder: Path) -> None:
    """Refuse a folder in which nothing can be written, or that cannot be made.

    Raises: MediaError: in either case.
    """
    parents = (folder, *folder.absolute().parents)
    there = next(parent for parent in parents if os.access(parent, os.F_OK))
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise MediaError(f"{there} is a file or closed to writing; choose another --output.")


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
        folder cannot be written; `LongNameError` when a name is too long.
        OutputExistsError: when one of the files exists.
    """
    output = Path(output)
    check_container(output)
    _refuse_unwritable(output.parent)  # first: a closed folder does not even let us look up names
    records = records_path(output)
    targets = [output, records, partial_path(output), partial_records_path(records)]
    targets += [draft_path(output), *([mot_path(output)] if save_mot else [])]
    if max(len(os.fsencode(target.name)) for target in targets) > _LONGEST_NAME:
        raise LongNameError(
            f"{shown(source)}: the name {output.name} is too long; rename the clip or give "
            "--output a shorter name."
        )
    clip = None if is_address(source) else local_path(source)
    for target in targets:
        if clip is not None and clip.exists() and target.exists() and target.samefile(clip):
            raise MediaError(f"{target} is the source itself; choose another --output.")
        if target.is_dir():
            raise MediaError(f"{target} is a folder; choose another --output.")
        refuse_existing(target, overwrite=overwrite)


def plan_clips(
    video_input: Source, output: str | Path, *, recursive: bool = False
) -> list[tuple[Source, Path]]:
    """Return (clip, target) pairs for a file, a folder of clips, or an address.

    The target of a file is `output` if that has a suffix and is no folder, else
    `output/<stem>_annotated.mp4`; the clips of a folder, sorted by name, always go into the folder
    `output`, and into the same sub-folders there. Where the stem is that of another clip too, the
    name takes its place: `x.mkv_annotated.mp4`. An address needs a file name as `output`. Results
    of earlier calls (`…_annotated`) and unfinished ones (`….partial`) are no input.

    Args:
        recursive: search the sub-folders of a folder too; hidden ones are passed over.

    Raises: MediaError: when the input is missing, a folder has no clip, or the output of an address
        is no file.
    """
    target = Path(output)
    is_folder = os.access(f"{output}/", os.F_OK)  # no error if nobody may look it up
    if is_address(video_input):
        if is_folder or not target.suffix:
            raise MediaError(
                f"{target} names no file, and {shown(video_input)} has no name to take; "
                "give --output a name that ends in .mp4, .mov or .mkv."
            )
        return [(str(video_input), target)]
    source = local_path(video_input)
    if not source.exists():
        raise MediaError(f"{source} does not exist; give a video file or a folder of clips.")
    if not source.is_dir():
        is_file = target.suffix and not is_folder
        return [(source, target if is_file else target / f"{source.stem}{ANNOTATED}.mp4")]
    clips = sorted(
        path.relative_to(source)
        for path in (source.rglob("*") if recursive else source.iterdir())
        if path.suffix.lower() in CLIP_SUFFIXES
        and path.is_file()
        and not is_result_name(path.stem)
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
    )
    if not clips:
        known = " ".join(sorted(CLIP_SUFFIXES))
        more = "" if recursive else "; add --recursive to search its sub-folders"
        raise MediaError(f"{source}: the folder has no clip, a name in one of {known}{more}.")
    taken = Counter(name for clip in clips for name in (clip.with_suffix(""), clip))
    named = (
        (clip, clip if taken[clip.with_suffix("")] > 1 else clip.with_suffix("")) for clip in clips
    )
    return [(source / clip, target / f"{name}{ANNOTATED}.mp4") for clip, name in named]


def is_result_name(stem: str) -> bool:
    """Return whether a clip's stem says that it was annotated, or is being."""
    return stem.endswith((ANNOTATED, *_UNFINISHED))


def check_clips(
    plan: Sequence[tuple[Source, Path]],
    *,
    folder: bool = False,
    save_mot: bool = False,
    overwrite: bool = False,
    start: Fraction | None = None,
    end: Fraction | None = None,
) -> tuple[list[tuple[Source, Path]], list[str], list[tuple[Source, Path]]]:
    """Check all clips and targets before loading a model.

    Args:
        plan: (clip, target) pairs.
        folder: they are a folder's, of which some may be finished.
        save_mot: MOT-challenge text will also be written.
        overwrite: allow targets that exist.
        start, end: seconds; a clip without a frame between them is unreadable.

    Returns: the pairs to annotate, a sentence for each clip that is unreadable, has too long a name
        or was left unfinished, and the pairs of a folder whose target exists.

    Raises: MediaError: when no clip is readable, or a target cannot be written.
        OutputExistsError: when the target of a single clip exists.
    """
    readable: list[tuple[Source, Path]] = []
    unreadable: list[str] = []
    existing: list[tuple[Source, Path]] = []
    for clip, target in plan:
        try:
            check_output(clip, target, save_mot=save_mot, overwrite=overwrite)
        except LongNameError as error:
            unreadable.append(str(error))
            continue
        except OutputExistsError as error:
            if not folder:
                raise
            if target.exists():
                existing.append((clip, target))
            else:
                unreadable.append(str(error))
            continue
        try:
            VideoReader(clip, start=start, end=end).close()
            readable.append((clip, target))
        except MediaError as error:
            unreadable.append(str(error))
    if unreadable and not readable and not existing:
        more = f" (and {len(unreadable) - 1} more clips)" if len(unreadable) > 1 else ""
        raise MediaError(f"{unreadable[0]}{more}")
    return readable, unreadable, existing


def write_stills(
    run_dir: str | Path, count: int = 3, *, output: str | Path | None = None
) -> list[Path]:
    """Take `count` frames, evenly spaced, from each annotated clip of a run.

    A clip is a video beside its records, in the run folder or below its folder `video`. A long clip
    counts only up to its 3,000th frame. The stills of an earlier call go. A warning names a clip
    that cannot be read.

    Args:
        run_dir: the OUTPUT_DIR of a training.
        count: stills per clip.
        output: the folder for the stills; None: `run_dir/plots`.

    Returns: the stills; none if the run has no annotated clip.

    Raises: OutputExistsError: when there are stills to write, and the folder cannot be written.
    """
    run_dir = Path(run_dir)
    folder = run_dir / STILLS_FOLDER if output is None else Path(output)
    for old in [*folder.glob("video_still_*.jpg"), *folder.glob(STILLS_INDEX)]:
        old.unlink()
    entries: list[dict[str, Any]] = []
    for records in sorted([*run_dir.glob("*.jsonl"), *run_dir.glob("video/**/*.jsonl")]):
        clip = next(filter(Path.is_file, map(records.with_suffix, CONTAINERS)), None)
        killed = records.stem.endswith(_UNFINISHED)
        if clip is None or killed or len({entry["clip"] for entry in entries}) == _CLIPS:
            continue
        try:
            for record, image in _frames(clip, records, count):
                name = f"video_still_{len(entries) + 1}.jpg"
                _write(folder / name, image)
                still = {"file": name, "clip": clip.name, "time": round(record.time, 3)}
                entries.append(still | {"index": record.index, "people": len(record.people)})
        except MediaError as error:
            logger.warning("%s: %s", clip, error)
    if entries:
        write_json(folder / STILLS_INDEX, {"schema": STILLS_SCHEMA, "stills": entries})
    return [folder / entry["file"] for entry in entries]


def _frames(
    clip: Path, records: Path, count: int
) -> Iterator[tuple[FrameRecord, np.ndarray[Any, Any]]]:
    """Yield (record, image (H, W, 3) uint8 BGR) at `count` places, the middles of equal parts.

    The n-th frame of the annotated clip belongs to the n-th record, whatever the stride.
    """
    frames = list(islice(read_records(records)[1], _MOST_FRAMES))
    places = {int((part + 0.5) * len(frames) / count) for part in range(count)}
    with VideoReader(clip) as reader:
        for number, (frame, record) in enumerate(zip(reader, frames, strict=False)):
            if number in places:
                yield record, frame.image


def _write(path: Path, image: np.ndarray[Any, Any]) -> None:
    height, width = image.shape[:2]
    if width > _WIDEST:
        size = (_WIDEST, max(1, round(height * _WIDEST / width)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    with atomic_path(path) as temporary:
        cv2.imwrite(str(temporary), image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])

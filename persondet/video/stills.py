"""Stills of the annotated clips of a run, for its report.

They lie in `plots/video_still_<n>.jpg`, and `plots/video_stills.json` says what they show:

    {"schema": 1, "stills": [{"file": "video_still_1.jpg", "clip": "walk_annotated.mp4",
     "time": 2.5, "index": 62, "people": 4}]}
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from persondet.errors import MediaError
from persondet.files import atomic_path, write_json
from persondet.records import FrameRecord, read_records
from persondet.video.reader import VideoReader

logger = logging.getLogger(__name__)

FOLDER, INDEX = "plots", "video_stills.json"
SCHEMA = 1
WIDEST = 1280  # pixels
_QUALITY = 90
_CLIPS = 2  # the first by name; a report is no cinema
_MOST_FRAMES = 3000  # to decode of a clip: two minutes of video, about ten seconds of work


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
    folder = run_dir / FOLDER if output is None else Path(output)
    entries: list[dict[str, Any]] = []
    for records in sorted([*run_dir.glob("*.jsonl"), *run_dir.glob("video/**/*.jsonl")]):
        clip = _clip_of(records)
        if clip is None or len({entry["clip"] for entry in entries}) >= _CLIPS:
            continue
        try:
            for record, image in _frames(clip, records, count):
                name = f"video_still_{len(entries) + 1}.jpg"
                _write(folder / name, image)
                still = {"file": name, "clip": clip.name, "time": round(record.time, 3)}
                entries.append(still | {"index": record.index, "people": len(record.people)})
        except (MediaError, OverflowError) as error:  # a number in the records may be infinite
            logger.warning("%s: %s", clip, error)
    if entries:
        write_json(folder / INDEX, {"schema": SCHEMA, "stills": entries})
    elif (folder / INDEX).is_file():
        (folder / INDEX).unlink()
    names = {entry["file"] for entry in entries}
    for path in folder.glob("video_still_*.jpg"):
        if path.name not in names:
            path.unlink()
    return [folder / entry["file"] for entry in entries]


def _clip_of(records: Path) -> Path | None:
    """Return the video beside a file of records; None also for those of a killed run."""
    if records.stem.endswith(".partial"):
        return None
    clips = map(records.with_suffix, (".mp4", ".mkv", ".mov", ".avi", ".webm"))
    return next((path for path in clips if path.is_file()), None)


def _frames(
    clip: Path, records: Path, count: int
) -> Iterator[tuple[FrameRecord, np.ndarray[Any, Any]]]:
    """Yield (record, image (H, W, 3) uint8 BGR) at `count` places, the middles of equal parts.

    The n-th frame of the annotated clip belongs to the n-th record, whatever the stride.
    """
    frames = list(islice(read_records(records)[1], _MOST_FRAMES))
    places = {int((part + 0.5) * len(frames) / count) for part in range(count)}
    if not frames:
        return
    with VideoReader(clip) as reader:
        for number, frame in enumerate(islice(reader, max(places) + 1)):
            if number in places:
                yield frames[number], frame.image


def _write(path: Path, image: np.ndarray[Any, Any]) -> None:
    height, width = image.shape[:2]
    if width > WIDEST:
        size = (WIDEST, max(1, round(height * WIDEST / width)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    with atomic_path(path) as temporary:
        cv2.imwrite(str(temporary), image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])

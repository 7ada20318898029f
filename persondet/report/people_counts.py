"""How many people an annotated clip shows over time, from the records beside it (`*.jsonl`)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from persondet.report.evaluation_files import number

SCHEMA, VERSIONS = "persondet-video-records", (1, 2)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PeopleCounts:
    """The people of one clip.

    Attributes:
        path: the records.
        source: file name of the clip, which anybody may have chosen.
        threshold: lowest score that counts, 0 to 1; NaN: unknown.
        times: seconds from the start of the clip, float64 (N,), increasing.
        counts: people in the frame at that time, int64 (N,).
        tracks: number of different people that were counted (version 1: of their numbers); 0:
            there was no tracker.
    """

    path: Path
    source: str
    threshold: float
    times: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    tracks: int


def find_people_counts(run_dir: str | Path) -> list[PeopleCounts]:
    """Return the counts of every records file in a run folder and its `video/`, by path.

    Files of another kind, and the partial ones of a killed run, are passed over; one without a
    frame, or damaged, is named in the log.
    """
    paths = record_files(Path(run_dir))
    return [counts for path in paths if (counts := read_people_counts(path)) is not None]


def record_files(run_dir: Path) -> list[Path]:
    """Return the files of a run, or of a folder below its `video/`, that may be video records.

    The partial ones of a killed run are left out.
    """
    found = [*run_dir.glob("*.jsonl"), *run_dir.glob("video/**/*.jsonl")]
    whole = (path for path in found if not path.stem.endswith(".partial"))
    return sorted(path for path in whole if path.is_file())


def read_people_counts(path: Path) -> PeopleCounts | None:
    """Return the counts of one records file; None when it is none, or holds no frame.

    The frames before a damaged line count.
    """
    header: dict[str, Any] | None = None
    times, counts, tracks, unique = [], [], set(), 0.0
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for row in _objects(lines, path):
                if header is None:
                    if row.get("schema") != SCHEMA or row.get("version") not in VERSIONS:
                        return None
                    header = row
                    continue
                people, time = row.get("people"), number(row.get("time"))
                if not isinstance(people, list) or not np.isfinite(time):
                    logger.warning("%s: a line is no frame; what follows is left out", path)
                    break
                times.append(time)
                counts.append(len(people))
                seen = number(row.get("unique"))
                unique = seen if np.isfinite(seen) else unique
                ids = (p.get("track_id") for p in people if isinstance(p, dict))
                tracks |= {track for track in ids if isinstance(track, int | str)}
    except OSError as error:
        logger.warning("%s cannot be read (%s) and is left out", path, error.strerror or error)
        return None
    if header is None or not times:
        logger.info("%s holds no frame and is left out", path)
        return None
    order = np.argsort(times, kind="stable")
    source = header.get("source")
    return PeopleCounts(
        path=path,
        source=source if isinstance(source, str) and source else path.name,
        threshold=number(header.get("confidence_threshold")),
        times=np.array(times)[order],
        counts=np.array(counts, dtype=np.int64)[order],
        tracks=int(unique) or len(tracks),
    )


def _objects(lines: Any, path: Path) -> Iterator[dict[str, Any]]:
    """Yield the object of each line, up to one that is damaged or cut off."""
    for line_number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            logger.warning("%s: line %d cannot be read; the rest is left out", path, line_number)
            return
        yield row

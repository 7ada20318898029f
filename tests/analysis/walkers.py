"""Records and tracks of walkers whose ways are known."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from persondet.analysis.tracks import Tracks, tracks_of
from persondet.records import FrameRecord, PersonRecord, RecordsHeader, RecordsWriter

WIDTH, HEIGHT = 640, 360
HEADER = RecordsHeader(
    "walk.mp4", "m.pth", ("person",), 0.5, WIDTH, HEIGHT, Fraction(25), tracker="known"
)
Way = Callable[[float], tuple[float, float] | None]


def person(number: int, x: float, y: float, tall: float = 80.0) -> PersonRecord:
    """A person whose feet are at (x, y)."""
    return PersonRecord((x - 20.0, y - tall, x + 20.0, y), 0.9, "person", None, number)


def frames_of(ways: Sequence[Way], times: Sequence[float]) -> list[FrameRecord]:
    """The records of walkers: a way gives the feet at a moment, or None where nobody is seen."""
    found = []
    for index, time in enumerate(times):
        places = [(n, way(float(time))) for n, way in enumerate(ways, start=1)]
        people = tuple(person(n, *place) for n, place in places if place is not None)
        found.append(FrameRecord(index, float(time), people, len(ways)))
    return found


def tracks(ways: Sequence[Way], times: Sequence[float]) -> Tracks:
    return tracks_of(frames_of(ways, times), HEADER, None, "walk.jsonl")


def write(path: Path, frames: Sequence[FrameRecord], header: Any = HEADER) -> Path:
    with RecordsWriter(path, header, overwrite=True) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def at_rate(rate: float, seconds: float) -> np.ndarray[Any, Any]:
    return np.arange(round(seconds * rate)) / rate

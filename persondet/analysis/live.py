"""Lines and zones while a clip goes on: what the annotated clip shows.

The counts are those of `persondet.analysis.crossings` over the whole clip, each as soon as it is
settled; memory does not grow with the clip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from persondet.analysis.areas import Areas
from persondet.analysis.crossings import crossings
from persondet.analysis.tracks import (
    SECONDS_COMPARED,
    SECONDS_FITTED,
    SECONDS_SEEN,
    Clock,
    Tracks,
    feet_of,
    longest_step,
)
from persondet.analysis.visits import inside
from persondet.records import PersonRecord

# A track that was not seen for so long has ended.
_SECONDS_GONE = 5.0


@dataclass
class _Person:
    """A track: its sightings (frame, x, y, middle of the box, height), and what is known of it."""

    sightings: list[tuple[int, float, float, float, float]] = field(default_factory=list)
    seen: float = 0.0
    last: float = 0.0
    left: list[float] = field(default_factory=list)  # of each line, see `crossings`


class LiveAreas:
    """Counts people at lines and in zones, frame by frame.

    Args:
        areas: the lines and zones.
        width, height: of the frames, pixels.

    Attributes:
        counts: [in, out] of each line so far. What the last seconds add may be taken back, when
            they show that only the legs were hidden.
        people: how many people are in each zone now.
    """

    def __init__(self, areas: Areas, width: int, height: int) -> None:
        self.areas, self.width, self.height = areas, width, height
        self.counts = [[0, 0] for _ in areas.lines]
        self._settled = [[0, 0] for _ in areas.lines]
        self.people = [0 for _ in areas.zones]
        self._persons: dict[int, _Person] = {}
        self._times: list[float] = []
        self._dropped = 0  # frames before the first of `_times`

    def update(self, people: Sequence[PersonRecord], time: float) -> None:
        """Take in the next frame, shown at `time` (seconds)."""
        step = longest_step(time - self._times[-1]) if self._times else 0.0
        self._times.append(time)
        frame = self._dropped + len(self._times) - 1
        boxes = np.array([person.box for person in people], np.float32).reshape(-1, 4)
        feet = feet_of(people, boxes, (self.width, self.height), self.areas)
        for person, box, place in zip(people, boxes, feet.tolist(), strict=True):
            if person.track_id is None:
                continue
            known = self._persons.get(person.track_id)
            if known is None:
                known = self._persons[person.track_id] = _Person()
                known.left = [-math.inf] * len(self.areas.lines)
            else:
                known.seen += step
            known.last = time
            middle, height = float((box[1] + box[3]) / 2), float(box[3] - box[1])
            known.sightings.append((frame, *place, middle, height))
        self._count(time)
        self._forget(time)

    def _count(self, time: float) -> None:
        """Bring the counts up to date."""
        persons = [p for p in self._persons.values() if p.seen >= SECONDS_SEEN - 1e-6]
        self.people = [0 for _ in self.areas.zones]
        if not persons:
            return
        tracks = self._tracks(persons)
        # A sighting is final when all that it is fitted to has been seen, and it is not the last.
        last = np.array([person.last for person in persons])
        final = np.minimum(time - SECONDS_COMPARED - SECONDS_FITTED, last - 1e-6)
        before = np.where(time - last > _SECONDS_GONE, math.inf, final)
        for n, line in enumerate(self.areas.lines):
            after = np.array([person.left[n] for person in persons])
            found, lefts = crossings(tracks, line.points, after, before)
            for way, count in enumerate(found.counts):
                self._settled[n][way] += count
            after = np.maximum(after, lefts)
            for person, left in zip(persons, after.tolist(), strict=True):
                person.left[n] = left
            latest, _ = crossings(tracks, line.points, after, np.maximum(before, last - 1e-6))
            both = zip(self._settled[n], latest.counts, strict=True)
            self.counts[n] = [settled + count for settled, count in both]
        near = time - last <= self.areas.grace + 1e-6
        now = tracks.walked[tracks.starts[1:] - 1][near]
        self.people = [int(inside(now, zone.points).sum()) for zone in self.areas.zones]

    def _tracks(self, persons: Sequence[_Person]) -> Tracks:
        rows = [sighting for person in persons for sighting in person.sightings]
        frames, x, y, middle, heights = np.array(rows).T
        feet = np.stack([x, y], axis=1).astype(np.float32)
        centres = np.stack([x, middle], axis=1).astype(np.float32)
        times = np.array(self._times)
        return Tracks(
            Clock(times, np.arange(len(times)) + self._dropped),
            np.arange(len(persons)),
            np.cumsum([0, *(len(person.sightings) for person in persons)]),
            (frames - self._dropped).astype(np.int32),
            feet,
            centres,
            heights.astype(np.float32),
        )

    def _forget(self, time: float) -> None:
        """Drop who is gone, and the sightings that no later count needs."""
        for number, person in list(self._persons.items()):
            if time - person.last > _SECONDS_GONE:
                del self._persons[number]
                continue
            # What a settled sighting was fitted to is needed once more, as it is fitted again.
            needed = SECONDS_COMPARED + SECONDS_FITTED + 1e-3
            least = min(person.left, default=person.last) - needed
            kept = [s for s in person.sightings if self._times[s[0] - self._dropped] >= least]
            person.sightings = kept
        firsts = [person.sightings[0][0] for person in self._persons.values()]
        first = min(firsts, default=self._dropped + len(self._times) - 1)
        del self._times[: first - self._dropped]
        self._dropped = first

"""The tracks of an annotated clip as columns: who stood where, and when.

A person stands at the feet: the middle of the mask's lower edge, or of the box's where there is no
mask. Every moment is a time stamp of the clip; frame numbers are for the reader only.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from persondet.analysis.areas import Areas
from persondet.errors import MediaError
from persondet.records import FrameRecord, PersonRecord, RecordsHeader, read_records

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FloatArray = npt.NDArray[np.float64]
SMALL = npt.NDArray[np.float32]
# A track counts as a person after this much time in sight, and its feet are those of a straight
# walk fitted to the sightings within so much time before and after.
SECONDS_SEEN, SECONDS_FITTED = 0.75, 0.2
# Who is cut shorter than this share of what they are before and after, within so many bins of time,
# has something before the legs.
_CUT, _BIN, _BINS = 0.85, 0.5, 4
SECONDS_COMPARED = _BIN * (_BINS + 1)
# A frame lasts until the next one, or this long before a hole.
_LONGEST_FRAME = 0.5
_CHUNK = 256  # frames whose masks are looked at together


@dataclass(frozen=True)
class Clock:
    """The frames of a clip: their times (F,), seconds, rising, and their numbers in the source."""

    times: FloatArray
    indices: npt.NDArray[np.int64]

    @cached_property
    def usual_step(self) -> float:
        """The median of the times between frames, seconds."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else 0.04

    @cached_property
    def until(self) -> FloatArray:
        """When each frame ends: as the next one begins; sooner before a hole. (F,), seconds."""
        longest = max(_LONGEST_FRAME, self.usual_step)
        following = np.append(self.times[1:], self.times[-1:] + self.usual_step)
        return np.minimum(following, self.times + longest)

    @property
    def seconds(self) -> float:
        """How long the frames are shown, holes left out."""
        return float((self.until - self.times).sum())


def longest_step(steps: Any) -> Any:
    """Return times between frames, seconds, none longer than somebody may be said to be seen."""
    return np.minimum(steps, _LONGEST_FRAME)


@dataclass(frozen=True)
class Tracks:
    """Sightings of people, track by track, each track in the order of time.

    Attributes:
        clock: the frames of the clip.
        ids: the numbers of the tracks, (T,).
        starts: sightings `starts[t]` to `starts[t + 1]` belong to track t, (T + 1,).
        frames: which frame of the clock each sighting is in, (N,).
        feet, centres: where the feet and the middle of the box are, (N, 2), pixels.
        heights: of the boxes, (N,), pixels.
    """

    clock: Clock
    ids: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    frames: npt.NDArray[np.int32]
    feet: SMALL
    centres: SMALL
    heights: SMALL

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def of(self) -> npt.NDArray[np.int32]:
        """The track of each sighting, as a number from 0, (N,)."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.starts))

    @cached_property
    def times(self) -> FloatArray:
        """When each sighting is, (N,), seconds."""
        return self.clock.times[self.frames]

    @cached_property
    def seen(self) -> FloatArray:
        """For how long each track is in sight, (T,), seconds: the frames that end in a sighting.

        The first sighting ends none: a false alarm in one frame was in sight for no time, however
        long the frame.
        """
        steps = np.diff(self.clock.times, prepend=self.clock.times[:1])
        steps = longest_step(steps)[self.frames]
        steps[self.starts[:-1]] = 0
        return np.bincount(self.of, steps, len(self)).astype(np.float64)

    @cached_property
    def standing(self) -> SMALL:
        """The feet, (N, 2), pixels, also where something hides the legs for a while.

        There the head stays where it is and the lower edge jumps up; the feet are as far below the
        head as the person is tall before and after.
        """
        bins = np.floor(self.times / _BIN).astype(np.int64)
        first = np.ones(len(bins), bool)
        first[1:] = (np.diff(bins) != 0) | (np.diff(self.of) != 0)
        starts = np.flatnonzero(first)
        if not len(starts):
            return self.feet
        tops = self.centres[:, 1] - self.heights / 2
        tall = np.maximum.reduceat(self.heights, starts)
        high = np.minimum.reduceat(tops, starts)
        of, bin_ = self.of[starts], bins[starts]
        # Of the bins before, and of those after: the greatest height, and the highest head.
        talls, highs = (np.full((2, len(starts)), value, np.float32) for value in (0, np.inf))
        for k in range(1, min(_BINS, len(starts) - 1) + 1):
            near = (of[k:] == of[:-k]) & (bin_[k:] - bin_[:-k] <= _BINS)
            for side, here, there in (
                (0, slice(k, None), slice(None, -k)),
                (1, slice(None, -k), slice(k, None)),
            ):
                talls[side, here] = np.where(
                    near, np.maximum(talls[side, here], tall[there]), talls[side, here]
                )
                highs[side, here] = np.where(
                    near, np.minimum(highs[side, here], high[there]), highs[side, here]
                )
        bin_of = np.cumsum(first) - 1
        whole, head = talls.min(axis=0)[bin_of], highs.max(axis=0)[bin_of]
        missing = whole - self.heights
        # Where the head is what is missing, the lower edge is right.
        hidden = (self.heights < _CUT * whole) & (tops - head < missing / 2)
        feet = self.feet.copy()
        feet[hidden, 1] = (tops + whole)[hidden]
        return feet

    @cached_property
    def walked(self) -> SMALL:
        """The feet without the tremble of the boxes, (N, 2), pixels.

        Through the sightings around each moment goes a straight line at constant speed, by least
        squares; its point at that moment counts. A straight walk stays as it is, at the ends and
        beside gaps too; where sightings are rare, each one counts as it is.
        """
        times, feet = self.times, self.standing
        count = np.ones(len(times), np.float32)
        t, tt = (np.zeros(len(times), np.float32) for _ in range(2))
        x, tx = np.zeros((2, *feet.shape), np.float32)
        for k in itertools.count(1):
            apart = times[k:] - times[:-k]
            near = (self.of[k:] == self.of[:-k]) & (apart <= SECONDS_FITTED + 1e-6)
            if not near.any():
                break
            dt = np.where(near, apart, 0).astype(np.float32)
            dx = np.where(near[:, None], feet[k:] - feet[:-k], 0)
            # The later one sees the earlier one at -dt, the earlier one the later one at +dt.
            for here, sign in ((slice(None, -k), 1), (slice(k, None), -1)):
                count[here] += near
                t[here] += sign * dt
                tt[here] += dt * dt
                x[here] += sign * dx
                tx[here] += dt[:, None] * dx
        spread = tt - t * t / count
        fits = (count > 2) & (spread > 1e-9)
        slope = (tx - (t / count)[:, None] * x) / np.where(fits, spread, 1)[:, None]
        fitted = feet + (x - t[:, None] * slope) / count[:, None]
        return np.where(fits[:, None], fitted, feet).astype(np.float32)

    def select(self, keep: npt.NDArray[np.bool_]) -> Tracks:
        """Return some of the tracks; `keep` is (T,)."""
        starts = np.append(0, np.cumsum(np.diff(self.starts)[keep]))
        return self._with(self.ids[keep], starts, keep[self.of])

    def parts(self, most: int = 100_000) -> Iterator[Tracks]:
        """Yield the tracks in parts of about `most` sightings, which share their memory."""
        begin = 0
        if not len(self):
            yield self
        while begin < len(self):
            end = int(np.searchsorted(self.starts, self.starts[begin] + most, side="right")) - 1
            end = max(end, begin + 1)
            first, last = self.starts[begin], self.starts[end]
            starts = self.starts[begin : end + 1] - first
            yield self._with(self.ids[begin:end], starts, slice(first, last))
            begin = end

    def _with(self, ids: Any, starts: Any, rows: Any) -> Tracks:
        names = ("frames", "feet", "centres", "heights")
        columns: dict[str, Any] = {name: getattr(self, name)[rows] for name in names}
        return replace(self, ids=ids, starts=starts, **columns)

    def confirmed(self) -> Tracks:
        """Return the tracks that were in sight for 0.75 seconds; others are false alarms."""
        return self.select(self.seen >= SECONDS_SEEN - 1e-6)


Found = TypeVar("Found", bound="DataclassInstance")


def together(parts: Sequence[Found], by: str = "") -> Found:
    """Return what was found in several parts of the tracks, all fields arrays, as one.

    `by` names the field that orders it; empty: the order of the tracks.
    """
    names = [field.name for field in fields(parts[0])]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    order = np.argsort(columns[by], kind="stable") if by else slice(None)
    return type(parts[0])(**{name: column[order] for name, column in columns.items()})


def read_tracks(path: str | Path, areas: Areas | None = None) -> tuple[RecordsHeader, Tracks]:
    """Read all tracks of an annotated clip.

    Args:
        path: the records; those of a killed run will do.
        areas: masks are looked at only near their lines and borders, as most of the time would go
            into the masks; None: everywhere.

    Raises: MediaError: when they cannot be read, have no frame or no tracks, a track stands twice
        in a frame, or the time does not rise.
    """
    header, frames = read_records(path)
    return header, tracks_of(frames, header, areas, path)


def tracks_of(
    frames: Iterable[FrameRecord], header: RecordsHeader, areas: Areas | None, path: str | Path
) -> Tracks:
    """Return the tracks of frames; see `read_tracks`."""
    rows, frames = _Rows(header, areas), iter(frames)
    for chunk in iter(lambda: list(itertools.islice(frames, _CHUNK)), []):
        rows.add(chunk)
    if rows.unnumbered is not None:
        raise MediaError(
            f"{path}: frame {rows.unnumbered} has people without a track_id; annotate the clip "
            "without --no-tracking."
        )
    if not rows.times:
        raise MediaError(f"{path}: the records hold no frame; annotate the clip first.")
    clock = Clock(np.array(rows.times), np.array(rows.indices, np.int64))
    late = np.flatnonzero(np.diff(clock.times) <= 0)
    if len(late):
        raise MediaError(
            f"{path}: frame {clock.indices[late[0] + 1]} is not later than the frame before it; "
            "annotate the clip again."
        )
    tracks = rows.tracks(clock)
    twice = np.flatnonzero((np.diff(tracks.of) == 0) & (np.diff(tracks.frames) == 0))
    if len(twice):
        frame = clock.indices[tracks.frames[twice[0]]]
        raise MediaError(f"{path}: frame {frame} has a track_id twice; annotate the clip again.")
    return tracks


class _Rows:
    """Sightings in the order of the frames, in typed arrays: 32 bytes each."""

    def __init__(self, header: RecordsHeader, areas: Areas | None) -> None:
        self.size, self.areas = (header.width, header.height), areas
        self.times, self.indices = array("d"), array("q")
        self.ids, self.frames = array("q"), array("i")
        self.feet, self.centres, self.heights = (array("f") for _ in range(3))
        self.unnumbered: int | None = None

    def add(self, frames: Sequence[FrameRecord]) -> None:
        """Append frames."""
        people = [person for frame in frames for person in frame.people]
        numbers = [person.track_id for person in people if person.track_id is not None]
        if len(numbers) < len(people):
            of = next(f for f in frames if any(person.track_id is None for person in f.people))
            self.unnumbered = of.index if self.unnumbered is None else self.unnumbered
            return
        for frame in frames:
            self.frames.extend([len(self.times)] * len(frame.people))
            self.times.append(frame.time)
            self.indices.append(frame.index)
        self.ids.extend(numbers)
        boxes = np.array([person.box for person in people], np.float32).reshape(-1, 4)
        self.centres.frombytes(((boxes[:, :2] + boxes[:, 2:]) / 2).tobytes())
        self.heights.frombytes((boxes[:, 3] - boxes[:, 1]).tobytes())
        self.feet.frombytes(feet_of(people, boxes, self.size, self.areas).tobytes())

    def tracks(self, clock: Clock) -> Tracks:
        """Return the sightings, sorted by track; the arrays are gone then."""
        ids = np.frombuffer(self.ids, np.int64)
        order = np.argsort(ids, kind="stable")
        numbers, first = np.unique(ids[order], return_index=True)

        def column(name: str, kind: Any, *shape: int) -> Any:
            return np.frombuffer(self.__dict__.pop(name), kind).reshape(-1, *shape)[order]

        return Tracks(
            clock,
            numbers,
            np.append(first, len(ids)),
            column("frames", np.int32),
            column("feet", np.float32, 2),
            column("centres", np.float32, 2),
            column("heights", np.float32),
        )


def feet_of(
    people: Sequence[PersonRecord], boxes: SMALL, size: tuple[int, int], areas: Areas | None
) -> SMALL:
    """Return where people stand, (N, 2), pixels.

    Args:
        people: of any frames of the clip.
        boxes: theirs, (N, 4), XYXY.
        size: (width, height) of the clip's frames.
        areas: see `read_tracks`.
    """
    from pycocotools import mask as coco_mask

    extents = boxes.copy()
    near = np.ones(len(people), bool) if areas is None else areas.near(boxes)
    rows = [n for n in np.flatnonzero(near).tolist() if people[n].mask]
    if rows:
        shape = [size[1], size[0]]
        masks = [{"size": shape, "counts": people[n].mask} for n in rows]
        found = np.asarray(coco_mask.toBbox(masks), np.float32)
        found[:, 2:] += found[:, :2]
        # An empty mask is no place, nor is one that its run lengths lead out of the frame.
        valid = (found[:, 2:] > found[:, :2]).all(axis=1)
        valid &= (found[:, 2:] <= size).all(axis=1)
        extents[np.array(rows)[valid]] = found[valid]
    return np.stack([(extents[:, 0] + extents[:, 2]) / 2, extents[:, 3]], axis=1)

"""Hiding people in a clip: each frame waits until it is known who was missed in it.

A frame goes on when the clip has been read for one second more. Whoever was detected before and
after it, at most a second apart, and not in it, is hidden there by the masks of both, moved to the
place between. Somebody who is lost, or new, stays hidden for a moment more; at the end of a clip,
where nothing tells what follows, for the whole second. So no frame leaves this module, and none
reaches a file, before all of its people are hidden.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import torch

from persondet.inference.masks import region_intersection
from persondet.inference.tracking import PersonTracker
from persondet.modeling.detections import people_only
from persondet.visualization.hiding import Cover, HideOptions, covers_of

if TYPE_CHECKING:
    from detectron2.structures import Instances

# A weak detection is part of somebody who stays visible if this share of it lies in their mask.
_PART = 0.6

AHEAD = 1.0
"""Seconds that a frame waits, and the longest time for which somebody may be missed."""
# Somebody who is lost or new is hidden for so long around (at the edge of the image, where an arm
# or a leg comes first, for `AHEAD`), by a margin that grows by so many of their heights per second.
_AROUND, _PACE = 0.3, 0.2
# A mask that lacks the feet in one frame has them so soon before or after, seconds.
_STEADY = 0.25
# Where else somebody may be after being lost, in heights: at once, and more per second.
_NEAR, _FAST = 0.2, 1.0
_ROUNDED = 1e-6  # seconds, of time stamps
_LONGEST = AHEAD + _ROUNDED
_SHRINKS = 0.5  # of a person's height per second: as fast as cells become finer

T = TypeVar("T")


class CoverTracker:
    """Covers the people of a clip's frames and tracks them, with all weak detections.

    Args:
        options: how to hide; its `exempt` are numbers of the caller's own tracks.
        frame_rate: frames per second, as of `PersonTracker`.
        classes: class names by number.

    Attributes:
        options: as given; missing: the exempt numbers that no frame had so far.
    """

    def __init__(self, options: HideOptions, frame_rate: float, classes: Sequence[str]) -> None:
        self.options, self._classes = options, classes
        self._tracker = PersonTracker(frame_rate)
        self._hidden: dict[int, float] = {}  # when a track was last somebody to hide, seconds
        self.missing = set(options.exempt)

    def update(self, found: Instances, numbers: Mapping[int, int], time: float) -> dict[int, Cover]:
        """Return the covers of the next frame by track, for `covers_ahead`.

        Args:
            found: all detections of the frame, on the CPU.
            numbers: of the caller's tracks, by the place in `found`; weak detections have none.
            time: seconds.
        """
        exempt = set(self.options.exempt)
        self.missing -= set(numbers.values())
        shown = torch.full((len(found),), -1 if exempt else 0)
        for place, number in numbers.items() if exempt else ():
            shown[place] = number in exempt
        found.set("shown", shown)
        found = people_only(found, self._classes)
        self._tracker.update(found, time)
        covers = {
            track: replace(cover, shown=None if shown < 0 else bool(shown))
            for track, cover, shown in zip(
                found.ID, covers_of(found, self.options.part), found.shown.tolist(), strict=True
            )
        }
        self._hidden = {k: then for k, then in self._hidden.items() if time - then <= _LONGEST}
        self._hidden |= {track: time for track, cover in covers.items() if cover.shown is False}
        visible = [cover for cover in covers.values() if cover.shown]
        return {
            track: cover
            for track, cover in covers.items()
            if track in self._hidden or not _is_part(cover, visible)
        }


def _is_part(cover: Cover, visible: Iterable[Cover]) -> bool:
    """Return whether somebody unsure lies mostly in the mask of somebody who stays visible."""
    if cover.shown is not None:
        return False
    least = _PART * int(np.count_nonzero(cover.region))
    return any(
        region_intersection(cover.region, cover.corner, other.region, other.corner) >= least
        for other in visible
    )


@dataclass
class _Held(Generic[T]):
    """A frame that waits: what it is, its time in seconds, and the covers of its tracks."""

    item: T
    time: float
    covers: dict[int, Cover]


def covers_ahead(
    frames: Iterable[tuple[T, float, Mapping[int, Cover]]],
) -> Iterator[tuple[T, list[Cover]]]:
    """Yield each frame, a second late, with all covers that are to be hidden in it, or are shown.

    A cover whose `shown` is None belongs to somebody who stays visible if the next covers of the
    track before and after it do, at most a second apart.

    Args:
        frames: of a clip in order: anything, its time in seconds, and the covers by track.
    """
    held: deque[_Held[T]] = deque()
    past: deque[_Held[T]] = deque()
    latest: dict[int, tuple[float, Cover]] = {}
    told: dict[int, tuple[float, Cover]] = {}  # the latest whose `shown` is not None
    gone: dict[int, tuple[float, Cover]] = {}  # the latest in the frames that went on
    for item, time, covers in frames:
        for memory in (latest, told):
            for track in [k for k, (before, _) in memory.items() if time - before > _LONGEST]:
                del memory[track]
        lost = latest.keys() - covers.keys() - (held[-1].covers.keys() if held else set())
        for track, cover in covers.items():
            if track in latest:
                _fill(held, track, *latest[track], time, cover)
            else:
                for other in lost:
                    if _near(*latest[other], time, cover):
                        _fill(held, other, *latest[other], time, cover)
                _lead(held, track, time, cover)
            if cover.shown is not None:
                sure = told.get(track)
                if sure and sure[1].shown and cover.shown:
                    _show(held, track, sure[0])
                told[track] = (time, cover)
            latest[track] = (time, cover)
        held.append(_Held(item, time, dict(covers)))
        while time - held[0].time >= _LONGEST:
            yield _released(held, past, gone, _AROUND)
    while held:
        yield _released(held, past, gone, AHEAD)


def _near(before: float, first: Cover, time: float, last: Cover) -> bool:
    """Return whether a new track may be one that was lost: few frames do not make a track."""
    (ax, ay), (bx, by) = (
        (one.corner[0] + one.region.shape[1] / 2, one.corner[1] + one.region.shape[0] / 2)
        for one in (first, last)
    )
    low, high = sorted((first.height, last.height))
    reach = (_NEAR + _FAST * (time - before)) * high
    return high <= 1.5 * low and math.hypot(ax - bx, ay - by) <= reach


def _fill(
    held: Iterable[_Held[T]], track: int, start: float, first: Cover, end: float, last: Cover
) -> None:
    """Cover a track in the frames between two in which it was detected."""
    for one in held:
        if start < one.time < end:
            share = (one.time - start) / (end - start)
            one.covers.setdefault(track, first.between(last, share))


def _lead(held: Iterable[_Held[T]], track: int, time: float, cover: Cover) -> None:
    """Cover a new track in the frames just before."""
    if cover.shown is not True:
        for one in held:
            if time - one.time <= (AHEAD if cover.at_edge else _AROUND) + _ROUNDED:
                more = _PACE * cover.height * (time - one.time)
                one.covers.setdefault(track, cover.widened(more))


def _show(held: Iterable[_Held[T]], track: int, since: float) -> None:
    """Uncover what a frame alone did not tell."""
    for one in held:
        if one.time > since and track in one.covers:
            del one.covers[track]


def _released(
    held: deque[_Held[T]],
    past: deque[_Held[T]],
    gone: dict[int, tuple[float, Cover]],
    around: float,
) -> tuple[T, list[Cover]]:
    """Take the first frame, with the covers that it has and those of whoever was lost before."""
    one = held.popleft()
    hidden = []
    for track, (before, cover) in list(gone.items()):
        if one.time - before > _LONGEST:
            del gone[track]
            continue
        still = one.time - before <= (AHEAD if cover.at_edge else around) + _ROUNDED
        if still and track not in one.covers and cover.shown is not True:
            hidden.append(cover.widened(_PACE * cover.height * (one.time - before)))
    early, late = _steady(reversed(past), one.time), _steady(held, one.time)
    for track, cover in one.covers.items():
        # Whoever steps behind a wall is as tall as a moment ago or later, and so are the cells.
        tall = [
            cover.height,
            *(other.covers[track].height for other in held if track in other.covers),
        ]
        if track in gone:
            before, known = gone[track]
            tall.append(known.height * (1 - min(1.0, _SHRINKS * (one.time - before))))
        cover = replace(cover, height=max(tall))
        gone[track] = (one.time, cover)
        if cover.shown is not True:
            hidden.append(cover)
            if track in early and track in late:
                (start, first), (end, last) = early[track], late[track]
                between = first.between(last, (one.time - start) / (end - start))
                hidden.append(replace(between, height=cover.height))
    past.append(one)
    while one.time - past[0].time > _STEADY:
        past.popleft()
    visible = [cover for cover in one.covers.values() if cover.shown]
    return one.item, [*visible, *(cover for cover in hidden if not _is_part(cover, visible))]


def _steady(frames: Iterable[_Held[T]], time: float) -> dict[int, tuple[float, Cover]]:
    """Return where each track is in the farthest of the frames that are near `time`, and when."""
    near = [one for one in frames if abs(one.time - time) <= _STEADY]
    return {track: (one.time, cover) for one in near for track, cover in one.covers.items()}

"""All answers about one annotated clip, and the tables that hold them.

    crossings.csv   time, frame, track, line, direction
    visits.csv      zone, track, enter, leave, dwell, complete
    occupancy.csv   time, frame, in_view, and the people in each zone
    tracks.csv      track, first, last, seen [, metres, mean_speed, top_speed]
    analysis.json   the sums, see `ClipAnalysis.summary`

Times are seconds from the start of the source. `complete` is no where a visit is cut off by the
beginning or the end of the clip.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from persondet.analysis.areas import Areas, read_areas
from persondet.analysis.crossings import Crossings, crossings, stock_counts
from persondet.analysis.movement import Walks, grid, heat, walks, ways
from persondet.analysis.tracks import SMALL, Clock, FloatArray, together, tracks_of
from persondet.analysis.visits import Visits, at_least, visits
from persondet.files import write_json
from persondet.records import RecordsHeader, read_records

SCHEMA, VERSION = "persondet-analysis", 1
JSON = "analysis.json"


CELL = 4  # pixels of a square of the heat map
_MOST_WAYS = 300


@dataclass(frozen=True)
class ClipAnalysis:
    """What the records of a clip say about its areas.

    Attributes:
        records: their file.
        header: their first line.
        areas: what was asked.
        clock: the frames of the clip.
        people: the numbers of their tracks, (P,); false alarms are left out.
        seen: when each is first and last seen, and for how long, (P, 3), seconds.
        false_alarms: how many tracks were in sight for too short a time to be people.
        in_view: how many people are seen in each frame, (F,).
        crossings, stock: of each line; stock is (in, out) of the boxes' middles, for comparison.
        visits: of each zone.
        walks: None without a homography.
        heat: for how long feet stood in each square of `CELL` pixels, seconds, (rows, columns).
        ways: of the first 300 people, (W, 2) each, pixels.
    """

    records: Path
    header: RecordsHeader
    areas: Areas
    clock: Clock
    people: npt.NDArray[np.int64]
    seen: FloatArray
    false_alarms: int
    in_view: npt.NDArray[np.int64]
    crossings: tuple[Crossings, ...]
    stock: tuple[tuple[int, int], ...]
    visits: tuple[Visits, ...]
    walks: Walks | None
    heat: FloatArray
    ways: list[SMALL]

    def describe(self) -> list[str]:
        """Return the sums in words: a line for the clip, for each line and for each zone."""
        summary = self.summary()
        people, alarms = len(self.people), self.false_alarms
        shown = f"{people} people in {summary['seconds']:.1f} s"
        lines = [f"{self.header.source}: {shown}; {alarms} shorter tracks are no people"]
        for line in summary["lines"]:
            stock = line["box_centres"]
            lines.append(
                f"line {line['name']}: {line['in']} in, {line['out']} out "
                f"(stock counting by box centres: {stock['in']} in, {stock['out']} out)"
            )
        for zone in summary["zones"]:
            dwell = zone["dwell"]
            took = f" of {dwell['mean']:.1f} s on average" if dwell else ""
            lines.append(
                f"zone {zone['name']}: {zone['visits']} visits{took}; {zone['maximum']} people at "
                f"most, {zone['mean']:.2f} on average"
            )
        return lines

    def summary(self) -> dict[str, Any]:
        """Return the sums, as `analysis.json` has them."""
        clock, header = self.clock, self.header
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "source": header.source,
            "records": self.records.name,
            "width": header.width,
            "height": header.height,
            "frames": len(clock.times),
            "first": _rounded(clock.times[0]),
            "last": _rounded(clock.times[-1]),
            "seconds": _rounded(clock.seconds),
            "people": len(self.people),
            "false_alarms": self.false_alarms,
            "in_view": self._occupied(self.in_view),
            "lines": [self._line(n) for n in range(len(self.crossings))],
            "grace": self.areas.grace,
            "zones": [self._zone(n) for n in range(len(self.visits))],
            "ground": self._ground(),
        }

    def _line(self, n: int) -> dict[str, Any]:
        line, (into, out) = self.areas.lines[n], self.crossings[n].counts
        stock = dict(zip(("in", "out"), self.stock[n], strict=True))
        points = np.round(line.points, 2).tolist()
        return {"name": line.name, "points": points, "in": into, "out": out, "box_centres": stock}

    def _zone(self, n: int) -> dict[str, Any]:
        zone, found = self.areas.zones[n], self.visits[n]
        some = len(found.dwell) > 0
        names = ("mean", "median", "longest")
        values = [_rounded(of(found.dwell)) for of in (np.mean, np.median, np.max)] if some else ()
        return {
            "name": zone.name,
            "points": np.round(zone.points, 2).tolist(),
            "visits": len(found.dwell),
            "people": len(np.unique(found.tracks)),
            "dwell": dict(zip(names, values, strict=True)) if some else None,
            **self._occupied(found.occupancy(self.clock)),
        }

    def _occupied(self, counts: npt.NDArray[np.int64]) -> dict[str, Any]:
        clock = self.clock
        longer = at_least(counts, clock)
        return {
            "maximum": int(counts.max()),
            "mean": _rounded(longer[1:].sum() / longer[0]),
            # By N from 0: for how long there were more than N people.
            "seconds_above": [_rounded(seconds) for seconds in longer[1:]],
        }

    def _ground(self) -> dict[str, Any] | None:
        if self.walks is None:
            return None
        known = np.isfinite(self.walks.mean)
        mean = self.walks.mean[known]
        return {
            "people": int(known.sum()),
            "metres": _rounded(self.walks.metres[known].sum()),
            "median_speed": _rounded(np.median(mean)) if len(mean) else None,
            "top_speed": _rounded(self.walks.top[known].max()) if len(mean) else None,
        }


def analyze_clip(records: str | Path, areas: str | Path | None = None) -> ClipAnalysis:
    """Count and measure what the areas ask, by the records of an annotated clip alone.

    Args:
        records: the .jsonl beside an annotated clip.
        areas: a YAML file, see `persondet.analysis.areas`; None: no lines and no zones.

    Raises: MediaError: when the records cannot be used. ConfigError: when the areas cannot, or
        belong to another clip.
    """
    header, frames = read_records(records)
    asked = read_areas(areas, header.width, header.height, header.source) if areas else Areas()
    every = tracks_of(frames, header, asked, records)
    in_view = np.zeros(len(every.clock.times), np.int64)
    heat_map = np.zeros(grid(header.width, header.height, CELL))
    stock = np.zeros((len(asked.lines), 2), np.int64)
    found: list[Any] = []
    way: list[SMALL] = []
    # In parts: each step of the way needs several times the memory of its tracks.
    for part in every.parts():
        people = part.confirmed()
        stocks = [stock_counts(part, line.points) for line in asked.lines]
        stock += np.array(stocks, np.int64).reshape(-1, 2)
        in_view += np.bincount(people.frames, minlength=len(in_view))
        heat_map += heat(people, header.width, header.height, CELL)
        way += ways(people)[: _MOST_WAYS - len(way)]
        ends = [people.times[rows] for rows in (people.starts[:-1], people.starts[1:] - 1)]
        columns: list[Any] = [people.ids, np.stack([*ends, people.seen], axis=1)]
        columns += [crossings(people, line.points)[0] for line in asked.lines]
        columns += [visits(people, zone.points, asked.grace) for zone in asked.zones]
        if asked.homography is not None:
            columns.append(walks(people, asked.homography))
        found.append(columns)
    ids, seen, *rest = zip(*found, strict=True)
    lines, zones = len(asked.lines), len(asked.zones)
    people_ids = np.concatenate(ids)
    return ClipAnalysis(
        records=Path(records),
        header=header,
        areas=asked,
        clock=every.clock,
        people=people_ids,
        seen=np.concatenate(seen),
        false_alarms=len(every) - len(people_ids),
        in_view=in_view,
        crossings=tuple(together(parts, "times") for parts in rest[:lines]),
        stock=tuple((int(into), int(out)) for into, out in stock),
        visits=tuple(together(parts, "enter") for parts in rest[lines : lines + zones]),
        walks=together(rest[-1]) if asked.homography is not None else None,
        heat=heat_map,
        ways=way,
    )


def write_tables(analysis: ClipAnalysis, folder: Path) -> None:
    """Write the tables and `analysis.json` into a folder."""
    areas, clock = analysis.areas, analysis.clock
    crossed = [
        (time, frame, track, line.name, "in" if into else "out")
        for line, found in zip(areas.lines, analysis.crossings, strict=True)
        for time, frame, track, into in zip(
            *(values.tolist() for values in (found.times, found.frames, found.tracks, found.into)),
            strict=True,
        )
    ]
    crossed.sort(key=lambda row: row[0])
    _write(folder / "crossings.csv", ("time", "frame", "track", "line", "direction"), crossed)
    visited = [
        (zone.name, track, enter, leave, leave - enter, "yes" if whole else "no")
        for zone, found in zip(areas.zones, analysis.visits, strict=True)
        for track, enter, leave, whole in zip(
            found.tracks.tolist(),
            found.enter.tolist(),
            found.leave.tolist(),
            ((found.first > 0) & (found.last < len(clock.times) - 1)).tolist(),
            strict=True,
        )
    ]
    header: Sequence[str] = ("zone", "track", "enter", "leave", "dwell", "complete")
    _write(folder / "visits.csv", header, visited)
    columns = [analysis.in_view, *(found.occupancy(clock) for found in analysis.visits)]
    counted = zip(
        *(values.tolist() for values in (clock.times, clock.indices, *columns)), strict=True
    )
    header = ("time", "frame", "in_view", *(zone.name for zone in areas.zones))
    _write(folder / "occupancy.csv", header, counted)
    followed = [analysis.people, *analysis.seen.T]
    header = ("track", "first", "last", "seen")
    if analysis.walks is not None:
        followed += [analysis.walks.metres, analysis.walks.mean, analysis.walks.top]
        header = (*header, "metres", "mean_speed", "top_speed")
    rows = zip(*(values.tolist() for values in followed), strict=True)
    _write(folder / "tracks.csv", header, rows)
    write_json(folder / JSON, analysis.summary())


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table; seconds and metres to the millionth, an unknown number as nothing."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow([_cell(value) for value in row])


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return "" if value != value else f"{value:.6f}".rstrip("0").rstrip(".")


def _rounded(value: Any) -> float:
    return round(float(value), 6)

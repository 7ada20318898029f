"""What a job consists of: clips, and shards of up to 500 images, kept on disk and not in memory.

A million files are listed once, into a temporary SQLite database, which also knows what an earlier
call has written down about an item (`ledger`).
"""

from __future__ import annotations

import json
import math
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from persondet.batch.store import Store
from persondet.data.image_file import is_image_name
from persondet.errors import MediaError
from persondet.video.clip_files import ANNOTATED, CLIP_SUFFIXES, is_result_name

IMAGES_PER_SHARD = 500


@dataclass(frozen=True)
class SourceFile:
    """A file of the input: its name relative to the input, bytes, and when it was changed."""

    name: str
    size: int
    changed: str


@dataclass(frozen=True)
class JobItem:
    """What one worker does at a time.

    name: of the clip; of a shard of images `<folder>/images-00000`; kind: which of the two;
    target: the annotated clip, or a shard's records, relative to the output; files: the clip alone,
    or the images; known: an earlier call has counted what is in its result; start, end: of the part
    of a long clip, seconds, whose name ends with `#` and its number.
    """

    name: str
    kind: Literal["clip", "images"]
    target: str
    files: tuple[SourceFile, ...]
    known: bool = False
    start: Fraction | None = None
    end: Fraction | None = None


_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -2000;
CREATE TABLE files
  (folder TEXT, name TEXT, stem TEXT, size INT, changed TEXT, clip INT, parts INT);
CREATE TABLE past (name TEXT PRIMARY KEY, line TEXT) WITHOUT ROWID;
CREATE TABLE now (name TEXT PRIMARY KEY, line TEXT) WITHOUT ROWID;
"""
_INDEXES = """
CREATE INDEX by_stem ON files (stem) WHERE clip;
CREATE INDEX by_name ON files (name) WHERE clip;
CREATE INDEX by_size ON files (size DESC, name) WHERE clip;
CREATE INDEX by_folder ON files (folder, name) WHERE NOT clip;
"""


class ItemTable:
    """All items of a job, and what is known of each, in a file that goes with the object.

    Attributes:
        clips, images, others: number of files that are clips, images, neither.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="persondet-items-")
        path = Path(self._folder.name) / "items.sqlite"
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.executescript(_TABLES)
        self.clips = self.images = self.others = 0
        self._span: Fraction | None = None

    def __enter__(self) -> ItemTable:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
        self._folder.cleanup()

    def list_files(self, source: Store, *, besides: str = "", span: Fraction | None = None) -> None:
        """List the clips and images of a store; results of earlier calls are no input.

        Args:
            besides: a folder below the store's root that is passed over, as the output in it.
            span: seconds; a clip that is longer becomes parts of that length.

        Raises: MediaError: when there are none, or clips behind an address should be cut.
        """
        if span and source.remote:
            raise MediaError(
                f"{source.label}: clips behind an address are not cut; copy them to a folder, or "
                "leave --span out."
            )
        self._span = span
        rows = self._rows(source, besides)
        with self._transaction():
            self._database.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._database.executescript(_INDEXES)
        if not self.clips + self.images:
            raise MediaError(f"{source.label} holds neither a clip nor an image.")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN")
        yield
        self._database.execute("COMMIT")

    def _rows(self, source: Store, besides: str) -> Iterator[tuple[Any, ...]]:
        for name, size, changed in source.walk():
            path = PurePosixPath(name)
            if besides and path.is_relative_to(besides):
                continue
            clip = path.suffix.lower() in CLIP_SUFFIXES
            if clip and is_result_name(path.stem):
                continue
            image = not clip and is_image_name(name)
            self.clips += clip
            self.images += image
            self.others += not (clip or image)
            if clip or image:
                stem = path.with_suffix("").as_posix()
                parts = _parts(source, name, self._span) if clip and self._span else 1
                yield path.parent.as_posix(), name, stem, size, changed, clip, parts

    def __len__(self) -> int:
        shards = self._database.execute(
            "SELECT sum((n + ?) / ?) FROM (SELECT count(*) AS n FROM files WHERE NOT clip"
            " GROUP BY folder)",
            (IMAGES_PER_SHARD - 1, IMAGES_PER_SHARD),
        ).fetchone()[0]
        parts = self._database.execute("SELECT sum(parts) FROM files WHERE clip").fetchone()[0]
        return int(parts or 0) + int(shards or 0)

    def __iter__(self) -> Iterator[JobItem]:
        """Yield clips, the largest first, then shards of images."""
        rows = self._database.execute(
            "SELECT name, stem, size, changed, parts FROM files WHERE clip ORDER BY size DESC, name"
        )
        for name, stem, size, changed, parts in rows:
            alike = self._database.execute(
                "SELECT (SELECT count(*) FROM files WHERE clip AND stem = ?1)"
                " + (SELECT count(*) FROM files WHERE clip AND name = ?1)",
                (stem,),
            ).fetchone()[0]
            target = name if alike > 1 else stem
            files = (SourceFile(name, size, changed),)
            if parts == 1:
                whole = f"{target}{ANNOTATED}.mp4"
                yield JobItem(name, "clip", whole, files, self._is_known(name))
                continue
            for number in range(parts):
                part, start = f"{name}#{number:04d}", number * (self._span or Fraction(0))
                end = None if number == parts - 1 else start + (self._span or 0)
                place = f"{target}.{number:04d}{ANNOTATED}.mp4"
                yield JobItem(part, "clip", place, files, self._is_known(part), start, end)
        rows = self._database.execute(
            "SELECT folder, name, size, changed FROM files WHERE NOT clip ORDER BY folder, name"
        )
        yield from self._shards(rows)

    def _shards(self, rows: Iterable[tuple[str, str, int, str]]) -> Iterator[JobItem]:
        folder, number, files = "", 0, list[SourceFile]()
        for its_folder, name, size, changed in rows:
            if files and (its_folder != folder or len(files) == IMAGES_PER_SHARD):
                yield self._shard(folder, number, files)
                number = number + 1 if its_folder == folder else 0
                files = []
            elif its_folder != folder:
                number = 0
            folder = its_folder
            files.append(SourceFile(name, size, changed))
        if files:
            yield self._shard(folder, number, files)

    def _shard(self, folder: str, number: int, files: list[SourceFile]) -> JobItem:
        name = (PurePosixPath(folder) / f"images-{number:05d}").as_posix()
        return JobItem(name, "images", f"{name}.records.jsonl", tuple(files), self._is_known(name))

    def _is_known(self, name: str) -> bool:
        return self._database.execute("SELECT 1 FROM past WHERE name = ?", (name,)).fetchone() is (
            not None
        )

    def remember(self, lines: Iterable[str]) -> None:
        """Take over the lines of an earlier ledger; later lines of an item replace earlier ones."""
        with self._transaction():
            for line in lines:
                row = json.loads(line)
                if row["state"] in ("done", "partial"):
                    values = row["source"], line
                    self._database.execute("INSERT OR REPLACE INTO past VALUES (?, ?)", values)

    def past(self, name: str) -> dict[str, Any]:
        """Return what an earlier call has written down about an item; empty if nothing."""
        found = self._database.execute("SELECT line FROM past WHERE name = ?", (name,)).fetchone()
        return json.loads(found[0]) if found else {}

    def settle(self, name: str, line: str) -> None:
        """Keep the line of an item that is finished with."""
        self._database.execute("INSERT OR REPLACE INTO now VALUES (?, ?)", (name, line))

    def settled(self) -> Iterator[str]:
        """Yield the lines of all items that are finished with, in the order of their names."""
        for (line,) in self._database.execute("SELECT line FROM now ORDER BY name"):
            yield line


def _parts(source: Store, name: str, span: Fraction) -> int:
    """Return how many parts a clip has; one that says no length, or cannot be read, stays whole."""
    from persondet.video.reader import VideoReader

    try:
        with source.fetched(name) as path, VideoReader(path) as reader:
            return max(1, math.ceil((reader.duration or 0) / span))
    except (MediaError, OSError):
        return 1

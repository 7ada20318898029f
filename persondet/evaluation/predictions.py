"""Predictions go to disk image by image: memory holds no more than where each image's stand.

A COCO results file, read image by image: memory holds no more than where each image's stand.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from persondet.errors import PersondetError
from persondet.files import make_folder

try:
    import fcntl
except ModuleNotFoundError:  # Windows: what a killed process leaves is not removed there
    fcntl = None  # type: ignore[assignment]
from collections.abc import Collection
from typing import overload


class Detection(msgspec.Struct):
    """One prediction as it stands in the file, COCO's names.

    Attributes:
        image_id, category_id: as in the ground truth.
        bbox: XYWH_ABS, pixels.
        score: 0 to 1.
        segmentation: `{"size": [H, W], "counts": str}`, or None; polygons where another hand wrote
            the file.
    """

    image_id: int
    category_id: int
    bbox: list[float]
    score: float
    segmentation: Any = None


_DECODER = msgspec.json.Decoder(list[Detection])
_ENCODER = msgspec.json.Encoder()
_PREFIX, _SUFFIX = ".predictions.", ".json"
Block = tuple[int, bytes]


def remove_abandoned(folder: str | Path) -> None:
    """Remove what killed processes left of their predictions; files in use are locked, and stay.

    Args:
        folder: that was given to `PredictionFile`.
    """
    if fcntl is None:
        return
    for path in Path(folder).glob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError), path.open("rb") as file:  # locked, not ours, or gone meanwhile
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


class PredictionFile:
    """A COCO results file that is written image by image, and read the same way.

    Until `publish` gives it its name it has a hidden one. To be closed by `close`, or used as a
    context manager.

    Args:
        folder: where the file will stand; None: among the system's temporary files.

    Raises: OutputExistsError: when the folder cannot be made.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        if folder is not None:
            make_folder(folder)
        handle, name = tempfile.mkstemp(prefix=_PREFIX, suffix=_SUFFIX, dir=folder)
        self._path: Path | None = Path(name)
        self._file = os.fdopen(handle, "w+b")
        if fcntl is not None:
            with suppress(OSError):  # a file system that knows no locks
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._end = self._write(b"[")
        # Image id → where its blocks stand: offset and length.
        self._blocks: dict[int, list[tuple[int, int]]] = {}

    def add(self, image_id: int, detections: Sequence[dict[str, Any]]) -> None:
        """Append what was found on an image, in this order; see `Detection` for the keys."""
        self._append(image_id, _ENCODER.encode(detections)[1:-1])

    def read(self, image_id: int) -> list[Detection]:
        """Return what was found on an image, in the order in which it was added."""
        found: list[Detection] = []
        for offset, length in self._blocks.get(image_id, ()):
            self._file.seek(offset)
            found += _DECODER.decode(b"[" + self._file.read(length) + b"]")
        return found

    @property
    def image_ids(self) -> list[int]:
        """The images that were added, those on which nothing was found among them."""
        return list(self._blocks)

    @property
    def count_bytes(self) -> int:
        """The length of the file so far."""
        return self._end

    @property
    def is_empty(self) -> bool:
        """Whether nothing was found on any image."""
        return not any(length for blocks in self._blocks.values() for _, length in blocks)

    def blocks(self, limit: int) -> Iterator[list[Block]]:
        """Yield the file's content in parts of about `limit` bytes, for another file's `extend`."""
        part: list[Block] = []
        size = 0
        for image_id, places in self._blocks.items():
            for offset, length in places:
                self._file.seek(offset)
                part.append((image_id, self._file.read(length)))
                size += length + 64  # what a block costs besides
                if size >= limit:
                    yield part
                    part, size = [], 0
        if part:
            yield part

    def extend(self, blocks: Iterable[Block]) -> None:
        """Append what another file's `blocks` yielded."""
        for image_id, block in blocks:
            self._append(image_id, block)

    def publish(self, path: str | Path) -> None:
        """End the file and give it its name, in place of what stood there; it can be read on.

        Raises: PersondetError: when the disk is full.
        """
        if self._path is None:
            return
        self._file.seek(self._end)
        self._write(b"]\n")
        self._flush()
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(self._path, 0o666 & ~mask)
        os.replace(self._path, path)
        self._path = None

    def close(self) -> None:
        """Close the file; without `publish` nothing of it stays."""
        self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _append(self, image_id: int, block: bytes) -> None:
        places = self._blocks.setdefault(image_id, [])
        if not block:
            return
        self._file.seek(self._end)
        if self._end > 1:
            self._end += self._write(b",\n")
        places.append((self._end, len(block)))
        self._end += self._write(block)

    def _write(self, content: bytes) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            raise self._full(error) from error

    def _flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> PersondetError:
        return PersondetError(
            f"{self._path}: the predictions cannot be written ({error.strerror or error}); "
            "make room, or choose another OUTPUT_DIR."
        )


class _NotOurs(Exception):
    """The file has not the lines that `PredictionFile` writes."""


class _Place(msgspec.Struct):
    """What has to be known of every prediction, the rest of it left undecoded."""

    image_id: int
    category_id: int
    segmentation: msgspec.Raw = msgspec.Raw(b"null")


_PLACES = msgspec.json.Decoder(list[_Place])
_DETECTIONS = msgspec.json.Decoder(list[Detection])
_NOTHING = {b"null", b"[]", b"{}", b'""'}


class PredictionReader(Sequence[list[dict[str, Any]]]):
    """The predictions of a COCO results file by image: each image's are read when they are asked for.

    A file as `PredictionFile` writes it has a line for each part of an image's predictions. Any
    other one is kept in memory as a whole.

    Args:
        path: of the file; one that is not there holds no predictions.
        image_ids: what the number of an image stands for.
        class_numbers: category id to class number. As in pycocotools, what is of no known image or
            category plays no part.

    Attributes:
        have_masks: whether every prediction has one.

    Raises: PersondetError: when the file is damaged.
    """

    def __init__(
        self, path: str | Path, image_ids: Sequence[int], class_numbers: dict[int, int]
    ) -> None:
        self._path = Path(path)
        self._image_ids = image_ids
        self._class_numbers = class_numbers
        self.have_masks = True
        # Image id → where its lines stand: offset and length.
        self._lines: dict[int, list[tuple[int, int]]] = {}
        self._held: dict[int, list[Detection]] | None = None
        if self._path.is_file():
            self._look_through(set(image_ids))

    def __len__(self) -> int:
        return len(self._image_ids)

    @overload
    def __getitem__(self, number: int) -> list[dict[str, Any]]: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[list[dict[str, Any]]]: ...

    def __getitem__(
        self, number: int | slice
    ) -> list[dict[str, Any]] | Sequence[list[dict[str, Any]]]:
        """Return the predictions on an image as COCO has them, with `class`, by falling score.

        Of equal scores the one that stands first in the file comes first.
        """
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        found = [
            msgspec.structs.asdict(one) | {"class": self._class_numbers[one.category_id]}
            for one in self._read(self._image_ids[number])
            if one.category_id in self._class_numbers
        ]
        return sorted(found, key=lambda prediction: -prediction["score"])

    def _read(self, image_id: int) -> list[Detection]:
        if self._held is not None:
            return self._held.get(image_id, [])
        found: list[Detection] = []
        places = self._lines.get(image_id)
        if places:
            with self._path.open("rb") as file:
                for offset, length in places:
                    file.seek(offset)
                    found += _DETECTIONS.decode(b"[" + file.read(length) + b"]")
        return found

    def _look_through(self, known: Collection[int]) -> None:
        try:
            for offset, records in self._record_lines():
                places = _PLACES.decode(b"[" + records + b"]")
                images = {place.image_id for place in places}
                if len(images) > 1:
                    raise _NotOurs
                self._note_masks(places, known)
                for image_id in images & set(known):
                    self._lines.setdefault(image_id, []).append((offset, len(records)))
        except (_NotOurs, msgspec.MsgspecError):
            self._hold(known)

    def _record_lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield where each line's records begin, and the records, without what is around them."""
        offset, ended = 0, False
        with self._path.open("rb") as file:
            for line in file:
                if ended or not (offset or line.startswith(b"[")):
                    raise _NotOurs
                start = 0 if offset else 1
                records = line[start:].rstrip()
                ended = records.endswith(b"]")
                if records != b"]" and not records.endswith((b"},", b"}]")):
                    raise _NotOurs
                yield offset + start, records[:-1]
                offset += len(line)
        if not ended:
            raise _NotOurs

    def _hold(self, known: Collection[int]) -> None:
        """Read the whole file, of another hand than ours."""
        self._lines, self.have_masks, self._held = {}, True, {}
        content = self._path.read_bytes()
        try:
            self._note_masks(_PLACES.decode(content), known)
            for one in _DETECTIONS.decode(content):
                self._held.setdefault(one.image_id, []).append(one)
        except msgspec.MsgspecError as error:
            raise PersondetError(
                f"{self._path}: not a list of COCO predictions ({error}); "
                "evaluate again with --eval-only."
            ) from error

    def _note_masks(self, places: Sequence[_Place], known: Collection[int]) -> None:
        self.have_masks = self.have_masks and all(
            bytes(place.segmentation) not in _NOTHING
            for place in places
            if place.image_id in known and place.category_id in self._class_numbers
        )

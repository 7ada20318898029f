"""A COCO results file, written and read image by image.

Memory holds no more than where the predictions on each image stand.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


FILE_NAME = "coco_instances_results.json"


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
    def places(self) -> dict[int, list[tuple[int, int]]]:
        """Where the predictions on each image stand: offset and length, bytes."""
        return self._blocks

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


class _ImageId(msgspec.Struct):
    """The image of a prediction, the rest of it left undecoded."""

    image_id: int


_IMAGE_IDS = msgspec.json.Decoder(list[_ImageId])


class PredictionReader:
    """The predictions of a COCO results file, read image by image as they are asked for.

    A file as `PredictionFile` writes it has a line for each part of an image's predictions. Any
    other file is kept in memory as a whole.

    Args:
        path: of the file; one that is not there holds no predictions.
        blocks: where the lines of each image stand (`PredictionFile.places`); None: look.

    Raises: PersondetError: when the file is damaged.
    """

    def __init__(
        self, path: str | Path, blocks: Mapping[int, Sequence[tuple[int, int]]] | None = None
    ) -> None:
        self._path = Path(path)
        self._held: dict[int, list[Detection]] | None = None
        self._blocks = blocks if blocks is not None else {}
        if blocks is None and self._path.is_file():
            lines = _image_lines(self._path)
            if lines is None:
                self._held = _whole_file(self._path)
            else:
                self._blocks = lines

    def read(self, image_id: int) -> list[Detection]:
        """Return the predictions on an image, in the order of the file."""
        if self._held is not None:
            return self._held.get(image_id, [])
        detections: list[Detection] = []
        places = self._blocks.get(image_id)
        if places:
            with self._path.open("rb") as file:
                for offset, length in places:
                    file.seek(offset)
                    detections += _decoded(self._path, b"[" + file.read(length) + b"]")
        return detections


def _image_lines(path: Path) -> dict[int, list[tuple[int, int]]] | None:
    """Return where the lines of each image stand; None when the file has not our lines."""
    places: dict[int, list[tuple[int, int]]] = {}
    offset, ended = 0, False
    with path.open("rb") as file:
        for line in file:
            start = 0 if offset else 1
            records = line[start:].rstrip()
            if ended or (start and not line.startswith(b"[")):
                return None
            ended = records.endswith(b"]")
            if records != b"]" and not records.endswith((b"},", b"}]")):
                return None
            try:
                ids = {one.image_id for one in _IMAGE_IDS.decode(b"[" + records[:-1] + b"]")}
            except msgspec.MsgspecError:
                return None
            if len(ids) > 1:
                return None
            for image_id in ids:
                places.setdefault(image_id, []).append((offset + start, len(records) - 1))
            offset += len(line)
    return places if ended else None


def _whole_file(path: Path) -> dict[int, list[Detection]]:
    held: dict[int, list[Detection]] = {}
    for one in _decoded(path, path.read_bytes()):
        held.setdefault(one.image_id, []).append(one)
    return held


def _decoded(path: Path, content: bytes) -> list[Detection]:
    try:
        return _DECODER.decode(content)
    except msgspec.MsgspecError as error:
        raise PersondetError(
            f"{path}: not a list of COCO predictions ({error}); evaluate again with --eval-only."
        ) from error

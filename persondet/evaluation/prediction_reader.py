"""A COCO results file, read image by image: memory holds no more than where each image's stand."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import msgspec

from persondet.errors import PersondetError
from persondet.evaluation.prediction_file import Detection


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

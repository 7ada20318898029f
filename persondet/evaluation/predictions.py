"""A COCO results file, written and read image by image.

Memory holds no more than where the predictions on each image stand.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from persondet.errors import PersondetError
from persondet.files import atomic_path, make_folder

FILE_NAME = "coco_instances_results.json"


class Detection(msgspec.Struct):
    """One prediction as it stands in the file, COCO's names.

    Attributes:
        image_id, category_id: as in the ground truth.
        bbox: XYWH_ABS, pixels.
        score: 0 to 1.
        segmentation: `{"size": [H, W], "counts": str}`, or None; polygons in a file from elsewhere.
    """

    image_id: int
    category_id: int
    bbox: list[float]
    score: float
    segmentation: Any = None


_DECODER = msgspec.json.Decoder(list[Detection])
_ENCODER = msgspec.json.Encoder()
Block = tuple[int, bytes]


class PredictionFile:
    """The predictions on a dataset, written image by image and read the same way.

    They lie in a file without a name, so a killed process leaves nothing. `publish` copies them.

    Args:
        folder: on whose disk the file lies; None: among the system's temporary files.

    Raises: OutputExistsError: when the folder cannot be made.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        if folder is not None:
            make_folder(folder)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by the next line
        weakref.finalize(self, self._file.close)
        self._end = 0
        self._places: dict[int, list[tuple[int, int]]] = {}  # image → offset and length, bytes

    def add(self, image_id: int, detections: Sequence[dict[str, Any]]) -> None:
        """Append the predictions on an image; see `Detection` for the keys.

        Raises: PersondetError: when the disk is full.
        """
        self.extend([(image_id, _ENCODER.encode(detections)[1:-1])])

    def read(self, image_id: int) -> list[Detection]:
        """Return the predictions on an image, in the order in which they were added."""
        found: list[Detection] = []
        for place in self._places.get(image_id, ()):
            found += _DECODER.decode(b"[" + self._block(*place) + b"]")
        return found

    @property
    def image_ids(self) -> list[int]:
        """The images that were added, those without predictions among them."""
        return list(self._places)

    @property
    def is_empty(self) -> bool:
        """Whether there is no prediction on any image."""
        return not self._end

    def blocks(self) -> Iterator[Block]:
        """Yield the predictions of each call of `add`, for another file's `extend`."""
        for image_id, places in self._places.items():
            for place in places or [(0, 0)]:
                yield image_id, self._block(*place)

    def extend(self, blocks: Iterable[Block]) -> None:
        """Append what another file's `blocks` yielded."""
        for image_id, block in blocks:
            places = self._places.setdefault(image_id, [])
            if block:
                places.append((self._end, len(block)))
                self._end += len(block)
                self._append(block)

    def publish(self, path: str | Path) -> None:
        """Write a COCO results file, with a line for each call of `add`.

        Raises: OutputExistsError: when the disk is full.
        """
        with atomic_path(path) as draft, draft.open("wb") as file:
            separator = b"["
            for _, block in self.blocks():
                if block:
                    file.write(separator + block)
                    separator = b",\n"
            file.write(b"[]\n" if self.is_empty else b"]\n")

    def _block(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)

    def _append(self, block: bytes) -> None:
        try:
            self._file.seek(0, 2)
            self._file.write(block)
            self._file.flush()
        except OSError as error:
            raise PersondetError(
                f"the predictions cannot be written ({error.strerror or error}); make room, or "
                "choose another OUTPUT_DIR."
            ) from error


def read_predictions(path: str | Path, image_ids: Iterable[int]) -> dict[int, list[Detection]]:
    """Return the predictions on some images, in the order of a COCO results file.

    Args:
        path: of a file that `PredictionFile.publish` wrote, or another without line breaks inside
            a prediction.
        image_ids: of the images.

    Raises: PersondetError: when the file is damaged.
    """
    found: dict[int, list[Detection]] = {image_id: [] for image_id in image_ids}
    try:
        with Path(path).open("rb") as file:
            for line in file:
                for one in _DECODER.decode(b"[" + line.strip(b"[], \r\n") + b"]"):
                    if one.image_id in found:
                        found[one.image_id].append(one)
    except msgspec.MsgspecError as error:
        raise PersondetError(
            f"{path}: not a list of COCO predictions ({error}); evaluate again with --eval-only."
        ) from error
    return found

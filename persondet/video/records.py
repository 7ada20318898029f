"""The records of a clip: JSON lines beside the video, one per frame, whole or not at all.

The first line is the header, each further line a frame:

    {"schema": "persondet-video-records", "version": 1, "source": "walk.mp4", "model": …,
     "classes": ["person"], "confidence_threshold": 0.5, "width": 640, "height": 360,
     "fps": 29.97003, "frame_rate": "30000/1001"}
    {"index": 0, "time": 0.0, "people": [{"box": [x0, y0, x1, y1], "score": 0.98,
     "class": "person", "mask": "<COCO counts>" or null, "track_id": null}]}

Boxes are XYXY_ABS in pixels, times seconds from the start of the clip, masks COCO's compressed
run-length counts for (height, width). `index` counts the source's frames, so a stride leaves gaps.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from persondet.errors import MediaError
from persondet.files import atomic_path
from persondet.masks import decode_mask, encode_mask

if TYPE_CHECKING:
    from detectron2.structures import Instances

logger = logging.getLogger(__name__)

SCHEMA = "persondet-video-records"
VERSION = 1


@dataclass(frozen=True)
class RecordsHeader:
    """What holds for all frames of a clip.

    source: file name of the clip; model: name of the model's file; classes: class names;
    confidence_threshold: lowest score that is kept; width, height: pixels of the source's upright
    frames; frame_rate: frames per second of the annotated clip.
    """

    source: str
    model: str
    classes: tuple[str, ...]
    confidence_threshold: float
    width: int
    height: int
    frame_rate: Fraction


@dataclass(frozen=True)
class PersonRecord:
    """One detection: box (XYXY_ABS, pixels), score 0..1, class name, COCO counts, track."""

    box: tuple[float, float, float, float]
    score: float
    class_name: str
    mask: str | None = None
    track_id: int | None = None

    def decode_mask(self, header: RecordsHeader) -> np.ndarray | None:
        """Return the mask, bool (H, W), or None when the model makes none."""
        return None if self.mask is None else decode_mask(self.mask, header.height, header.width)


@dataclass(frozen=True)
class FrameRecord:
    """The detections of one frame; index in the source, time in seconds from its start."""

    index: int
    time: float
    people: tuple[PersonRecord, ...]


def people_of(instances: Instances, classes: Sequence[str]) -> tuple[PersonRecord, ...]:
    """Turn a model's output into records, rounded to what is worth keeping.

    Args:
        instances: `pred_boxes scores pred_classes [pred_masks] [ID]`, on any device.
        classes: the class names by number.

    Returns: one record per detection with finite numbers; others are left out, and logged.
    """
    boxes = instances.pred_boxes.tensor.cpu().numpy().astype(np.float64)
    scores = instances.scores.cpu().numpy().astype(np.float64)
    numbers = instances.pred_classes.cpu().numpy()
    masks = np.asarray(instances.pred_masks.cpu()) if instances.has("pred_masks") else None
    tracks = [int(track) for track in instances.ID] if instances.has("ID") else None
    people = []
    for i, (box, score) in enumerate(zip(boxes, scores, strict=True)):
        if not (np.isfinite(box).all() and math.isfinite(score)):
            logger.warning("a detection with a box of %s and a score of %s is left out", box, score)
            continue
        x0, y0, x1, y1 = (round(float(value), 2) for value in box)
        people.append(
            PersonRecord(
                box=(x0, y0, x1, y1),
                score=round(float(score), 4),
                class_name=classes[int(numbers[i])],
                mask=None if masks is None else encode_mask(masks[i], box)["counts"],
                track_id=None if tracks is None else tracks[i],
            )
        )
    return tuple(people)


class RecordsWriter:
    """Writes records line by line; they appear under their name when the `with` block succeeds."""

    def __init__(self, path: str | Path, header: RecordsHeader) -> None:
        """Remember the target; nothing is written before the block is entered."""
        self.path = Path(path)
        self.header = header
        self._target: AbstractContextManager[Path] | None = None
        self._file: IO[str] | None = None

    def __enter__(self) -> RecordsWriter:
        self._target = atomic_path(self.path)
        self._file = open(self._target.__enter__(), "w", encoding="utf-8")
        header = asdict(self.header)
        rate = header.pop("frame_rate")
        rates = {"fps": round(float(rate), 6), "frame_rate": str(rate)}
        self._write({"schema": SCHEMA, "version": VERSION, **header, **rates})
        return self

    def write(self, frame: FrameRecord) -> None:
        """Append a frame.

        Raises: ValueError: when a number is not finite.
        """
        people = []
        for person in frame.people:
            row = asdict(person)
            row["class"] = row.pop("class_name")
            people.append(row)
        self._write({"index": frame.index, "time": round(frame.time, 6), "people": people})

    def _write(self, row: dict[str, Any]) -> None:
        """Append one line of JSON."""
        assert self._file is not None
        text = json.dumps(row, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        self._file.write(text + "\n")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._file is not None
        assert self._target is not None
        try:
            self._file.close()
        except OSError as failure:
            self._target.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._target.__exit__(kind, error, trace)


def read_records(path: str | Path) -> tuple[RecordsHeader, Iterator[FrameRecord]]:
    """Read records: the header at once, the frames one by one as they are asked for.

    A last line that was cut off (a killed run, a copy in progress) ends the frames with a warning.

    Raises: MediaError: when the file is missing or is not of this schema and version; and from
        the frames, when a line in the middle is damaged.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8") as file:
            row = json.loads(file.readline())
    except OSError as error:
        raise MediaError(f"{path}: the records cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise MediaError(f"{path}: line 1 is no JSON; give the .jsonl beside a video.") from error
    if not isinstance(row, dict) or row.get("schema") != SCHEMA or row.get("version") != VERSION:
        raise MediaError(
            f"{path}: line 1 is not the header of {SCHEMA} version {VERSION}; "
            "give the .jsonl beside an annotated video, or annotate the video again."
        )
    try:
        fields = RecordsHeader.__dataclass_fields__
        values = {name: row[name] for name in fields}
        values |= {"classes": tuple(row["classes"]), "frame_rate": Fraction(row["frame_rate"])}
        header = RecordsHeader(**values)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise MediaError(f"{path}: the header lacks or spoils the field {error}.") from error
    return header, _read_frames(path)


def _read_frames(path: Path) -> Iterator[FrameRecord]:
    """Yield the frames of a records file whose header was read."""
    with open(path, encoding="utf-8", errors="replace") as file:
        next(file)
        for number, line in enumerate(file, start=2):
            try:
                yield _frame_of(json.loads(line))
            except (KeyError, TypeError, ValueError) as error:
                if not line.endswith("\n"):
                    logger.warning("%s: the last line (%d) is cut off", path, number)
                    return
                raise MediaError(f"{path}: line {number} is no frame record.") from error


def _frame_of(row: dict[str, Any]) -> FrameRecord:
    """Build a frame from its JSON object."""
    people = tuple(
        PersonRecord(
            box=(*map(float, person["box"]),),  # type: ignore[arg-type]
            score=float(person["score"]),
            class_name=str(person["class"]),
            mask=person.get("mask"),
            track_id=person.get("track_id"),
        )
        for person in row["people"]
    )
    return FrameRecord(index=int(row["index"]), time=float(row["time"]), people=people)

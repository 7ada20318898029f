"""The records of a clip: JSON lines beside the video, one per frame.

The first line is the header, each further line a frame:

    {"schema": "persondet-video-records", "version": 2, "source": "walk.mp4", "model": …,
     "classes": ["person"], "confidence_threshold": 0.5, "width": 640, "height": 360,
     "start": 0.0, "tracker": "Norfair" or null, "fps": 29.97003, "frame_rate": "30000/1001",
     ["fingerprint": {…}, "damage": "…"]}
    {"index": 0, "time": 0.0, "people": [{"box": [x0, y0, x1, y1], "score": 0.98,
     "class": "person", "mask": "<COCO counts>" or null, "track_id": 1 or null}],
     "unique": 1 or null}

Boxes are XYXY_ABS in pixels, times are seconds from the start of the source, masks are COCO's
compressed run-length counts for (height, width). `index` counts the frames of the source: a stride
leaves gaps, a later start begins with a higher number. `fingerprint` says what the result was made
of (`persondet.batch.options`), `damage` where a broken source ended. `track_id` counts from 1 in
the order of appearance; `unique` is the number of different people so far. Version 1 had neither
`start`, `tracker` nor `unique`.

`write_mot` turns records into MOT-challenge text, which other tracking tools read: one line per
detection, `frame,id,left,top,width,height,score,-1,-1,-1`. Frames count from 1 over the annotated
clip, pixels also from 1: the corner of an image is (1, 1).
Source: Leal-Taixé et al., "MOTChallenge 2015", arXiv:1504.01942, table of the file format.

This module needs neither PyTorch nor Detectron2.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from persondet.errors import MediaError
from persondet.files import PartialText, atomic_path

if TYPE_CHECKING:
    from detectron2.structures import Instances

logger = logging.getLogger(__name__)

SCHEMA = "persondet-video-records"
VERSION = 2
_READABLE = (1, VERSION)
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


@dataclass(frozen=True)
class RecordsHeader:
    """What holds for all frames of a clip.

    source: file name of the clip; model: the model's file in its run folder; classes: class names;
    confidence_threshold: lowest score that is kept; width, height: pixels of the upright frames;
    frame_rate: frames per second of the annotated clip; start: seconds of the source before the
    first frame; tracker: its name, None without tracking; fingerprint: what the result was made of,
    see `persondet.batch.options`; damage: one sentence if the source is broken and frames are
    missing.
    """

    source: str
    model: str
    classes: tuple[str, ...]
    confidence_threshold: float
    width: int
    height: int
    frame_rate: Fraction
    start: float = 0.0
    tracker: str | None = None
    fingerprint: dict[str, Any] | None = None
    damage: str = ""


class PersonRecord(msgspec.Struct, frozen=True, gc=False):
    """One detection: box (XYXY_ABS, pixels), score 0..1, class name, COCO counts, track."""

    box: tuple[float, float, float, float]
    score: float
    class_name: str = msgspec.field(name="class")
    mask: str | None = None
    track_id: _Int64 | None = None

    def decode_mask(self, header: RecordsHeader) -> np.ndarray | None:
        """Return the mask, bool (H, W), or None when the model has no masks."""
        return None if self.mask is None else decode_mask(self.mask, header.height, header.width)


class FrameRecord(msgspec.Struct, frozen=True):
    """The detections of one frame; index in the source, time in seconds from its start.

    unique: number of different people so far, None without tracking.
    """

    index: _Int64
    time: float
    people: tuple[PersonRecord, ...]
    unique: _Int64 | None = None


_FRAME = msgspec.json.Decoder(FrameRecord)


def decode_mask(counts: str, height: int, width: int) -> np.ndarray:
    """Return the mask, bool (height, width), of COCO's compressed run-length `counts`."""
    from pycocotools import mask

    return mask.decode({"size": [height, width], "counts": counts.encode("ascii")}).astype(bool)


def people_of(
    instances: Instances, classes: Sequence[str], masks: Sequence[Mapping[str, Any]] | None
) -> tuple[PersonRecord, ...]:
    """Turn a model's output into records.

    Args:
        instances: `pred_boxes scores pred_classes [ID]`, on any device.
        classes: the class names by number.
        masks: of each detection, as `persondet.inference.masks.encoded_masks` returns them.

    Returns: one record per detection. A warning lists detections with a number that is not finite;
        they are left out.
    """
    people = []
    for i, (box, score) in enumerate(
        zip(instances.pred_boxes.tensor.tolist(), instances.scores.tolist(), strict=True)
    ):
        if not all(map(math.isfinite, (*box, score))):
            logger.warning("a detection with a box of %s and a score of %s is left out", box, score)
            continue
        people.append(
            PersonRecord(
                box=(box[0], box[1], box[2], box[3]),
                score=score,
                class_name=classes[int(instances.pred_classes[i])],
                mask=None if masks is None else masks[i]["counts"],
                track_id=int(instances.ID[i]) if instances.has("ID") else None,
            )
        )
    return tuple(people)


def person_rows(people: Sequence[PersonRecord]) -> list[dict[str, Any]]:
    """Return detections as the schema's JSON objects, rounded to the precision worth keeping."""
    return [
        {
            "box": [round(value, 2) for value in person.box],
            "score": round(person.score, 4),
            "class": person.class_name,
            "mask": person.mask,
            "track_id": person.track_id,
        }
        for person in people
    ]


def json_line(row: Mapping[str, Any]) -> str:
    """Return an object as one line of JSON.

    Raises: ValueError: when a number is not finite.
    """
    return json.dumps(row, allow_nan=False, ensure_ascii=False, separators=(",", ":")) + "\n"


def records_path(output: str | Path) -> Path:
    """Return where the records of an annotated clip lie: beside it, named .jsonl."""
    return Path(output).with_suffix(".jsonl")


class RecordsWriter:
    """Writes records line by line, and each line at once: see `PartialText`.

    Args:
        path: the file to be; it is named `….partial.jsonl` until the `with` block ends well.
        header: its first line.
        overwrite: replace what an earlier run left at `path`, or as its partial file.

    Raises: OutputExistsError, MediaError: as `PartialText`.
    """

    def __init__(self, path: str | Path, header: RecordsHeader, *, overwrite: bool = False) -> None:
        self.path, self.header = Path(path), header
        self._text = PartialText(path, "records", overwrite=overwrite)

    def __enter__(self) -> RecordsWriter:
        with ExitStack() as stack:
            stack.enter_context(self._text).write(self._first_line(), header=True)
            stack.pop_all()  # it stays open
        return self

    def _first_line(self) -> str:
        header = asdict(self.header)
        rate = header.pop("frame_rate")
        rates = {"fps": round(float(rate), 6), "frame_rate": str(rate)}
        more = {name: header.pop(name) for name in ("fingerprint", "damage")}
        more = {name: value for name, value in more.items() if value}
        return json_line({"schema": SCHEMA, "version": VERSION, **header, **rates, **more})

    def write(self, frame: FrameRecord) -> None:
        """Append a frame; when this returns, a killed process no longer loses it.

        Raises: ValueError: when a number is not finite. MediaError: when the disk refuses.
        """
        people = person_rows(frame.people)
        row = {"index": frame.index, "time": round(frame.time, 6), "people": people}
        self._text.write(json_line(row | {"unique": frame.unique}))

    def note_damage(self, damage: str) -> None:
        """Say in the header that frames are missing at the end; no frame may follow."""
        self.header = replace(self.header, damage=damage)
        partial = self._text.partial
        with atomic_path(partial) as whole, open(partial, "rb") as old, open(whole, "wb") as new:
            next(old)
            new.write(self._first_line().encode(errors="backslashreplace"))
            shutil.copyfileobj(old, new)

    def __exit__(self, *exception: Any) -> None:
        self._text.__exit__(*exception)


def read_records(path: str | Path) -> tuple[RecordsHeader, Iterator[FrameRecord]]:
    """Read records: the header at once, the frames one by one as the caller asks for them.

    A last line that was cut off (a killed run, a copy in progress) ends the frames with a warning.

    Raises: MediaError: when the file is missing or has another schema or version; and from the
        frames, when a line in the middle is damaged.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8") as file:
            row = json.loads(file.readline())
        if row["schema"] != SCHEMA or row["version"] not in _READABLE:
            raise ValueError("another schema or version")
        known: dict[str, Any] = {"fingerprint": None, "damage": ""}
        known |= {"start": 0.0, "tracker": None} if row["version"] == 1 else {}
        values = {name: (known | row)[name] for name in RecordsHeader.__dataclass_fields__}
        values |= {"classes": tuple(row["classes"]), "frame_rate": Fraction(row["frame_rate"])}
    except OSError as error:
        raise MediaError(f"{path}: the records cannot be read ({error.strerror}).") from error
    except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise MediaError(
            f"{path}: line 1 is not the header of {SCHEMA} version 1 or {VERSION} ({error}); "
            "give the .jsonl beside an annotated video, or annotate the video again."
        ) from error
    return RecordsHeader(**values), _read_frames(path)


def _read_frames(path: Path) -> Iterator[FrameRecord]:
    """Yield the frames of a records file, without its header."""
    with open(path, "rb") as file:
        next(file)
        for number, line in enumerate(file, start=2):
            try:
                yield _FRAME.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if not line.endswith(b"\n"):
                    logger.warning("%s: the last line (%d) is cut off", path, number)
                    return
                raise MediaError(f"{path}: line {number} is no frame record ({error}).") from error


def mot_path(output: str | Path) -> Path:
    """Return where the MOT-challenge text of an annotated clip lies: beside it, named .txt."""
    return Path(output).with_suffix(".txt")


def write_mot(records: str | Path, target: str | Path) -> None:
    """Write records as MOT-challenge text, whole or not at all; without tracking every id is -1.

    Args:
        records: the .jsonl of an annotated clip; the .partial.jsonl of a killed run will do.
        target: the text file; an existing one is replaced.

    Raises: MediaError: when the records cannot be read. OutputExistsError: when the text cannot be
        written.
    """
    _, frames = read_records(records)
    with atomic_path(target) as temporary, open(temporary, "w", encoding="ascii") as file:
        for number, frame in enumerate(frames, start=1):
            file.writelines(_line_of_mot(number, person) for person in frame.people)


def _line_of_mot(number: int, person: PersonRecord) -> str:
    """Return the line of one detection."""
    x0, y0, x1, y1 = person.box
    place = f"{x0 + 1:.2f},{y0 + 1:.2f},{x1 - x0:.2f},{y1 - y0:.2f}"
    track = -1 if person.track_id is None else person.track_id
    return f"{number},{track},{place},{person.score:.4f},-1,-1,-1\n"

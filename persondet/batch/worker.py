"""The work on one item: is it finished, fetch it, annotate it, publish the result."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2

from persondet.batch.items import JobItem
from persondet.batch.options import (
    AnnotationOptions,
    annotate_clip,
    difference,
    fingerprint_of,
)
from persondet.batch.store import Store
from persondet.errors import MediaError, PersondetError
from persondet.records import mot_path, read_records, records_path
from persondet.video.reader import VideoReader

if TYPE_CHECKING:
    from persondet.inference.images import BatchPredictor

logger = logging.getLogger(__name__)

STILLS = "contact_sheet"
_STILL_WIDTH = 320  # pixels
# A shard's files in the output, by the names that `predict_images` gives them.
_OF_SHARD = {
    "predictions.json": ".predictions.json",
    "images.json": ".images.json",
    "records.jsonl": ".records.jsonl",
}

State = Literal["done", "partial", "failed", "refused"]


@dataclass(frozen=True)
class Outcome:
    """What became of an item: a line of the ledger.

    source, target: names relative to input and output; state: `done`, `partial` (the source is
    broken, what could be read is annotated), `failed`, or `refused` (there is another result of
    that name); reason: one sentence, unless done; frames: annotated frames, or images; people:
    detections in all of them; people_max: most in one; unique: different people of a clip; seconds:
    of work; node: the host; tries: how often it was begun; finished_before: nothing had to be done.
    """

    source: str
    target: str
    state: State
    reason: str = ""
    frames: int = 0
    people: int = 0
    people_max: int = 0
    unique: int | None = None
    seconds: float = 0.0
    node: str = field(default_factory=platform.node)
    tries: int = 1
    finished_before: bool = False

    def line(self) -> str:
        """Return the line of the ledger."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


def load_model(*args: Any, **more: Any) -> BatchPredictor:
    """Return what `persondet.inference.predictor.load_predictor` does; travels without PyTorch."""
    from persondet.environment import require_detectron2

    require_detectron2()
    from persondet.inference.predictor import load_predictor

    return load_predictor(*args, **more)


class Worker:
    """Annotates one item after the other with one model.

    Args:
        load: returns the predictor; called once, before the first item.
        source, output: where items lie and results go.
        options: how to annotate.
        overwrite: replace results that were made of something else.
        stills: publish a small image of each clip too, below `contact_sheet/`.
        threads: of the processor, for the model; None: all.

    Attributes:
        frames: how many frames (images) of the present item are done.
        on_frame: called with that number after each.
    """

    def __init__(
        self,
        load: Callable[[], BatchPredictor],
        source: Store,
        output: Store,
        options: AnnotationOptions,
        *,
        overwrite: bool = False,
        stills: bool = False,
        threads: int | None = None,
    ) -> None:
        self._load, self._source, self._output = load, source, output
        self._options, self._overwrite, self._stills = options, overwrite, stills
        self._threads = threads
        self._predictor: BatchPredictor | None = None
        self.frames = 0
        self._paths: dict[str, str] = {}
        self.on_frame: Callable[[int], None] | None = None

    def loaded(self) -> BatchPredictor:
        """Return the model, loaded at the first call.

        Raises: PersondetError: when it cannot be used.
        """
        if self._predictor is None:
            self._predictor = self._load()
            if self._threads:
                import torch

                torch.set_num_threads(self._threads)
                if hasattr(self._predictor, "workers"):
                    self._predictor.workers = min(self._predictor.workers, self._threads)
        return self._predictor

    def annotate(self, item: JobItem) -> Outcome:
        """Annotate an item unless that was done before; a bad item is an outcome, no error."""
        started, self.frames = time.monotonic(), 0
        self._paths.clear()
        predictor = self.loaded()
        try:
            found = self._annotate(item, predictor)
        except (PersondetError, OSError) as error:
            found = {"state": "failed", "reason": self._named(str(error))}
        except Exception as error:  # a bug must not stop the other items, nor be lost
            logger.exception("%s", item.name)
            reason = f"internal error, see the log ({type(error).__name__}: {error})"
            found = {"state": "failed", "reason": reason}
        seconds = round(time.monotonic() - started, 3)
        return Outcome(item.name, item.target, **({"seconds": seconds} | found))

    def _annotate(self, item: JobItem, predictor: BatchPredictor) -> dict[str, Any]:
        options = self._options
        if item.start is not None:
            options = replace(options, start=item.start, end=item.end)
        wanted = fingerprint_of(item.kind, item.files, self._source, predictor, options)
        target = item.target
        records = _records_of(item)
        line = self._output.first_line(records)
        if line is not None:
            header = _header_of(line)
            why = difference(header.get("fingerprint"), wanted)
            if not why and self._output.exists(target):
                return self._finished(item, records, header)
            if why and not self._overwrite:
                return _refused(f"{target} is there already and {why}")
        elif not self._overwrite and not self._output.exists(_claim(records)):
            # Without records a file is somebody's; a claim says that it is ours and was cut off.
            theirs = next(filter(self._output.exists, _results(item)), "")
            if theirs:
                return _refused(f"{theirs} is there already, without records beside it")
        with self._output.stage() as folder:
            self._paths[str(folder)] = self._output.label
            if item.kind == "images":
                return self._images(item, folder, predictor, wanted)
            return self._clip(item, folder, predictor, options, wanted)

    @contextmanager
    def _fetched(self, name: str) -> Iterator[Path]:
        with self._source.fetched(name) as path:
            self._paths[str(path)] = name
            yield path

    def _named(self, text: str) -> str:
        """Return a sentence with the item's names where it has those of local copies."""
        for path, name in self._paths.items():
            text = text.replace(path, name)
        return text

    def _finished(self, item: JobItem, records: str, header: dict[str, Any]) -> dict[str, Any]:
        damage = header.get("damage", "")
        found: dict[str, Any] = {"state": "partial" if damage else "done", "reason": damage}
        if not item.known:
            with self._output.fetched(records) as path:
                found |= _counted(map(json.loads, _lines_of(path)))
        return found | {"finished_before": True}

    def _clip(
        self,
        item: JobItem,
        folder: Path,
        predictor: BatchPredictor,
        options: AnnotationOptions,
        wanted: dict[str, Any],
    ) -> dict[str, Any]:
        target = folder / Path(item.target).name
        with self._fetched(item.files[0].name) as clip:
            summary = annotate_clip(
                clip,
                target,
                predictor,
                options,
                progress=self._tell,
                fingerprint=wanted,
            )
        if self._stills:
            still = _still(target, summary.frames)
            self._output.publish(still, f"{STILLS}/{item.target}.jpg")
        paths = [target, *([mot_path(target)] if options.save_mot else [])]
        self._publish(item, records_path(target), [(path, path.name) for path in paths])
        return {
            "state": "partial" if summary.damage else "done",
            "reason": summary.damage,
            "frames": summary.frames,
            "people": round(summary.people_mean * summary.frames),
            "people_max": summary.people_max,
            "unique": summary.unique_people,
        }

    def _publish(self, item: JobItem, records: Path, others: Iterable[tuple[Path, str]]) -> None:
        """Give the files of an item their names, records first as a claim and at last as theirs."""
        name = _records_of(item)
        self._output.publish(records, _claim(name))
        for path, other in others:
            self._output.publish(path, Path(name).with_name(other).as_posix())
        self._output.publish_claimed(records, _claim(name), name)

    def _images(
        self, item: JobItem, folder: Path, predictor: BatchPredictor, wanted: dict[str, Any]
    ) -> dict[str, Any]:
        from persondet.inference.images import RECORDS, predict_images, result_name
        from persondet.visualization.visualizer import draw_instances

        options, output = self._options, folder / "results"
        with ExitStack() as stack:
            images = [
                (stack.enter_context(self._fetched(file.name)), Path(file.name).name)
                for file in item.files
            ]
            summary = predict_images(
                [(path, result_name(name)) for path, name in images],
                output,
                predictor,
                lambda image, instances: draw_instances(
                    image, instances, predictor.metadata, **options.drawn
                ),
                hiding=options.hiding,
                progress=self._tell,
                fingerprint=wanted,
            )
        reason = ""
        if summary.skipped:
            first = self._named(summary.skipped[0][1])
            reason = f"{len(summary.skipped)} of {len(images)} images could not be read; {first}"
            _note_damage(output / RECORDS, reason)
        counted = _counted(map(json.loads, _lines_of(output / RECORDS)))
        shard = Path(item.name).name
        names = {path: _OF_SHARD.get(path.name) for path in sorted(output.iterdir())}
        others = [(path, f"{shard}{end}" if end else path.name) for path, end in names.items()]
        self._publish(item, output / RECORDS, [o for o in others if o[0].name != RECORDS])
        return counted | {"state": "partial" if reason else "done", "reason": reason}

    def _tell(self, done: int, _: int | None) -> None:
        self.frames = done
        if self.on_frame is not None:
            self.on_frame(done)


def _records_of(item: JobItem) -> str:
    return item.target if item.kind == "images" else records_path(item.target).as_posix()


def _results(item: JobItem) -> Iterator[str]:
    """Yield what an item writes beside its records."""
    if item.kind == "clip":
        yield item.target
        return
    from persondet.inference.images import result_name

    for file in item.files:
        path = Path(file.name)
        yield path.with_name(result_name(path.name)).as_posix()


def _claim(records: str) -> str:
    """Return the name that records have until the rest is published."""
    path = Path(records)
    return path.with_name(f".{path.name}").as_posix()


def _refused(why: str) -> dict[str, Any]:
    return {"state": "refused", "reason": f"{why}; add --overwrite, or choose another --output."}


def _header_of(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _lines_of(path: Path) -> Iterable[bytes]:
    """Yield the lines of records behind the header."""
    with open(path, "rb") as file:
        next(file, None)
        yield from file


def _counted(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return frames, people, people_max and unique of frame records or image records."""
    frames = people = most = 0
    unique = None
    for row in rows:
        count = len(row["people"])
        frames, people, most = frames + 1, people + count, max(most, count)
        unique = row.get("unique")
    return {"frames": frames, "people": people, "people_max": most, "unique": unique}


def _note_damage(records: Path, damage: str) -> None:
    """Say in the header of a shard's records that images are missing."""
    first, _, rest = records.read_bytes().partition(b"\n")
    header = json.dumps(json.loads(first) | {"damage": damage}, ensure_ascii=False)
    records.write_bytes(header.encode(errors="backslashreplace") + b"\n" + rest)


def _still(clip: Path, frames: int) -> Path:
    """Write the middle frame of an annotated clip beside it, at most 320 pixels wide."""
    header, _ = read_records(records_path(clip))
    start = Fraction(frames // 2) / header.frame_rate
    try:
        with VideoReader(clip, start=start) as reader:
            image = next(iter(reader)).image
    except MediaError:  # a variable rate, and nothing that late
        with VideoReader(clip) as reader:
            image = next(iter(reader)).image
    height, width = image.shape[:2]
    if width > _STILL_WIDTH:
        size = (_STILL_WIDTH, max(1, round(height * _STILL_WIDTH / width)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    path = clip.with_name(f"{clip.stem}.still.jpg")
    if not cv2.imwrite(os.fspath(path), image, [cv2.IMWRITE_JPEG_QUALITY, 85]):
        raise MediaError(f"{path} cannot be written.")
    return path

"""Annotating a clip whose people get their numbers back: the clip is read twice.

At first the model and the tracker go through the whole clip, and what they find waits in a
temporary file, no image among it. Then `Relinker` knows who is who, and `annotate_video` reads the
clip again, with the detections of that file in the place of the model's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances, ROIMasks

from persondet.environment import Progress
from persondet.errors import MediaError
from persondet.inference.images import BatchPredictor
from persondet.inference.masks import ROI_FIELD
from persondet.inference.relinking import Relinker
from persondet.inference.tracking import SECONDS_SEEN, PersonTracker
from persondet.modeling.appearance import FIELD
from persondet.video.pipeline import Seconds, chosen_frames, detect
from persondet.video.reader import VideoReader
from persondet.video.source import is_address


class StoredPredictor:
    """Returns the detections of a clip's frames in order, from the file that they wait in."""

    workers = 1  # at once, so that the order stays

    def __init__(self, predictor: BatchPredictor, file: IO[bytes]) -> None:
        self.metadata, self.model_file = predictor.metadata, predictor.model_file
        self.confidence_threshold = predictor.confidence_threshold
        self.batch_size = predictor.batch_size
        self._file = file

    def store(self, found: Instances) -> None:
        """Append the detections of a frame; the masks as they are, to 11 bits."""
        columns = [found.pred_boxes.tensor, found.scores[:, None], found.pred_classes[:, None]]
        np.save(self._file, torch.cat([column.double() for column in columns], dim=1).numpy())
        likely = found.get(ROI_FIELD).tensor if found.has(ROI_FIELD) else torch.zeros(0)
        np.save(self._file, likely.numpy().astype(np.float16))

    def rewind(self) -> None:
        """Begin with the first frame again."""
        self._file.seek(0)

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Return what was stored for the next frames; the images are passed over."""
        return [self._next(image.shape[:2]) for image in images]

    def _next(self, size: tuple[int, int]) -> Instances:
        rows = torch.from_numpy(np.load(self._file, allow_pickle=False))
        likely = torch.from_numpy(np.load(self._file, allow_pickle=False).astype(np.float32))
        found = Instances(size, pred_boxes=Boxes(rows[:, :4].float()), scores=rows[:, 4].float())
        found.pred_classes = rows[:, 5].long()
        if len(likely) or not len(rows):
            found.set(ROI_FIELD, ROIMasks(likely.reshape(len(rows), *likely.shape[1:])))
        return found


class RelinkedTracker:
    """Gives the detections of a clip's frames, in order, the numbers that are known by now."""

    name = f"{PersonTracker.name}, relinked"

    def __init__(self, numbers: Sequence[np.ndarray], people: set[int]) -> None:
        self._numbers, self._people = iter(numbers), people
        self._seen: set[int] = set()
        self._fullest = self.unique = 0

    def update(self, instances: Instances, time: float) -> None:
        """Set `instances.ID`."""
        instances.ID = next(self._numbers).tolist()
        self._seen |= self._people.intersection(instances.ID)
        self._fullest = max(self._fullest, len(instances))
        self.unique = max(len(self._seen), self._fullest)


@contextmanager
def relinked(
    source: Any,
    predictor: BatchPredictor,
    *,
    start: Seconds | None = None,
    end: Seconds | None = None,
    stride: int = 1,
    max_frames: int | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[StoredPredictor, RelinkedTracker]]:
    """Go through a clip; yield what stands for predictor and tracker when it is annotated.

    Args:
        source: a local clip; start, end, stride, max_frames: as of `annotate_video`, and the same.
        predictor: with `appearance` among what it returns.
        progress: called after each frame with the number done.

    Raises: MediaError: when the source is no file or cannot be read, or the predictor tells no
        appearance.
    """
    if is_address(source):
        raise MediaError("--relink reads the clip twice; save it as a file first.")
    with tempfile.TemporaryFile() as file, VideoReader(source, start=start, end=end) as reader:
        stored, links = StoredPredictor(predictor, file), Relinker()
        tracker = PersonTracker(float(reader.frame_rate / stride))
        numbers: list[np.ndarray] = []
        frames = chosen_frames(reader, stride, max_frames)
        for done, item in enumerate(detect(frames, predictor, predictor.batch_size), start=1):
            found, time = item.instances, float(item.frame.time)
            if not found.has(FIELD):
                raise MediaError("--relink needs an R-CNN, whose features tell people apart.")
            stored.store(found)
            known = found[found.scores >= predictor.confidence_threshold]
            tracker.update(known, time)
            links.add(known, time)
            numbers.append(np.array(known.ID, np.int64))
            if progress:
                progress(done, None)
        person = links.numbers()
        seconds: dict[int, float] = {}
        for track, length in links.seconds().items():
            seconds[person[track]] = seconds.get(person[track], 0.0) + length
        people = {number for number, length in seconds.items() if length >= SECONDS_SEEN}
        for row in numbers:
            row[:] = [person.get(number, number) for number in row.tolist()]
        stored.rewind()
        yield stored, RelinkedTracker(numbers, people)

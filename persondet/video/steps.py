"""The stages of annotating a clip, each from an iterator to an iterator; `pipeline` runs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from persondet.region_masks import paste_regions
from persondet.video.detection import FramePredictor, detect_people
from persondet.video.frame_drawing import FrameVisualizer, draw_people
from persondet.video.io import VideoFrame, VideoReader, VideoWriter
from persondet.video.records import FrameRecord, PersonRecord, RecordsWriter, people_of

if TYPE_CHECKING:
    from detectron2.structures import Instances


class FrameTracker(Protocol):
    """What a tracker must offer; `persondet.video.tracking.PersonTracker` does.

    unique: people seen so far.
    """

    unique: int

    def update(self, instances: Instances) -> None:
        """Set `instances.ID`, one number per detection of the next frame."""


@dataclass
class AnnotatedFrame:
    """One frame on its way through the stages."""

    frame: VideoFrame
    instances: Instances
    people: tuple[PersonRecord, ...] = ()
    unique: int | None = None


def chosen_frames(reader: VideoReader, stride: int, max_frames: int | None) -> Iterator[VideoFrame]:
    """Yield every n-th frame, at most `max_frames`."""
    frames = islice(iter(reader), 0, None, stride)
    yield from islice(frames, max_frames)
    if max_frames is not None and reader.sound:
        next(frames, None)  # the sound is kept where there is nothing more


def detect(
    frames: Iterator[VideoFrame], predictor: FramePredictor, batch_size: int
) -> Iterator[AnnotatedFrame]:
    """Find the people in each frame."""
    for frame, instances in detect_people(frames, predictor, batch_size):
        yield AnnotatedFrame(frame, instances)


def track(
    items: Iterator[AnnotatedFrame], tracker: FrameTracker | None, classes: Sequence[str]
) -> Iterator[AnnotatedFrame]:
    """Tell who is who, and make the masks and records of each frame."""
    for item in items:
        if tracker is not None:
            tracker.update(item.instances)
            item.unique = tracker.unique
        item.instances = paste_regions(item.instances)
        item.people = people_of(item.instances, classes)
        yield item


def draw(items: Iterator[AnnotatedFrame], visualizer: FrameVisualizer) -> Iterator[AnnotatedFrame]:
    """Draw the people on each frame."""
    for item in items:
        image = draw_people(item.frame.image, item.instances, visualizer, item.unique)
        item.frame = VideoFrame(item.frame.index, item.frame.time, image)
        yield item


def encode(
    items: Iterator[AnnotatedFrame], writer: VideoWriter, records: RecordsWriter, begin: Fraction
) -> Iterator[int]:
    """Write each frame, its record first: what the clip shows is always in the records.

    Yields the number of people in each; `begin` (seconds of the source) becomes zero.
    """
    for item in items:
        frame = item.frame
        records.write(FrameRecord(frame.index, float(frame.time), item.people, item.unique))
        writer.write(frame.image, frame.time - begin)  # players would show nothing until then
        yield len(item.people)

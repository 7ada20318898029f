"""From clip to annotated clip: decode │ infer │ track │ draw │ encode, side by side.

Each stage is a thread with a bounded queue behind it, so the memory stays flat however long the
clip is, and two cores or a GPU and a core are kept busy at once. The predictor, the tracker and the
visualizer are handed in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from persondet.errors import MediaError
from persondet.region_masks import paste_regions
from persondet.video.detection import FramePredictor as FramePredictor
from persondet.video.detection import detect_people
from persondet.video.frame_drawing import FrameVisualizer, draw_people
from persondet.video.io import VideoFrame, VideoReader, VideoWriter
from persondet.video.mot import mot_path, write_mot
from persondet.video.outputs import check_output as check_output
from persondet.video.outputs import records_path as records_path
from persondet.video.records import (
    FrameRecord,
    PersonRecord,
    RecordsHeader,
    RecordsWriter,
    people_of,
)
from persondet.video.stages import Stage, StageLine, StageTime

if TYPE_CHECKING:
    from detectron2.structures import Instances

# How many frames may wait between two stages, and how many bytes of pictures.
_AHEAD = 4
_AHEAD_BYTES = 192 * 2**20

Progress = Callable[[int, int | None], None]
Seconds = Fraction | float


class FrameTracker(Protocol):
    """What a tracker must offer; `persondet.video.tracking.PersonTracker` does.

    unique: people seen so far.
    """

    unique: int

    def update(self, instances: Instances) -> None:
        """Set `instances.ID`, one number per detection of the next frame."""


@dataclass(frozen=True)
class VideoSummary:
    """What was done with a clip.

    frames: number of annotated frames; seconds: wall time; fps: frames per second of wall time;
    people_max, people_mean: people per frame; unique_people: people in all, None when nobody was
    tracked; output, records: the files written; damage: one sentence when the source is broken and
    frames are missing, else ""; stages: where the time went; notes: sentences for the user.
    """

    frames: int
    seconds: float
    fps: float
    people_max: int
    people_mean: float
    output: Path
    records: Path
    damage: str
    unique_people: int | None = None
    stages: tuple[StageTime, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class _Annotated:
    """One frame on its way through the stages."""

    frame: VideoFrame
    instances: Instances
    people: tuple[PersonRecord, ...] = ()
    unique: int | None = None


def annotate_video(
    source: str | Path,
    output: str | Path,
    predictor: FramePredictor,
    *,
    visualizer: FrameVisualizer | None = None,
    tracker: Literal["auto"] | FrameTracker | None = "auto",
    start: Seconds | None = None,
    end: Seconds | None = None,
    stride: int = 1,
    max_frames: int | None = None,
    batch_size: int | None = None,
    crf: int | None = None,
    save_mot: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> VideoSummary:
    """Write a clip with its people drawn in, and their records beside it.

    The annotated clip keeps the source's time stamps (less `start`; the records keep them as they
    are); with a stride it has every n-th of them, and it keeps the sound where nothing is cut. Until a file is whole it is named `….partial.…`; when
    the run fails or is killed, that stays and can be played. A frame's record is written first.

    Args:
        source: a clip that FFmpeg reads: a file, or an address.
        output: .mp4, .mov or .mkv; the records take its stem and .jsonl.
        predictor: finds the people.
        visualizer: draws them; default: `PersonVideoVisualizer` of the predictor's metadata.
        tracker: tells who is who; default: `PersonTracker`; None: nobody.
        start, end: annotate frames with start <= time < end, seconds from the source's start.
        stride: annotate every n-th frame of these.
        max_frames: annotate this many frames at most.
        batch_size: frames per forward pass; default: the predictor's.
        crf: x264's constant quality, 0 (lossless) to 51 (worst); default: the writer's.
        save_mot: write MOT-challenge text, too, named as the output and .txt.
        overwrite: replace what stands at `output`.
        progress: called after each frame with the number done and, where known, of all.

    Returns: the summary; its `damage` tells when the source broke off, and what was read is kept.

    Raises: MediaError: when the source cannot be read, has no frame between start and end, or the
        output cannot be written.
        OutputExistsError: when the output is there already.
    """
    if stride < 1 or (max_frames is not None and max_frames < 1) or (batch_size or 1) < 1:
        raise MediaError("stride, max_frames and batch_size must be 1 or more.")
    output = Path(output)
    check_output(source, output, save_mot=save_mot, overwrite=overwrite)
    started = time.monotonic()
    with ExitStack() as stack:
        reader = stack.enter_context(VideoReader(source, start=start, end=end))
        frame_rate = reader.frame_rate / stride
        if tracker == "auto":
            tracker = _default_tracker(frame_rate)
        header = RecordsHeader(
            source=reader.name,
            model=predictor.model_file,
            classes=tuple(predictor.metadata.thing_classes),
            confidence_threshold=predictor.confidence_threshold,
            width=reader.width,
            height=reader.height,
            frame_rate=frame_rate,
            start=float(start or 0),
            tracker=None if tracker is None else getattr(tracker, "name", type(tracker).__name__),
        )
        # Entered first, left last: the records are renamed when the clip is there.
        records = stack.enter_context(
            RecordsWriter(records_path(output), header, overwrite=overwrite)
        )
        cut = start is not None or end is not None or max_frames is not None
        writer = stack.enter_context(
            VideoWriter(
                output,
                width=reader.width,
                height=reader.height,
                fps=frame_rate,
                time_base=reader.time_base,
                pixel_aspect=reader.pixel_aspect,
                sound_from=None if cut or not reader.sound else source,
                overwrite=overwrite,
                crf=crf,
            )
        )
        visualizer = visualizer or _default_visualizer(predictor)
        batch = batch_size or predictor.batch_size
        begin = Fraction(start or 0)
        ahead = max(2, min(_AHEAD, _AHEAD_BYTES // (3 * reader.width * reader.height)))
        line = StageLine(
            [
                Stage("decode", lambda _: _chosen(reader, stride, max_frames), max(ahead, batch)),
                Stage("infer", lambda frames: _detect(frames, predictor, batch), max(ahead, batch)),
                Stage("track", lambda items: _track(items, tracker, header.classes), ahead),
                Stage("draw", lambda items: _draw(items, visualizer), ahead),
                Stage("encode", lambda items: _encode(items, writer, records, begin), _AHEAD),
            ]
        )
        total = expected_frames(reader, stride, max_frames)
        frames = people = people_max = 0
        # Left before the files: a stage that still runs must not meet a closed reader.
        for count in stack.enter_context(line):
            frames, people, people_max = frames + 1, people + count, max(people_max, count)
            if progress is not None:
                progress(frames, total)
        damage = reader.damage
    if save_mot:
        write_mot(records_path(output), mot_path(output))
    notes = list(writer.notes)
    if cut and reader.sound:
        notes.append("the sound is left out, as only a part of the clip is annotated")
    seconds = time.monotonic() - started
    return VideoSummary(
        frames=frames,
        seconds=seconds,
        fps=frames / max(seconds, 1e-9),
        people_max=people_max,
        people_mean=people / frames,
        output=output,
        records=records_path(output),
        damage=damage,
        unique_people=None if tracker is None else tracker.unique,
        stages=line.times,
        notes=tuple(notes),
    )


def expected_frames(reader: VideoReader, stride: int, max_frames: int | None) -> int | None:
    """Return how many frames will probably be annotated, or None when the header tells nothing."""
    expected = reader.expected_frames
    if expected is None:
        return max_frames
    total = -(-expected // stride)
    return total if max_frames is None else min(total, max_frames)


def _chosen(reader: VideoReader, stride: int, max_frames: int | None) -> Iterator[VideoFrame]:
    """Yield every n-th frame, at most `max_frames`."""
    return islice(islice(iter(reader), 0, None, stride), max_frames)


def _detect(
    frames: Iterator[VideoFrame], predictor: FramePredictor, batch_size: int
) -> Iterator[_Annotated]:
    """Find the people in each frame."""
    for frame, instances in detect_people(frames, predictor, batch_size):
        yield _Annotated(frame, instances)


def _track(
    items: Iterator[_Annotated], tracker: FrameTracker | None, classes: Sequence[str]
) -> Iterator[_Annotated]:
    """Tell who is who, and make the masks and records of each frame."""
    for item in items:
        if tracker is not None:
            tracker.update(item.instances)
            item.unique = tracker.unique
        item.instances = paste_regions(item.instances)
        item.people = people_of(item.instances, classes)
        yield item


def _draw(items: Iterator[_Annotated], visualizer: FrameVisualizer) -> Iterator[_Annotated]:
    """Draw the people on each frame."""
    for item in items:
        image = draw_people(item.frame.image, item.instances, visualizer, item.unique)
        item.frame = VideoFrame(item.frame.index, item.frame.time, image)
        yield item


def _encode(
    items: Iterator[_Annotated], writer: VideoWriter, records: RecordsWriter, begin: Fraction
) -> Iterator[int]:
    """Write each frame, its record first: what the clip shows is always in the records."""
    for item in items:
        frame = item.frame
        records.write(FrameRecord(frame.index, float(frame.time), item.people, item.unique))
        writer.write(frame.image, frame.time - begin)  # players would show nothing until then
        yield len(item.people)


def _default_tracker(frame_rate: Fraction) -> FrameTracker:
    """Return the project's own tracker; imported here, as this file needs none otherwise."""
    from persondet.video.tracking import PersonTracker

    return PersonTracker(float(frame_rate))


def _default_visualizer(predictor: FramePredictor) -> FrameVisualizer:
    """Return the project's own visualizer; imported here, as this file needs none otherwise."""
    from persondet.visualization.visualizer import PersonVideoVisualizer

    return PersonVideoVisualizer(predictor.metadata)

"""From clip to annotated clip: decode │ infer │ track │ [hide] │ draw │ encode, all at once.

Each stage is a thread with a bounded queue behind it: memory stays flat however long the clip is,
and the cores (or a GPU and a core) stay busy. Each stage is a function below, from an iterator to
an iterator. The caller passes predictor, tracker and visualizer.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch

from persondet.analysis.areas import read_areas
from persondet.analysis.live import LiveAreas
from persondet.environment import Progress, cpu_count
from persondet.errors import MediaError, PartialMediaError, PersondetError
from persondet.inference.masks import encoded_masks, paste_regions
from persondet.inference.stages import Stage, StageLine, StageTime
from persondet.inference.tracking import PersonTracker
from persondet.records import (
    FrameRecord,
    PersonRecord,
    RecordsHeader,
    RecordsWriter,
    mot_path,
    people_of,
    records_path,
    write_mot,
)
from persondet.video.clip_files import check_output
from persondet.video.hiding import CoverTracker, covers_ahead
from persondet.video.reader import VideoFrame, VideoReader
from persondet.video.writer import VideoWriter
from persondet.visualization.areas import draw_areas
from persondet.visualization.hiding import Cover, HideOptions, hide
from persondet.visualization.visualizer import PersonVideoVisualizer

if TYPE_CHECKING:
    from detectron2.structures import Instances

    from persondet.inference.images import BatchPredictor

# How many frames may wait between two stages, and how many bytes of images.
_AHEAD = 4
_AHEAD_BYTES = 192 * 2**20

Seconds = Fraction | float


class FrameTracker(Protocol):
    """What a tracker must offer; `persondet.inference.tracking.PersonTracker` does.

    unique: number of people so far.
    """

    unique: int

    def update(self, instances: Instances, time: float) -> None:
        """Set `instances.ID`, one number per detection of the next frame, shown at `time` (s)."""


@dataclass(frozen=True)
class VideoSummary:
    """What was done with a clip.

    frames: number of annotated frames; seconds: wall time; fps: frames per second of wall time;
    people_max, people_mean: people per frame; unique_people: different people in the clip, None
    without tracking; output, records: the files written; damage: one sentence if the source is
    broken and frames are missing, else ""; stages: where the time went; notes: sentences for the
    user.
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


def annotate_video(
    source: str | Path,
    output: str | Path,
    predictor: BatchPredictor,
    *,
    visualizer: PersonVideoVisualizer | None = None,
    tracker: Literal["auto"] | FrameTracker | None = "auto",
    start: Seconds | None = None,
    end: Seconds | None = None,
    stride: int = 1,
    max_frames: int | None = None,
    batch_size: int | None = None,
    crf: int | None = None,
    save_mot: bool = False,
    areas: str | Path | None = None,
    hiding: HideOptions | None = None,
    mute: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    fingerprint: dict[str, Any] | None = None,
) -> VideoSummary:
    """Write a clip with its detections drawn in, and their records beside it.

    The annotated clip keeps the source's time stamps (less `start`; the records keep them as they
    are). With a stride it has every n-th frame; it keeps the sound if nothing is cut. Until a file
    is whole its name is `….partial.…`; if the run fails or is killed, that file stays and plays.
    The record of a frame is written before the frame.

    Args:
        source: a clip that FFmpeg reads: a file, or an address.
        output: .mp4, .mov or .mkv; the records take its stem and .jsonl.
        predictor: detects objects. If it has `workers`, it gets as many batches at once, each from
            a thread of its own.
        visualizer: draws them; default: `PersonVideoVisualizer` of the predictor's metadata.
        tracker: numbers them; default: `PersonTracker`; None: no numbers.
        start, end: annotate frames with start <= time < end, seconds from the source's start.
        stride: annotate every n-th frame of these.
        max_frames: annotate this many frames at most.
        batch_size: frames per forward pass; default: the predictor's.
        crf: x264's constant quality, 0 (lossless) to 51 (worst); default: the writer's.
        save_mot: also write MOT-challenge text, named as the output and .txt.
        areas: YAML of lines and zones, to be drawn with their counts; see
            `persondet.analysis.areas`.
        hiding: hide people before anything is drawn or written, each detection that the predictor
            returns; those below its `confidence_threshold` are neither drawn nor recorded.
        mute: leave out the sound.
        overwrite: replace existing files of these names.
        progress: called after each frame with the number done and, if known, the total.
        fingerprint: goes into the header of the records.

    Returns: the summary; its `damage` says where the source broke off; what was read is kept.

    Raises: MediaError: when the source cannot be read, has no frame between start and end, or the
        output cannot be written; PartialMediaError when what was written so far is kept.
        OutputExistsError: when the output exists. ConfigError: when the areas cannot be used.

    Example:
        >>> predictor = Predictor.from_run("output/person")
        >>> summary = annotate_video("clip.mp4", "clip_annotated.mp4", predictor)
        >>> summary.frames, summary.records.name
        (5, 'clip_annotated.jsonl')
    """
    if stride < 1 or (max_frames is not None and max_frames < 1) or (batch_size or 1) < 1:
        raise MediaError("stride, max_frames and batch_size must be 1 or more.")
    output = Path(output)
    check_output(source, output, save_mot=save_mot, overwrite=overwrite)
    started = time.monotonic()
    with ExitStack() as stack:
        reader = stack.enter_context(VideoReader(source, start=start, end=end))
        frame_rate = reader.frame_rate / stride
        live = None
        if areas is not None:
            asked = read_areas(areas, reader.width, reader.height, reader.name)
            live = LiveAreas(asked, reader.width, reader.height)
        if tracker == "auto":
            tracker = PersonTracker(float(frame_rate))
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
            fingerprint=fingerprint,
        )
        # Entered first, left last: the records get their name after the clip.
        records = stack.enter_context(
            RecordsWriter(records_path(output), header, overwrite=overwrite)
        )
        writer = stack.enter_context(
            VideoWriter(
                output,
                width=reader.width,
                height=reader.height,
                fps=frame_rate,
                time_base=reader.time_base,
                pixel_aspect=reader.pixel_aspect,
                sound_from=source if reader.sound and not start and not mute else None,
                title=reader.title,
                overwrite=overwrite,
                crf=crf,
            )
        )
        visualizer = visualizer or PersonVideoVisualizer(predictor.metadata)
        batch = batch_size or predictor.batch_size
        begin = Fraction(start or 0)
        covers = hiding and CoverTracker(hiding, float(frame_rate), header.classes)
        ahead = max(2, min(_AHEAD, _AHEAD_BYTES // (3 * reader.width * reader.height)))
        many = max(ahead, batch)
        line = StageLine(
            [
                Stage("decode", lambda _: chosen_frames(reader, stride, max_frames), many),
                Stage("infer", lambda frames: detect(frames, predictor, batch), many),
                Stage("track", lambda items: _track(items, tracker, header, hiding), ahead),
                *([Stage("hide", lambda items: _hide(items, covers, header), 1)] if covers else []),
                Stage("draw", lambda items: _draw(items, visualizer, live), ahead),
                Stage("encode", lambda items: _encode(items, writer, records, begin), _AHEAD),
            ]
        )
        announced = reader.expected_frames and -(-reader.expected_frames // stride)
        total = min(filter(None, (announced, max_frames)), default=None)
        tell = progress or (lambda *_: None)
        frames = people = people_max = 0
        # Left before the files: a running stage must not meet a closed reader.
        for count in stack.enter_context(line):
            frames, people, people_max = frames + 1, people + count, max(people_max, count)
            tell(frames, total)
        _add_notes(reader, writer, crf, mute=mute, hidden=hiding is not None)
        if covers and covers.missing:
            numbers = ", ".join(map(str, sorted(covers.missing)))
            writer.notes.append(f"the clip has no track {numbers}, which was to stay visible")
        if reader.damage:
            records.note_damage(reader.damage)
    if save_mot:
        try:
            write_mot(records_path(output), mot_path(output))
        except (PersondetError, OSError) as error:
            message = str(error).rstrip(".")
            raise PartialMediaError(f"{message}; {output} and its records are written.") from error
    seconds = time.monotonic() - started
    return VideoSummary(
        frames=frames,
        seconds=seconds,
        fps=frames / max(seconds, 1e-9),
        people_max=people_max,
        people_mean=people / frames,
        output=output,
        records=records_path(output),
        damage=reader.damage,
        unique_people=None if tracker is None else tracker.unique,
        stages=line.times,
        notes=tuple(writer.notes),
    )


def _add_notes(
    reader: VideoReader, writer: VideoWriter, crf: int | None, *, mute: bool, hidden: bool
) -> None:
    """Note what the annotated clip lacks, and that players refuse it; before the writer ends.

    The writer loses the sound of a clip that was read in part, or with a clock that restarts.
    """
    writer.notes += reader.notes
    if crf == 0:
        writer.notes.append(
            "lossless H.264 (crf 0) has a profile, High 4:4:4 Predictive, that many players and "
            "browsers do not play; 1 is nearly as good"
        )
    why = "the clip's clock starts again in the middle" if reader.clock_restarts else ""
    if not (writer.sound_from and reader.complete):
        why = "only a part of the clip is annotated"
    if reader.sound and why and not mute:
        writer.notes.append(f"the sound is left out, as {why}")
        writer.sound_from = None
    if hidden and writer.sound_from:
        writer.notes.append("people are hidden, but their voices are not; --mute leaves them out")


@dataclass
class _AnnotatedFrame:
    """One frame on its way through the stages.

    instances: what is recorded and drawn; found: all that is to be hidden.
    """

    frame: VideoFrame
    instances: Instances
    found: Any = None
    people: tuple[PersonRecord, ...] = ()
    unique: int | None = None


def chosen_frames(reader: VideoReader, stride: int, max_frames: int | None) -> Iterator[VideoFrame]:
    """Yield every n-th frame, at most `max_frames`."""
    frames = islice(iter(reader), 0, None, stride)
    yield from islice(frames, max_frames)
    if max_frames is not None and reader.sound:
        next(frames, None)  # the sound stays if there is nothing more


def detect(
    frames: Iterator[VideoFrame], predictor: BatchPredictor, batch_size: int
) -> Iterator[_AnnotatedFrame]:
    """Yield each frame with its detections, in order; several batches run at once on a CPU.

    The frames of a batch do not depend on timing, so the same clip gives the same detections.

    Args:
        frames: of one clip.
        predictor: see `annotate_video`.
        batch_size: frames per forward pass; the last batch may be smaller.
    """
    predict = getattr(predictor, "predict_frames", predictor.predict_batch)
    workers = getattr(predictor, "workers", 1)

    def annotated(batch: list[VideoFrame]) -> list[_AnnotatedFrame]:
        results = predict([frame.image for frame in batch])
        return [_AnnotatedFrame(*pair) for pair in zip(batch, results, strict=True)]

    batches = iter(lambda: list(islice(frames, batch_size)), [])
    # One thread per batch need not synchronise after each layer, which is the largest cost while
    # other stages keep the cores busy.
    threads, each = torch.get_num_threads(), max(1, cpu_count() // workers)
    pool = ThreadPoolExecutor(workers, "persondet-model", torch.set_num_threads, (each,))
    waiting: deque[Future[list[_AnnotatedFrame]]] = deque()
    try:
        for batch in batches:
            waiting.append(pool.submit(annotated, batch))
            if len(waiting) > workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # a worker's setting applies to all later threads


def _track(
    items: Iterator[_AnnotatedFrame],
    tracker: FrameTracker | None,
    header: RecordsHeader,
    hiding: HideOptions | None,
) -> Iterator[_AnnotatedFrame]:
    """Number the detections of each frame, paste their masks, make their records."""
    for item in items:
        if hiding:
            item.found = item.instances
            item.instances = item.found[item.found.scores >= header.confidence_threshold]
        if tracker is not None:
            tracker.update(item.instances, float(item.frame.time))
            item.unique = tracker.unique
        item.instances = paste_regions(item.instances)
        masks = encoded_masks(item.instances) if hiding is None or hiding.masks else None
        item.people = people_of(item.instances, header.classes, masks)
        yield item


def _hide(
    items: Iterator[_AnnotatedFrame], tracker: CoverTracker, header: RecordsHeader
) -> Iterator[_AnnotatedFrame]:
    """Hide the people of each frame, a second after it came."""

    def covered() -> Iterator[tuple[_AnnotatedFrame, float, dict[int, Cover]]]:
        for item in items:
            time, found = float(item.frame.time), item.found
            numbers: dict[int, int] = {}
            if item.instances.has("ID"):
                strong = (found.scores >= header.confidence_threshold).nonzero().flatten().tolist()
                numbers = dict(zip(strong, item.instances.ID, strict=True))
            yield item, time, tracker.update(found, numbers, time)

    for item, covers in covers_ahead(covered()):
        image = np.require(item.frame.image, requirements=["C", "W"])
        hide(image, covers, tracker.options.style)
        item.frame = VideoFrame(item.frame.index, item.frame.time, image)
        yield item


def _draw(
    items: Iterator[_AnnotatedFrame], visualizer: PersonVideoVisualizer, live: LiveAreas | None
) -> Iterator[_AnnotatedFrame]:
    """Draw the detections on each frame, and the areas with their counts."""
    for item in items:
        visualizer.unique_people = item.unique
        image = np.require(item.frame.image, requirements=["C", "W"])
        visualizer.draw_on(image, item.instances)
        if live is not None:
            live.update(item.people, float(item.frame.time))
            draw_areas(image, live.areas, live.counts, live.people)
        item.frame = VideoFrame(item.frame.index, item.frame.time, image)
        yield item


def _encode(
    items: Iterator[_AnnotatedFrame], writer: VideoWriter, records: RecordsWriter, begin: Fraction
) -> Iterator[int]:
    """Write each frame, its record first, and yield its number of detections.

    `begin` (seconds of the source) becomes zero: players show nothing before zero.
    """
    for item in items:
        frame = item.frame
        records.write(FrameRecord(frame.index, float(frame.time), item.people, item.unique))
        writer.write(frame.image, frame.time - begin)
        yield len(item.people)

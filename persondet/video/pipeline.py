"""From clip to annotated clip: decode │ infer │ track │ draw │ encode, side by side.

Each stage is a thread with a bounded queue behind it, so the memory stays flat however long the
clip is, and two cores or a GPU and a core are kept busy at once. The predictor, the tracker and the
visualizer are handed in.

The stages of annotating a clip, each from an iterator to an iterator; `pipeline` runs them.

The people in each frame of a clip: batches through the model, several at once on a CPU.

Drawing on the frames of a clip, by our visualizer or by any of Detectron2's kind.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import cv2
import numpy as np
import torch

from persondet.environment import Progress, cpu_count
from persondet.errors import MediaError, PartialMediaError, PersondetError
from persondet.inference.records import (
    FrameRecord,
    PersonRecord,
    RecordsHeader,
    RecordsWriter,
    mot_path,
    people_of,
    write_mot,
)
from persondet.inference.region_masks import paste_regions, region_masks_of
from persondet.video.outputs import check_output as check_output
from persondet.video.outputs import earlier_mot
from persondet.video.outputs import records_path as records_path
from persondet.video.reader import VideoFrame, VideoReader
from persondet.video.stages import Stage, StageLine, StageTime
from persondet.video.writer import VideoWriter

if TYPE_CHECKING:
    import numpy as np
    from detectron2.structures import Instances

# How many frames may wait between two stages, and how many bytes of pictures.
_AHEAD = 4
_AHEAD_BYTES = 192 * 2**20

Seconds = Fraction | float


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
    are); with a stride it has every n-th of them, and it keeps the sound where nothing is cut.
    Until a file is whole it is named `….partial.…`; when the run fails or is killed, that stays and
    can be played. A frame's record is written first.

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
        overwrite: replace what stands at `output`, and remove MOT text of an earlier run's tracks.
        progress: called after each frame with the number done and, where known, of all.

    Returns: the summary; its `damage` tells when the source broke off, and what was read is kept.

    Raises: MediaError: when the source cannot be read, has no frame between start and end, or the
        output cannot be written; PartialMediaError when what was written so far is kept.
        OutputExistsError: when the output is there already.

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
    stale = None if save_mot else earlier_mot(output)
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
        writer = stack.enter_context(
            VideoWriter(
                output,
                width=reader.width,
                height=reader.height,
                fps=frame_rate,
                time_base=reader.time_base,
                pixel_aspect=reader.pixel_aspect,
                sound_from=None if start or not reader.sound else source,
                title=reader.title,
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
                Stage(
                    "decode", lambda _: chosen_frames(reader, stride, max_frames), max(ahead, batch)
                ),
                Stage("infer", lambda frames: detect(frames, predictor, batch), max(ahead, batch)),
                Stage("track", lambda items: track(items, tracker, header.classes), ahead),
                Stage("draw", lambda items: draw(items, visualizer), ahead),
                Stage("encode", lambda items: encode(items, writer, records, begin), _AHEAD),
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
        notes = _notes(reader, crf)
        if reader.sound and (start or not reader.complete):
            writer.sound_from = None
            notes.append("the sound is left out, as only a part of the clip is annotated")
        elif reader.sound and reader.clock_restarts:
            writer.sound_from = None
            notes.append("the sound is left out, as the clip's clock starts again in the middle")
    if save_mot:
        _write_mot(output)
    elif stale is not None:
        stale.unlink(missing_ok=True)
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
        notes=(*writer.notes, *notes),
    )


def _notes(reader: VideoReader, crf: int | None) -> list[str]:
    """Return sentences on what the annotated clip lacks, and on what may not play it."""
    notes = [f"{reader.left_out} left out"] if reader.left_out else []
    if crf == 0:
        notes.append(
            "lossless H.264 (crf 0) has a profile, High 4:4:4 Predictive, that many players and "
            "browsers do not play; 1 is nearly as good"
        )
    return notes


def _write_mot(output: Path) -> None:
    """Write the MOT-challenge text of a clip that is finished.

    Raises: PartialMediaError: when it cannot be written.
    """
    try:
        write_mot(records_path(output), mot_path(output))
    except (PersondetError, OSError) as error:
        message = str(error).rstrip(".")
        raise PartialMediaError(f"{message}; {output} and its records are written.") from error


def expected_frames(reader: VideoReader, stride: int, max_frames: int | None) -> int | None:
    """Return how many frames will probably be annotated, or None when the header tells nothing."""
    expected = reader.expected_frames
    if expected is None:
        return max_frames
    total = -(-expected // stride)
    return total if max_frames is None else min(total, max_frames)


def _default_tracker(frame_rate: Fraction) -> FrameTracker:
    """Return the project's own tracker; imported here, as this file needs none otherwise."""
    from persondet.inference.tracking import PersonTracker

    return PersonTracker(float(frame_rate))


def _default_visualizer(predictor: FramePredictor) -> FrameVisualizer:
    """Return the project's own visualizer; imported here, as this file needs none otherwise."""
    from persondet.visualization.visualizer import PersonVideoVisualizer

    return PersonVideoVisualizer(predictor.metadata)


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


Predict = Callable[[list[Any]], "list[Instances]"]
Waiting = deque[tuple[list[VideoFrame], "Future[list[Instances]]"]]


class FramePredictor(Protocol):
    """What a predictor must offer; `persondet.inference.predictor.Predictor` does.

    Where it has `predict_frames`, which leaves the masks small, that is called instead. Where it
    has `workers`, as many batches are given to it at once, each from a thread of its own.
    """

    metadata: Any
    confidence_threshold: float
    model_file: str
    batch_size: int

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Return the people in each image: uint8, (H, W, 3), BGR."""


def detect_people(
    frames: Iterator[VideoFrame], predictor: FramePredictor, batch_size: int
) -> Iterator[tuple[VideoFrame, Instances]]:
    """Yield each frame with the people in it, in order.

    Which frames share a batch does not depend on timing, so the same clip gives the same people.

    Args:
        frames: of one clip.
        predictor: finds the people.
        batch_size: frames per forward pass; the last batch may be smaller.
    """
    predict: Predict = getattr(predictor, "predict_frames", predictor.predict_batch)
    workers = getattr(predictor, "workers", 1)
    if workers == 1:
        for batch in _batches(frames, batch_size):
            yield from zip(batch, predict([frame.image for frame in batch]), strict=True)
        return
    # One thread per batch needs no meeting after each layer, which costs most where other stages
    # keep the cores busy.
    threads, each = torch.get_num_threads(), max(1, cpu_count() // workers)
    pool = ThreadPoolExecutor(workers, "persondet-model", torch.set_num_threads, (each,))
    waiting: Waiting = deque()
    try:
        batches = _batches(frames, batch_size)
        yield from _side_by_side(batches, predict, pool, waiting, workers + 1)
    finally:
        _end(pool, waiting)
        torch.set_num_threads(threads)  # what a worker sets holds for threads yet to come


def _batches(frames: Iterator[VideoFrame], size: int) -> Iterator[list[VideoFrame]]:
    while batch := list(islice(frames, size)):
        yield batch


def _side_by_side(
    batches: Iterator[list[VideoFrame]],
    predict: Predict,
    pool: ThreadPoolExecutor,
    waiting: Waiting,
    ahead: int,
) -> Iterator[tuple[VideoFrame, Instances]]:
    """Yield the results in order while the next batches are in work, at most `ahead` of them.

    Args:
        waiting: gets what is in work.
    """
    for batch in batches:
        waiting.append((batch, pool.submit(predict, [frame.image for frame in batch])))
        if len(waiting) == ahead:
            yield from _first(waiting)
    while waiting:
        yield from _first(waiting)


def _first(waiting: Waiting) -> Iterator[tuple[VideoFrame, Instances]]:
    """Take the first batch out, once it is ready."""
    batch, people = waiting[0]
    found = people.result()
    waiting.popleft()
    return zip(batch, found, strict=True)


def _end(pool: ThreadPoolExecutor, waiting: Waiting) -> None:
    """End the threads when they are done with what they work on, also after a further Ctrl-C."""
    interruption: KeyboardInterrupt | None = None
    pool.shutdown(wait=False, cancel_futures=True)
    while not all(people.done() for _, people in waiting):
        try:
            wait(people for _, people in waiting)
        except KeyboardInterrupt as again:
            interruption = again
    pool.shutdown()
    if interruption is not None:
        raise interruption


class FrameVisualizer(Protocol):
    """What a visualizer must offer; Detectron2's `VideoVisualizer` does.

    Where it has `draw_on(image, instances)`, which draws in place on BGR, that is called instead,
    and where it has `unique_people`, the number of people so far is set before each frame.
    """

    def draw_instance_predictions(self, frame: np.ndarray, predictions: Instances) -> Any:
        """Draw on a frame, uint8 (H, W, 3) RGB; the result has `get_image()`."""


def draw_people(
    image: np.ndarray, instances: Instances, visualizer: FrameVisualizer, unique: int | None = None
) -> np.ndarray:
    """Draw the people of one frame.

    Args:
        image: uint8, (H, W, 3), BGR; may be drawn on.
        instances: on the CPU, with `roi_masks`, `region_masks`, `pred_masks` or no masks.
        visualizer: draws them.
        unique: people so far, where they are tracked.

    Returns: the annotated frame, uint8, (H, W, 3), BGR.
    """
    if hasattr(visualizer, "unique_people"):
        visualizer.unique_people = unique
    if hasattr(visualizer, "draw_on"):
        if not (image.flags.c_contiguous and image.flags.writeable):
            image = np.array(image, order="C")
        visualizer.draw_on(image, instances)
        return image
    frame = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    drawn = visualizer.draw_instance_predictions(frame, with_whole_masks(instances)).get_image()
    return cv2.cvtColor(np.ascontiguousarray(drawn), cv2.COLOR_RGB2BGR)


def with_whole_masks(instances: Instances) -> Instances:
    """Return instances as Detectron2 knows them: `pred_masks`, bool, (N, H, W), if any masks."""
    import torch

    fields = dict(instances.get_fields())
    small = [fields.pop(name, None) for name in ("region_masks", "roi_masks")]
    if small == [None, None]:
        return instances
    masks = region_masks_of(instances)
    assert masks is not None
    whole = np.zeros((len(instances), *instances.image_size), bool)
    for number in range(len(instances)):
        whole[number] = masks.whole(number)
    return type(instances)(instances.image_size, **fields, pred_masks=torch.from_numpy(whole))

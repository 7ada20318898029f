"""From clip to annotated clip: decode, find people, draw, encode, record.

The stages run side by side with bounded queues between them, so the memory stays flat however long
the clip is. The predictor and the visualizer are handed in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from persondet.errors import MediaError
from persondet.files import refuse_existing
from persondet.video.io import VideoFrame, VideoReader, VideoWriter
from persondet.video.io.writer import CONTAINERS
from persondet.video.prefetch import prefetch
from persondet.video.records import FrameRecord, RecordsHeader, RecordsWriter, people_of

if TYPE_CHECKING:
    from detectron2.structures import Instances

# How many batches each stage may be ahead of the next one.
_DECODED_AHEAD = 2
_DETECTED_AHEAD = 1

Progress = Callable[[int, int | None], None]


class FramePredictor(Protocol):
    """What a predictor must offer; `persondet.predictor.Predictor` does."""

    metadata: Any
    confidence_threshold: float
    model_file: str
    batch_size: int

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Return the people in each image: uint8, (H, W, 3), BGR."""


class FrameVisualizer(Protocol):
    """What a visualizer must offer; Detectron2's `VideoVisualizer` does."""

    def draw_instance_predictions(self, frame: np.ndarray, predictions: Instances) -> Any:
        """Draw on a frame, uint8 (H, W, 3) RGB; the result has `get_image()`."""


@dataclass(frozen=True)
class VideoSummary:
    """What was done with a clip.

    frames: number of annotated frames; seconds: wall time; fps: frames per second of wall time;
    people_max, people_mean: people per frame; output, records: the files written;
    damage: one sentence when the source is broken and frames are missing, else "".
    """

    frames: int
    seconds: float
    fps: float
    people_max: int
    people_mean: float
    output: Path
    records: Path
    damage: str


def records_path(output: str | Path) -> Path:
    """Return where the records of an annotated clip lie: beside it, named .jsonl."""
    return Path(output).with_suffix(".jsonl")


def check_output(source: str | Path, output: str | Path, *, overwrite: bool = False) -> None:
    """Refuse targets that cannot or must not be written; call it before a model is loaded.

    Raises: MediaError: when `output` is `source`, or its name promises no known container.
        OutputExistsError: when the clip or its records are there already.
    """
    source, output = Path(source), Path(output)
    if output.suffix.lower() not in CONTAINERS:
        known = ", ".join(CONTAINERS)
        raise MediaError(f"{output}: cannot write this format; use a name in {known}.")
    for target in (output, records_path(output)):
        if target.exists() and source.exists() and target.samefile(source):
            raise MediaError(f"{target} is the source itself; choose another --output.")
        if target.is_dir():
            raise MediaError(f"{target} is a folder; choose another --output.")
        refuse_existing(target, overwrite=overwrite)


def annotate_video(
    source: str | Path,
    output: str | Path,
    predictor: FramePredictor,
    *,
    visualizer: FrameVisualizer | None = None,
    stride: int = 1,
    max_frames: int | None = None,
    batch_size: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> VideoSummary:
    """Write a clip with its people drawn in, and their records beside it.

    The annotated clip keeps the source's time stamps; with a stride it has every n-th of them.
    Both files appear under their names when they are whole; a failure leaves neither.

    Args:
        source: a clip that FFmpeg reads.
        output: .mp4, .mov or .mkv; the records take its stem and .jsonl.
        predictor: finds the people.
        visualizer: draws them; default: `PersonVideoVisualizer` of the predictor's metadata.
        stride: annotate every n-th frame.
        max_frames: annotate this many frames at most.
        batch_size: frames per forward pass; default: the predictor's.
        overwrite: replace what stands at `output`.
        progress: called after each frame with the number done and, where known, of all.

    Returns: the summary; its `damage` tells when the source broke off, and what was read is kept.

    Raises: MediaError: when the source cannot be read or the output cannot be written.
        OutputExistsError: when the output is there already.
    """
    if stride < 1 or (max_frames is not None and max_frames < 1) or (batch_size or 1) < 1:
        raise MediaError(f"{source}: stride, max_frames and batch_size must be 1 or more.")
    source, output = Path(source), Path(output)
    check_output(source, output, overwrite=overwrite)
    started = time.monotonic()
    classes = tuple(predictor.metadata.thing_classes)
    counts: list[int] = []
    with ExitStack() as stack:
        reader = stack.enter_context(VideoReader(source))
        total = expected_frames(reader, stride, max_frames)
        visualizer = visualizer or _default_visualizer(predictor)
        header = RecordsHeader(
            source=source.name,
            model=predictor.model_file,
            classes=classes,
            confidence_threshold=predictor.confidence_threshold,
            width=reader.width,
            height=reader.height,
            frame_rate=reader.frame_rate / stride,
        )
        records = stack.enter_context(RecordsWriter(records_path(output), header))
        writer = stack.enter_context(
            VideoWriter(
                output,
                width=reader.width,
                height=reader.height,
                fps=reader.frame_rate / stride,
                time_base=reader.time_base,
            )
        )
        batches = _batches(reader, stride, max_frames, batch_size or predictor.batch_size)
        detected = prefetch(_detect(prefetch(batches, _DECODED_AHEAD), predictor), _DETECTED_AHEAD)
        # Closed before the files: a stage that still runs must not meet a closed reader.
        frames = stack.enter_context(closing(detected))
        for batch in frames:
            for frame, instances in batch:
                writer.write(_draw(frame.image, instances, visualizer), frame.time)
                people = people_of(instances, classes)
                records.write(FrameRecord(frame.index, float(frame.time), people))
                counts.append(len(people))
                if progress is not None:
                    progress(len(counts), total)
        damage = reader.damage
    seconds = time.monotonic() - started
    return VideoSummary(
        frames=len(counts),
        seconds=seconds,
        fps=len(counts) / max(seconds, 1e-9),
        people_max=max(counts),
        people_mean=sum(counts) / len(counts),
        output=output,
        records=records_path(output),
        damage=damage,
    )


def expected_frames(reader: VideoReader, stride: int, max_frames: int | None) -> int | None:
    """Return how many frames will probably be annotated, or None when the header tells nothing."""
    announced = reader.announced_frames
    if announced is None:
        return None
    total = -(-announced // stride)
    return total if max_frames is None else min(total, max_frames)


def _batches(
    reader: VideoReader, stride: int, max_frames: int | None, size: int
) -> Generator[list[VideoFrame], None, None]:
    """Yield the chosen frames in lists of `size`; the last one may be shorter."""
    batch: list[VideoFrame] = []
    chosen = 0
    for frame in reader:
        if frame.index % stride:
            continue
        batch.append(frame)
        chosen += 1
        if len(batch) == size:
            yield batch
            batch = []
        if chosen == max_frames:
            break
    if batch:
        yield batch


def _detect(
    batches: Generator[list[VideoFrame], None, None], predictor: FramePredictor
) -> Generator[list[tuple[VideoFrame, Instances]], None, None]:
    """Yield each batch's frames with the people in them."""
    with closing(batches):
        for batch in batches:
            people = predictor.predict_batch([frame.image for frame in batch])
            yield list(zip(batch, people, strict=True))


def _draw(image: np.ndarray, instances: Instances, visualizer: FrameVisualizer) -> np.ndarray:
    """Return the annotated frame, BGR; visualizers work in RGB."""
    frame = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    drawn = visualizer.draw_instance_predictions(frame, instances).get_image()
    return cv2.cvtColor(np.ascontiguousarray(drawn), cv2.COLOR_RGB2BGR)


def _default_visualizer(predictor: FramePredictor) -> FrameVisualizer:
    """Return the project's own visualizer; imported here, as this file needs none otherwise."""
    from persondet.visualization.visualizer import PersonVideoVisualizer

    return PersonVideoVisualizer(predictor.metadata)

"""From clip to annotated clip: decode │ infer │ track │ draw │ encode, side by side.

Each stage is a thread with a bounded queue behind it, so the memory stays flat however long the
clip is, and two cores or a GPU and a core are kept busy at once. The predictor, the tracker and the
visualizer are handed in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from persondet.errors import MediaError, PartialMediaError, PersondetError
from persondet.video.detection import FramePredictor as FramePredictor
from persondet.video.frame_drawing import FrameVisualizer
from persondet.video.io import VideoReader, VideoWriter
from persondet.video.mot import mot_path, write_mot
from persondet.video.outputs import check_output as check_output
from persondet.video.outputs import earlier_mot
from persondet.video.outputs import records_path as records_path
from persondet.video.records import RecordsHeader, RecordsWriter
from persondet.video.stages import Stage, StageLine, StageTime
from persondet.video.steps import FrameTracker as FrameTracker
from persondet.video.steps import chosen_frames, detect, draw, encode, track

# How many frames may wait between two stages, and how many bytes of pictures.
_AHEAD = 4
_AHEAD_BYTES = 192 * 2**20

Progress = Callable[[int, int | None], None]
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
    from persondet.video.tracking import PersonTracker

    return PersonTracker(float(frame_rate))


def _default_visualizer(predictor: FramePredictor) -> FrameVisualizer:
    """Return the project's own visualizer; imported here, as this file needs none otherwise."""
    from persondet.visualization.visualizer import PersonVideoVisualizer

    return PersonVideoVisualizer(predictor.metadata)

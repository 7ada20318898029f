"""A model on trial: on an image, whose threshold then moves, and on a clip, which can be stopped.

What comes out are the files of `predict_images`, `annotate_clip` and `write_analysis`.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from persondet.analysis.clip import analyze_clip
from persondet.batch.options import AnnotationOptions, annotate_clip
from persondet.errors import MediaError, PersondetError
from persondet.files import partial_path as partial_records_path
from persondet.inference.images import RECORDS, BatchPredictor, load_image, predict_images
from persondet.records import records_path
from persondet.report.plots.areas import HEAT, PAGE, WAYS, write_analysis
from persondet.video.clip_files import ANNOTATED, frame_beneath, plan_clips
from persondet.video.writer import partial_path
from persondet.visualization.visualizer import draw_instances

if TYPE_CHECKING:
    from detectron2.structures import Instances

    from persondet.video.pipeline import VideoSummary

LOWEST = 0.05
"""The score from which detections of an image are kept, so that the threshold can go down to it."""
_SHOWN = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"}  # by browsers
_SECONDS_BETWEEN_STEPS = 0.3
# Texts that send FFmpeg to other files: playlists and descriptions of streams.
_POINTERS = (b"#extm3u", b"ffconcat", b"<?xml", b"<mpd", b"v=0")


class Stopped(PersondetError):
    """The user has stopped the work; what was annotated so far is kept."""


@dataclass(frozen=True)
class TriedImage:
    """An image, and what the model detects in it from the score `LOWEST` on, with small masks."""

    source: Path
    instances: Instances


@dataclass(frozen=True)
class ImageResult:
    """The annotated image, its records, and the people in them: the schema's objects."""

    image: Path
    records: Path
    people: list[dict[str, Any]]


@dataclass(frozen=True)
class ClipResult:
    """The annotated clip, its records, an archive of its analysis and the figures in that.

    sentences: what was done, and notes; analysis: None, and no figures, where nobody was seen.
    """

    clip: Path
    records: Path
    analysis: Path | None
    figures: tuple[Path, ...]
    sentences: tuple[str, ...]
    stopped: bool


class _AtThreshold:
    """A predictor that drops what is below a threshold, or that knows its detections already."""

    def __init__(
        self, predictor: BatchPredictor, threshold: float, known: Instances | None = None
    ) -> None:
        self._predictor, self.confidence_threshold, self._known = predictor, threshold, known

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)

    def predict_frames(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Detect as the predictor's own method does."""
        if self._known is None:
            found = _predict(self._predictor, images)
        else:
            found = [self._known] * len(images)
        return [one[one.scores >= self.confidence_threshold] for one in found]


def _predict(predictor: BatchPredictor, images: Sequence[np.ndarray]) -> list[Instances]:
    predict: Callable[[Sequence[np.ndarray]], list[Instances]]
    predict = getattr(predictor, "predict_frames", predictor.predict_batch)
    return predict(images)


class Trial:
    """A model on trial; it does one thing at a time.

    Args:
        predictor: keeps detections from `LOWEST` on.
    """

    def __init__(self, predictor: BatchPredictor) -> None:
        self.predictor = predictor
        self._one = threading.Lock()

    def finish(self, seconds: float) -> None:
        """Wait until nothing is under way, but not for longer than some seconds."""
        if self._one.acquire(timeout=seconds):
            self._one.release()

    def detect(self, source: Path) -> TriedImage:
        """Run the model on an image.

        Raises: MediaError: when the file is no image, or damaged.
        """
        image = load_image(source)
        with self._one:
            return TriedImage(source, _predict(self.predictor, [image])[0])

    def draw(
        self, tried: TriedImage, folder: Path, *, threshold: float, masks: bool = True
    ) -> ImageResult:
        """Draw and record the detections from a threshold on; the model does not run.

        Args:
            folder: gets the files; empty.

        Raises: MediaError, OutputExistsError: as `predict_images`.
        """
        name = tried.source.name
        name = name if tried.source.suffix.lower() in _SHOWN else f"{name}.jpg"
        metadata = self.predictor.metadata
        at_threshold: Any = _AtThreshold(self.predictor, threshold, tried.instances)

        def draw(image: np.ndarray, instances: Instances) -> np.ndarray:
            return draw_instances(image, instances, metadata, masks=masks)

        predict_images([(tried.source, name)], folder, at_threshold, draw)
        record = json.loads((folder / RECORDS).read_text(encoding="utf-8").splitlines()[1])
        return ImageResult(folder / name, folder / RECORDS, record["people"])

    def annotate(
        self,
        clip: Path,
        folder: Path,
        *,
        threshold: float,
        masks: bool = True,
        start: float | None = None,
        end: float | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[tuple[int, int | None] | ClipResult]:
        """Annotate and analyze a clip, in a thread.

        Args:
            folder: gets the files; empty.
            start, end: seconds from the clip's beginning.
            stop: when it is set, the work ends with what is done so far.

        Yields: several times a second the frames done and, if known, of how many; in the end the
            result. If the caller closes the iterator, the work is stopped.

        Raises: MediaError: when the clip cannot be read, or start and end leave no frame.
            Stopped: when it was stopped before the first frame.
        """
        stopped, done = stop or threading.Event(), (0, None)
        refuse_pointer(clip)
        first, last = (None if t is None else Fraction(str(t)) for t in (start, end))
        if (first or 0) < 0 or (last is not None and last <= (first or 0)):
            raise MediaError("the end must be later than the start, and both from 0 seconds on.")

        def tell(*progress: Any) -> None:
            nonlocal done
            done = progress
            if stopped.is_set():
                raise Stopped("Stopped.")

        def work() -> ClipResult:
            target = folder / f"{clip.stem}{ANNOTATED}.mp4"
            options = AnnotationOptions(start=first, end=last, masks=masks)
            at_threshold: Any = _AtThreshold(self.predictor, threshold)
            with self._one:
                try:
                    tell(0, None)
                    summary = annotate_clip(clip, target, at_threshold, options, progress=tell)
                except Stopped:
                    if not partial_path(target).is_file():
                        raise Stopped("Stopped before the first frame.") from None
                    os.replace(partial_path(target), target)
                    records = records_path(target)
                    os.replace(partial_records_path(records), records)
                    told = [f"Stopped after {done[0]:,} frames."]
                    return _result(clip, target, told, stopped=True)
                return _result(clip, target, _told(summary), stopped=False)

        with ThreadPoolExecutor(1, "persondet-page") as pool:
            try:
                future = pool.submit(work)
                while not wait([future], _SECONDS_BETWEEN_STEPS).done:
                    yield done
                yield future.result()
            finally:
                stopped.set()


def clips_in(places: Sequence[str | Path]) -> dict[str, Path]:
    """Return the clips in files and folders by their names; a second one of a name has its folder.

    Raises: MediaError: when a place does not exist, or is a folder without clips.
    """
    found: dict[str, Path] = {}
    for place in places:
        for source, _ in plan_clips(place, "annotated"):
            clip = Path(source)
            if clip.resolve() not in map(Path.resolve, found.values()):
                name = clip.name if clip.name not in found else f"{clip.name} in {clip.parent}"
                found[name] = clip
    return found


def refuse_pointer(clip: Path) -> None:
    """Refuse an uploaded text that would send FFmpeg to other files of this computer.

    Raises: MediaError: for a playlist, or a description of streams.
    """
    with open(clip, "rb") as file:
        head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(_POINTERS):
        raise MediaError(f"{clip}: it is a text that names other files; give the clip itself.")


def _told(summary: VideoSummary) -> list[str]:
    """Return what was done with a clip, and what is to be said about it."""
    told = f"{summary.frames:,} frames, {summary.fps:.1f} per second; "
    told += f"{summary.people_mean:.1f} people per frame, {summary.people_max} at most."
    more = (summary.damage, *summary.notes)
    return [told, *(f"{text[0].upper()}{text[1:].rstrip('.')}." for text in more if text)]


def _result(source: Path, clip: Path, sentences: list[str], *, stopped: bool) -> ClipResult:
    """Analyze an annotated clip by its records."""
    records = records_path(clip)
    analysis = analyze_clip(records)
    people = len(analysis.people)
    if not people:
        sentences.append("Nobody was in sight for half a second, so there is no analysis.")
        return ClipResult(clip, records, None, (), tuple(sentences), stopped)
    who = "person was" if people == 1 else "different people were"
    sentences.append(f"{people} {who} in sight for half a second or longer.")
    folder = clip.with_name(f"{clip.stem}_analysis")
    write_analysis(analysis, folder, frame_beneath(records, analysis.header, str(source)))
    archive = shutil.make_archive(str(folder), "zip", folder)
    figures = tuple(folder / name for name in (PAGE, HEAT, WAYS))
    return ClipResult(clip, records, Path(archive), figures, tuple(sentences), stopped)

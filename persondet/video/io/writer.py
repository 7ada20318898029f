"""Writing clips: H.264 that browsers play, and nothing lost when the run is killed."""

from __future__ import annotations

import logging
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.error
import numpy as np

from persondet.errors import MediaError, PartialMediaError, PersondetError
from persondet.files import make_folder, refuse_existing
from persondet.video.clock import OutputClock
from persondet.video.io.encoding import (
    ENCODER_THREADS,
    FRAGMENT_SECONDS,
    add_h264_stream,
    encodable,
    even,
    x264_options,
)
from persondet.video.io.finish import CONTAINERS as CONTAINERS
from persondet.video.io.finish import FULL, check_count, movie_clock, remux

logger = logging.getLogger(__name__)

DEFAULT_CRF = 20
_PARTIAL, _DRAFT = ".partial.mp4", ".finishing"


def partial_path(output: str | Path) -> Path:
    """Return where the pictures lie while a clip is being written: `<stem>.partial.mp4`."""
    output = Path(output)
    return output.with_name(output.stem + _PARTIAL)


def draft_path(output: str | Path) -> Path:
    """Return where the finished clip lies for a moment, before it gets its name."""
    output = Path(output)
    return output.with_name(output.stem + _DRAFT + output.suffix)


def refuse_existing_output(output: str | Path, *, overwrite: bool = False) -> None:
    """Refuse a clip that is there already, whole or left unfinished by an earlier run.

    Raises: OutputExistsError: when it is, and `overwrite` is False.
    """
    for path in (Path(output), partial_path(output)):
        refuse_existing(path, overwrite=overwrite)


class VideoWriter:
    """An H.264 clip (yuv420p, BT.709, fast start) that appears under its name when it is whole.

    Use it as a context manager. The pictures go to `<stem>.partial.mp4` beside the target, a
    fragmented mp4 that plays whenever the program stops: all but the last second is on the disk.
    On success they are remuxed with the sound, counted, and renamed to the target; on failure the
    partial file stays, unless it is empty. The same frames give the same bytes where the width
    is a multiple of 256; elsewhere x264's macroblock tree reads a little beyond its own rows, and
    decides otherwise now and then.

    Attributes:
        frames_written: frames handed to the encoder so far.
        sound_from: the clip whose sound is copied at the end of the block, or None.
        notes: sentences for the user, complete after the block: padding, sound that is left out.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        width: int,
        height: int,
        fps: Fraction,
        crf: int | None = None,
        time_base: Fraction | None = None,
        pixel_aspect: Fraction | None = None,
        sound_from: str | Path | None = None,
        title: str = "",
        overwrite: bool = False,
        preset: str = "superfast",
        threads: int = ENCODER_THREADS,
    ) -> None:
        """Describe the clip; the file is made when the `with` block is entered.

        Args:
            path: the target, named .mp4, .mov or .mkv.
            width, height: pixels of the frames that will be written; an odd size is padded.
            fps: frames per second, exact; time stamps follow from it when none are given.
            crf: x264's constant quality, 0 (lossless) to 51 (worst); None: 20.
            time_base: seconds per tick of the clock that the given time stamps come from.
            pixel_aspect: width of a pixel over its height; None: 1.
            sound_from: the clip whose sound is copied; its packets stay as they are.
            title: what players show as the clip's title.
            overwrite: replace what stands at `path`, or was left unfinished beside it.
            preset: x264's speed, `ultrafast` to `placebo`.
            threads: encoder threads; another number may give other bytes.

        Raises: MediaError: when the name has another suffix, or a number is out of range.
        """
        self.path = Path(path)
        crf = DEFAULT_CRF if crf is None else crf
        if self.path.suffix.lower() not in CONTAINERS:
            known = ", ".join(CONTAINERS)
            raise MediaError(f"{self.path}: cannot write this format; use a name in {known}.")
        if width < 1 or height < 1 or fps <= 0 or not 0 <= crf <= 51:
            raise MediaError(
                f"{self.path}: cannot write {width} x {height} pixels at {fps} frames per second "
                f"with crf {crf}; sizes and rate must be positive, crf 0 to 51."
            )
        self.width, self.height, self.fps = width, height, Fraction(fps)
        self.frames_written = 0
        self.notes: list[str] = []
        self._partial = partial_path(self.path)
        self._draft = draft_path(self.path)
        self.sound_from, self._title, self._overwrite = sound_from, title, overwrite
        self._pixel_aspect = Fraction(pixel_aspect or 1)
        self._options = x264_options(self.fps, crf, preset, threads)
        self._clock = OutputClock(self.fps, time_base)
        self._broken = False

    def __enter__(self) -> VideoWriter:
        make_folder(self.path.parent)
        refuse_existing_output(self.path, overwrite=self._overwrite)
        size = even(self.width), even(self.height)
        try:
            self._partial.touch()  # FFmpeg opens the file with the first packet only
            self._container = av.open(
                f"file:{self._partial.resolve()}",
                "w",
                format="mp4",
                options={
                    "movflags": "+delay_moov+default_base_moof",
                    "frag_duration": str(int(FRAGMENT_SECONDS * 1_000_000)),
                    "flush_packets": "1",
                    **movie_clock(self._clock.tick),
                },
            )
        except OSError as error:
            raise MediaError(f"{self.path}: cannot be written ({error.strerror}).") from error
        try:
            self._stream = add_h264_stream(
                self._container,
                size=size,
                fps=self.fps,
                tick=self._clock.tick,
                pixel_aspect=self._pixel_aspect,
                options=self._options,
            )
        except BaseException:
            self._partial.unlink(missing_ok=True)
            raise
        if size != (self.width, self.height):
            self._note(
                f"{self.width} x {self.height} is odd; padded by a pixel to {size[0]} x {size[1]}, "
                "as H.264 needs it"
            )
        return self

    def _note(self, sentence: str) -> None:
        self.notes.append(sentence)
        logger.info("%s: %s", self.path, sentence)

    def write(self, image: np.ndarray, time_stamp: Fraction | float | None = None) -> None:
        """Append a frame.

        Args:
            image: uint8, (height, width, 3), BGR.
            time_stamp: seconds from the start of the clip; None: one frame after the last.

        Raises: MediaError: when the image has another size or type, or the disk is full.
        """
        if image.shape != (self.height, self.width, 3) or image.dtype != np.uint8:
            raise MediaError(
                f"{self.path}: frame {self.frames_written} is {image.dtype} {image.shape}; "
                f"expected uint8 ({self.height}, {self.width}, 3)."
            )
        frame = encodable(image)
        frame.pts = self._clock.ticks(time_stamp)
        frame.duration = self._clock.frame_ticks
        frame.time_base = self._clock.tick
        self._mux(frame)
        self.frames_written += 1

    def _mux(self, frame: av.VideoFrame | None) -> None:
        """Encode a frame (None: flush) and write the packets."""
        try:
            for packet in self._stream.encode(frame):
                # Of the last packet, whose length no later one tells, the container asks it.
                packet.duration = packet.duration or self._clock.frame_ticks
                self._container.mux_one(packet)
        except av.error.FFmpegError as error:
            self._broken = True
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> MediaError:
        """Return the error that says why the clip cannot be written, and what is kept."""
        reason = getattr(error, "strerror", None) or str(error)
        mend = ""
        if getattr(error, "errno", None) in FULL:
            reason, mend = "the disk is full", "; make room and start again with --overwrite"
        if not self.frames_written:
            return MediaError(f"{self.path}: cannot be written, {reason}{mend}.")
        kept = f"what was written so far is kept in {self._partial}"
        return PartialMediaError(f"{self.path}: cannot be written, {reason}; {kept}{mend}.")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
            else:
                self._keep()
        except BaseException:
            self._close_quietly()
            self._draft.unlink(missing_ok=True)
            raise
        finally:
            if not self.frames_written:
                self._partial.unlink(missing_ok=True)

    def _finish(self) -> None:
        """Flush the encoder, make the finished clip, count it and give it its name."""
        if not self.frames_written:
            raise MediaError(f"{self.path}: no frame was written, so there is no clip.")
        self._mux(None)
        try:
            self._container.close()
            for note in remux(self._partial, self._draft, self.path, self.sound_from, self._title):
                self._note(note)
            check_count(self._draft, self.path, self.frames_written)
            refuse_existing(self.path, overwrite=self._overwrite)
            os.replace(self._draft, self.path)
        except PersondetError as error:
            message = str(error).rstrip(".")
            raise PartialMediaError(f"{message}; the clip is kept in {self._partial}.") from error
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error) from error
        self._partial.unlink()

    def _keep(self) -> None:
        """After a failure: put what the encoder still holds into the partial file."""
        if self.frames_written and not self._broken:
            try:
                self._mux(None)
            except MediaError:
                logger.debug("%s: the encoder could not be flushed", self.path)
        self._close_quietly()
        if self.frames_written:
            logger.warning(
                "%s is not finished; what was written is in %s", self.path, self._partial
            )

    def _close_quietly(self) -> None:
        """Close the container; after a failure its own complaint would hide the first one."""
        try:
            self._container.close()
        except av.error.FFmpegError:
            logger.debug("%s: the container did not close cleanly", self.path)

"""Writing clips: H.264 that browsers play, whole or not at all."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.error
import numpy as np

from persondet.errors import MediaError
from persondet.files import atomic_path
from persondet.video.clock import OutputClock

logger = logging.getLogger(__name__)

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
# x264 gives the same bytes for the same number of threads only, so the number is fixed.
ENCODER_THREADS = 4
_BT709 = 1
_LIMITED_RANGE = 1


class VideoWriter:
    """An H.264 clip (yuv420p, BT.709, fast start) that appears under its name when it is whole.

    Use it as a context manager: frames go to a temporary file beside the target, which is renamed
    on success and removed on failure. The same frames give the same bytes where the width is a
    multiple of 16; x264 needs `threads=1` for that at other widths.

    Attributes:
        frames_written: frames handed to the encoder so far.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        width: int,
        height: int,
        fps: Fraction,
        crf: int = 20,
        time_base: Fraction | None = None,
        preset: str = "veryfast",
        threads: int = ENCODER_THREADS,
    ) -> None:
        """Describe the clip; the file is made when the `with` block is entered.

        Args:
            path: the target, named .mp4, .mov or .mkv.
            width, height: pixels of the frames that will be written; an odd size is padded.
            fps: frames per second, exact; time stamps follow from it when none are given.
            crf: x264's constant quality, 0 (lossless) to 51 (worst).
            time_base: seconds per tick of the clock that the given time stamps come from.
            preset: x264's speed, `ultrafast` to `placebo`.
            threads: encoder threads; another number gives other bytes.

        Raises: MediaError: when the name has another suffix, or a number is out of range.
        """
        self.path = Path(path)
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
        self._options = {
            "crf": str(crf),
            "preset": preset,
            "threads": str(threads),
            # x264 is the same from run to run only without its own lookahead thread.
            "x264-params": "sync-lookahead=0",
        }
        self._clock = OutputClock(self.fps, time_base)
        self._target: AbstractContextManager[Path] | None = None

    def __enter__(self) -> VideoWriter:
        self._target = atomic_path(self.path)
        try:
            temporary = self._target.__enter__()
        except OSError as error:
            raise MediaError(f"{self.path}: cannot be written ({error.strerror}).") from error
        try:
            suffix = self.path.suffix.lower()
            self._container = av.open(
                f"file:{temporary.resolve()}",
                "w",
                format=CONTAINERS[suffix],
                options={} if suffix == ".mkv" else {"movflags": "+faststart"},
            )
            self._stream = self._add_stream()
        except BaseException as error:
            self._target.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _add_stream(self) -> av.VideoStream:
        """Add the H.264 stream, its size even as 4:2:0 needs it."""
        stream = self._container.add_stream("libx264", rate=self.fps, options=self._options)
        stream.width, stream.height = self.width + self.width % 2, self.height + self.height % 2
        if (stream.width, stream.height) != (self.width, self.height):
            logger.warning(
                "%s: %d x %d is odd; padded by a pixel to %d x %d, as H.264 needs it",
                *(self.path, self.width, self.height, stream.width, stream.height),
            )
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = self._clock.tick
        # Say which colours are meant; a player that has to guess picks by the size.
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        return stream

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
        padding = ((0, self.height % 2), (0, self.width % 2), (0, 0))
        if self.height % 2 or self.width % 2:
            image = np.pad(image, padding, mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        _clear_padding(frame)
        frame.pts = self._clock.ticks(time_stamp)
        frame.duration = self._clock.frame_ticks
        frame.time_base = self._clock.tick
        self._mux(frame)
        self.frames_written += 1

    def _mux(self, frame: av.VideoFrame | None) -> None:
        """Encode a frame (None: flush) and write the packets."""
        try:
            self._container.mux(self._stream.encode(frame))
        except av.error.FFmpegError as error:
            raise MediaError(f"{self.path}: cannot be written ({error.strerror}).") from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._target is not None
        try:
            if kind is None:
                self._finish()
        except BaseException as failure:
            self._target.__exit__(type(failure), failure, failure.__traceback__)
            raise
        finally:
            self._close_quietly()
        self._target.__exit__(kind, error, trace)

    def _finish(self) -> None:
        """Flush the encoder and write the index."""
        if not self.frames_written:
            raise MediaError(f"{self.path}: no frame was written, so there is no clip.")
        self._mux(None)
        try:
            self._container.close()
        except av.error.FFmpegError as error:
            raise MediaError(f"{self.path}: cannot be written ({error.strerror}).") from error

    def _close_quietly(self) -> None:
        """Close the container; after a failure its own complaint would hide the first one."""
        try:
            self._container.close()
        except av.error.FFmpegError:
            logger.debug("%s: the container did not close cleanly", self.path)


def _clear_padding(frame: av.VideoFrame) -> None:
    """Zero the bytes beyond the right edge of each plane.

    x264's lookahead reads them where the width is no multiple of 32; left as they are in memory,
    the same frames give other bytes from run to run.
    """
    for plane in frame.planes:
        if plane.width < plane.line_size:
            rows = np.asarray(memoryview(plane)).view(np.uint8).reshape(-1, plane.line_size)
            rows[:, plane.width :] = 0

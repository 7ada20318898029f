"""Reading clips: every container and codec that FFmpeg knows, as upright BGR frames."""

from __future__ import annotations

import logging
import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np

from persondet.errors import MediaError
from persondet.video.sniff import describe_foreign_file

logger = logging.getLogger(__name__)

DEFAULT_FRAME_RATE = Fraction(25)
_UNSPECIFIED_COLORSPACE = 2
# Rows (x', y') of a display matrix that changes nothing; QuickTime File Format, "Matrices".
_UPRIGHT = (1, 0, 0, 1)


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One picture of a clip.

    index: position in the clip, from 0.
    time: seconds from the start of the clip, exact.
    image: uint8, (H, W, 3), BGR, 0..255, upright (rotation metadata applied).
    """

    index: int
    time: Fraction
    image: np.ndarray


class VideoReader:
    """The frames of a clip, in order, once; memory does not grow with its length.

    Attributes:
        width, height: pixels of the upright frames.
        frame_rate: frames per second; the average where the rate is variable.
        time_base: seconds per tick of the source's clock.
        announced_frames: what the header says, or None; headers lie, so use it for progress only.
        frames_read: frames yielded so far.
        damage: one sentence when the clip turned out to be broken, else "" (known at the end).
    """

    def __init__(self, path: str | Path) -> None:
        """Open a clip and decode its first frame.

        Raises: MediaError: when the file is missing, is not a clip, or has no frame.
        """
        self.path = Path(path)
        self.damage = ""
        self.frames_read = 0
        self._container = _open_container(self.path)
        try:
            stream = self._picture_stream()
            stream.thread_type = "AUTO"
            self._stream = stream
            self._decoded = self._decode()
            self._first = next(self._decoded, None)
            if self._first is None:
                detail = f" ({self.damage})" if self.damage else ""
                raise MediaError(f"{self.path}: the clip has no frame that can be decoded{detail}.")
        except BaseException:
            self._container.close()
            raise
        self._matrix = _display_matrix(self._first)
        self._coded_size = (self._first.width, self._first.height)
        turned = self._matrix[0] == 0
        self.width, self.height = self._coded_size[::-1] if turned else self._coded_size
        self.frame_rate = _frame_rate(stream)
        self.time_base = Fraction(stream.time_base or 1 / self.frame_rate)
        self.announced_frames: int | None = self._announced_frames()
        self._started = False

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; further frames cannot be read."""
        self._decoded.close()
        self._container.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield every frame that can be decoded; `damage` says afterwards whether some could not.

        Raises: RuntimeError: when the reader was iterated before.
        """
        if self._started:
            raise RuntimeError(f"{self.path}: a VideoReader is read once; open another one.")
        self._started = True
        time: Fraction | None = None
        frame, self._first = self._first, None
        while frame is not None:
            time = self._time_of(frame, time)
            yield VideoFrame(self.frames_read, time, self._upright_bgr(frame))
            self.frames_read += 1
            frame = next(self._decoded, None)
        if self.damage:
            logger.info("%s: %s; %d frames were read", self.path, self.damage, self.frames_read)

    def _picture_stream(self) -> av.VideoStream:
        """Return the main picture stream; cover art of a sound file is none."""
        streams = [
            stream
            for stream in self._container.streams.video
            if not stream.disposition & av.stream.Disposition.attached_pic
        ]
        if not streams:
            raise MediaError(f"{self.path}: the file has no picture stream; give a video file.")
        best = self._container.streams.best("video")
        return best if best in streams else streams[0]

    def _announced_frames(self) -> int | None:
        """Return the number of frames according to the header, or by its duration."""
        if self._stream.frames > 0:
            return int(self._stream.frames)
        if self._container.duration:
            seconds = Fraction(self._container.duration, av.time_base)
            return max(1, round(seconds * self.frame_rate))
        return None

    def _decode(self) -> Generator[av.VideoFrame, None, None]:
        """Yield decoded frames; a broken packet is skipped, a broken container ends the clip."""
        lost = 0
        try:
            for packet in self._container.demux(self._stream):
                try:
                    yield from packet.decode()
                except av.error.FFmpegError:
                    lost += 1
        except av.error.FFmpegError as error:
            self.damage = f"the clip is broken and ends early ({error.strerror})"
            try:
                yield from self._stream.decode(None)
            except av.error.FFmpegError:
                lost += 1
        if not self.damage and self._is_cut():
            self.damage = f"the clip is cut: it should have {self.announced_frames} frames"
        if lost and not self.damage:
            self.damage = f"the clip is damaged and {lost} of its packets could not be decoded"

    def _is_cut(self) -> bool:
        """Say whether the file ends before what its index points to; demuxers keep silent then."""
        entries = self._stream.index_entries
        size = self.path.stat().st_size
        return len(entries) > 0 and entries[-1].pos + entries[-1].size > size

    def _time_of(self, frame: av.VideoFrame, previous: Fraction | None) -> Fraction:
        """Return the frame's time from the start of the clip; always later than `previous`."""
        start = Fraction(self._container.start_time or 0, av.time_base)
        time: Fraction | None = None
        if frame.pts is not None:
            tick = Fraction(frame.time_base or self.time_base)
            # The container's start is in microseconds: round it to the stream's own clock.
            time = max(Fraction(0), (frame.pts - round(start / tick)) * tick)
        if previous is None:
            return time if time is not None else Fraction(0)
        if time is None:
            return previous + 1 / self.frame_rate
        return time if time > previous else previous + self.time_base

    def _upright_bgr(self, frame: av.VideoFrame) -> np.ndarray:
        """Convert to BGR and turn upright; a change of size within the clip is scaled back."""
        width, height = self._coded_size
        if (frame.width, frame.height) != self._coded_size:
            logger.debug("%s: frame %d changes size", self.path, self.frames_read)
        colorspace = None
        if frame.colorspace == _UNSPECIFIED_COLORSPACE:
            colorspace = "ITU709" if height >= 720 else "ITU601"
        image = frame.to_ndarray(
            width=width, height=height, format="bgr24", src_colorspace=colorspace
        )
        return image if self._matrix == _UPRIGHT else _apply_display_matrix(image, self._matrix)


def _frame_rate(stream: av.VideoStream) -> Fraction:
    """Return the nominal rate where it agrees with the average one, else the average."""
    nominal, average = stream.base_rate, stream.average_rate
    if not average:
        average = stream.guessed_rate or nominal
    if nominal and average and abs(nominal / average - 1) < Fraction(1, 100):
        # The average of a short clip is off by its last frame's duration; the nominal is not.
        return Fraction(nominal)
    return Fraction(average).limit_denominator(100_000) if average else DEFAULT_FRAME_RATE


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Return (a, b, c, d), each -1, 0 or 1, of x' = a·x + c·y, y' = b·x + d·y.

    Angles between the quarter turns, which no camera writes, are rounded to them.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return _UPRIGHT
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])  # type: ignore[call-overload]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (-1 if a < 0 else 1, 0, 0, -1 if d < 0 else 1)
    return (0, -1 if b < 0 else 1, -1 if c < 0 else 1, 0)


def _apply_display_matrix(image: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Turn and mirror (H, W, 3) as `_display_matrix` says; the result is contiguous."""
    a, b, c, d = matrix
    if a == 0:
        image = image.transpose(1, 0, 2)
    if (a or c) < 0:
        image = image[:, ::-1]
    if (d or b) < 0:
        image = image[::-1]
    return np.ascontiguousarray(image)


def _open_container(path: Path) -> av.container.InputContainer:
    """Open a local file; neither its name nor its content can lead to the network."""
    if not path.is_file():
        problem = "is a folder, not a clip" if path.is_dir() else "does not exist"
        raise MediaError(f"{path} {problem}; give the name of a video file.")
    try:
        return av.open(
            f"file:{path.resolve()}", container_options={"protocol_whitelist": "file,crypto,data"}
        )
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(
            f"{path}: cannot be read as a video; {describe_foreign_file(path) or reason}."
        ) from error

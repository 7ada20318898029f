"""Reading clips: every container and codec that FFmpeg knows, as upright BGR frames."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path

import av
import av.error
import numpy as np

from persondet.errors import MediaError
from persondet.video.address import shown, shown_name
from persondet.video.io.damage import pictures_of, silent_damage
from persondet.video.io.frame_times import FrameTimes
from persondet.video.io.header import clip_start, expected_frames, frame_rate, left_out, title
from persondet.video.io.skip import COUNTABLE, Skipped, UncountableError, skip_to
from persondet.video.io.source import open_source
from persondet.video.io.upright import UPRIGHT, apply_display_matrix, bgr_array, display_matrix

logger = logging.getLogger(__name__)

_PROGRESSIVE = (0, 1)  # AVFieldOrder: unknown, progressive


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
        label: the file or address as it may be shown: no user, password or query.
        name: the last part of that.
        width, height: pixels of the upright frames.
        pixel_aspect: width of a pixel over its height, upright; 1 for nearly every clip.
        frame_rate: frames per second; the average where the rate is variable.
        time_base: seconds per tick of the source's clock.
        duration: seconds according to the header, or None.
        announced_frames: what the header says of the whole clip, or None; headers lie, so use it
            for progress only.
        expected_frames: the share of `announced_frames` between start and end, or None.
        sound: whether the clip has sound.
        title: the clip's title, or "".
        left_out: what else the clip has, such as subtitles, in words, or "".
        frames_read: frames yielded so far.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        start: Fraction | float | None = None,
        end: Fraction | float | None = None,
    ) -> None:
        """Open a clip and decode its first frame.

        Args:
            source: a file, or an address that FFmpeg opens (`https://…`, `rtsp://…`).
            start, end: seconds from the start of the clip; frames with start <= time < end are
                read, and they keep the index and the time that they have in the whole clip.

        Raises: MediaError: when the source is missing, is not a clip, or has no such frame.
        """
        self.label, self.name = shown(source), shown_name(source)
        self._source = source
        self._first_time = None if start is None else Fraction(start)
        self._last_time = None if end is None else Fraction(end)
        if (self._first_time or 0) < 0 or (end is not None and Fraction(end) <= (start or 0)):
            raise MediaError(
                f"{self.label}: cannot read from {float(start or 0):g} s to "
                f"{'the end' if end is None else f'{float(end):g} s'}; "
                "start must not be negative, and end must be later."
            )
        self.frames_read = 0
        self._started = False
        try:
            self._begin(skip=self._first_time is not None)
        except UncountableError:
            self._container.close()
            self._begin(skip=False)

    def _begin(self, *, skip: bool) -> None:
        """Open the source and decode up to the first frame that is wanted."""
        self._container = open_source(self._source)
        self._lost = self._lost_pictures = 0
        self._damage, self._at_end = "", False
        try:
            self._stream = pictures_of(self._container, self._source)
            self._stream.thread_type = "AUTO"
            self.frame_rate = frame_rate(self._stream)
            self.time_base = Fraction(self._stream.time_base or 1 / self.frame_rate)
            self._describe()
            skipped = self._skip() if skip else None
            self._times = FrameTimes(
                self.time_base,
                self.frame_rate,
                self._clip_start,
                in_coding_order=self._in_coding_order,
            )
            self._timed = self._wanted(skipped)
            self._first = next(self._timed, None)
            if self._first is None:
                raise MediaError(self._no_frame())
        except BaseException:
            self._container.close()
            raise
        self._first_index, _, frame = self._first
        self._matrix = display_matrix(frame)
        self._coded_size = (frame.width, frame.height)
        turned = self._matrix[0] == 0
        self.width, self.height = self._coded_size[::-1] if turned else self._coded_size
        aspect = Fraction(self._stream.sample_aspect_ratio or 1)
        self.pixel_aspect = 1 / aspect if turned else aspect

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def damage(self) -> str:
        """One sentence when the clip turned out to be broken, as far as it was read, else ""."""
        if self._lost and not self._damage:
            return f"the clip is damaged and {self._lost} of its packets could not be decoded"
        return self._damage

    @property
    def complete(self) -> bool:
        """Whether the clip was read from its first frame to its end, and nothing was cut out."""
        return self._at_end and self._first_index == 0

    @property
    def clock_restarts(self) -> bool:
        """Whether the clip's clock began again somewhere, as far as it was read."""
        return self._times.restarts > 0

    def close(self) -> None:
        """Close the source; further frames cannot be read."""
        self._timed.close()
        self._container.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield every frame that can be decoded; `damage` says afterwards whether some could not.

        Raises: RuntimeError: when the reader was iterated before.
        """
        if self._started:
            raise RuntimeError(f"{self.label}: a VideoReader is read once; open another one.")
        self._started = True
        timed, self._first = self._first, None
        while timed is not None:
            index, time, frame = timed
            yield VideoFrame(index, time, self._upright_bgr(frame))
            self.frames_read += 1
            timed = next(self._timed, None)
        if self.damage:
            logger.info("%s: %s; %d frames were read", self.label, self.damage, self.frames_read)

    def _describe(self) -> None:
        """Read from the header how long the clip is, and whether it has sound."""
        duration = self._container.duration
        self.duration = Fraction(duration, av.time_base) if duration else None
        # AVI tells when a picture is decoded and not when it is shown; the decoder's order tells that.
        self._in_coding_order = self._container.format.name == "avi"
        self._clip_start = clip_start(self._container, self._stream)
        self.sound = bool(self._container.streams.audio)
        self.title = title(self._container)
        self.left_out = left_out(self._container, self._stream)
        self.announced_frames: int | None = int(self._stream.frames) or None
        if self.announced_frames is None and self.duration is not None:
            self.announced_frames = max(1, round(self.duration * self.frame_rate))
        self.expected_frames = expected_frames(
            self.announced_frames, self.duration, self.frame_rate, self._first_time, self._last_time
        )

    def _no_frame(self) -> str:
        """Say in one sentence why there is nothing to read."""
        if self._first_time is None or self._decoded_until is None:
            detail = f" ({self.damage})" if self.damage else ""
            return f"{self.label}: the clip has no frame that can be decoded{detail}."
        return (
            f"{self.label}: the clip has no frame between the chosen start, "
            f"{float(self._first_time):g} s, and end; its frames at hand end at "
            f"{float(self._decoded_until):.2f} s."
        )

    def _skip(self) -> Skipped:
        """Find the key frame from which decoding must begin.

        Raises: UncountableError: when what comes before cannot be counted without decoding it.
        """
        context = self._stream.codec_context
        countable = context.name in COUNTABLE and context.field_order in _PROGRESSIVE
        if not countable or self._in_coding_order:
            raise UncountableError
        assert self._first_time is not None
        origin = round(self._clip_start / self.time_base)  # the container's is in microseconds
        wanted = floor(self._first_time / self.time_base) + origin
        try:
            return skip_to(self._container.demux(self._stream), wanted)
        except av.error.FFmpegError as error:
            raise UncountableError from error

    def _wanted(
        self, skipped: Skipped | None
    ) -> Generator[tuple[int, Fraction, av.VideoFrame], None, None]:
        """Yield (index, time, picture) of the frames between start and end."""
        index = skipped.index if skipped else 0
        self._decoded_until: Fraction | None = None
        for frame in self._decode(skipped.packets if skipped else ()):
            if skipped and self._decoded_until is None and frame.pts != skipped.pts:
                if frame.pts is not None and frame.pts < skipped.pts:
                    continue  # a picture that belongs before the key frame
                raise UncountableError
            time = self._decoded_until = self._times.next(frame)
            if self._last_time is not None and time >= self._last_time:
                return
            if self._first_time is None or time >= self._first_time:
                yield index + self._lost_pictures, time, frame
            index += 1
        self._at_end = True
        if not self._damage:
            self._damage = silent_damage(
                self._source,
                self._container,
                self._stream,
                announced=self.announced_frames,
                found=index,
                until=(self._decoded_until or Fraction(0)) + 1 / self.frame_rate,
            )

    def _decode(self, held: Iterable[av.Packet]) -> Generator[av.VideoFrame, None, None]:
        """Yield decoded frames; a broken packet is skipped, a broken container ends the clip.

        Args:
            held: packets that were read already.
        """
        try:
            for packet in _chain(held, self._container.demux(self._stream)):
                self._lost += packet.is_corrupt
                try:
                    for frame in packet.decode():
                        self._lost += frame.is_corrupt
                        yield frame
                except av.error.FFmpegError:
                    self._lost += 1
                    self._lost_pictures += 1  # what follows keeps its place in the clip
        except av.error.FFmpegError as error:
            reason = "no answer" if isinstance(error, av.error.ExitError) else error.strerror
            self._damage = f"the clip is broken and ends early ({reason})"
            try:
                yield from self._stream.decode(None)
            except av.error.FFmpegError:
                self._lost += 1

    def _upright_bgr(self, frame: av.VideoFrame) -> np.ndarray:
        """Convert to BGR and turn upright; a change of size within the clip is scaled back."""
        if (frame.width, frame.height) != self._coded_size:
            logger.debug("%s: frame %d changes size", self.label, self.frames_read)
        image = bgr_array(frame, *self._coded_size)
        return image if self._matrix == UPRIGHT else apply_display_matrix(image, self._matrix)


def _chain(held: Iterable[av.Packet], further: Iterator[av.Packet]) -> Iterator[av.Packet]:
    """Yield packets; the empty one, at the end of the clip, is the last."""
    for packet in held:
        yield packet
        if packet.size == 0:
            return
    yield from further

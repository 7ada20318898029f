"""Reading clips: every container and codec that FFmpeg knows, as upright BGR frames.

`VideoReader` opens a clip and yields its frames. `FrameTimes` turns time stamps into exact, rising
times. A start in the middle counts the packets before it instead of decoding them (`skip_to`). The
functions at the end deinterlace, map high dynamic range, and apply rotation metadata.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, groupby
from pathlib import Path

import av
import av.error
import av.filter
import cv2
import numpy as np

from persondet.errors import MediaError
from persondet.video.source import (
    clip_start,
    frame_rate,
    is_cut,
    left_out,
    length_in_header,
    open_source,
    shown,
    shown_name,
    video_stream,
)

_PROGRESSIVE = (0, 1)  # AVFieldOrder: unknown, progressive


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One frame of a clip.

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
        label: the file or address for logs: no user, password or query.
        name: the last part of `label`.
        width, height: pixels of the upright frames.
        pixel_aspect: width of a pixel over its height, upright; 1 for nearly every clip.
        frame_rate: frames per second; the average if the rate is variable.
        time_base: seconds per tick of the source's clock.
        duration: seconds according to the header, or None.
        announced_frames: number in the header, or None; headers lie, so use it for progress only.
        expected_frames: the share of `announced_frames` between start and end, or None.
        sound: the clip has sound.
        title: the clip's title, or "".
        notes: sentences for the user on what was read, as far as it was.
        frames_read: frames yielded so far.

    Example:
        >>> with VideoReader("clip.mp4") as reader:
        ...     shapes = [frame.image.shape for frame in reader]
        >>> reader.frames_read, shapes[0]
        (5, (64, 96, 3))
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
            start, end: seconds from the start of the clip; the reader yields frames with
                start <= time < end, with their index and time in the whole clip.

        Raises: MediaError: when the source is missing, is not a clip, or has no such frame.
        """
        self.label, self.name = shown(source), shown_name(source)
        self._source = source
        self._start = Fraction(start or 0)
        self._end = None if end is None else Fraction(end)
        if self._start < 0 or (self._end is not None and self._end <= self._start):
            raise MediaError(
                f"{self.label}: cannot read from {float(self._start):g} s to "
                f"{'the end' if end is None else f'{float(end):g} s'}; "
                "start must not be negative, and end must be later."
            )
        self.frames_read = 0
        self._started = False
        try:
            self._begin(skip=self._start > 0)
        except UncountableError:
            self._container.close()
            self._begin(skip=False)

    def _begin(self, *, skip: bool) -> None:
        """Open the source and decode up to the first wanted frame."""
        self._container = open_source(self._source)
        self._lost = self._lost_images = self._torn = self._flagged = 0
        self._damage, self._at_end = "", False
        try:
            self._stream = video_stream(self._container, self._source)
            self._stream.thread_type = "AUTO"
            self.frame_rate = frame_rate(self._stream, self._source)
            others = left_out(self._container)
            self.notes = [f"{others} left out"] if others else []
            self.time_base = Fraction(self._stream.time_base or 1 / self.frame_rate)
            self._describe()
            index, held = self._skip() if skip else (0, [])
            self._times = FrameTimes(self.time_base, self.frame_rate, self._clip_start)
            self._timed = self._wanted(index, held)
            self._first = next(self._timed, None)
            if self._first is None:
                raise MediaError(self._no_frame())
        except BaseException:
            self._container.close()
            raise
        self._first_index, _, frame = self._first
        self._turn = _turn(frame)
        self._tables = _range_tables(frame.color_trc)
        if self._tables is not None:
            self.notes.append("its high dynamic range is mapped to the standard one (BT.709)")
        self._coded_size = (frame.width, frame.height)
        turned = self._turn[0]
        self.width, self.height = self._coded_size[::-1] if turned else self._coded_size
        aspect = Fraction(self._stream.sample_aspect_ratio or 1)
        self.pixel_aspect = 1 / aspect if turned else aspect

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def damage(self) -> str:
        """One sentence if the clip turned out to be broken, as far as it was read, else ""."""
        lost = f"{self._lost} of its packets could not be decoded" if self._lost else ""
        torn = f"{self._torn} of its frames decoded with errors" if self._torn else ""
        told = " and ".join(filter(None, (lost, torn)))
        return self._damage or (told and f"the clip is damaged: {told}")

    @property
    def complete(self) -> bool:
        """Whether the clip was read from its first frame to its end."""
        return self._at_end and self._first_index == 0

    @property
    def clock_restarts(self) -> bool:
        """Whether the clip's clock began again somewhere, as far as it was read."""
        return self._times.moved != 0

    def close(self) -> None:
        """Close the source; further frames cannot be read."""
        self._timed.close()
        self._container.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield every frame that decodes; `damage` says afterwards if some did not.

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

    def _describe(self) -> None:
        """Read from the header how long the clip is, and whether it has sound."""
        duration = self._container.duration
        self.duration = Fraction(duration, av.time_base) if duration else None
        # AVI stores when a frame is decoded, not when it is shown; the decoder's order tells that.
        avi = self._container.format.name == "avi"
        self._clip_start = None if avi else clip_start(self._container, self._stream)
        late = Fraction(0)
        if self.duration and self._container.format.name.startswith("matroska"):
            # FFmpeg writes when the clip ends by its time stamps, which may begin late.
            late = max(late, self._clip_start or late)
            late = late if late < self.duration else Fraction(0)
            self.duration -= late
        self.sound = bool(self._container.streams.audio)
        tags = {key.lower(): value for key, value in self._container.metadata.items()}
        self.title = tags.get("title", "")
        self.announced_frames: int | None = int(self._stream.frames) or None
        if self.announced_frames is None and self.duration is not None:
            length = length_in_header(self._container, self._stream)  # without sound that is longer
            length = self.duration if length is None else length - late
            self.announced_frames = max(1, round(length * self.frame_rate))
        self.expected_frames = self.announced_frames
        if self.announced_frames and (self._start or self._end):
            whole = self.duration or self.announced_frames / self.frame_rate
            part = max(Fraction(0), min(whole, self._end or whole) - self._start) / whole
            self.expected_frames = max(1, round(self.announced_frames * part))

    def _no_frame(self) -> str:
        """Return a sentence on why there is nothing to read."""
        if self._decoded_until is None:
            why = f"; {self.damage}" if self.damage else ""
            return f"{self.label}: the clip has no frame that can be decoded{why}."
        return (
            f"{self.label}: the clip has no frame between the chosen start, "
            f"{float(self._start):g} s, and end; its frames at hand end at "
            f"{float(self._decoded_until):.2f} s."
        )

    def _skip(self) -> tuple[int, list[av.Packet]]:
        """Find the key frame from which decoding must begin: see `skip_to`.

        Raises: UncountableError: when the frames before it cannot be counted without decoding.
        """
        context = self._stream.codec_context
        countable = context.name in _COUNTABLE and context.field_order in _PROGRESSIVE
        if not countable or self._clip_start is None:
            raise UncountableError
        origin = round(self._clip_start / self.time_base)  # the container's is in microseconds
        wanted = math.floor(self._start / self.time_base) + origin
        try:
            return skip_to(self._container.demux(self._stream), wanted)
        except av.error.FFmpegError as error:
            raise UncountableError from error

    def _wanted(
        self, index: int, held: list[av.Packet]
    ) -> Generator[tuple[int, Fraction, av.VideoFrame], None, None]:
        """Yield (index, time, decoded frame) between start and end.

        Args:
            index, held: of the first frame, and packets from its key frame on: see `skip_to`.
        """
        self._decoded_until: Fraction | None = None
        first = held[0].pts if held else None
        for frame in self._deinterlaced(self._decode(held)):
            if held and self._decoded_until is None and frame.pts != first:
                if frame.pts is not None and first is not None and frame.pts < first:
                    continue  # a frame that belongs before the key frame
                raise UncountableError
            time = self._decoded_until = self._times.next(frame)
            if self._end is not None and time >= self._end:
                return
            if time >= self._start:
                yield index + self._lost_images, time, frame
            index += 1
        self._at_end = True
        until = (self._decoded_until or 0) + 1 / self.frame_rate
        if not self._damage and is_cut(self._source, self._container, self._stream, until):
            many = self.announced_frames or "more"
            self._damage = f"the clip is cut: it should have {many} frames"
        if self._flagged and not self.damage:
            told = f"packets flagged as damaged: {self._flagged}, and all of them could be decoded"
            self.notes.append(told)

    def _decode(self, held: Sequence[av.Packet]) -> Generator[av.VideoFrame, None, None]:
        """Yield decoded frames; skip broken packets; end at a broken container.

        Args:
            held: packets that were read already; an empty one is the end of the clip.
        """
        at_end = len(held) > 0 and held[-1].size == 0
        try:
            for packet in chain(held, () if at_end else self._container.demux(self._stream)):
                self._flagged += packet.is_corrupt
                try:
                    for frame in packet.decode():
                        self._torn += frame.is_corrupt
                        yield frame
                except av.error.FFmpegError:
                    self._lost += 1
                    self._lost_images += 1  # later frames keep their index
        except av.error.FFmpegError as error:
            reason = "no answer" if isinstance(error, av.error.ExitError) else error.strerror
            self._damage = f"the clip is broken and ends early ({reason})"
            try:
                yield from self._stream.decode(None)
            except av.error.FFmpegError:
                self._lost += 1

    def _deinterlaced(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Yield the frames; from the first interlaced one on, FFmpeg's bwdif fills their lines."""
        note = "the clip is interlaced, and its frames are deinterlaced"
        for _, alike in groupby(
            frames, lambda frame: (frame.width, frame.height, frame.format.name)
        ):
            graph: av.filter.Graph | None = None
            for frame in alike:
                if graph is None and frame.interlaced_frame:
                    graph = _bwdif(frame)
                    self.notes += [] if note in self.notes else [note]
                if graph is None:
                    yield frame
                else:
                    yield from _filtered(graph, frame)
            if graph is not None:
                yield from _filtered(graph, None)

    def _upright_bgr(self, frame: av.VideoFrame) -> np.ndarray:
        """Convert to BGR and turn upright; scale a frame of another size back.

        If the clip does not name its colour space, the choice is that of players: BT.709 from 720
        lines on, else BT.601.
        """
        width, height = self._coded_size
        colorspace = None
        if frame.colorspace == _UNSPECIFIED_COLORSPACE:
            colorspace = "ITU709" if height >= 720 else "ITU601"
        image = frame.to_ndarray(
            width=width, height=height, format="bgr24", src_colorspace=colorspace
        )
        if self._tables is not None:
            light, signal = self._tables
            linear = cv2.transform(cv2.LUT(image, light), _TO_BT709)
            image = cv2.LUT(linear, signal).astype(np.uint8, copy=False)
        return image if not any(self._turn) else _turned(image, *self._turn)


# Time stamps may be a little out of order; one further back (seconds) comes from another clock.
_RESTART = 1


class FrameTimes:
    """Turns the time stamps of decoded frames into seconds from the start of the clip.

    Joined recordings, and recorders that restart, begin their clock again: later frames then follow
    the frame before the restart.

    Attributes:
        moved: by how many seconds the stamps of the last frame are shifted; 0 without a restart.
    """

    def __init__(
        self, time_base: Fraction, frame_rate: Fraction, clip_start: Fraction | None
    ) -> None:
        """Describe the source.

        Args:
            time_base: seconds per tick, for frames without their own.
            frame_rate: frames per second, for frames without a time stamp.
            clip_start: the time stamp, in seconds, that counts as zero; None: the stamps are
                decoding times, and the first one is zero.
        """
        self._time_base, self._frame_rate, self._clip_start = time_base, frame_rate, clip_start
        self._origin: int | None = None
        self._previous: Fraction | None = None
        self.moved = Fraction(0)

    def next(self, frame: av.VideoFrame) -> Fraction:
        """Return the time of the next frame in display order, later than the one before."""
        previous, told = self._previous, self._stamped(frame)
        if previous is None:
            time = told or Fraction(0)
        elif told is None:
            time = previous + 1 / self._frame_rate
        else:
            if previous < told <= previous + _RESTART:
                self.moved = Fraction(0)  # the stamp before, which moved this clock, was wrong
            elif told + self.moved < previous - _RESTART:
                self.moved = previous + 1 / self._frame_rate - told
            time = told + self.moved
            time = time if time > previous else previous + self._time_base
        self._previous = time
        return time

    def _stamped(self, frame: av.VideoFrame) -> Fraction | None:
        """Return the time of the frame's own stamp, or None."""
        stamp = frame.dts if self._clip_start is None else frame.pts
        if stamp is None:
            return None
        tick = Fraction(frame.time_base or self._time_base)
        if self._origin is None:  # the container's own start is in microseconds
            self._origin = stamp if self._clip_start is None else round(self._clip_start / tick)
        return max(Fraction(0), (stamp - self._origin) * tick)


# Codecs with one frame in each packet, so that counting packets counts frames.
_COUNTABLE = frozenset(
    "av1 dnxhd ffv1 h263 h264 hevc libdav1d mjpeg mpeg2video mpeg4 prores rawvideo vp9".split()
)
# Packets to keep in memory; with fewer key frames, decoding begins earlier.
_MOST_BYTES_HELD = 64 * 2**20


class UncountableError(Exception):
    """The packets do not tell the number of frames: decode the clip from its start."""


def skip_to(packets: Iterator[av.Packet], pts: int) -> tuple[int, list[av.Packet]]:
    """Read packets up to the last key frame shown at `pts` or before.

    Returns: the position of that frame in the clip, and the packets read from it on; decode them
        first.

    Raises: UncountableError: when a packet lacks a time stamp or is damaged, the clock begins
        again, or the clip begins with frames that need earlier ones.
    """
    held: list[av.Packet] = []  # from the key frame on
    stamps: list[int] = []  # of those that are shown
    first, last = None, -math.inf
    before = size = 0
    for packet in packets:
        if packet.size == 0:  # the end of the clip
            held.append(packet)
            break
        if packet.pts is None or packet.is_corrupt:
            raise UncountableError
        decoded = last if packet.dts is None else packet.dts
        first = packet.pts if first is None else first
        hidden = packet.is_discard and packet.pts == first
        if hidden or packet.pts < first or decoded < last or not (held or packet.is_keyframe):
            raise UncountableError
        if packet.is_keyframe:
            if packet.pts > pts:
                held.append(packet)
                break
            before, size = before + len(stamps), 0
            held, stamps = [], []
        held.append(packet)
        stamps += [] if packet.is_discard else [packet.pts]
        size, last = size + packet.size, decoded
        # Later packets are shown after this packet's decoding time.
        if decoded > pts or size > _MOST_BYTES_HELD:
            break
    if not held or held[0].pts is None or held[0].pts > pts:
        raise UncountableError  # an empty clip, or one that begins later: nothing to skip
    # Some packets follow the key frame in the file and precede it on the screen.
    leading = sum(stamp < held[0].pts for stamp in stamps)
    return before + leading, held


def _bwdif(frame: av.VideoFrame) -> av.filter.Graph:
    """Return a deinterlacer for frames like this one; it leaves progressive ones as they are."""
    graph = av.filter.Graph()
    given = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    filters = graph.add("bwdif", "deint=interlaced:mode=send_frame"), graph.add("buffersink")
    graph.link_nodes(given, *filters).configure()
    return graph


def _filtered(graph: av.filter.Graph, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
    """Yield what bwdif has ready after one more frame (None: the end), in the clip's own clock."""
    graph.push(frame)
    with suppress(av.error.BlockingIOError, av.error.EOFError):
        while True:
            ready = graph.vpull()
            # bwdif's clock is twice as fine.
            ready.pts = None if ready.pts is None else ready.pts // 2
            ready.time_base = 2 * Fraction(ready.time_base or 0)
            yield ready


_UNSPECIFIED_COLORSPACE = 2
# AVColorTransferCharacteristic of high dynamic range: ITU-R BT.2100.
_PQ, _HLG = 16, 18
_PEAK, _WHITE = 1000, 203  # cd/m²: of an HLG screen, of a white sheet (ITU-R BT.2408)
# From BT.2020's primaries to BT.709's (ITU-R BT.2407), for BGR.
_TO_BT709 = np.array(
    [[1.1187, -0.1006, -0.0182], [-0.0083, 1.1329, -0.1246], [-0.0728, -0.5876, 1.6605]]
)


def _range_tables(transfer: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return what maps high dynamic range to standard; None: the clip has none.

    Returns: the light of each 8-bit signal, uint16, (256,), 65535 for `_PEAK`; and the 8-bit BT.709
    signal of each light, uint8, (65536,). Up to seven tenths of white it is that of a standard
    camera; brighter light shares the rest, and white becomes 236.
    """
    if transfer not in (_PQ, _HLG):
        return None
    given = np.arange(256) / 255
    if transfer == _PQ:
        root = given ** (32 / 2523)
        shares = np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)
        light = 10_000 / _PEAK * shares ** (16384 / 2610)
    else:
        upper = (np.exp((given - 0.55991073) / 0.17883277) + 0.28466892) / 12
        light = np.where(given <= 0.5, given**2 / 3, upper) ** 1.2
    signal = (np.arange(65536) / 65535 * _PEAK / _WHITE) ** (1 / 2.4)
    signal = np.interp(signal, (0, 0.85, 1, signal[-1]), (0, 0.85, 0.925, 1))
    light = np.round(65535 * np.minimum(light, 1))
    return light.astype(np.uint16), np.round(255 * signal).astype(np.uint8)


def _turn(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Return how a frame must be turned: whether its axes change places, x and then y run back.

    The display matrix says x' = a·x + c·y, y' = b·x + d·y (QuickTime File Format, "Matrices").
    Rounds other angles, which no camera writes, to quarter turns.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return (False, False, False)
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])  # type: ignore[call-overload]
    swapped = abs(a) + abs(d) < abs(b) + abs(c)
    return (True, c < 0, b < 0) if swapped else (False, a < 0, d < 0)


def _turned(image: np.ndarray, swapped: bool, x_back: bool, y_back: bool) -> np.ndarray:
    """Turn and mirror (H, W, 3) as `_turn` says; the result is contiguous."""
    image = image.transpose(1, 0, 2) if swapped else image
    return np.ascontiguousarray(image[:: -1 if y_back else 1, :: -1 if x_back else 1])

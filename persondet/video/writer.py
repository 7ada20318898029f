"""Writing clips: H.264 that browsers play, and a file that survives when the run is killed.

Time stamps are exact fractions (`OutputClock`), the encoder's settings are fixed, and the frames go
into a partial file that plays at any moment. At the end `remux` copies its packets and those of the
source's sound into the final container, bit for bit, and `VideoWriter` counts the frames before it
hands over the finished clip.
"""

from __future__ import annotations

import errno
import heapq
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from fractions import Fraction
from math import gcd
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from persondet.errors import MediaError, PartialMediaError, PersondetError
from persondet.files import make_folder, refuse_existing
from persondet.video.source import clip_start, open_source, video_stream

FULL = {errno.ENOSPC, errno.EDQUOT}
CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
# Sound that FFmpeg claims to write but then refuses, or that browsers do not play in the container.
_BECOMES_AAC = {".mov": ("flac", "opus"), ".mp4": ("pcm_", "vorbis")}
# The channel layout by number of channels, for sources that do not tell: mp4 must know it. As in
# FFmpeg's av_channel_layout_default.
_LAYOUTS = dict(enumerate(["mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1"], start=1))
# Sound may begin a moment before the frames, to warm up its decoder. Without this option the
# Matroska writer would move everything later, and the first frame would no longer be at zero.
_TIMES_AS_THEY_ARE = {"avoid_negative_ts": "disabled"}


def remux(
    partial: Path, draft: Path, target: Path, sound_from: str | Path | None, title: str = ""
) -> list[str]:
    """Copy the frames of `partial`, and sound, into `draft`, in the container of `target`'s name.

    mp4 and mov get their index in front (fast start).

    Args:
        partial: the frames; draft: the file to write; target: the name that it will get.
        sound_from: the clip with the sound, or None.
        title: the clip's title in players.

    Returns: sentences on sound that was left out or encoded anew.

    Raises: av.error.FFmpegError: when a file cannot be written.
    """
    try:
        return _remux(partial, draft, target, sound_from, title)
    except (av.error.FFmpegError, MediaError) as error:
        if sound_from is None or getattr(error, "errno", None) in FULL:
            raise
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
    _remux(partial, draft, target, None, title)
    note = f"the sound is left out, as it could not be copied ({reason})"
    is_matroska = target.suffix.lower() == ".mkv"
    return [note + ("" if is_matroska else f"; an output {target.stem}.mkv may keep it")]


def _remux(
    partial: Path, draft: Path, target: Path, sound_from: str | Path | None, title: str
) -> list[str]:
    with ExitStack() as stack:
        source = stack.enter_context(av.open(f"file:{partial.resolve()}"))
        original = source.streams.video[0]
        options = _TIMES_AS_THEY_ARE
        suffix = target.suffix.lower()
        if suffix != ".mkv":
            options = {"movflags": "+faststart", **movie_clock(Fraction(original.time_base or 1))}
        file = f"file:{draft.resolve()}"
        output = stack.enter_context(av.open(file, "w", format=CONTAINERS[suffix], options=options))
        if title:
            output.metadata["title"] = title
        frames = (packet for packet in source.demux(original) if packet.size)
        packets = _retargeted(frames, {0: (_copy_of(output, original), False)})
        notes: list[str] = []
        if sound_from is not None:
            sound = stack.enter_context(open_source(sound_from))
            tracks = sound.streams.audio
            if sound.duration is None:
                notes.append("the sound is left out, as the source is live and was not recorded")
                tracks = ()
            streams = {t.index: _sound_stream(output, t, suffix, notes) for t in tracks}
            copied = _retargeted(_sound_packets(sound, tracks, notes), streams)
            packets = heapq.merge(packets, copied, key=_seconds)
        for packet in packets:
            output.mux_one(packet)
        return notes


def movie_clock(tick: Fraction) -> dict[str, str]:
    """Return the mp4 option that lets tracks begin at any tick (seconds).

    The start of a track is stored in the clock of the whole file: milliseconds by default.
    """
    return {"movie_timescale": str(tick.denominator * -(-1000 // tick.denominator))}


def check_count(draft: Path, target: Path, expected: int) -> None:
    """Refuse a finished clip (to become `target`) that lacks frames or does not decode.

    Raises: MediaError: when it has another number of frames, or cannot be read.
    """
    try:
        with av.open(f"file:{draft.resolve()}") as container:
            stream = container.streams.video[0]
            count = sum(packet.size > 0 for packet in container.demux(stream))
            container.seek(0)
            next(container.decode(stream))
    except (av.error.FFmpegError, StopIteration, IndexError) as error:
        reason = getattr(error, "strerror", None) or "it holds no frame"
        raise MediaError(f"{target}: the finished clip cannot be read again ({reason}).") from error
    if count != expected:
        raise MediaError(f"{target}: the finished clip has {count} of {expected} frames.")


def _sound_packets(
    source: av.container.InputContainer, tracks: Sequence[av.AudioStream], notes: list[str]
) -> Iterator[av.Packet]:
    """Yield the tracks' packets in order, timed from the start of the clip.

    A source that breaks in the middle ends there, with a note.
    """
    if not tracks:
        return
    origin = clip_start(source, video_stream(source, ""))
    last: dict[int, int] = {}
    try:
        for packet in source.demux(tracks):
            # As the reader moves the frames: sound and frames stay in step.
            ticks = round(origin / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - ticks
            if packet.dts is not None:
                packet.dts -= ticks
                # mp4 needs the duration of the last packet, which some sources do not tell.
                step = packet.dts - last.get(packet.stream_index, packet.dts)
                packet.duration = packet.duration or max(0, step)
                last[packet.stream_index] = packet.dts
            if packet.size:
                yield packet
    except av.error.FFmpegError as error:
        notes.append(f"the sound ends early, as the source does ({error.strerror})")


def _copy_of(output: av.container.OutputContainer, stream: av.stream.Stream) -> av.stream.Stream:
    """Add a stream with the parameters and the clock of another."""
    copy = output.add_stream_from_template(stream)
    copy.time_base = stream.time_base
    return copy


def _sound_stream(
    output: av.container.OutputContainer, track: av.AudioStream, suffix: str, notes: list[str]
) -> tuple[av.AudioStream, bool]:
    """Add a copy of a sound track, with its language; or, with a note, an AAC encoder for it.

    Returns: the stream, and whether it encodes.
    """
    codec, channels = track.codec.canonical_name, track.layout.nb_channels
    known = codec in output.supported_codecs
    encodes = not known or codec.startswith(_BECOMES_AAC.get(suffix, ()))
    copied: Any
    if not encodes:
        copied = _copy_of(output, track)
        if track.layout.name == f"{channels} channels" and channels in _LAYOUTS:
            copied.codec_context.layout = av.AudioLayout(_LAYOUTS[channels])
    else:
        layout = "mono" if channels == 1 else "stereo"
        copied = output.add_stream("aac", rate=48000, layout=layout)
        notes.append(f"the sound ({codec}) becomes AAC, as few players know it in {suffix}")
    for key in {"language", "title"} & track.metadata.keys():
        copied.metadata[key] = track.metadata[key]
    copied.disposition = track.disposition
    return copied, encodes


def _retargeted(
    packets: Iterator[av.Packet], streams: dict[int, tuple[Any, bool]]
) -> Iterator[av.Packet]:
    """Move packets to the stream of their index in `streams`, or encode there what they hold."""
    for packet in packets:
        stream, encodes = streams[packet.stream_index]
        if encodes:
            for frame in packet.decode():
                yield from stream.encode(frame)
        else:
            packet.stream = stream
            yield packet
    for stream, encodes in streams.values():
        if encodes:
            yield from stream.encode(None)


def _seconds(packet: av.Packet) -> float:
    """Return the decoding time, which keeps sound and frames side by side in the file."""
    ticks = packet.dts if packet.dts is not None else packet.pts
    return 0.0 if ticks is None else float(ticks * packet.time_base)


logger = logging.getLogger(__name__)

DEFAULT_CRF = 20
# The finest clock that fits the 32-bit time scale of an mp4 track.
MAX_TICKS_PER_SECOND = 2**31 - 1
# Fixed, because x264's bytes depend on it.
ENCODER_THREADS = 4
_BT709 = 1
_LIMITED_RANGE = 1


def common_tick(fps: Fraction, time_base: Fraction | None) -> Fraction:
    """Return the longest tick (seconds) that divides both 1/fps and `time_base`.

    If no 32-bit clock is that fine, the frame rate stays exact and a tick is a few microseconds.
    """
    frame = 1 / Fraction(fps)
    if time_base is None:
        return frame
    numerator = gcd(
        frame.numerator * time_base.denominator, time_base.numerator * frame.denominator
    )
    tick = Fraction(numerator, frame.denominator * time_base.denominator)
    if tick.denominator <= MAX_TICKS_PER_SECOND:
        return tick
    return Fraction(1, fps.numerator * max(1, 200_000 // fps.numerator))


class OutputClock:
    """Turns times in seconds into the increasing tick numbers of a container.

    Attributes:
        tick: seconds per tick.
        frame_ticks: ticks from one frame to the next at the nominal rate.
    """

    def __init__(self, fps: Fraction, source_tick: Fraction | None = None) -> None:
        """Choose the tick.

        Args:
            fps: nominal frames per second.
            source_tick: seconds per tick of the clock behind the times, or None.
        """
        self.fps = Fraction(fps)
        self.tick = common_tick(self.fps, source_tick)
        self.frame_ticks = round(1 / self.fps / self.tick)
        self._source_tick = source_tick
        self._start: Fraction | None = None
        self._last = -self.frame_ticks

    def ticks(self, time: Fraction | float | None) -> int:
        """Return the tick number of the next frame, always later than the one before.

        Args:
            time: seconds from the start of the clip; None: one frame after the last.
        """
        if time is None:
            number = self._last + self.frame_ticks
        else:
            number = max(round(self._exact(Fraction(time)) / self.tick), self._last + 1)
        self._last = number
        return number

    def _exact(self, time: Fraction) -> Fraction:
        """Undo the rounding of a coarse source clock: frame k starts at k / fps."""
        if self._start is None:
            self._start = time
        if self._source_tick is None:
            return time
        regular = self._start + round((time - self._start) * self.fps) / self.fps
        return regular if abs(time - regular) <= self._source_tick / 2 else time


def _x264_options(crf: int, preset: str, threads: int) -> dict[str, str]:
    """Return the encoder's options: it holds back one frame, so that a kill costs hardly more.

    Ten frames of lookahead and three B-frames would save a tenth of the bytes, but a model that
    takes a second per frame would have nothing on the disk for a quarter of a minute.
    """
    # Only without its lookahead thread does x264 give the same bytes from run to run.
    # `superfast` plus macroblock tree: two thirds of the time of `veryfast`, a tenth more bytes.
    params = "sync-lookahead=0:mbtree=1:rc-lookahead=1:bframes=0:sliced-threads=1:force-cfr=1"
    return {"crf": str(crf), "preset": preset, "threads": str(threads), "x264-params": params}


def _encodable(image: np.ndarray) -> av.VideoFrame:
    """Convert uint8 (H, W, 3) BGR to yuv420p; repeat the last line of an odd side.

    Zeros the bytes beyond the right edge of each plane. x264's lookahead reads them if the width is
    no multiple of 32; random memory there would give other bytes from run to run.
    """
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
    frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
    for plane in frame.planes:
        if plane.width < plane.line_size:
            rows = np.asarray(memoryview(plane)).view(np.uint8).reshape(-1, plane.line_size)
            rows[:, plane.width :] = 0
    return frame


def partial_path(output: str | Path) -> Path:
    """Return the path of the frames while a clip is being written: `<stem>.partial.mp4`."""
    return Path(output).with_suffix(".partial.mp4")


def draft_path(output: str | Path) -> Path:
    """Return the path of the finished clip just before it gets its name: `<stem>.finishing.*`."""
    output = Path(output)
    return output.with_name(f"{output.stem}.finishing{output.suffix}")


def check_container(path: Path) -> None:
    """Refuse a name with another suffix than .mp4, .mov or .mkv.

    Raises: MediaError: when it has one.
    """
    if path.suffix.lower() not in CONTAINERS:
        known = ", ".join(CONTAINERS)
        raise MediaError(f"{path}: cannot write this format; use a name in {known}.")


class VideoWriter:
    """An H.264 clip (yuv420p, BT.709, fast start) that gets its name only when it is whole.

    Use it as a context manager. The frames go to `<stem>.partial.mp4` beside the target, a
    fragmented mp4 that plays whenever the program stops: all but the last two frames are on the
    disk. On success the writer remuxes it with the sound, counts the frames and renames it to the
    target; on failure the partial file stays unless it is empty. The same frames give the same
    bytes if the width is a multiple of 256; otherwise x264's macroblock tree reads slightly beyond
    its rows and sometimes decides differently.

    Attributes:
        frames_written: frames handed to the encoder so far.
        sound_from: the clip with the sound to copy at the end of the block, or None.
        notes: sentences for the user, complete after the block: padding, sound left out.

    Example:
        >>> with VideoWriter("black.mp4", width=96, height=64, fps=Fraction(25)) as writer:
        ...     writer.write(np.zeros((64, 96, 3), np.uint8))
        >>> writer.frames_written
        1
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
        """Describe the clip; the `with` block opens the file.

        Args:
            path: the target, named .mp4, .mov or .mkv.
            width, height: pixels of the frames to come; an odd size is padded.
            fps: frames per second, exact; time stamps follow from it when none are given.
            crf: x264's constant quality, 0 (lossless) to 51 (worst); None: 20.
            time_base: seconds per tick of the clock behind the given time stamps.
            pixel_aspect: width of a pixel over its height; None: 1.
            sound_from: the clip with the sound to copy, bit for bit.
            title: the clip's title in players.
            overwrite: replace an existing file at `path`, and an unfinished one beside it.
            preset: x264's speed, `ultrafast` to `placebo`.
            threads: encoder threads; another number may give other bytes.

        Raises: MediaError: when the name has another suffix, or a number is out of range.
        """
        self.path = Path(path)
        crf = DEFAULT_CRF if crf is None else crf
        check_container(self.path)
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
        self._options = _x264_options(crf, preset, threads)
        self._clock = OutputClock(self.fps, time_base)
        self._broken = False

    def __enter__(self) -> VideoWriter:
        make_folder(self.path.parent)
        for path in (self.path, self._partial):
            refuse_existing(path, overwrite=self._overwrite)
        # 4:2:0 has one colour for two pixels.
        size = self.width + self.width % 2, self.height + self.height % 2
        try:
            self._partial.touch()  # FFmpeg itself opens the file at the first packet
            self._container = av.open(
                f"file:{self._partial.resolve()}",
                "w",
                format="mp4",
                options={
                    "movflags": "+delay_moov+default_base_moof+frag_every_frame",
                    "flush_packets": "1",
                    **movie_clock(self._clock.tick),
                },
            )
        except OSError as error:
            raise MediaError(f"{self.path}: cannot be written ({error.strerror}).") from error
        self._stream = self._add_stream(size)
        if size != (self.width, self.height):
            self.notes.append(
                f"{self.width} x {self.height} is odd; padded by a pixel to {size[0]} x {size[1]}, "
                "as H.264 needs it"
            )
        return self

    def _add_stream(self, size: tuple[int, int]) -> av.VideoStream:
        """Add an H.264 stream, yuv420p, BT.709, of (width, height) pixels; both must be even."""
        stream = self._container.add_stream("libx264", rate=self.fps, options=self._options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = self._clock.tick
        context.sample_aspect_ratio = self._pixel_aspect
        # Name the colour space; a player that has to guess goes by the size.
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
        frame = _encodable(image)
        frame.pts = self._clock.ticks(time_stamp)
        frame.duration = self._clock.frame_ticks
        frame.time_base = self._clock.tick
        self._mux(frame)
        self.frames_written += 1

    def _mux(self, frame: av.VideoFrame | None) -> None:
        """Encode a frame (None: flush) and write the packets."""
        try:
            for packet in self._stream.encode(frame):
                # The container needs the duration of the last packet, which no later one tells.
                packet.duration = packet.duration or self._clock.frame_ticks
                self._container.mux_one(packet)
        except av.error.FFmpegError as error:
            self._broken = True
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> MediaError:
        """Return an error that says why the clip cannot be written, and what is kept."""
        reason = getattr(error, "strerror", None) or str(error)
        mend = ""
        if getattr(error, "errno", None) in FULL:
            reason, mend = "the disk is full", "; make room and start again with --overwrite"
        if not self.frames_written:
            return MediaError(f"{self.path}: cannot be written, {reason}{mend}.")
        kept = f"what was written so far is kept in {self._partial}"
        return PartialMediaError(f"{self.path}: cannot be written, {reason}; {kept}{mend}.")

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self._finish()
            else:
                self._keep()
        finally:
            with suppress(av.error.FFmpegError):  # it would hide the first error
                self._container.close()
            self._draft.unlink(missing_ok=True)
            if not self.frames_written:
                self._partial.unlink(missing_ok=True)

    def _finish(self) -> None:
        """Flush the encoder, make the finished clip, count it and give it its name."""
        if not self.frames_written:
            raise MediaError(f"{self.path}: no frame was written, so there is no clip.")
        self._mux(None)
        try:
            self._container.close()
            self.notes += remux(self._partial, self._draft, self.path, self.sound_from, self._title)
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
        """After a failure, flush the encoder into the partial file."""
        if self.frames_written and not self._broken:
            try:
                self._mux(None)
            except MediaError:
                logger.debug("%s: the encoder could not be flushed", self.path)
        if self.frames_written:
            logger.warning(
                "%s is not finished; what was written is in %s", self.path, self._partial
            )

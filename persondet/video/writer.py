"""Writing clips: H.264 that browsers play, and nothing lost when the run is killed.

From BGR arrays to H.264 that every browser plays: the encoder and its settings.

From the crash-safe partial file to the clip that is handed over: remuxed and counted.
"""

from __future__ import annotations

import errno
import heapq
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.error
import numpy as np

from persondet.errors import MediaError, PartialMediaError, PersondetError
from persondet.files import make_folder, refuse_existing
from persondet.video.clock import OutputClock
from persondet.video.sound import SoundSource
from persondet.video.source import open_source

# Fixed, as the bytes that x264 makes depend on it.
ENCODER_THREADS = 4
_BT709 = 1
_LIMITED_RANGE = 1
# Video time that may be inside the encoder, and in a fragment that is not on the disk yet: together
# less than the second that a killed run may lose.
_ENCODER_SECONDS = Fraction(62, 100)
FRAGMENT_SECONDS = Fraction(1, 4)
# Frames that x264 looks ahead at the presets up to `superfast`.
_LOOKAHEAD, _B_FRAMES = 10, 3


def x264_options(fps: Fraction, crf: int, preset: str, threads: int) -> dict[str, str]:
    """Return the encoder's options; at low frame rates it looks less far ahead.

    x264 keeps back the frames that it looks ahead and one per further thread. That is 0.5 s at 25
    frames per second, but would be 7 s at two.
    """
    # x264 is the same from run to run only without its own lookahead thread.
    # `superfast` with its macroblock tree takes two thirds of `veryfast`'s time for a tenth more bytes.
    options = ["sync-lookahead=0", "mbtree=1"]
    ahead = int(fps * _ENCODER_SECONDS) - threads
    if ahead < 1:
        options += ["rc-lookahead=0", "bframes=0", "sliced-threads=1", "force-cfr=1"]
    else:
        options += [f"rc-lookahead={min(ahead, _LOOKAHEAD)}", f"bframes={min(ahead, _B_FRAMES)}"]
    return {
        "crf": str(crf),
        "preset": preset,
        "threads": str(threads),
        "x264-params": ":".join(options),
    }


def add_h264_stream(
    container: av.container.OutputContainer,
    *,
    size: tuple[int, int],
    fps: Fraction,
    tick: Fraction,
    pixel_aspect: Fraction,
    options: dict[str, str],
) -> av.VideoStream:
    """Add an H.264 stream, yuv420p, BT.709, of (width, height) pixels; both must be even."""
    stream = container.add_stream("libx264", rate=fps, options=options)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = tick
    if pixel_aspect != 1:
        context.sample_aspect_ratio = pixel_aspect
    # Say which colours are meant; a player that has to guess picks by the size.
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED_RANGE
    return stream


def even(length: int) -> int:
    """Return the next even number of pixels: 4:2:0 has one colour for two."""
    return length + length % 2


def encodable(image: np.ndarray) -> av.VideoFrame:
    """Convert uint8 (H, W, 3) BGR to yuv420p; an odd side is padded by repeating its last line."""
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
    frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
    _clear_padding(frame)
    return frame


def _clear_padding(frame: av.VideoFrame) -> None:
    """Zero the bytes beyond the right edge of each plane.

    x264's lookahead reads them where the width is no multiple of 32; left as they are in memory,
    the same frames give other bytes from run to run.
    """
    for plane in frame.planes:
        if plane.width < plane.line_size:
            rows = np.asarray(memoryview(plane)).view(np.uint8).reshape(-1, plane.line_size)
            rows[:, plane.width :] = 0


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


FULL = {errno.ENOSPC, errno.EDQUOT}
CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
# Which speaker gets which channel where the source does not tell: mp4 must know it. As FFmpeg's
# av_channel_layout_default.
_LAYOUTS = dict(enumerate(["mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1"], start=1))
# Sound may begin a moment before the pictures, to warm its decoder up: left alone, the Matroska
# writer would move everything later, so that the first picture is at zero no more.
_TIMES_AS_THEY_ARE = {"avoid_negative_ts": "disabled"}


def remux(
    partial: Path, draft: Path, target: Path, sound_from: str | Path | None, title: str = ""
) -> list[str]:
    """Copy the pictures of `partial`, and sound, into `draft`, the container of `target`'s name.

    Packets are copied bit for bit; mp4 and mov get their index in front (fast start). A track of
    sound that cannot be copied is left out; the others are kept.

    Args:
        partial: the pictures; draft: the file to write; target: the name that it will get.
        sound_from: the clip whose sound is copied, or None.
        title: what a player shows as the clip's title.

    Returns: sentences on sound that was left out.

    Raises: av.error.FFmpegError: when a file cannot be written.
    """
    try:
        return _remux(partial, draft, target, sound_from, title, set())
    except (av.error.FFmpegError, MediaError) as error:
        if sound_from is None or getattr(error, "errno", None) in FULL:
            raise
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
    try:
        return _remux(
            partial, draft, target, sound_from, title, _refused(draft, target, sound_from)
        )
    except (av.error.FFmpegError, MediaError) as error:
        if getattr(error, "errno", None) in FULL:
            raise
    notes = _remux(partial, draft, target, None, title, set())
    note = f"the sound is left out, as it could not be copied ({reason})"
    if target.suffix.lower() != ".mkv":
        note += f"; name the output {target.stem}.mkv to keep it"
    return [*notes, note]


def _refused(draft: Path, target: Path, sound_from: str | Path) -> set[int]:
    """Return the indices of the sound tracks that cannot be copied, each tried alone."""
    suffix = target.suffix.lower()
    with open_source(sound_from) as source:
        tracks = {track.index for track in source.streams.audio}
    refused = set()
    for index in tracks:
        try:
            with (
                av.open(f"file:{draft.resolve()}", "w", format=CONTAINERS[suffix]) as output,
                SoundSource(sound_from, output, target, refused=tracks - {index}) as sound,
            ):
                copies = {track.index: _copy_of(output, track) for track in sound.tracks}
                _mux(output, _retargeted(sound.packets(), copies))
        except av.error.FFmpegError as error:
            if error.errno in FULL:
                raise
            refused.add(index)
    return refused


def _remux(
    partial: Path,
    draft: Path,
    target: Path,
    sound_from: str | Path | None,
    title: str,
    refused: set[int],
) -> list[str]:
    """Do what `remux` says, without the sound tracks with the indices `refused`."""
    suffix = target.suffix.lower()
    with ExitStack() as stack:
        pictures = stack.enter_context(av.open(f"file:{partial.resolve()}"))
        original = pictures.streams.video[0]
        options = _TIMES_AS_THEY_ARE
        if suffix != ".mkv":
            options = {"movflags": "+faststart", **movie_clock(Fraction(original.time_base or 1))}
        output = stack.enter_context(
            av.open(f"file:{draft.resolve()}", "w", format=CONTAINERS[suffix], options=options)
        )
        if title:
            output.metadata["title"] = title
        stream = _copy_of(output, original)
        if sound_from is None:
            _mux(output, _retargeted(_packets(pictures), {0: stream}))
            return []
        with SoundSource(sound_from, output, target, refused=refused) as sound:
            tracks = {track.index: _copy_of(output, track) for track in sound.tracks}
            _mux(
                output,
                heapq.merge(
                    _retargeted(_packets(pictures), {0: stream}),
                    _retargeted(sound.packets(), tracks),
                    key=_seconds,
                ),
            )
            return sound.notes


def movie_clock(tick: Fraction) -> dict[str, str]:
    """Return the option of an mp4 by which its tracks can begin at any tick (in seconds).

    The moment is told on the clock of the whole file, which has milliseconds when left alone.
    """
    return {"movie_timescale": str(tick.denominator * -(-1000 // tick.denominator))}


def count_pictures(path: Path) -> int:
    """Return the number of pictures in a finished clip, whose first one must decode.

    Raises: av.error.FFmpegError: when the file cannot be read.
    """
    with av.open(f"file:{path.resolve()}") as container:
        stream = container.streams.video[0]
        count = sum(packet.size > 0 for packet in container.demux(stream))
        container.seek(0)
        next(container.decode(stream))
    return count


def check_count(draft: Path, target: Path, expected: int) -> None:
    """Refuse a clip, to become `target`, that does not have all its pictures.

    Raises: MediaError: when it has another number of them, or cannot be read.
    """
    try:
        count = count_pictures(draft)
    except (av.error.FFmpegError, StopIteration, IndexError) as error:
        reason = getattr(error, "strerror", None) or "it holds no picture"
        raise MediaError(f"{target}: the finished clip cannot be read again ({reason}).") from error
    if count != expected:
        raise MediaError(f"{target}: the finished clip has {count} of {expected} frames.")


def _copy_of(output: av.container.OutputContainer, stream: av.stream.Stream) -> av.stream.Stream:
    """Add a stream with the parameters, the clock and, of sound, the language of another one."""
    copy = output.add_stream_from_template(stream)
    copy.time_base = stream.time_base
    if isinstance(stream, av.AudioStream) and isinstance(copy, av.AudioStream):
        layout = stream.codec_context.layout
        if layout.name == f"{layout.nb_channels} channels" and layout.nb_channels in _LAYOUTS:
            copy.codec_context.layout = av.AudioLayout(_LAYOUTS[layout.nb_channels])
        for key in ("language", "title"):
            if key in stream.metadata:
                copy.metadata[key] = stream.metadata[key]
        copy.disposition = stream.disposition
    return copy


def _packets(container: av.container.InputContainer) -> Iterator[av.Packet]:
    """Yield the packets of the first picture stream, without the empty one at the end."""
    for packet in container.demux(container.streams.video[0]):
        if packet.size > 0:
            yield packet


def _retargeted(
    packets: Iterator[av.Packet], streams: dict[int, av.stream.Stream]
) -> Iterator[av.Packet]:
    """Hand packets over from their stream to the one with the same key in `streams`."""
    for packet in packets:
        packet.stream = streams[packet.stream_index]
        yield packet


def _seconds(packet: av.Packet) -> float:
    """Return when a packet is decoded, to keep sound and pictures side by side in the file."""
    ticks = packet.dts if packet.dts is not None else packet.pts
    return 0.0 if ticks is None else float(ticks * packet.time_base)


def _mux(output: av.container.OutputContainer, packets: Iterator[av.Packet]) -> None:
    for packet in packets:
        output.mux_one(packet)

"""From BGR arrays to H.264 that every browser plays: the encoder and its settings."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

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

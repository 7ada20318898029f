"""Clips and a predictor for tests: written with PyAV alone, and without a model."""

from fractions import Fraction

import av
import numpy as np
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, Instances

RATE = Fraction(30000, 1001)


class BrightSquares:
    """Detects the bright square of `square_frame` and, in even positions, a second person."""

    def __init__(self):
        self.metadata = Metadata(name="stub", thing_classes=["person"])
        self.confidence_threshold, self.model_file, self.batch_size = 0.5, "stub.pth", 3
        self.batches = []

    def predict_batch(self, images):
        self.batches.append(len(images))
        return [self.detect(image) for image in images]

    def detect(self, image):
        bright = image.min(axis=2) > 160
        rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
        boxes, masks = [], []
        if len(rows):
            boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            masks.append(bright)
            if columns[0] % 2 == 0:
                boxes.append([1, 1, 9, 9])
                masks.append(np.zeros_like(bright))
                masks[-1][2:8, 2:8] = True
        count = len(boxes)
        found = Instances(image.shape[:2])
        found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(count, 4))
        found.scores = torch.linspace(0.9, 0.6, count) if count else torch.zeros(0)
        found.pred_classes = torch.zeros(count, dtype=torch.int64)
        found.pred_masks = torch.from_numpy(np.array(masks, bool).reshape(-1, *bright.shape))
        return found


def square_frame(number, width=96, height=64):
    """A grey frame, uint8 (H, W, 3), with a white 16-pixel square that moves with `number`."""
    image = np.full((height, width, 3), 60, dtype=np.uint8)
    x = 10 + 2 * number % (width - 30)
    image[20:36, x : x + 16] = 255
    return image


def squares(count):
    return [square_frame(number) for number in range(count)]


def noise(count, seed=0):
    """Frames of 96 x 64 that no codec can compress, so that each lost byte costs frames."""
    return np.random.default_rng(seed).integers(0, 255, (count, 64, 96, 3), dtype=np.uint8)


def write_clip(
    path,
    frames,
    *,
    rate=RATE,
    codec="libx264",
    pix_fmt="yuv420p",
    times=None,
    time_base=None,
    matrix=None,
    sound=(),
    sound_start=0,
    aspect=None,
    gop=None,
    options=(),
    container_options=(),
    tags=(),
):
    """Write a clip with PyAV.

    `times` are ticks of `time_base`, `matrix` is a display matrix, `sound` has a codec per noisy
    track, which begin at `sound_start` seconds; `tags` are attributes of the codec's context.
    Frames are uint8 BGR or uint16 RGB.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w", options=dict(container_options)) as container:
        stream = container.add_stream(codec, rate=rate, options=dict(options))
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = time_base or 1 / rate
        for name, value in dict(tags).items():
            setattr(stream.codec_context, name, value)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if gop is not None:
            stream.codec_context.gop_size = gop
        if matrix is not None:
            stream.set_display_matrix(matrix)
        rates = {name: 8000 if name.startswith("pcm") else 48000 for name in sound}
        tracks = [container.add_stream(name, rate=rates[name], layout="mono") for name in sound]
        for track in tracks:
            _add_noise(container, track, len(frames) / rate, sound_start)
        for number, image in enumerate(frames):
            kind = "bgr24" if image.dtype == np.uint8 else "rgb48le"
            frame = av.VideoFrame.from_ndarray(image, format=kind)
            frame.pts = number if times is None else times[number]
            frame.time_base = time_base or 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _add_noise(container, track, seconds, start):
    samples = np.random.default_rng(0).normal(0, 3000, (1, int(track.rate * seconds)))
    whole = av.AudioFrame.from_ndarray(samples.astype(np.int16), "s16", "mono")
    whole.sample_rate = track.rate
    kind = track.codec_context.format.name
    resampler = av.AudioResampler(kind, "mono", track.rate, track.frame_size or 1024)
    at = int(start * track.rate)
    for piece in [*resampler.resample(whole), *resampler.resample(None)]:
        piece.pts, piece.time_base = at, Fraction(1, track.rate)
        at += piece.samples
        container.mux(track.encode(piece))
    container.mux(track.encode(None))


def noisy_clip(path, frames=40, **choices):
    if path.suffix == ".avi":
        choices = {"codec": "mjpeg", "pix_fmt": "yuvj420p", **choices}
    return write_clip(path, noise(frames), rate=Fraction(25), **choices)


def cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def with_a_hole(path, place=0.5):
    data = path.read_bytes()
    at, size = int(len(data) * place), len(data) // 10
    junk = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8).tobytes()
    path.write_bytes(data[:at] + junk + data[at + size :])
    return path


def frames_on_disk(path):
    """Times of the frames in a file that may still grow, by PyAV alone."""
    try:
        with av.open(str(path)) as container:
            return [frame.pts * frame.time_base for frame in container.decode(video=0)]
    except av.error.FFmpegError:
        return []

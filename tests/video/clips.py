"""Clips and a predictor for tests: written with PyAV alone, and without a model."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, Instances

RATE = Fraction(30000, 1001)


class BrightSquares:
    """Detects the bright square of `square_frame` and, in even positions, a second person."""

    def __init__(self, masks: bool = True) -> None:
        self.metadata = Metadata(name="stub", thing_classes=["person"])
        self.confidence_threshold, self.model_file, self.batch_size = 0.5, "stub.pth", 3
        self.masks = masks
        self.batches: list[int] = []

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[Instances]:
        self.batches.append(len(images))
        return [self.detect(image) for image in images]

    def detect(self, image: np.ndarray) -> Instances:
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
        if self.masks:
            stack = np.stack(masks) if count else np.zeros((0, *bright.shape), dtype=bool)
            found.pred_masks = torch.from_numpy(stack)
        return found


def square_frame(number: int, width: int = 96, height: int = 64) -> np.ndarray:
    """A grey frame, uint8 (H, W, 3), with a white 16-pixel square that moves with `number`."""
    image = np.full((height, width, 3), 60, dtype=np.uint8)
    x = 10 + 2 * number % (width - 30)
    image[20:36, x : x + 16] = 255
    return image


def noise(count: int, seed: int = 0) -> np.ndarray:
    """Frames of 96 x 64 that no codec can compress, so that each lost byte costs frames."""
    return np.random.default_rng(seed).integers(0, 255, (count, 64, 96, 3), dtype=np.uint8)


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    rate: Fraction = RATE,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    matrix: Sequence[int] | None = None,
    sound: bool = False,
    aspect: Fraction | None = None,
    gop: int | None = None,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Write a clip with PyAV; `times` are ticks of `time_base`, `matrix` a display matrix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream = container.add_stream(codec, rate=rate, options=dict(options or {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        if time_base is not None:
            stream.codec_context.time_base = time_base
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if gop is not None:
            stream.codec_context.gop_size = gop
        if matrix is not None:
            stream.set_display_matrix(matrix)
        if sound:
            audio = container.add_stream("aac", rate=8000)
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            samples.sample_rate, samples.pts = 8000, 0
            container.mux([*audio.encode(samples), *audio.encode(None)])
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            if times is not None:
                frame.pts, frame.time_base = times[number], time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def noisy_clip(path: Path, frames: int = 40, **choices: Any) -> Path:
    """Write a clip of noise at 25 frames per second; AVI gets mjpeg."""
    if path.suffix == ".avi":
        choices = {"codec": "mjpeg", "pix_fmt": "yuvj420p", **choices}
    return write_clip(path, noise(frames), rate=Fraction(25), **choices)


def with_a_hole(path: Path, place: float = 0.5) -> Path:
    """Overwrite a tenth of a file with junk."""
    data = path.read_bytes()
    at, size = int(len(data) * place), len(data) // 10
    junk = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8).tobytes()
    path.write_bytes(data[:at] + junk + data[at + size :])
    return path


def frames_on_disk(path: Path) -> list[Fraction]:
    """Times of the frames in a file that may still grow, by PyAV alone."""
    try:
        with av.open(str(path)) as container:
            return [frame.pts * frame.time_base for frame in container.decode(video=0)]
    except av.error.FFmpegError:
        return []


@contextlib.contextmanager
def served(
    get: Callable[[Any], tuple[int, dict[str, str], bytes]], post: Any = None
) -> Iterator[int]:
    """Serve HTTP on the yielded port: `get(handler)` returns (status, headers, body)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = get(self)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def do_POST(self) -> None:
            post(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""A predictor that needs no model, and clips written with PyAV alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, Instances

RATE = Fraction(30000, 1001)


class BrightSquares:
    """Finds the bright square of `square_frame` and, in even positions, a second person."""

    def __init__(self, masks: bool = True) -> None:
        self.metadata = Metadata(name="stub", thing_classes=["person"])
        self.confidence_threshold = 0.5
        self.model_file = "stub.pth"
        self.batch_size = 3
        self.cfg = SimpleNamespace(VIDEO=SimpleNamespace(STRIDE=1))
        self.masks = masks
        self.batches: list[int] = []

    def __call__(self, image: np.ndarray) -> Instances:
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[Instances]:
        self.batches.append(len(images))
        return [self._find(image) for image in images]

    def _find(self, image: np.ndarray) -> Instances:
        bright = image.min(axis=2) > 160
        rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
        found = Instances(image.shape[:2])
        boxes, masks = [], []
        if len(rows):
            boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            masks.append(bright)
            if columns[0] % 2 == 0:
                boxes.append([1, 1, 9, 9])
                masks.append(np.zeros_like(bright))
                masks[-1][2:8, 2:8] = True
        count = len(boxes)
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
) -> Path:
    """Write a clip with PyAV; `times` are ticks of `time_base`, `matrix` a display matrix."""
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        if time_base is not None:
            stream.codec_context.time_base = time_base
        if matrix is not None:
            stream.set_display_matrix(matrix)
        if sound:
            audio = container.add_stream("aac", rate=8000)
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            samples.sample_rate, samples.pts = 8000, 0
            container.mux(audio.encode(samples))
            container.mux(audio.encode(None))
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            if times is not None:
                frame.pts, frame.time_base = times[number], time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def top_level_atoms(path: Path) -> list[str]:
    """Names of an mp4's top-level atoms in file order."""
    data, position, names = path.read_bytes(), 0, []
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        names.append(data[position + 4 : position + 8].decode("latin-1"))
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        position += size or len(data)
    return names


@pytest.fixture
def predictor() -> BrightSquares:
    """A fresh stub predictor."""
    return BrightSquares()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Ten frames of 96 x 64 at 30000/1001, whose name has a space and parentheses."""
    return write_clip(tmp_path / "a clip (1).mp4", [square_frame(n) for n in range(10)])


@pytest.fixture
def clip_writer() -> Callable[..., Path]:
    """The function `write_clip(path, frames, …)`."""
    return write_clip


@pytest.fixture
def squares() -> Callable[..., np.ndarray]:
    """The function `square_frame(number, width=96, height=64)`."""
    return square_frame


@pytest.fixture
def atoms() -> Callable[[Path], list[str]]:
    """The function `top_level_atoms(path)`."""
    return top_level_atoms


@pytest.fixture
def predictor_without_masks() -> BrightSquares:
    """A stub predictor whose instances have boxes only."""
    return BrightSquares(masks=False)

"""An exported model without PyTorch and Detectron2: an image in, arrays out.

`tools/export_model.py` writes the file. It holds network, classes, threshold and masks; this module
does what comes before and behind: resizing as the training did, and pasting masks. It needs numpy
and ONNX Runtime alone. Where Pillow is installed, it resizes; without it, a grey level may differ
by one where Pillow would take the columns first.

The graph's inputs are `image` (uint8, (h, w, 3), BGR, resized), `size` (int64, (2,): H and W of the
image before) and `threshold` (float32, (1,); the stored one by default). Its outputs are `boxes`
(float32, (N, 4), XYXY_ABS, pixels of the image before), `scores` (float32, (N,)), `classes` (int64,
(N,)) and, where the model has masks, `masks` (float32, (N, M, M), probabilities). The entry
`persondet` of the file's metadata is JSON: `version model classes score_threshold min_size
max_size`. Last in the file stands the SHA-256 of everything before.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from persondet.environment import cpu_count
from persondet.errors import CheckpointError, ConfigError, InstallationError
from persondet.inference.masks import paste_arrays

METADATA, VERSION = "persondet", 1


@dataclass(frozen=True)
class ArrayInstances:
    """The detections in one image, by falling score: Detectron2's `Instances` as arrays.

    Attributes:
        image_size: (H, W), pixels.
        pred_boxes: float32, (N, 4), XYXY_ABS, pixels.
        scores: float32, (N,), 0..1.
        pred_classes: int64, (N,), into the predictor's `class_names`.
        pred_masks: bool, (N, H, W); None without masks.
        roi_masks: float32, (N, M, M), 0..1, of `predict_frames`; None without masks.
    """

    image_size: tuple[int, int]
    pred_boxes: np.ndarray
    scores: np.ndarray
    pred_classes: np.ndarray
    pred_masks: np.ndarray | None = None
    roi_masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def has(self, name: str) -> bool:
        """Return whether there is a field of this name."""
        return getattr(self, name, None) is not None

    def __getitem__(self, item: Any) -> ArrayInstances:
        """Return some of the detections: those of a slice, or of an array of booleans or places."""
        names = ("pred_boxes", "scores", "pred_classes", "pred_masks", "roi_masks")
        return replace(self, **{n: getattr(self, n)[item] for n in names if self.has(n)})


class OnnxPredictor:
    """Detect objects in images with a file of `tools/export_model.py`, called as `Predictor` is.

    Any number of threads may call it at once.

    Args:
        path: of the file.
        confidence_threshold: drop detections below it; default: the file's.
        threads: of the processor, for one image; default: all.

    Attributes:
        class_names: by class number.
        model_file: the checkpoint that was exported: run folder and file.
        digest: SHA-256 of the file.

    Raises: CheckpointError: when the file is missing, damaged or foreign.
        InstallationError: without ONNX Runtime.

    Example:
        >>> predictor = OnnxPredictor("model.onnx")
        >>> people = predictor(cv2.imread("street.jpg"))
        >>> people.pred_boxes.shape[1], people.image_size
        (4, (64, 96))
    """

    def __init__(
        self,
        path: str | Path,
        *,
        confidence_threshold: float | None = None,
        threads: int | None = None,
    ) -> None:
        if confidence_threshold is not None and not 0.0 <= confidence_threshold <= 1.0:
            raise ConfigError(
                f"the confidence threshold is {confidence_threshold}; it must be from 0 to 1."
            )
        self.digest = _checked_digest(Path(path))
        self._session = _session(path, threads)
        facts = _facts(self._session, path)
        self.class_names: tuple[str, ...] = facts["classes"]
        self.model_file: str = facts["model"]
        self._min_size: int = facts["min_size"]
        self._max_size: int = facts["max_size"]
        stored: float = facts["score_threshold"]
        self.confidence_threshold = stored if confidence_threshold is None else confidence_threshold

    def __call__(self, image: np.ndarray) -> ArrayInstances:
        """Detect objects in one image: uint8, (H, W, 3), BGR, 0..255; see `predict_batch`."""
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[ArrayInstances]:
        """Detect objects in several images, one after the other.

        Args:
            images: each uint8, (H, W, 3), BGR, 0..255; sizes may differ.

        Returns: for each image its detections, any masks as `pred_masks`.
        """
        found = []
        for small in self.predict_frames(images):
            if small.roi_masks is not None:
                masks = paste_arrays(small.roi_masks, small.pred_boxes, small.image_size)
                whole = np.zeros((len(small), *small.image_size), bool)
                for i in range(len(small)):
                    whole[i] = masks.whole(i)
                small = replace(small, roi_masks=None, pred_masks=whole)
            found.append(small)
        return found

    def predict_frames(self, images: Sequence[np.ndarray]) -> list[ArrayInstances]:
        """Detect as `predict_batch` does, any masks as `roi_masks`: as small as they are made."""
        return [self._detect(image) for image in images]

    def _detect(self, image: np.ndarray) -> ArrayInstances:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"expected uint8 (H, W, 3), got {image.dtype} {image.shape}")
        height, width = image.shape[:2]
        given = {
            "image": resize(image, resized_shape(height, width, self._min_size, self._max_size)),
            "size": np.array([height, width]),
            "threshold": np.array([self.confidence_threshold], np.float32),
        }
        boxes, scores, classes, *masks = self._session.run(None, given)
        return ArrayInstances((height, width), boxes, scores, classes, None, *masks)


def _checked_digest(path: Path) -> str:
    """Return the SHA-256 of a file that ends with the one of everything before."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    if len(content) < SEAL or content[-SEAL:] != seal(content[:-SEAL]):
        raise CheckpointError(
            f"{path}: no model file of tools/export_model.py, or one that is damaged or was "
            "changed since; export the run again."
        )
    return hashlib.sha256(content).hexdigest()


def seal(content: bytes) -> bytes:
    """Return what stands behind the content of a model file, `SEAL` bytes: its SHA-256.

    ONNX is protobuf, and this is one more entry of its metadata.
    """
    key, value = b"sha256", hashlib.sha256(content).hexdigest().encode()
    entry = b"".join((b"\x0a", bytes([len(key)]), key, b"\x12", bytes([len(value)]), value))
    return b"".join((b"\x72", bytes([len(entry)]), entry))


SEAL = len(seal(b""))


def _session(path: str | Path, threads: int | None) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise InstallationError(
            f"ONNX Runtime cannot be imported ({reason}); run `pip install persondet[onnx]`."
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cpu_count()
    options.log_severity_level = 3  # errors; its warnings are about its own optimizations
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a dozen kinds, none of them public
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: ONNX Runtime refuses it ({reason}).") from error


def _facts(session: Any, path: str | Path) -> dict[str, Any]:
    """Return what the file says of itself, each value of the type that it must have."""
    try:
        facts = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
        if facts["version"] != VERSION:
            raise ValueError(f"its version is {facts['version']!r}, and this one reads {VERSION}")
        return {
            "classes": tuple(map(str, facts["classes"])),
            "model": str(facts["model"]),
            "score_threshold": float(facts["score_threshold"]),
            "min_size": int(facts["min_size"]),
            "max_size": int(facts["max_size"]),
        }
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise CheckpointError(
            f"{path}: a model file of another version of persondet ({reason}); export the run "
            "again."
        ) from error


def resized_shape(height: int, width: int, min_size: int, max_size: int) -> tuple[int, int]:
    """Return the (h, w) at which the model sees an image, as Detectron2's `ResizeShortestEdge`.

    Args:
        height, width: of the image, pixels.
        min_size: its shorter side becomes this long; 0: it stays.
        max_size: unless its longer side became longer than this.
    """
    if not min_size:
        return height, width
    scale = min_size / min(height, width)
    h, w = (float(min_size), scale * width) if height < width else (scale * height, float(min_size))
    if max(h, w) > max_size:
        scale = max_size / max(h, w)
        h, w = h * scale, w * scale
    return max(1, int(h + 0.5)), max(1, int(w + 0.5))


def resize(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize an image, uint8, (H, W, 3), to (h, w, 3) as Pillow's `BILINEAR` does."""
    if image.shape[:2] == shape:
        return np.ascontiguousarray(image)
    try:
        from PIL import Image
    except ImportError:
        across = _resize_rows(image.transpose(1, 0, 2), shape[1]).transpose(1, 0, 2)
        return np.ascontiguousarray(_resize_rows(across, shape[0]))
    resized = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(resized.resize(shape[::-1], Image.Resampling.BILINEAR))


_BITS = 22  # of a weight, behind the point


def _resize_rows(image: np.ndarray, size: int) -> np.ndarray:
    """Resize the first axis of uint8 (N, …) to `size`.

    A row is the mean of those that lie under a triangle, as wide as the step from row to row.
    Equals Pillow to the last bit. Source: its `src/libImaging/Resample.c`.
    """
    rows = len(image)
    if rows == size:
        return image
    step = rows / size
    reach = max(step, 1.0)
    centre = (np.arange(size) + 0.5) * step
    first = np.maximum((centre - reach + 0.5).astype(int), 0)
    behind = np.minimum((centre + reach + 0.5).astype(int), rows)
    row = first[:, None] + np.arange(2 * math.ceil(reach) + 1)
    weight = np.maximum(1 - np.abs((row - centre[:, None] + 0.5) * (1 / reach)), 0)
    weight[row >= behind[:, None]] = 0
    weight /= np.cumsum(weight, axis=1)[:, -1:]  # one after the other, as a loop would add
    fixed = (weight * (1 << _BITS) + 0.5).astype(np.int32)
    total = np.full((size, *image.shape[1:]), 1 << (_BITS - 1), np.int32)
    for tap in np.flatnonzero(fixed.any(axis=0)):
        source = image[np.minimum(row[:, tap], rows - 1)]
        total += source * fixed[:, tap].reshape(-1, *[1] * (image.ndim - 1))
    return (total >> _BITS).clip(0, 255).astype(np.uint8)

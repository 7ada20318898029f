"""Read image files as training reads them: completely, upright by EXIF, in 8 bits."""

from __future__ import annotations

import io
import logging
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from detectron2.data.detection_utils import convert_PIL_to_numpy
from PIL import Image, ImageOps, UnidentifiedImageError

from persondet.errors import DatasetError, MediaError

logger = logging.getLogger(__name__)

# What Pillow raises for broken files, besides OSError.
_BROKEN = (
    *(OSError, ValueError, SyntaxError, TypeError, EOFError, IndexError, struct.error),
    *(OverflowError, ZeroDivisionError, AttributeError, Image.DecompressionBombError),
)
_EXIF_KEYS = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}


def read_image_file(path: str | Path) -> npt.NDArray[np.uint8]:
    """Return a whole image, upright: uint8, (H, W, 3), BGR, contiguous.

    Detectron2's `read_image` looks for EXIF before it loads and swallows what that raises: it hands
    out broken PNGs in part, and turns a TIFF twice, which Pillow turns while it loads.

    Raises: MediaError: when the file is missing, truncated, or no image.
    """
    try:
        return np.ascontiguousarray(_decoded(path)[:, :, ::-1])
    except _BROKEN as error:
        raise MediaError(f"{path}: the image cannot be read ({_reason(error)}).") from error


def read_rgb(dataset_dict: dict[str, Any]) -> npt.NDArray[np.uint8]:
    """Read the image of a standard dataset dict, with its EXIF orientation applied.

    The pixels equal those of Detectron2's `read_image`, but for grey of more than 8 bits, which it
    cuts off at 255 and `eight_bit` scales.

    Args:
        dataset_dict: with `file_name`; `height` and `width`, where given, are compared.

    Returns: uint8, (H, W, 3), RGB, 0..255, contiguous.

    Raises: DatasetError: when the file is missing or cannot be read to its end, or its size is not
        that of the json.
    """
    path = dataset_dict["file_name"]
    try:
        image = _decoded(path)
    except FileNotFoundError:
        raise DatasetError(f"{path}: the image is gone; unpack the export again.") from None
    except _BROKEN as error:
        raise DatasetError(
            f"{path}: the image cannot be read ({_reason(error)}); replace it or remove it from "
            "the json."
        ) from None
    height, width = image.shape[:2]
    expected = dataset_dict.get("height", height), dataset_dict.get("width", width)
    if (height, width) != expected:
        swapped = " (the other way round: an EXIF rotation)" if (width, height) == expected else ""
        raise DatasetError(
            f"{path} is {width} x {height} pixels, but its json says {expected[1]} x "
            f"{expected[0]}{swapped}; export the dataset again with 'auto-orient'."
        )
    return image


def _decoded(path: str | Path) -> npt.NDArray[np.uint8]:
    """Return an image upright and in RGB; plain JPEGs by OpenCV, all else by Pillow.

    OpenCV's libjpeg-turbo gives what Pillow's gives, without Pillow's copies.
    """
    data = np.fromfile(path, np.uint8)
    with Image.open(io.BytesIO(data.data)) as stored:
        image = _plain_jpeg(stored, data)
        if image is None:
            stored.load()
            try:
                ImageOps.exif_transpose(stored, in_place=True)
            except _BROKEN as error:
                logger.debug("%s: EXIF that cannot be read turns nothing: %s", path, error)
            image = np.array(convert_PIL_to_numpy(eight_bit(stored), "RGB"), order="C")
        return image


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its own words show our buffer's address
        return "it is no image of a known format"
    return " ".join(str(error).split()).removesuffix(".") or type(error).__name__


def eight_bit(image: Image.Image) -> Image.Image:
    """Return grey of more than 8 bits as `L`, scaled; other images as they are.

    Pillow's `convert`, and so Detectron2's `read_image`, cuts such images off at 255. Grey of 16
    bits keeps its upper 8, as Pillow does with colours of 16 bits. Grey of 32 bits and floats says
    nowhere where its white is: it is 1 (floats), 255 or 65535, whichever is the first that no pixel
    passes, and else the brightest pixel. What is below 0 or not finite is black.
    """
    if not image.mode.startswith("I;16") and image.mode not in ("I", "F"):
        return image
    pixels = np.asarray(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray((pixels >> 8).astype(np.uint8))
    grey = np.nan_to_num(pixels.astype(np.float64), posinf=0.0, neginf=0.0).clip(min=0)
    most = float(grey.max(initial=0))
    usual = (1, 255, 65535) if image.mode == "F" else (255, 65535)
    white = next((white for white in usual if most <= white), most)
    return Image.fromarray(np.round(grey * (255 / white)).astype(np.uint8))


def _plain_jpeg(stored: Image.Image, data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
    """Decode a JPEG of three 8-bit channels that is not to be turned; None: let Pillow do it.

    OpenCV before 5 fills up with grey what a truncated file lacks: its end must be there.
    """
    plain = stored.format == "JPEG" and stored.mode == "RGB"
    if not plain or not _EXIF_KEYS.isdisjoint(stored.info) or data[-2:].tobytes() != b"\xff\xd9":
        return None
    # None when OpenCV refuses it: Pillow says what is wrong, or copes.
    image: Any = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)

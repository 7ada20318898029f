"""A picture file, read as training reads it: all of it, and turned as its EXIF says."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import numpy as np
from detectron2.data.detection_utils import convert_PIL_to_numpy
from PIL import Image, ImageOps, UnidentifiedImageError

from persondet.errors import MediaError

logger = logging.getLogger(__name__)

# What Pillow raises for broken files, besides OSError.
_BROKEN = (
    *(OSError, ValueError, SyntaxError, TypeError, EOFError, IndexError, struct.error),
    *(OverflowError, ZeroDivisionError, AttributeError, Image.DecompressionBombError),
)


def read_picture_file(path: str | Path) -> np.ndarray:
    """Return a whole picture, upright: uint8, (H, W, 3), BGR.

    Detectron2's `read_image` looks for EXIF before it loads and swallows what that raises: it hands
    out broken PNGs in part, and turns a TIFF twice, which Pillow turns while it loads.

    Raises: MediaError: when the file is missing, truncated, or no picture.
    """
    try:
        with open(path, "rb") as file, Image.open(file) as image:
            image.load()
            return np.ascontiguousarray(convert_PIL_to_numpy(_upright(image), "BGR"))
    except _BROKEN as error:
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "it is no picture, or a broken one" if unknown else str(error).removesuffix(".")
        raise MediaError(f"{path}: the picture cannot be read ({reason}).") from error


def _upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF says; EXIF that cannot be read turns nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except _BROKEN as error:
        logger.debug("EXIF that cannot be read: %s", error)
        return image

"""A picture file, read as training reads it: all of it, turned as its EXIF says, in 8 bits."""

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
            return np.ascontiguousarray(convert_PIL_to_numpy(eight_bit(_upright(image)), "BGR"))
    except _BROKEN as error:
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "it is no picture, or a broken one" if unknown else str(error).removesuffix(".")
        raise MediaError(f"{path}: the picture cannot be read ({reason}).") from error


def eight_bit(image: Image.Image) -> Image.Image:
    """Return grey of more than 8 bits as `L`, scaled; other pictures as they are.

    Pillow's `convert`, and so Detectron2's `read_image`, cuts such pictures off at 255. Grey of 16
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


def _upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF says; EXIF that cannot be read turns nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except _BROKEN as error:
        logger.debug("EXIF that cannot be read: %s", error)
        return image

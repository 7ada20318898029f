"""Image files: read completely, upright by EXIF, in 8 bits; written whole or not at all."""

from __future__ import annotations

import functools
import importlib
import io
import logging
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from persondet.errors import DatasetError, MediaError
from persondet.files import atomic_path

logger = logging.getLogger(__name__)

JPEG_QUALITY = 92

# What Pillow raises for broken files, besides OSError.
_BROKEN = (
    *(OSError, ValueError, SyntaxError, TypeError, EOFError, IndexError, struct.error),
    *(OverflowError, ZeroDivisionError, AttributeError, Image.DecompressionBombError),
)
_EXIF_KEYS = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}

IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .heic .heif .jfif .jp2 .jpe .jpeg .jpg .png .tif .tiff .webp".split()
)
_HEIF = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")  # what follows `ftyp` in an HEIC file
for _package in ("pi_heif", "pillow_heif"):
    with suppress(ImportError):
        importlib.import_module(_package).register_heif_opener()


def is_image_name(name: str | Path) -> bool:
    """Return whether a file's name says that it is an image."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def why_unknown(head: bytes) -> str:
    """Return why no reader takes an image, by its first 12 bytes."""
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF and "HEIF" not in Image.OPEN:
        return "it is HEIC, which needs the package pi-heif; run `pip install pi-heif`"
    return "it is no image of a known format"


def read_image_file(path: str | Path) -> npt.NDArray[np.uint8]:
    """Return a whole image, upright: uint8, (H, W, 3), BGR, contiguous.

    Detectron2's `read_image` looks for EXIF before it loads and swallows what that raises: it hands
    out broken PNGs in part, and turns a TIFF twice, which Pillow turns while it loads.

    Raises: MediaError: when the file is missing, truncated, or no image.
    """
    try:
        return np.ascontiguousarray(_decoded(path)[:, :, ::-1])
    except _BROKEN as error:
        raise MediaError(f"{path}: the image cannot be read ({_reason(path, error)}).") from error


def write_image(path: str | Path, image: npt.NDArray[Any]) -> Path:
    """Write an image (uint8, (H, W, 3), BGR) in the format of its name, whole or not at all.

    Raises: MediaError: when OpenCV cannot write this format, or such an image in it.
    """
    suffix = Path(path).suffix.lower()
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix in (".jpg", ".jpeg") else []
    try:
        coded, data = cv2.imencode(suffix, image, options)
    except cv2.error:  # e.g. too large for WebP
        coded = False
    if not coded:
        raise MediaError(f"{path}: the image cannot be written; try another format, such as .png.")
    # Not `imwrite`, which does not notice a full disk in every format.
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())
    return Path(path)


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
            f"{path}: the image cannot be read ({_reason(path, error)}); replace it or remove it "
            "from the json."
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
            image = np.array(eight_bit(stored).convert("RGB"))
        return image


def _reason(path: str | Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its own words show our buffer's address
        with open(path, "rb") as file:
            return why_unknown(file.read(12))
    return " ".join(str(error).split()).removesuffix(".") or type(error).__name__


def eight_bit(image: Image.Image) -> Image.Image:
    """Return grey of more than 8 bits as `L`, scaled; other images as they are.

    Pillow's `convert`, and so Detectron2's `read_image`, cuts such images off at 255. They say
    nowhere where their white is: it is the most of 8, 10, 12, 14 or 16 bits (1 for floats up to 1),
    whichever is the first that no pixel passes, and else the brightest pixel. What is below 0 or
    not finite is black. Grey of 16 bits that uses them all keeps its upper 8, as Pillow does with
    colours of 16 bits.
    """
    white = white_of(image)
    if white is None:
        return image
    if words := grey_scaled(image.mode, white):
        _say_scaled(words)
    grey = np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0).clip(min=0)
    scaled = np.round(grey * (255 / white)) if white == 1 else grey * 256 // (white + 1)
    return Image.fromarray(scaled.astype(np.uint8))


def white_of(image: Image.Image) -> float | None:
    """Return the value that `eight_bit` takes for white, None for images that it leaves alone."""
    if not image.mode.startswith("I;16") and image.mode not in ("I", "F"):
        return None
    most = float(np.nan_to_num(np.asarray(image, np.float64), posinf=0.0).max(initial=0))
    usual = (1, 8, 10, 12, 14, 16)[image.mode != "F" :]
    return next((2.0**bits - 1 for bits in usual if most <= 2**bits - 1), most)


def grey_scaled(mode: str, white: float) -> str:
    """Return what a user should know of the white of `white_of`; "" where it is a usual one.

    Floats mean 1 by white, whole numbers the most of 16 bits.
    """
    if white == (1 if mode == "F" else 65535):
        return ""
    return f"white is {white:g}" + ("" if mode == "F" else " of 65535")


@functools.cache
def _say_scaled(words: str) -> None:
    logger.warning("Grey images of more than 8 bits do not use them all: %s.", words)


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

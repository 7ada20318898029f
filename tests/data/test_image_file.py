"""Decoding: the pixels of Detectron2's reader in 8 bits, and no broken file slips through."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image

from persondet.data.image_file import eight_bit, read_image_file, read_rgb
from persondet.errors import DatasetError, MediaError


def _picture() -> Image.Image:
    rows, columns = np.mgrid[:44, :60]
    noise = np.random.default_rng(0).integers(0, 30, (44, 60, 3))
    pixels = np.dstack([rows * 4, columns * 3, rows + columns]) + noise
    return Image.fromarray(pixels.astype(np.uint8))


def _jpeg(**options: Any) -> bytes:
    stream = io.BytesIO()
    _picture().save(stream, "JPEG", **options)
    return stream.getvalue()


def _turned() -> Any:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _reads_as_detectron2(path: Path) -> None:
    found = read_rgb({"file_name": str(path)})
    np.testing.assert_array_equal(found, read_image(str(path), "RGB"))
    np.testing.assert_array_equal(read_image_file(path), read_image(str(path), "BGR"))
    assert found.flags.c_contiguous and found.flags.writeable


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 85},
        {"quality": 85, "progressive": True},
        {"quality": 95, "subsampling": 0},
        {"quality": 75, "restart_marker_rows": 1},
        {"quality": 85, "exif": _turned()},
    ],
)
def test_pixels_equal_those_of_detectron2(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(_jpeg(**options))
    _reads_as_detectron2(path)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "1", "LA"])
def test_other_modes_equal_detectron2_too(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode in ("L", "CMYK") else "a.png")
    _picture().convert(mode).save(path)
    _reads_as_detectron2(path)


def test_a_turned_tiff_is_turned_once(tmp_path: Path) -> None:
    _picture().save(tmp_path / "a.tif", exif=_turned())
    expected = np.rot90(np.asarray(_picture()), -1)
    np.testing.assert_array_equal(read_rgb({"file_name": str(tmp_path / "a.tif")}), expected)


def test_trap_13_a_jpeg_cut_anywhere_is_named(tmp_path: Path) -> None:
    data = _jpeg(quality=60, progressive=True)
    path = tmp_path / "cut.jpg"
    for length in (*range(0, len(data) - 9, 60), *range(len(data) - 9, len(data))):
        path.write_bytes(data[:length])
        with pytest.raises(DatasetError, match=r"cut\.jpg: the image cannot be read"):
            read_rgb({"file_name": str(path)})
        with pytest.raises(MediaError, match=r"cut\.jpg: the image cannot be read"):
            read_image_file(path)
    path.write_text("<html>")
    with pytest.raises(DatasetError, match=r"\(it is no image of a known format\)"):
        read_rgb({"file_name": str(path)})


SHADES = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1390


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits_is_read_as_colours_of_16_bits_are(suffix: str, tmp_path: Path) -> None:
    grey, colours = tmp_path / f"grey.{suffix}", tmp_path / "colours.png"
    cv2.imwrite(str(grey), SHADES)
    cv2.imwrite(str(colours), np.dstack([SHADES] * 3))
    read = read_image_file(grey)
    np.testing.assert_array_equal(read, np.dstack([SHADES >> 8] * 3))
    np.testing.assert_array_equal(read, read_image_file(colours))
    np.testing.assert_array_equal(read, read_rgb({"file_name": str(grey)}))
    other_order = Image.frombytes("I;16B", (8, 6), SHADES.astype(">u2").tobytes())
    np.testing.assert_array_equal(np.asarray(eight_bit(other_order)), SHADES >> 8)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]]), [0, 128, 255]),
        (np.array([[0.0, 25700.0, 65535.0]]), [0, 100, 255]),
        (np.array([[0.0, 1e6, 2e6]]), [0, 128, 255]),
        (np.array([[-3.0, np.nan, np.inf, 1.0]]), [0, 0, 0, 255]),
        (np.array([[0, 1, 255]], np.int32), [0, 1, 255]),
        (np.array([[-5, 25700, 65535]], np.int32), [0, 100, 255]),
    ],
)
def test_grey_of_32_bits_has_the_white_that_its_pixels_suggest(
    pixels: np.ndarray, expected: list[int], tmp_path: Path
) -> None:
    kind = np.float32 if pixels.dtype.kind == "f" else np.int32
    Image.fromarray(pixels.astype(kind)).save(tmp_path / "a.tif")
    read = read_image_file(tmp_path / "a.tif")
    assert read[0].tolist() == [[value] * 3 for value in expected]
